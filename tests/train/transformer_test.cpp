// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/transformer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/upscaler.h"
#include "tests/support/random_weights.h"
#include "train/trainer.h"

namespace flashvsr::train {
namespace {

// The student's shape, narrower, with a mask that leaves blocks out.
ModelConfig small_student() {
  ModelConfig config = exported_config(nano_decoder_config());
  config.has_transformer = true;
  config.dit.dim = 128;
  config.dit.heads = 2;
  config.dit.layers = 2;
  config.dit.ffn_dim = 192;
  config.dit.freq_dim = 64;
  config.lq_projector.hidden1 = 16;
  config.lq_projector.hidden2 = 24;
  config.lq_projector.out_dim = 128;
  config.blocks_per_query = 2;
  config.local_range = 3;
  config.kv_chunks = 2;
  return config;
}

void share_weights(Transformer& transformer, Upscaler& engine) {
  TensorMap weights;
  engine.visit_parameters([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) { weights[key] = tensor; },
                          false);
  transformer.visit_parameters([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    tensor = weights.at(key);
  });
}

TEST(Transformer, SeesWhatTheCacheShows) {
  using Range = std::pair<int64_t, int64_t>;
  EXPECT_EQ(Transformer::visible_slots_of(0, 3), Range(0, 3));
  EXPECT_EQ(Transformer::visible_slots_of(2, 3), Range(0, 3));
  EXPECT_EQ(Transformer::visible_slots_of(3, 3), Range(0, 4));
  EXPECT_EQ(Transformer::visible_slots_of(7, 3), Range(4, 8));
  EXPECT_EQ(Transformer::visible_slots_of(3, 2), Range(1, 4));
}

// The whole point: one differentiable pass over a clip is what the engine does chunk by chunk.
TEST(Transformer, WholeClipIsTheEnginesStream) {
  const c10::NoGradGuard no_grad;
  const ModelConfig config = small_student();
  Upscaler engine(config);
  at::manual_seed(4);
  randomize(engine, c10::kCPU, c10::kFloat, false);
  Transformer transformer(config);
  share_weights(transformer, engine);

  const at::Tensor lq = at::rand({1, 3, 25 + 16, 32, 96}) * 2 - 1;
  const at::Tensor whole = transformer.forward(lq);
  EXPECT_EQ(whole.sizes(), (at::IntArrayRef{1, 16, 10, 16, 48}));

  RunOptions options;
  options.sparse_ratio = config.sparse_ratio;
  options.kv_chunks = config.kv_chunks;
  options.local_range = config.local_range;
  StreamState state;
  DecoderMemory memory;
  int64_t latent = 0;
  for (int64_t run = 0; run < 3; ++run) {
    const int64_t begin = run == 0 ? 0 : 8 * run + 13, inputs = Upscaler::inputs_of_run(state);
    const at::Tensor streamed = engine.run(lq.narrow(2, begin, inputs), options, state);
    const int64_t latents = run == 0 ? 6 : 2, frames = run == 0 ? 21 : 8;
    const at::Tensor decoded = engine.tc_decoder().forward(whole.narrow(2, latent, latents), lq.narrow(2, begin, frames), memory);
    latent += latents;
    const double difference = (streamed - decoded).abs().max().item<double>();
    EXPECT_TRUE(difference <= 2e-4) << "run " << run << ": " << difference;
    // The latents matter at all.
    DecoderMemory other;
    if (run == 0) {
      EXPECT_GT((streamed - engine.tc_decoder().forward({}, lq.narrow(2, 0, 21), other)).abs().max().item<double>(), 1e-2);
    }
  }
}

TEST(Transformer, BatchIsOneByOne) {
  const c10::NoGradGuard no_grad;
  Upscaler engine(small_student());
  at::manual_seed(5);
  randomize(engine, c10::kCPU, c10::kFloat, false);
  Transformer transformer(small_student());
  share_weights(transformer, engine);
  const at::Tensor lq = at::rand({2, 3, 25, 32, 64}) * 2 - 1;
  const at::Tensor both = transformer.forward(lq);
  for (int64_t i = 0; i < 2; ++i) {
    const double difference = (both[i] - transformer.forward(lq.narrow(0, i, 1))[0]).abs().max().item<double>();
    EXPECT_TRUE(difference <= 1e-4) << difference;
  }
}

TEST(Transformer, MaskKeepsTheBudget) {
  const ModelConfig config = small_student();
  Transformer transformer(config);
  at::manual_seed(6);
  const BlockGrid grid{1, 4};
  const at::Tensor means = at::randn({1, 3 * 4, 128}) * 3;
  const at::Tensor mask = transformer.token_mask(means, at::randn({1, 3 * 4, 128}) * 3, grid);
  EXPECT_EQ(mask.sizes(), (at::IntArrayRef{1, 2, 1536, 1536}));
  const int64_t budget = block_topk(grid, config.sparse_ratio, config.blocks_per_query);
  const at::Tensor per_slot = mask.slice(2, 0, 1536, 128).slice(3, 0, 1536, 128).reshape({2, 3, 4 * 12}).sum(2);
  EXPECT_LE(per_slot.max().item<int64_t>(), budget);
  EXPECT_GT(per_slot.min().item<int64_t>(), 0);
}

TEST(Transformer, WrongClipsAreRefused) {
  Transformer transformer(small_student());
  EXPECT_THROW(transformer.forward(at::zeros({1, 3, 21, 32, 32})), Error);
  EXPECT_THROW(transformer.forward(at::zeros({1, 3, 25, 32, 40})), Error);
  ModelConfig with_text = small_student();
  with_text.dit.has_text = true;
  EXPECT_THROW(Transformer{with_text}, Error);
}

}  // namespace
}  // namespace flashvsr::train
