// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/finish_frames.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

struct Case {
  int frames, height, width, row_padding, frame_padding;
  int max_value;
  bool styled, nearest;
};

template <typename Sample>
void check_finish(const Case& c, const std::vector<uint16_t>& special) {
  SCOPED_TRACE(testing::Message() << c.frames << " of " << c.width << "x" << c.height << " max " << c.max_value
                                  << " styled " << c.styled << " nearest " << c.nearest);
  FinishFramesParams p;
  p.frames = c.frames;
  p.height = c.height;
  p.width = c.width;
  p.max_value = c.max_value;
  p.nearest = c.nearest;
  p.input.row_stride = p.style.row_stride = c.width + c.row_padding;
  p.input.frame_stride = p.style.frame_stride = p.input.row_stride * c.height + c.frame_padding;
  p.input.plane_stride = p.style.plane_stride = p.input.frame_stride * c.frames;
  const size_t size = size_t(3) * p.input.plane_stride, count = size_t(c.frames) * 3 * c.height * c.width;
  std::vector<uint16_t> input = device::random_bf16(size, 11, .6f, .1f);
  const std::vector<uint16_t> style = device::random_bf16(size, 12, .4f, -.2f);
  // Padding holds NaNs: it must not count.
  for (size_t i = 0; i < size; ++i) {
    const int64_t in_frame = int64_t(i) % p.input.frame_stride;
    if (in_frame >= p.input.row_stride * c.height || in_frame % p.input.row_stride >= c.width) input[i] = 0x7fc0;
  }
  for (size_t i = 0; i < special.size(); ++i) input[i] = special[i];
  Buffer<uint8_t> d_workspace(finish_frames_workspace_bytes(c.frames));
  std::vector<Sample> expected(count);
  p.input.data = input.data();
  p.style.data = c.styled ? style.data() : nullptr;
  p.samples = expected.data();
  p.workspace = d_workspace.get();
  ASSERT_EQ(finish_frames_ref(p), 0);
  Buffer<uint16_t> d_input(input), d_style(style);
  Buffer<Sample> d_samples(count);
  p.input.data = d_input.get();
  p.style.data = c.styled ? d_style.get() : nullptr;
  p.samples = d_samples.get();
  ASSERT_EQ(launch_finish_frames(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<Sample> first = d_samples.download();
  EXPECT_EQ(first, expected);
  EXPECT_TRUE(d_samples.guard_is_intact());
  EXPECT_TRUE(d_workspace.guard_is_intact());
  d_samples.poison();
  d_workspace.poison();
  ASSERT_EQ(launch_finish_frames(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(d_samples.download(), first);
}

TEST(FinishFramesGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  for (const bool styled : {false, true}) {
    for (const bool nearest : {false, true}) {
      check_finish<uint8_t>({1, 1, 1, 0, 0, 255, styled, nearest}, {});
      check_finish<uint8_t>({2, 3, 17, 5, 1, 255, styled, nearest}, {});
      check_finish<uint8_t>({3, 17, 3, 0, 0, 255, styled, nearest}, {});
      check_finish<uint8_t>({2, 24, 32, 8, 16, 255, styled, nearest}, {});
      check_finish<uint8_t>({1, 70, 251, 13, 0, 255, styled, nearest}, {});
      if (styled && nearest) check_finish<uint8_t>({1, 260, 257, 0, 0, 255, styled, nearest}, {});  // every slice twice
      check_finish<uint16_t>({2, 9, 40, 0, 0, 1023, styled, nearest}, {});
      check_finish<uint16_t>({1, 65, 131, 1, 3, 1023, styled, nearest}, {});
    }
  }
}

// NaN, infinities and what lies far outside [-1, 1].
TEST(FinishFramesGpu, WhatIsNotANumberIsBlack) {
  FLASHVSR_NEEDS_GPU();
  const std::vector<uint16_t> special = {0x7fc0, 0xffff, 0x7f80, 0xff80, 0x7f7f, 0xff7f, 0x8000, 0x0001};
  check_finish<uint8_t>({1, 4, 16, 0, 0, 255, false, false}, special);
  check_finish<uint16_t>({1, 4, 16, 0, 0, 1023, false, true}, special);
  check_finish<uint8_t>({1, 4, 16, 0, 0, 255, true, false}, {0x7fc0});
}

// Frames in fp32; rows at every alignment. Levels that bf16 could not tell apart.
TEST(FinishFramesGpu, Fp32EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  for (const int width : {1, 8, 37, 64}) {
    FinishFramesParams p;
    p.frames = 2;
    p.height = 5;
    p.width = width;
    p.max_value = 1023;
    p.nearest = width == 37;
    p.input = {nullptr, 2 * 5 * (width + 3), 5 * (width + 3), width + 3, true};
    std::vector<float> input = device::random_float(size_t(3) * 2 * 5 * size_t(width + 3), 31, .6f);
    input[0] = NAN;
    std::vector<uint16_t> expected(size_t(2) * 3 * 5 * size_t(width));
    p.input.data = input.data();
    p.samples = expected.data();
    ASSERT_EQ(finish_frames_ref(p), 0);
    EXPECT_EQ(expected[0], 0);
    Buffer<float> d_input(input);
    Buffer<uint16_t> d_samples(expected.size());
    p.input.data = d_input.get();
    p.samples = d_samples.get();
    ASSERT_EQ(launch_finish_frames(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(d_samples.download(), expected);
    EXPECT_TRUE(d_samples.guard_is_intact());
    p.style = p.input;  // colours come in bf16
    p.workspace = d_input.get();
    EXPECT_NE(launch_finish_frames(p, nullptr), 0);

    // With colours: a level may be one off where a value lies next to it.
    input[0] = .25f;
    const std::vector<uint16_t> style = device::random_bf16(input.size(), 32, .4f, -.2f);
    Buffer<float> d_content(input);
    Buffer<uint16_t> d_style(style);
    Buffer<uint8_t> d_workspace(finish_frames_workspace_bytes(p.frames));
    p.style.is_fp32 = false;
    p.style.data = style.data();
    p.input.data = input.data();
    p.samples = expected.data();
    p.workspace = d_workspace.get();
    ASSERT_EQ(finish_frames_ref(p), 0);
    p.style.data = d_style.get();
    p.input.data = d_content.get();
    p.samples = d_samples.get();
    d_samples.poison();
    ASSERT_EQ(launch_finish_frames(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<uint16_t> colored = d_samples.download();
    size_t unequal = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      unequal += colored[i] != expected[i];
      ASSERT_LE(std::abs(int(colored[i]) - int(expected[i])), 1) << i;
    }
    EXPECT_LE(unequal, 1 + expected.size() / 100);
    EXPECT_TRUE(d_samples.guard_is_intact() && d_workspace.guard_is_intact());
  }
}

// A plane of one value in fp32: its deviation, too, is that of 1e-5.
TEST(FinishFramesGpu, Fp32FlatPlanes) {
  FLASHVSR_NEEDS_GPU();
  FinishFramesParams p;
  p.frames = 1;
  p.height = 64;
  p.width = 64;
  p.max_value = 255;
  p.input = p.style = {nullptr, 4096, 4096, 64};
  p.input.is_fp32 = true;
  std::vector<float> input(3 * 4096, .9f);
  for (size_t i = 0; i < input.size(); i += 2) input[i] += 1e-4f;  // moves a level by 1e-4 / sqrt(1e-5) of the style's deviation
  const std::vector<uint16_t> style(3 * 4096, float_to_bf16(-.25f));
  std::vector<uint8_t> expected(3 * 4096);
  Buffer<float> d_input(input);
  Buffer<uint16_t> d_style(style);
  Buffer<uint8_t> d_samples(3 * 4096), d_workspace(finish_frames_workspace_bytes(1));
  p.input.data = input.data();
  p.style.data = style.data();
  p.samples = expected.data();
  p.workspace = d_workspace.get();
  ASSERT_EQ(finish_frames_ref(p), 0);
  p.input.data = d_input.get();
  p.style.data = d_style.get();
  p.samples = d_samples.get();
  ASSERT_EQ(launch_finish_frames(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(d_samples.download(), expected);
}

// A plane without deviation: all of it is sqrt(1e-5), which must not be lost in a difference of large sums.
TEST(FinishFramesGpu, FlatPlanes) {
  FLASHVSR_NEEDS_GPU();
  FinishFramesParams p;
  p.frames = 1;
  p.height = 64;
  p.width = 64;
  p.max_value = 255;
  p.input = p.style = {nullptr, 4096, 4096, 64};
  const std::vector<uint16_t> input(3 * 4096, float_to_bf16(.9f)), style(3 * 4096, float_to_bf16(-.25f));
  Buffer<uint16_t> d_input(input), d_style(style);
  Buffer<uint8_t> d_samples(3 * 4096), d_workspace(finish_frames_workspace_bytes(1));
  p.input.data = d_input.get();
  p.style.data = d_style.get();
  p.samples = d_samples.get();
  p.workspace = d_workspace.get();
  ASSERT_EQ(launch_finish_frames(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(d_samples.download(), std::vector<uint8_t>(3 * 4096, 95));  // (.75 * 127.5) truncated
}

}  // namespace
}  // namespace flashvsr
