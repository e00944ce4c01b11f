// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/resize_samples.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

template <typename Sample>
void check_resize(bool vertical, int planes, int height, int width, int out_size, int taps, uint32_t seed) {
  std::mt19937 engine(seed);
  const int max_value = sizeof(Sample) == 1 ? 255 : 1023, bits = sizeof(Sample) == 1 ? 22 : 20;
  std::vector<Sample> input(size_t(planes) * height * width);
  for (Sample& sample : input) sample = Sample(engine() % (max_value + 1));
  const int size = vertical ? height : width;
  std::vector<int32_t> first(out_size), weights(size_t(out_size) * taps);
  for (int x = 0; x < out_size; ++x) {
    first[x] = int(int64_t(x) * size / out_size);  // the last ones reach beyond the axis
    int rest = 1 << bits;
    for (int k = 0; k < taps; ++k) {
      const int weight = k + 1 == taps ? rest : int(engine() % (1u << bits)) - (1 << (bits - 2));
      weights[size_t(x) * taps + k] = weight;
      rest -= weight;
    }
  }
  const size_t count = size_t(planes) * (vertical ? out_size : height) * (vertical ? width : out_size);
  std::vector<Sample> expected(count);
  ResizeAxisParams p;
  p.input = input.data();
  p.output = expected.data();
  p.first = first.data();
  p.weights = weights.data();
  p.planes = planes;
  p.in_height = height;
  p.in_width = width;
  p.out_size = out_size;
  p.taps = taps;
  p.bits = bits;
  p.max_value = max_value;
  p.is_16_bit = sizeof(Sample) == 2;
  p.vertical = vertical;
  ASSERT_EQ(resize_axis_ref(p), 0);
  Buffer<Sample> d_input(input), d_output(count);
  Buffer<int32_t> d_first(first), d_weights(weights);
  p.input = d_input.get();
  p.output = d_output.get();
  p.first = d_first.get();
  p.weights = d_weights.get();
  ASSERT_EQ(launch_resize_axis(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(d_output.download(), expected);
  EXPECT_TRUE(d_output.guard_is_intact());
}

TEST(ResizeSamplesGpu, AxisEqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  for (const bool vertical : {false, true}) {
    check_resize<uint8_t>(vertical, 3, 17, 23, 68, 4, 1);
    check_resize<uint8_t>(vertical, 2, 9, 5, 31, 1, 2);
    check_resize<uint8_t>(vertical, 1, 1, 1, 7, 2, 3);
    check_resize<uint16_t>(vertical, 3, 30, 41, 13, 4, 4);
  }
}

template <typename Sample>
void check_normalize(int frames, int height, int width, int padded_height, int padded_width) {
  const int max_value = sizeof(Sample) == 1 ? 255 : 1023;
  std::mt19937 engine(frames * 1000 + width);
  std::vector<Sample> input(size_t(frames) * 3 * height * width);
  for (Sample& sample : input) sample = Sample(engine() % (max_value + 1));
  std::vector<uint16_t> expected(size_t(frames) * 3 * padded_height * padded_width);
  NormalizeSamplesParams p;
  p.input = input.data();
  p.output = expected.data();
  p.frames = frames;
  p.height = height;
  p.width = width;
  p.padded_height = padded_height;
  p.padded_width = padded_width;
  p.max_value = max_value;
  p.is_16_bit = sizeof(Sample) == 2;
  ASSERT_EQ(normalize_samples_ref(p), 0);
  Buffer<Sample> d_input(input);
  Buffer<uint16_t> d_output(expected.size());
  p.input = d_input.get();
  p.output = d_output.get();
  ASSERT_EQ(launch_normalize_samples(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(d_output.download(), expected);
  EXPECT_TRUE(d_output.guard_is_intact());
}

TEST(ResizeSamplesGpu, NormalizeEqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  check_normalize<uint8_t>(2, 16, 24, 16, 24);
  check_normalize<uint8_t>(3, 13, 21, 32, 33);
  check_normalize<uint8_t>(1, 3, 5, 16, 17);  // reflected more than once
  check_normalize<uint16_t>(2, 9, 7, 11, 16);
}

}  // namespace
}  // namespace flashvsr
