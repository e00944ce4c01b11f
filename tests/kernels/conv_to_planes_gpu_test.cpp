// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/conv_to_planes.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

TEST(ConvToPlanesGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  struct Case {
    int channels, frames, height, width;
    bool bias;
  };
  uint32_t seed = 1;
  for (const Case& c : {Case{128, 2, 33, 65, true}, Case{32, 1, 1, 1, false}, Case{64, 3, 14, 30, true},
                        Case{96, 1, 15, 31, true}}) {
    SCOPED_TRACE(::testing::Message() << c.channels << " " << c.frames << "x" << c.height << "x" << c.width);
    const size_t pixels = size_t(c.frames) * c.height * c.width;
    const auto input = device::random_bf16(pixels * c.channels, seed++), weight = device::random_bf16(27 * c.channels, seed++, 0.05f);
    const auto bias = device::random_float(3, seed++);
    std::vector<uint16_t> expected(3 * pixels, 0xffff);
    ConvToPlanesParams p;
    p.channels = c.channels;
    p.frames = c.frames;
    p.height = c.height;
    p.width = c.width;
    p.plane_stride = pixels;
    p.frame_stride = int64_t{c.height} * c.width;
    // Source order [3][3][3][channels], as a channels-last weight has it.
    p.stride_o = 9 * c.channels;
    p.stride_c = 1;
    p.stride_xy = c.channels;
    p.input = input.data();
    p.weight = weight.data();
    p.bias = c.bias ? bias.data() : nullptr;
    p.output = expected.data();
    ASSERT_EQ(conv_to_planes_ref(p), 0);
    Buffer<uint16_t> d_input(input), d_weight(weight), d_output(3 * pixels);
    Buffer<float> d_bias(bias);
    p.input = d_input.get();
    p.weight = d_weight.get();
    p.bias = c.bias ? d_bias.get() : nullptr;
    p.output = d_output.get();
    ASSERT_EQ(launch_conv_to_planes(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const device::Difference difference = device::compare(d_output.download(), expected);
    EXPECT_TRUE(difference.relative <= 4e-3) << difference.relative;
    EXPECT_TRUE(d_output.guard_is_intact());
  }
}

}  // namespace
}  // namespace flashvsr
