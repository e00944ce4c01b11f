// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/conv_nhwc.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/bf16.h"
#include "tests/kernels/conv_cases.h"

namespace flashvsr {
namespace {

// Small whole numbers: products, sums and folded weights are exact, so any difference is a wrong index.
std::vector<uint16_t> small_numbers(size_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> numbers(-2, 2);
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = float_to_bf16(static_cast<float>(numbers(engine)));
  return values;
}

// The convolution as the layer's definition has it: enlarge, pad, correlate; source weights.
double direct(const ConvCase& c, const ConvNhwcParams& p, const std::vector<uint16_t>& weights, int t, int y, int x,
              int o) {
  const int border = c.kernel_xy == 3 && c.pad == 0 ? 1 : 0;
  const int half = c.kernel_xy / 2;
  double sum = p.bias ? p.bias[o] : 0;
  for (int dt = 0; dt < c.kernel_t; ++dt) {
    for (int dy = -half; dy <= half; ++dy) {
      for (int dx = -half; dx <= half; ++dx) {
        const int big_y = y + dy, big_x = x + dx;
        if (!border && (big_y < 0 || big_x < 0 || big_y >= c.height * c.upsample || big_x >= c.width * c.upsample)) {
          continue;
        }
        const uint16_t* source = c.past && dt == 0 ? p.past : p.input;
        const int step = c.past ? t : t * c.stride_t + dt;
        const uint16_t* pixel = source + step * p.in_stride_t +
                                (big_y / c.upsample + border) * p.in_stride_y +
                                (big_x / c.upsample + border) * p.in_stride_x;
        if (border) {
          pixel = source + step * p.in_stride_t + (y + 1 + dy) * p.in_stride_y +
                  (x + 1 + dx) * p.in_stride_x;
        }
        for (int i = 0; i < c.in_channels; ++i) {
          const size_t at = (((size_t(o) * c.in_channels + i) * c.kernel_t + dt) * c.kernel_xy + dy + half) *
                                c.kernel_xy + dx + half;
          sum += double{bf16_to_float(pixel[i])} * double{bf16_to_float(weights[at])};
        }
      }
    }
  }
  return sum;
}

TEST(ConvNhwc, TwinIsTheLayer) {
  uint32_t seed = 1;
  for (const ConvCase& c : conv_cases()) {
    for (const bool wide_pitch : {false, true}) {
      SCOPED_TRACE(::testing::Message() << c);
      int64_t in_elements, out_elements;
      ConvNhwcParams p = conv_params(c, wide_pitch, &in_elements, &out_elements);
      PackConvWeightsParams pack;
      pack.in_channels = c.in_channels;
      pack.out_channels = c.out_channels;
      pack.kernel_t = c.kernel_t;
      pack.kernel_xy = c.kernel_xy;
      pack.folded = c.folded;
      pack.stride_t = c.kernel_xy * c.kernel_xy;
      pack.stride_c = pack.stride_t * c.kernel_t;
      pack.stride_o = pack.stride_c * c.in_channels;
      const std::vector<uint16_t> weights = small_numbers(pack.stride_o * c.out_channels, seed++);
      std::vector<uint16_t> packed(conv_weight_elements(pack), 0x7fff);
      pack.source = weights.data();
      pack.packed = packed.data();
      ASSERT_EQ(pack_conv_weights_ref(pack), 0);
      const std::vector<uint16_t> input = small_numbers(in_elements, seed++);
      const std::vector<uint16_t> residual = small_numbers(out_elements, seed++);
      const std::vector<uint16_t> past = small_numbers(in_elements, seed++);
      std::vector<float> bias(c.out_channels);
      for (int o = 0; o < c.out_channels; ++o) bias[o] = static_cast<float>(o % 5 - 2);
      std::vector<uint16_t> output(out_elements, 0xffff);
      p.input = input.data();
      p.past = c.past ? past.data() : nullptr;
      p.weights = packed.data();
      p.bias = c.bias ? bias.data() : nullptr;
      p.residual = c.residual ? residual.data() : nullptr;
      p.output = output.data();
      ASSERT_EQ(conv_nhwc_ref(p), 0);

      const int sub = c.out_channels / c.grow;
      std::mt19937 engine(seed);
      for (int i = 0; i < 200; ++i) {
        const int t = engine() % c.frames, y = engine() % (c.height * c.upsample), x = engine() % (c.width * c.upsample),
                  o = engine() % c.out_channels;
        const int64_t at = (t * c.grow + o / sub) * p.out_stride_t + y * p.out_stride_y + x * p.out_stride_x + o % sub;
        float expected = round_to_bf16(direct(c, p, weights, t, y, x, o));
        if (c.residual) expected = round_to_bf16(double{expected} + double{bf16_to_float(residual[at])});
        if (c.relu && expected < 0) expected = 0;
        ASSERT_EQ(bf16_to_float(output[at]), expected) << "t " << t << " y " << y << " x " << x << " o " << o;
      }
      size_t written = 0;
      for (const uint16_t value : output) written += value != 0xffff;
      EXPECT_EQ(written, size_t(c.frames) * c.height * c.upsample * c.width * c.upsample * c.out_channels);
    }
  }
}

TEST(ConvNhwc, RefusesBadArguments) {
  int64_t in_elements, out_elements;
  alignas(16) static uint16_t memory[8];
  const auto good = [&] {
    ConvNhwcParams p = conv_params(conv_cases()[0], false, &in_elements, &out_elements);
    p.input = p.weights = p.output = memory;
    return p;
  };
  EXPECT_EQ(check_conv_nhwc(good()), 0);
  const auto refuses = [&](auto change) {
    ConvNhwcParams p = good();
    change(p);
    return check_conv_nhwc(p) == 1;
  };
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.input = nullptr; }));
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.output = memory + 1; }));
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.in_channels = 12; }));
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.out_stride_x = 129; }));
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.kernel_xy = 5; }));
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.in_frames = 1; }));
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.folded = true; }));
  EXPECT_TRUE(refuses([](ConvNhwcParams& p) { p.upsample = 2; p.out_channels = 64; }));
}

TEST(Bf16, RoundsTwiceAsOnce) {
  // Between two bf16 neighbours, nearer to the lower one only in double.
  EXPECT_EQ(round_to_bf16(1.0 + 0.00390625 - 1e-12), 1.f);
  EXPECT_EQ(round_to_bf16(1.0 + 0.00390625 + 1e-12), 1.0078125f);
  EXPECT_EQ(round_to_bf16(-1.0 - 0.00390625 - 1e-12), -1.0078125f);
  EXPECT_EQ(round_to_bf16(1.0 + 0.00390625), 1.f);  // tie to even
}

}  // namespace
}  // namespace flashvsr
