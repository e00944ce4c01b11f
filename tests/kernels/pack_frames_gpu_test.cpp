// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/pack_frames.h"

#include <gtest/gtest.h>

#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

struct PackCase {
  int steps, height, width, unshuffle, group, missing, latent_channels;
  bool border, squash, has_latents;
  int row_gap;  // pixels between the rows of a frame
};

TEST(PackFramesGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  const PackCase cases[] = {
      {2, 3, 21, 8, 4, 0, 16, false, true, true, 0},    // the decoder's
      {2, 2, 16, 8, 4, 3, 16, false, true, true, 8},    // its first chunk
      {1, 1, 1, 8, 4, 3, 16, false, true, false, 0},    //
      {3, 2, 19, 16, 1, 0, 0, true, false, false, 0},   // the projector's
      {4, 1, 14, 16, 1, 3, 0, true, false, false, 16},  // its first chunk
      {2, 1, 1, 16, 1, 1, 0, true, false, false, 0},    //
      {1, 3, 33, 8, 2, 1, 8, true, false, true, 0},
      {1, 2, 15, 16, 1, 5, 760, false, true, true, 0},  // as many channels as there may be; the first frame alone
  };
  uint32_t seed = 1;
  for (const PackCase& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.steps << " x " << c.height << "x" << c.width << " by " << c.unshuffle << ", " << c.group
                                      << " a step, " << c.missing << " missing, border " << c.border);
    const int frames = std::max(1, c.steps * c.group - c.missing);
    PackFramesParams p;
    p.steps = c.steps;
    p.height = c.height;
    p.width = c.width;
    p.unshuffle = c.unshuffle;
    p.group = c.group;
    p.missing = c.missing;
    p.latent_channels = c.latent_channels;
    p.border = c.border;
    p.squash = c.squash;
    p.row_stride = c.width * c.unshuffle + c.row_gap;
    p.frame_stride = p.row_stride * c.height * c.unshuffle + c.row_gap;
    p.plane_stride = p.frame_stride * frames + 8;
    // Latents: time outermost, a gap behind each row.
    p.latent_stride_x = 1;
    p.latent_stride_y = c.width + 3;
    p.latent_stride_c = p.latent_stride_y * c.height;
    p.latent_stride_t = p.latent_stride_c * c.latent_channels + 5;
    const int edge = c.border ? 2 : 0, channels = 3 * c.group * c.unshuffle * c.unshuffle + c.latent_channels;
    const std::vector<uint16_t> pixels = device::random_bf16(size_t(p.plane_stride) * 3, seed++, 2.f);
    const std::vector<uint16_t> latents = device::random_bf16(size_t(p.latent_stride_t) * c.steps + 1, seed++, 2.f);
    std::vector<uint16_t> expected(size_t(c.steps) * (c.height + edge) * (c.width + edge) * channels);
    p.frames = pixels.data();
    p.latents = c.has_latents ? latents.data() : nullptr;
    p.output = expected.data();
    ASSERT_EQ(pack_frames_ref(p), 0);
    Buffer<uint16_t> d_frames(pixels), d_latents(latents), output(expected.size());
    p.frames = d_frames.get();
    p.latents = c.has_latents ? d_latents.get() : nullptr;
    p.output = output.get();
    ASSERT_EQ(launch_pack_frames(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(output.download(), expected);
    EXPECT_TRUE(output.guard_is_intact());
  }
}

// Each finite bf16 number once.
TEST(PackFramesGpu, SquashIsExact) {
  FLASHVSR_NEEDS_GPU();
  PackFramesParams p;
  p.steps = p.height = p.group = 1;
  p.width = 512;
  p.unshuffle = 8;
  p.squash = true;
  p.row_stride = p.width * p.unshuffle;
  p.plane_stride = p.frame_stride = p.row_stride * p.unshuffle;
  std::vector<uint16_t> pixels(size_t(p.plane_stride) * 3);
  for (size_t i = 0; i < pixels.size(); ++i) {
    const uint16_t bits = uint16_t(i);
    pixels[i] = std::isfinite(bf16_to_float(bits)) ? bits : uint16_t{0};
  }
  std::vector<uint16_t> expected(pixels.size());
  p.frames = pixels.data();
  p.output = expected.data();
  ASSERT_EQ(pack_frames_ref(p), 0);
  Buffer<uint16_t> d_frames(pixels), output(expected.size());
  p.frames = d_frames.get();
  p.output = output.get();
  ASSERT_EQ(launch_pack_frames(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(output.download(), expected);
}

TEST(PackFramesGpu, PadEqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  struct Case {
    int steps, height, width, channels, gap;
    bool is_repeated;  // one step stands for all
  };
  uint32_t seed = 100;
  for (const Case& c : {Case{2, 3, 5, 96, 0, false}, Case{1, 1, 1, 8, 0, false}, Case{3, 2, 70, 136, 8, false},
                        Case{2, 4, 3, 768, 16, true}}) {
    SCOPED_TRACE(::testing::Message() << c.steps << " x " << c.height << "x" << c.width << " x " << c.channels);
    PadStepsParams p;
    p.steps = c.steps;
    p.height = c.height;
    p.width = c.width;
    p.channels = c.channels;
    p.in_stride_x = c.channels + c.gap;
    p.in_stride_y = p.in_stride_x * c.width + c.gap;
    const int64_t step = p.in_stride_y * c.height + c.gap;
    p.in_stride_t = c.is_repeated ? 0 : step;
    const std::vector<uint16_t> input = device::random_bf16(size_t(step) * c.steps, seed++);
    std::vector<uint16_t> expected(size_t(c.steps) * (c.height + 2) * (c.width + 2) * c.channels);
    p.input = input.data();
    p.output = expected.data();
    ASSERT_EQ(pad_steps_ref(p), 0);
    Buffer<uint16_t> d_input(input), output(expected.size());
    p.input = d_input.get();
    p.output = output.get();
    ASSERT_EQ(launch_pad_steps(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(output.download(), expected);
    EXPECT_TRUE(output.guard_is_intact());
  }
}

TEST(PackFramesGpu, RefusesWhatItCannotTake) {
  FLASHVSR_NEEDS_GPU();
  Buffer<uint16_t> memory(4096);
  PackFramesParams good;
  good.frames = good.output = memory.get();
  good.steps = good.height = good.width = 1;
  good.unshuffle = 8;
  good.row_stride = good.frame_stride = good.plane_stride = 8;
  EXPECT_EQ(check_pack_frames(good), 0);
  const auto refuses = [&](auto change) {
    PackFramesParams p = good;
    change(p);
    return launch_pack_frames(p, nullptr) != 0 && pack_frames_ref(p) != 0;
  };
  EXPECT_TRUE(refuses([](PackFramesParams& p) { p.frames += 1; }));
  EXPECT_TRUE(refuses([](PackFramesParams& p) { p.row_stride = 9; }));
  EXPECT_TRUE(refuses([](PackFramesParams& p) { p.unshuffle = 4; }));
  EXPECT_TRUE(refuses([](PackFramesParams& p) { p.latent_channels = 4; }));
  EXPECT_TRUE(refuses([](PackFramesParams& p) { p.group = 8; }));  // 1536 channels
  PadStepsParams pad;
  pad.input = pad.output = memory.get();
  pad.steps = pad.height = pad.width = 1;
  pad.channels = 12;
  EXPECT_NE(launch_pad_steps(pad, nullptr), 0);
}

}  // namespace
}  // namespace flashvsr
