// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/wavelet_color.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

struct Case {
  int frames, height, width, row_padding, frame_padding, offset;
  int max_value;
  bool nearest;
  bool is_fp32 = false;
};

struct Frames {
  FinishFramesParams p;
  std::vector<uint16_t> input, style;
  std::vector<float> fine;  // input, with more digits
  int offset;

  explicit Frames(const Case& c) : offset(c.offset) {
    p.frames = c.frames;
    p.height = c.height;
    p.width = c.width;
    p.max_value = c.max_value;
    p.nearest = c.nearest;
    p.input.row_stride = p.style.row_stride = c.width + c.row_padding;
    p.input.frame_stride = p.style.frame_stride = p.input.row_stride * c.height + c.frame_padding;
    p.input.plane_stride = p.style.plane_stride = p.input.frame_stride * c.frames;
    const size_t size = size_t(3) * size_t(p.input.plane_stride) + size_t(c.offset);
    input = device::random_bf16(size, 21, .6f, .1f);
    style = device::random_bf16(size, 22, .4f, -.2f);
    // What lies around the pictures is NaN: it must not count.
    for (size_t i = 0; i < size; ++i) {
      const int64_t in_frame = (int64_t(i) - c.offset) % p.input.frame_stride;
      if (in_frame < 0 || in_frame >= p.input.row_stride * c.height || in_frame % p.input.row_stride >= c.width) {
        input[i] = style[i] = 0x7fc0;
      }
    }
    if (!c.is_fp32) return;
    p.input.is_fp32 = true;
    const std::vector<float> digits = device::random_float(size, 23, .002f);
    for (size_t i = 0; i < size; ++i) fine.push_back(bf16_to_float(input[i]) + digits[i]);
  }
  size_t at(int frame, int channel, int y, int x) const {
    return size_t(offset + channel * p.input.plane_stride + frame * p.input.frame_stride + y * p.input.row_stride + x);
  }

  template <typename Sample>
  std::vector<Sample> twin() {
    std::vector<Sample> samples(count());
    point_to(input.data(), fine.data(), style.data());
    p.samples = samples.data();
    EXPECT_EQ(wavelet_color_ref(p), 0);
    return samples;
  }
  // Each of `runs` into poison, all alike.
  template <typename Sample>
  std::vector<Sample> own(int runs = 1) {
    Buffer<uint16_t> d_input(input), d_style(style);
    Buffer<float> d_fine(fine);
    Buffer<Sample> d_samples(count());
    point_to(d_input.get(), d_fine.get(), d_style.get());
    p.samples = d_samples.get();
    std::vector<Sample> result;
    for (int run = 0; run < runs; ++run) {
      d_samples.poison();
      EXPECT_EQ(launch_wavelet_color(p, nullptr), 0);
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      EXPECT_TRUE(d_samples.guard_is_intact());
      const std::vector<Sample> samples = d_samples.download();
      EXPECT_TRUE(run == 0 || samples == result);
      result = samples;
    }
    return result;
  }

 private:
  void point_to(const uint16_t* in, const float* in_fp32, const uint16_t* colors) {
    p.input.data = p.input.is_fp32 ? static_cast<const void*>(in_fp32 + offset) : in + offset;
    p.style.data = colors + offset;
  }
  size_t count() const { return size_t(p.frames) * 3 * size_t(p.height) * size_t(p.width); }
};

// A level where the twin's value lies in the middle may be the next one; with 65535 levels that is 3e-5 of the value.
template <typename Sample>
void expect_like_twin(const Case& c) {
  SCOPED_TRACE(testing::Message() << c.frames << " of " << c.width << "x" << c.height << " max " << c.max_value << " nearest "
                                  << c.nearest << " offset " << c.offset);
  Frames frames(c);
  const std::vector<Sample> expected = frames.twin<Sample>(), actual = frames.own<Sample>(c.height * c.width < 4000 ? 2 : 1);
  ASSERT_EQ(actual.size(), expected.size());
  size_t different = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    different += actual[i] != expected[i];
    ASSERT_LE(std::abs(int(actual[i]) - int(expected[i])), 1) << "sample " << i << ": " << int(actual[i]);
  }
  EXPECT_LE(different, actual.size() * (c.max_value > 1023 ? 5 : 0) / 100 + actual.size() / 1000 + 1);
}

TEST(WaveletColorGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  // Within the blurs' reach of every edge, and less than a tile, a batch, a segment; then just more.
  expect_like_twin<uint16_t>({1, 1, 1, 0, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({2, 2, 5, 3, 1, 0, 65535, true});
  expect_like_twin<uint16_t>({1, 1, 300, 0, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 70, 1, 0, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 16, 31, 0, 0, 1, 65535, true});
  expect_like_twin<uint16_t>({2, 33, 65, 7, 2, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 15, 256, 0, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 17, 257, 1, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 48, 289, 0, 5, 1, 65535, true});
  expect_like_twin<uint16_t>({1, 4, 600, 8, 0, 0, 65535, false});  // a tile without edges
  expect_like_twin<uint16_t>({1, 4, 601, 1, 0, 0, 65535, false});  // whose rows begin at odd addresses, too
  expect_like_twin<uint16_t>({1, 257, 40, 0, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 258, 40, 0, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 290, 40, 0, 0, 0, 65535, false});
  expect_like_twin<uint16_t>({1, 530, 36, 4, 0, 0, 65535, true});
  expect_like_twin<uint16_t>({1, 5, 600, 8, 0, 0, 65535, false, true});
  expect_like_twin<uint16_t>({2, 40, 45, 1, 0, 1, 65535, true, true});
  for (const bool nearest : {false, true}) {
    expect_like_twin<uint8_t>({2, 37, 51, 5, 3, 0, 255, nearest});
    expect_like_twin<uint8_t>({1, 3, 2, 0, 0, 1, 1, nearest});
    expect_like_twin<uint16_t>({3, 18, 70, 0, 0, 0, 1023, nearest});
  }
}

// Flat pictures take the style's level; a single sample above one keeps its height but for its share of the low frequencies.
TEST(WaveletColorGpu, TheStylesMeanAndTheFramesDetail) {
  FLASHVSR_NEEDS_GPU();
  Frames frames({1, 40, 70, 0, 0, 0, 255, true});
  for (int y = 0; y < 40; ++y) {
    for (int x = 0; x < 70; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        frames.input[frames.at(0, channel, y, x)] = float_to_bf16(.75f);
        frames.style[frames.at(0, channel, y, x)] = float_to_bf16(-.25f);
      }
    }
  }
  EXPECT_EQ(frames.own<uint8_t>(), std::vector<uint8_t>(3 * 40 * 70, 96));  // .75 * 127.5 + .5
  frames.input[frames.at(0, 1, 20, 35)] = float_to_bf16(1.75f);
  const std::vector<uint8_t> samples = frames.own<uint8_t>();
  EXPECT_EQ(samples[1 * 40 * 70 + 20 * 70 + 35], 223);  // (1.75 - 1 / 1024.) * 127.5 + .5
}

// NaN and infinities spoil what they reach, and nothing else.
TEST(WaveletColorGpu, WhatIsNotANumberStaysWithinReach) {
  FLASHVSR_NEEDS_GPU();
  const Case c{2, 70, 330, 6, 0, 0, 65535, false};
  Frames whole(c), broken(c);
  broken.input[broken.at(1, 2, 35, 250)] = 0x7fc0;
  broken.style[broken.at(1, 2, 60, 40)] = 0x7f80;
  const std::vector<uint16_t> expected = whole.own<uint16_t>(), actual = broken.own<uint16_t>();
  EXPECT_EQ(actual[((1 * 3 + 2) * 70 + 35) * 330 + 250], 0);
  for (int plane = 0; plane < 6; ++plane) {
    for (int y = 0; y < c.height; ++y) {
      for (int x = 0; x < c.width; ++x) {
        const bool is_near = plane == 5 && ((std::abs(y - 35) <= 31 && std::abs(x - 250) <= 31) ||
                                            (std::abs(y - 60) <= 31 && std::abs(x - 40) <= 31));
        const size_t i = (size_t(plane) * size_t(c.height) + size_t(y)) * size_t(c.width) + size_t(x);
        ASSERT_TRUE(is_near || actual[i] == expected[i]) << plane << " " << y << " " << x;
      }
    }
  }
}

TEST(WaveletColorGpu, RefusesWhatCannotBe) {
  FLASHVSR_NEEDS_GPU();
  Frames frames({1, 4, 8, 0, 0, 0, 255, false});
  frames.twin<uint8_t>();
  const FinishFramesParams good = frames.p;
  EXPECT_EQ(check_wavelet_color(good), 0);
  const auto refused = [&](auto change) {
    FinishFramesParams p = good;
    change(p);
    return check_wavelet_color(p) != 0 && wavelet_color_ref(p) != 0 && launch_wavelet_color(p, nullptr) != 0;
  };
  EXPECT_TRUE(refused([](FinishFramesParams& p) { p.style.data = nullptr; }));
  EXPECT_TRUE(refused([](FinishFramesParams& p) { p.input.data = nullptr; }));
  EXPECT_TRUE(refused([](FinishFramesParams& p) { p.samples = nullptr; }));
  EXPECT_TRUE(refused([](FinishFramesParams& p) { p.max_value = 65536; }));
  EXPECT_TRUE(refused([](FinishFramesParams& p) { p.width = 0; }));
  EXPECT_TRUE(refused([](FinishFramesParams& p) { p.style.is_fp32 = true; }));
}

}  // namespace
}  // namespace flashvsr
