// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/linear.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

class LinearGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    FLASHVSR_NEEDS_GPU();
    if (!has_linear_kernel()) GTEST_SKIP() << "not a Hopper card, or built without sm_90a";
  }
};

struct Shape {
  int rows, in, out;
};

// Poisons the output, runs three times and wants the same bits and nothing behind them.
std::vector<uint16_t> run(LinearParams p, const std::vector<uint16_t>& x, const std::vector<uint16_t>& weight,
                          const std::vector<uint16_t>& bias) {
  const Buffer<uint16_t> d_x(x), d_weight(weight), d_bias(bias);
  Buffer<uint16_t> d_output(static_cast<size_t>(p.rows) * linear_columns(p));
  p.x = d_x.get();
  p.weight = d_weight.get();
  p.bias = d_bias.get();
  p.output = d_output.get();
  std::vector<uint16_t> first;
  for (int i = 0; i < 3; ++i) {
    d_output.poison();
    EXPECT_EQ(launch_linear(p, nullptr), 0);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    if (i == 0) first = d_output.download();
    EXPECT_EQ(d_output.download(), first);
    EXPECT_TRUE(d_output.guard_is_intact());
  }
  return first;
}

TEST_F(LinearGpu, EqualsTwin) {
  uint32_t seed = std::random_device{}();
  // Less than a tile in every direction, odd counts of tiles, more tiles than blocks.
  for (const Shape& s : {Shape{1, 64, 8}, Shape{100, 128, 136}, Shape{256, 192, 256}, Shape{300, 1536, 520}, Shape{1000, 448, 640},
                         Shape{8448, 64, 1536}, Shape{513, 8960, 72}}) {
    for (const bool gelu : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "seed " << seed << ": " << s.rows << " x " << s.in << " -> " << s.out << (gelu ? ", gelu" : ""));
      const float scale = 1.5f / std::sqrt(static_cast<float>(s.in));
      const std::vector<uint16_t> x = device::random_bf16(size_t(s.rows) * s.in, ++seed),
                                  weight = device::random_bf16(size_t(s.out) * s.in, ++seed, scale), bias = device::random_bf16(s.out, ++seed);
      std::vector<uint16_t> expected(size_t(s.rows) * s.out);
      LinearParams p;
      p.x = x.data();
      p.weight = weight.data();
      p.bias = bias.data();
      p.output = expected.data();
      p.rows = s.rows;
      p.in = s.in;
      p.out = s.out;
      p.gelu = gelu;
      ASSERT_EQ(linear_ref(p), 0);
      const double error = device::compare(run(p, x, weight, bias), expected).relative;
      EXPECT_TRUE(error <= 3e-3) << error;
    }
  }
}

TEST_F(LinearGpu, ResidualEqualsTwin) {
  uint32_t seed = std::random_device{}();
  for (const Shape& s : {Shape{1, 64, 8}, Shape{300, 192, 264}, Shape{1000, 1536, 1536}, Shape{8448, 128, 384}}) {
    for (const bool has_gate : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "seed " << seed << ": " << s.rows << " x " << s.in << " -> " << s.out << (has_gate ? ", gate" : ""));
      const std::vector<uint16_t> x = device::random_bf16(size_t(s.rows) * s.in, ++seed),
                                  weight = device::random_bf16(size_t(s.out) * s.in, ++seed, .05f), bias = device::random_bf16(s.out, ++seed),
                                  gate = device::random_bf16(s.out, ++seed), residual = device::random_bf16(size_t(s.rows) * s.out, ++seed, 3.f);
      std::vector<uint16_t> expected(residual.size());
      LinearParams p;
      p.x = x.data();
      p.weight = weight.data();
      p.bias = bias.data();
      p.output = expected.data();
      p.residual = residual.data();
      p.gate = has_gate ? gate.data() : nullptr;
      p.rows = s.rows;
      p.in = s.in;
      p.out = s.out;
      ASSERT_EQ(linear_ref(p), 0);
      const Buffer<uint16_t> d_residual(residual), d_gate(gate);
      p.residual = d_residual.get();
      p.gate = has_gate ? d_gate.get() : nullptr;
      const double error = device::compare(run(p, x, weight, bias), expected).relative;
      EXPECT_TRUE(error <= 3e-3) << error;
      // In place.
      const Buffer<uint16_t> d_x(x), d_weight(weight), d_bias(bias);
      p.x = d_x.get();
      p.weight = d_weight.get();
      p.bias = d_bias.get();
      p.output = d_residual.get();
      ASSERT_EQ(launch_linear(p, nullptr), 0);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      const double in_place = device::compare(d_residual.download(), expected).relative;
      EXPECT_TRUE(in_place <= 3e-3) << in_place;
      EXPECT_TRUE(d_residual.guard_is_intact());
    }
  }
}

TEST_F(LinearGpu, WindowOrderEqualsTwin) {
  uint32_t seed = std::random_device{}();
  struct Case {
    int frames, height, width, in, out, split;
  };
  // Rows that end within a tile, windows that share one, a split within a cluster's tile.
  for (const Case& c : {Case{2, 8, 8, 64, 128, 64}, Case{2, 16, 24, 192, 576, 384}, Case{6, 24, 40, 128, 200, 128}, Case{2, 48, 88, 128, 768, 512}}) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed << ": " << c.frames << " x " << c.height << " x " << c.width);
    LinearParams p;
    p.rows = int64_t{c.frames} * c.height * c.width;
    p.in = c.in;
    p.out = c.out;
    p.split = c.split;
    p.frames = c.frames;
    p.height = c.height;
    p.width = c.width;
    const std::vector<uint16_t> x = device::random_bf16(size_t(p.rows) * c.in, ++seed),
                                weight = device::random_bf16(size_t(c.out) * c.in, ++seed, .1f), bias = device::random_bf16(c.out, ++seed);
    std::vector<uint16_t> output(size_t(p.rows) * c.split), windowed(size_t(p.rows) * (c.out - c.split));
    p.x = x.data();
    p.weight = weight.data();
    p.bias = bias.data();
    p.output = output.data();
    p.windowed = windowed.data();
    ASSERT_EQ(linear_ref(p), 0);
    Buffer<uint16_t> d_windowed(windowed.size());
    p.windowed = d_windowed.get();
    const double error = device::compare(run(p, x, weight, bias), output).relative;
    EXPECT_TRUE(error <= 3e-3) << error;
    const double windowed_error = device::compare(d_windowed.download(), windowed).relative;
    EXPECT_TRUE(windowed_error <= 3e-3) << windowed_error;
    EXPECT_TRUE(d_windowed.guard_is_intact());
  }
}

TEST_F(LinearGpu, ShareCountsWholeWaves) {
  int processors = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
  // One tile of 256 x 256 for each pair of processors, then one more.
  const int64_t rows = 256 * int64_t{processors / 2};
  EXPECT_DOUBLE_EQ(linear_share(rows, 256), 1.0);
  EXPECT_DOUBLE_EQ(linear_share(rows, 128), 0.5);
  EXPECT_LT(linear_share(rows + 1, 256), 0.51);
  EXPECT_EQ(linear_share(0, 256), 0);
}

TEST_F(LinearGpu, BadArgumentsAreRefused) {
  Buffer<uint16_t> memory(1 << 16);
  LinearParams good;
  good.x = good.weight = good.bias = memory.get();
  good.output = memory.get() + (1 << 15);
  good.rows = 8;
  good.in = 64;
  good.out = 8;
  EXPECT_EQ(launch_linear(good, nullptr), 0);
  const auto refused = [&](auto change) {
    LinearParams p = good;
    change(p);
    return launch_linear(p, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_TRUE(refused([](LinearParams& p) { p.x = nullptr; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.bias = nullptr; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.output += 1; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.rows = 0; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.in = 32; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.in = 96; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.out = 12; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.gate = p.bias; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.residual = p.x, p.gelu = true; }));
  good.rows = 128;
  good.out = 128;
  good.windowed = memory.get() + (3 << 14);
  good.split = 64;
  good.frames = 2;
  good.height = good.width = 8;
  EXPECT_EQ(launch_linear(good, nullptr), 0);
  EXPECT_TRUE(refused([](LinearParams& p) { p.split = 0; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.split = 128; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.split = 72; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.width = 16; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.frames = 1; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.windowed += 1; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.residual = p.x; }));
  good.windowed = nullptr;
  EXPECT_TRUE(refused([](LinearParams& p) { p.residual = p.x + 1; }));
  EXPECT_TRUE(refused([](LinearParams& p) { p.residual = p.x, p.gate = p.bias + 1; }));
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

}  // namespace
}  // namespace flashvsr
