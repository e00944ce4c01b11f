// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/conv_nhwc.h"
#include "tests/kernels/conv_cases.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

class ConvNhwcGpu : public ::testing::TestWithParam<ConvKernel> {
 protected:
  void SetUp() override {
    FLASHVSR_NEEDS_GPU();
    if (GetParam() == ConvKernel::kSm90 && device::compute_capability() != 90) GTEST_SKIP() << "not a Hopper card";
  }
};

TEST_P(ConvNhwcGpu, EqualsTwin) {
  uint32_t seed = 1;
  for (const ConvCase& c : conv_cases()) {
    for (const bool wide_pitch : {false, true}) {
      SCOPED_TRACE(::testing::Message() << c << (wide_pitch ? " wide pitch" : ""));
      int64_t in_elements, out_elements;
      ConvNhwcParams p = conv_params(c, wide_pitch, &in_elements, &out_elements);
      p.kernel = GetParam();

      PackConvWeightsParams pack;
      pack.in_channels = c.in_channels;
      pack.out_channels = c.out_channels;
      pack.kernel_t = c.kernel_t;
      pack.kernel_xy = c.kernel_xy;
      pack.folded = c.folded;
      const int plane = c.kernel_xy * c.kernel_xy;
      pack.stride_t = plane;
      pack.stride_c = plane * c.kernel_t;
      pack.stride_o = pack.stride_c * c.in_channels;
      const std::vector<uint16_t> source =
          device::random_bf16(pack.stride_o * c.out_channels, seed++, 1.f / std::sqrt(float(pack.stride_c)));
      std::vector<uint16_t> packed(conv_weight_elements(pack), 0x7fff);
      pack.source = source.data();
      pack.packed = packed.data();
      ASSERT_EQ(pack_conv_weights_ref(pack), 0);

      const std::vector<uint16_t> input = device::random_bf16(in_elements, seed++);
      const std::vector<uint16_t> residual = device::random_bf16(out_elements, seed++);
      const std::vector<uint16_t> past = device::random_bf16(in_elements, seed++);
      const std::vector<float> bias = device::random_float(c.out_channels, seed++);
      std::vector<uint16_t> expected(out_elements, 0xffff);
      p.input = input.data();
      p.past = c.past ? past.data() : nullptr;
      p.weights = packed.data();
      p.bias = c.bias ? bias.data() : nullptr;
      p.residual = c.residual ? residual.data() : nullptr;
      p.output = expected.data();
      ASSERT_EQ(conv_nhwc_ref(p), 0);

      Buffer<uint16_t> d_source(source), d_packed(packed.size()), d_input(input), d_residual(residual), d_past(past),
          d_output(out_elements);
      Buffer<float> d_bias(bias);
      pack.source = d_source.get();
      pack.packed = d_packed.get();
      ASSERT_EQ(launch_pack_conv_weights(pack, nullptr), 0);
      ASSERT_EQ(d_packed.download(), packed);
      p.input = d_input.get();
      p.past = c.past ? d_past.get() : nullptr;
      p.weights = d_packed.get();
      p.bias = c.bias ? d_bias.get() : nullptr;
      p.residual = c.residual ? d_residual.get() : nullptr;
      p.output = d_output.get();
      ASSERT_EQ(launch_conv_nhwc(p, nullptr), 0);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      const std::vector<uint16_t> actual = d_output.download();
      // Elements between rows stay poisoned in both, and only those.
      std::vector<uint16_t> a, b;
      size_t misplaced = 0;
      for (size_t i = 0; i < actual.size(); ++i) {
        misplaced += (actual[i] == 0xffff) != (expected[i] == 0xffff);
        if (expected[i] != 0xffff) {
          a.push_back(actual[i]);
          b.push_back(expected[i]);
        }
      }
      EXPECT_EQ(misplaced, 0u);
      const device::Difference difference = device::compare(a, b);
      EXPECT_TRUE(difference.relative <= 4e-3) << difference.relative << ", largest " << difference.largest << ", "
                                               << difference.unequal << " of " << a.size() << " differ";
      EXPECT_TRUE(d_output.guard_is_intact());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, ConvNhwcGpu, ::testing::Values(ConvKernel::kSm80, ConvKernel::kSm90));

}  // namespace
}  // namespace flashvsr
