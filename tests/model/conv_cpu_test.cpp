// SPDX-License-Identifier: LGPL-2.1-or-later
// The decoder's convolutions on the CPU, with what follows them in oneDNN's epilogue, against the reference.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/ops.h"
#include "model/ops_cpu.h"
#include "tests/support/near.h"

namespace flashvsr {
namespace {

struct Case {
  at::Tensor x, add, weight, bias;
  std::string name;
};

Case make_case(at::ScalarType type, int64_t steps, int64_t in, int64_t out, int64_t height, int64_t width, bool has_bias) {
  const auto last = at::MemoryFormat::ChannelsLast;
  Case c;
  c.x = at::randn({steps, in, height, width}).to(type).contiguous(last);
  c.add = at::randn({steps, out, height, width}).to(type).contiguous(last);
  c.weight = (at::randn({out, in, 3, 3}) * 0.1).to(type).contiguous(last);
  if (has_bias) c.bias = at::randn({out}).to(type);
  c.name = concat(toString(type), " ", steps, " steps, ", in, " to ", out, " channels, ", height, "x", width);
  return c;
}

at::Tensor to_float(const at::Tensor& x) { return x.defined() ? x.to(at::kFloat) : x; }

// One rounding of `rounded` to the type, beside fp32's own differences.
void expect_rounded(const std::string& name, const at::Tensor& actual, const at::Tensor& expected,
                    const at::Tensor& rounded) {
  const double share = actual.scalar_type() == at::kFloat ? 0 : 1.0 / 256;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << name;
  expect_at_most(name, ((actual.to(at::kFloat) - expected).abs() - rounded.abs() * share).max().item<double>(), 2e-5);
}

TEST(ConvCpu, IsTheReferenceRoundedOnce) {
  const c10::InferenceMode guard;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const Case& c : {make_case(type, 2, 64, 64, 9, 7, true), make_case(type, 8, 32, 48, 12, 16, false),
                          make_case(type, 1, 3, 32, 5, 33, true), make_case(type, 3, 24, 16, 2, 2, true)}) {
      const at::Tensor wide = reference::conv3x3(to_float(c.x), {}, to_float(c.weight), to_float(c.bias), {}, false, 1);
      const at::Tensor product = at::relu(wide);
      expect_rounded(c.name, ops::conv3x3(c.x, {}, c.weight, c.bias, {}, true, 1), product, product);
      for (const bool relu : {false, true}) {
        const at::Tensor sum = wide + to_float(c.add), expected = relu ? at::relu(sum) : sum;
        const at::Tensor add = c.add.clone(at::MemoryFormat::Preserve);
        const at::Tensor kept = ops::conv3x3(c.x, {}, c.weight, c.bias, add, relu, 1);
        EXPECT_TRUE(at::equal(add, c.add)) << c.name;
        expect_rounded(c.name + ", sum", kept, expected, expected.abs() + wide.abs());
        const at::Tensor onto = ops::conv3x3_onto(add, c.x, c.weight, c.bias, relu);
        const bool is_fused = cpu::takes_conv3x3(c.x, c.weight, c.bias);  // not with every instruction set
        expect_rounded(c.name + ", onto", onto, expected, is_fused ? expected : expected.abs() + wide.abs());
        EXPECT_EQ(onto.data_ptr() == add.data_ptr(), is_fused) << c.name;
        EXPECT_TRUE(onto.is_contiguous(at::MemoryFormat::ChannelsLast)) << c.name;
      }
    }
  }
}

TEST(ConvCpu, EnlargesAndSeesThePast) {
  const c10::InferenceMode guard;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Case c = make_case(type, 4, 16, 24, 6, 10, true), doubled = make_case(type, 1, 32, 24, 6, 10, true);
    const at::Tensor enlarged = reference::conv3x3(to_float(c.x), {}, to_float(c.weight), to_float(c.bias), {}, true, 2);
    expect_rounded("enlarged", ops::conv3x3(c.x, {}, c.weight, c.bias, {}, true, 2), enlarged, enlarged);
    for (const at::Tensor& memory : {at::Tensor(), c.x.narrow(0, 2, 1).mul(0.5)}) {
      const at::Tensor expected =
          reference::mem_conv(to_float(c.x), to_float(memory), to_float(doubled.weight), to_float(doubled.bias));
      expect_rounded("past", ops::mem_conv(c.x, memory, doubled.weight, doubled.bias), expected, expected);
    }
  }
}

// A gradient, another layout, another type: the reference's way, and the addend stays what it was.
TEST(ConvCpu, LeavesTheRestToTheReference) {
  Case c = make_case(at::kFloat, 2, 8, 8, 6, 6, true);
  EXPECT_FALSE(cpu::takes_conv3x3(c.x.contiguous(), c.weight, c.bias));
  EXPECT_FALSE(cpu::takes_conv3x3(c.x.to(at::kBFloat16), c.weight, c.bias));
  EXPECT_FALSE(cpu::takes_conv3x3(c.x.to(at::kHalf), c.weight.to(at::kHalf), {}));
  EXPECT_FALSE(cpu::takes_conv3x3(c.x.narrow(3, 1, 4), c.weight, c.bias));
  const at::Tensor before = c.add.clone();
  ops::conv3x3_onto(c.add, c.x.contiguous(), c.weight, c.bias, true);
  EXPECT_TRUE(at::equal(before, c.add));
  for (at::Tensor* t : {&c.x, &c.weight, &c.bias, &c.add}) {
    t->requires_grad_(true);
    const at::Tensor y = ops::conv3x3_onto(c.add, c.x, c.weight, c.bias, true);
    EXPECT_TRUE(y.requires_grad());
    y.sum().backward();
    EXPECT_TRUE(t->grad().defined());
    EXPECT_TRUE(at::equal(before, c.add));
    t->requires_grad_(false);
  }
}

}  // namespace
}  // namespace flashvsr
