// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/layer_norm_modulate.h"
#include "kernels/quantize_rows.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

TEST(LayerNormModulateGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  uint32_t seed = 1;
  for (const int dim : {8, 192, 248, 1536, 2048, 3072}) {
    for (const int rows : {1, 13, 128}) {
      for (const RowNorm norm : {RowNorm::kNone, RowNorm::kModulate, RowNorm::kAffine, RowNorm::kRms,
                                 RowNorm::kChannelRms}) {
        for (int variant = 0; variant < 3; ++variant) {  // plain; + y; + gate * y
          const bool may_add = norm == RowNorm::kNone || norm == RowNorm::kModulate || norm == RowNorm::kAffine;
          if (variant > 0 ? !may_add : norm == RowNorm::kNone) continue;
          SCOPED_TRACE(::testing::Message() << dim << " x " << rows << " norm " << int(norm) << " variant " << variant);
          const size_t count = size_t(rows) * dim;
          const auto x = device::random_bf16(count, seed++, 2.f, 0.5f), y = device::random_bf16(count, seed++);
          const auto gate = device::random_bf16(dim, seed++), scale = device::random_bf16(dim, seed++, 0.3f, 1.f),
                     shift = device::random_bf16(dim, seed++);
          std::vector<uint16_t> sum(count, 0xffff), out(count, 0xffff);
          LayerNormModulateParams p;
          p.rows = rows;
          p.dim = dim;
          p.eps = 1e-6f;
          p.norm = norm;
          p.x = x.data();
          if (variant > 0) p.y = y.data();
          if (variant > 1) p.gate = gate.data();
          if (variant > 0) p.sum = sum.data();
          p.scale1 = scale.data();
          p.shift = shift.data();
          p.out = norm == RowNorm::kNone ? nullptr : out.data();
          ASSERT_EQ(layer_norm_modulate_ref(p), 0);

          Buffer<uint16_t> d_x(x), d_y(y), d_gate(gate), d_scale(scale), d_shift(shift), d_sum(count), d_out(count);
          p.x = d_x.get();
          if (variant > 0) p.y = d_y.get();
          if (variant > 1) p.gate = d_gate.get();
          if (variant > 0) p.sum = d_sum.get();
          p.scale1 = d_scale.get();
          p.shift = d_shift.get();
          if (p.out) p.out = d_out.get();
          ASSERT_EQ(launch_layer_norm_modulate(p, nullptr), 0);
          ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
          if (variant > 0) {
            EXPECT_EQ(d_sum.download(), sum);
          }
          if (p.out) {
            const device::Difference difference = device::compare(d_out.download(), out);
            EXPECT_TRUE(difference.relative <= 2e-3) << difference.relative;
          }
          EXPECT_TRUE(d_sum.guard_is_intact() && d_out.guard_is_intact());
        }
      }
    }
  }
}

TEST(LayerNormModulateGpu, EightBitsEqualTwin) {
  FLASHVSR_NEEDS_GPU();
  uint32_t seed = 100;
  for (const int dim : {192, 1536}) {
    for (const RowNorm norm : {RowNorm::kModulate, RowNorm::kAffine}) {
      for (const bool add : {false, true}) {
        SCOPED_TRACE(::testing::Message() << dim << " norm " << int(norm) << (add ? " + y" : ""));
        const int rows = 21;
        const size_t count = size_t(rows) * dim;
        const auto x = device::random_bf16(count, seed++, 2.f, 0.5f), y = device::random_bf16(count, seed++);
        const auto scale1 = device::random_bf16(dim, seed++, 0.3f, 1.f), shift = device::random_bf16(dim, seed++);
        std::vector<uint16_t> sum(count);
        std::vector<uint8_t> out8(count);
        std::vector<float> scale(rows);
        LayerNormModulateParams p;
        p.rows = rows;
        p.dim = dim;
        p.eps = 1e-6f;
        p.norm = norm;
        p.x = x.data();
        p.y = add ? y.data() : nullptr;
        p.sum = add ? sum.data() : nullptr;
        p.scale1 = scale1.data();
        p.shift = shift.data();
        p.out8 = out8.data();
        p.scale = scale.data();
        ASSERT_EQ(layer_norm_modulate_ref(p), 0);
        Buffer<uint16_t> d_x(x), d_y(y), d_scale1(scale1), d_shift(shift), d_sum(count);
        Buffer<uint8_t> d_out8(count);
        Buffer<float> d_scale(rows);
        p.x = d_x.get();
        p.y = add ? d_y.get() : nullptr;
        p.sum = add ? d_sum.get() : nullptr;
        p.scale1 = d_scale1.get();
        p.shift = d_shift.get();
        p.out8 = d_out8.get();
        p.scale = d_scale.get();
        ASSERT_EQ(launch_layer_norm_modulate(p, nullptr), 0);
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        const auto actual = d_out8.download();
        const auto actual_scale = d_scale.download();
        if (add) {
          EXPECT_EQ(d_sum.download(), sum);
        }
        size_t unequal = 0;
        for (size_t i = 0; i < count; ++i) {
          unequal += actual[i] != out8[i];
          const float a = e4m3_to_float(actual[i]), b = e4m3_to_float(out8[i]);
          ASSERT_TRUE(std::fabs(a - b) <= 0.1251f * std::fabs(b) + 0.00196f) << a << " " << b;
        }
        EXPECT_LE(unequal, count / 50);
        for (int r = 0; r < rows; ++r) ASSERT_TRUE(std::fabs(actual_scale[r] - scale[r]) <= 8e-3f * scale[r]);
        EXPECT_TRUE(d_out8.guard_is_intact() && d_scale.guard_is_intact() && d_sum.guard_is_intact());
      }
    }
  }
}

}  // namespace
}  // namespace flashvsr
