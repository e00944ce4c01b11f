// SPDX-License-Identifier: LGPL-2.1-or-later
// What is done in parts to save memory (the decoder by strips and steps, the FFN by rows) gives what it gives whole.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/dit.h"
#include "model/tc_decoder.h"
#include "tests/support/near.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

TcDecoderConfig narrow_config(int64_t blocks) {
  TcDecoderConfig config;
  config.channels = {24, 16, 8, 8};
  config.mem_blocks = {1, 1, blocks};
  return config;
}

struct Stream {
  std::vector<at::Tensor> frames;
  DecoderMemory memory;
};

// A first chunk of 13 frames and two of 8.
Stream run(TcDecoder& decoder, const at::Tensor& latents, const at::Tensor& cond) {
  Stream stream;
  for (int64_t chunk = 0; chunk < 3; ++chunk) {
    const int64_t latent = chunk == 0 ? 0 : 2 + 2 * chunk, count = chunk == 0 ? 4 : 2;
    const int64_t first = chunk == 0 ? 0 : 4 * latent - 3;
    stream.frames.push_back(decoder.forward(latents.narrow(2, latent, count),
                                            cond.narrow(2, first, chunk == 0 ? 13 : 8), stream.memory));
  }
  return stream;
}

TEST(DecoderSplit, EveryPartGivesTheSameFramesAndMemories) {
  const c10::InferenceMode guard;
  for (const int64_t blocks : {1, 3}) {
    TcDecoder decoder(narrow_config(blocks));
    decoder.visit_parameters("tc.", [](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
      tensor = random_weight(key, shape, at::TensorOptions());
      if (tensor.dim() == 4) tensor = tensor.contiguous(at::MemoryFormat::ChannelsLast);
    });
    const at::Tensor latents = at::randn({1, 16, 8, 26, 6}), cond = at::rand({1, 3, 29, 208, 48}) * 2 - 1;
    const Stream whole = run(decoder, latents, cond);
    for (const TailSplit& split : {TailSplit{1, 1, 1}, TailSplit{1, 1, 2}, TailSplit{2, 2, 1}, TailSplit{1, 3, 2}, TailSplit{3, 4, 3},
                                   TailSplit{8, 100, 2}}) {
      TcDecoder parts = decoder;
      parts.set_tail_split(split);
      const Stream other = run(parts, latents, cond);
      const std::string name = concat(blocks, " blocks, ", split.steps, " steps, ", split.strips, " strips");
      for (size_t n = 0; n < whole.frames.size(); ++n) expect_near(name, other.frames[n], whole.frames[n], {1e-5});
      ASSERT_EQ(other.memory.steps.size(), whole.memory.steps.size());
      for (size_t n = 0; n < whole.memory.steps.size(); ++n) {
        expect_near(name + ", memory", other.memory.steps[n], whole.memory.steps[n], {1e-5});
      }
    }
  }
}

// Small pictures whole, larger ones by two steps, then in strips as well.
TEST(DecoderSplit, GrowsFinerWithThePicture) {
  const TcDecoderConfig released;
  const auto split = [&](int64_t height, int64_t width) { return tail_split(released, height * width, 2, 2); };
  EXPECT_EQ(split(384, 640).steps, 2);
  EXPECT_EQ(split(384, 640).strips * split(384, 640).finish_strips, 1);
  EXPECT_EQ(split(768, 1408).steps, 1);
  EXPECT_EQ(split(768, 1408).strips, 1);
  EXPECT_EQ(split(768, 1408).finish_strips, 2);
  EXPECT_EQ(split(1536, 2688).strips, 3);
  EXPECT_EQ(split(1536, 2688).finish_strips, 5);
  int64_t before = 0;
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{384, 640}, {768, 1408}, {1536, 2688}, {2176, 3840}}) {
    const int64_t bytes = tail_bytes(released, split(height, width), height * width, 2, 2);
    printf("%ldx%ld: %.2f GB behind the second stage\n", height, width, static_cast<double>(bytes) / 1e9);
    EXPECT_GT(bytes, before);
    before = bytes;
  }
}

// The transformer's other wide tensor.
TEST(FeedForward, InGroupsOfRowsIsTheSame) {
  const c10::InferenceMode guard;
  at::manual_seed(8);
  for (const bool quantized : {false, true}) {
    Linear ffn0{at::randn({96, 32}) / 6, at::randn({96}) / 10, {}, {}}, ffn2{at::randn({32, 96}) / 10, at::randn({32}) / 10, {}, {}};
    const double largest_weight = ffn2.weight.abs().max().item<double>();
    const at::Tensor x = at::randn({1000, 32});
    const double largest_hidden = at::linear(x, ffn0.weight, ffn0.bias).abs().max().item<double>();
    if (quantized) {
      ffn0.quantize();
      ffn2.quantize();
    }
    const at::Tensor whole = feed_forward(ffn0, ffn2, x);
    for (const int64_t rows : {1, 128, 300, 999}) {
      const at::Tensor difference = (feed_forward(ffn0, ffn2, x, rows) - whole).abs();
      if (!quantized) {
        EXPECT_LE(difference.max().item<double>(), 1e-5) << rows;
        continue;
      }
      // A sum's last bit may put a hidden value on e4m3's other side: a step of at most 32 / 448 of the row's largest, or two,
      // in few rows.
      EXPECT_LE(difference.max().item<double>(), 2 * largest_weight * 1.1 * largest_hidden * 32 / 448) << rows;
      EXPECT_LE((difference.amax(1) > 1e-5).to(at::kFloat).mean().item<double>(), 0.05) << rows;
    }
  }
}

}  // namespace
}  // namespace flashvsr
