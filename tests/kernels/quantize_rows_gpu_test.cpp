// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/quantize_rows.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

TEST(QuantizeRowsGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  uint32_t seed = 1;
  for (const int dim : {8, 192, 1536, 8960, 16384}) {
    for (const bool gelu : {false, true}) {
      SCOPED_TRACE(::testing::Message() << dim << (gelu ? " gelu" : ""));
      const int rows = 13;
      std::vector<uint16_t> x = device::random_bf16(size_t(rows) * dim, seed++, 3.f);
      for (int c = 0; c < dim; ++c) x[size_t(3) * dim + c] = 0;  // a row of zeros
      std::vector<uint8_t> expected(x.size());
      std::vector<float> scale(rows);
      QuantizeRowsParams p;
      p.x = x.data();
      p.output = expected.data();
      p.scale = scale.data();
      p.rows = rows;
      p.dim = dim;
      p.gelu = gelu;
      ASSERT_EQ(quantize_rows_ref(p), 0);
      Buffer<uint16_t> d_x(x);
      Buffer<uint8_t> d_output(x.size());
      Buffer<float> d_scale(rows);
      p.x = d_x.get();
      p.output = d_output.get();
      p.scale = d_scale.get();
      ASSERT_EQ(launch_quantize_rows(p, nullptr), 0);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      const std::vector<uint8_t> actual = d_output.download();
      const std::vector<float> actual_scale = d_scale.download();
      size_t unequal = 0;
      for (int r = 0; r < rows; ++r) {
        ASSERT_TRUE(std::fabs(actual_scale[r] - scale[r]) <= (gelu ? 8e-3f : 1e-6f) * scale[r]);
        for (int c = 0; c < dim; ++c) {
          const size_t at = size_t(r) * dim + c;
          const float a = e4m3_to_float(actual[at]), b = e4m3_to_float(expected[at]);
          unequal += actual[at] != expected[at];
          ASSERT_TRUE(std::fabs(a - b) <= 0.1251f * std::fabs(b) + 0.00196f) << a << " " << b;
        }
      }
      EXPECT_LE(unequal, x.size() / 50);
      EXPECT_TRUE(d_output.guard_is_intact() && d_scale.guard_is_intact());
    }
  }
}

}  // namespace
}  // namespace flashvsr
