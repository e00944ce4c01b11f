// SPDX-License-Identifier: LGPL-2.1-or-later
// Every instruction set that this CPU has against the twins in double, on fresh random inputs.
#include "kernels/cpu/rows_cpu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/bf16.h"

namespace flashvsr {
namespace {

constexpr uint16_t kPoison = 0xffff;  // NaN
constexpr double kTolerance = 2e-3;

using Rows = std::vector<uint16_t>;

double relative_error(const Rows& got, const Rows& want) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double g = bf16_to_float(got[i]), w = bf16_to_float(want[i]);
    difference += (g - w) * (g - w);
    norm += w * w;
  }
  return std::sqrt(difference / norm);
}

class RowsCpu : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!runs_here(GetParam())) GTEST_SKIP() << "this CPU or this build lacks " << name_of(GetParam());
    const unsigned seed = std::random_device{}();
    RecordProperty("seed", std::to_string(seed));
    random_.seed(seed);
  }

  Rows normal(size_t count, float deviation = 1.f, float mean = 0.f) {
    std::normal_distribution<float> gauss(mean, deviation);
    Rows values(count);
    for (uint16_t& value : values) value = float_to_bf16(gauss(random_));
    return values;
  }

  std::mt19937 random_;
};

TEST_P(RowsCpu, LayerNormsEqualTwin) {
  const int64_t rows = 37;
  for (const int dim : {16, 192, 208, 1536, 3072}) {
    // A mean far from 0 shows whether the variance is taken about it.
    const Rows x = normal(rows * dim, 2.f, 5.f), y = normal(rows * dim), gate = normal(dim), scale = normal(dim),
               shift = normal(dim);
    for (const RowNorm norm : {RowNorm::kNone, RowNorm::kModulate, RowNorm::kAffine, RowNorm::kRms}) {
      for (const int residual : {0, 1, 2}) {  // without y, x + y, x + gate * y
        if (residual == 0 ? norm == RowNorm::kNone : norm == RowNorm::kRms) continue;
        SCOPED_TRACE(testing::Message() << "dim " << dim << " norm " << static_cast<int>(norm) << " residual " << residual);
        LayerNormModulateParams p;
        p.x = x.data();
        p.y = residual > 0 ? y.data() : nullptr;
        p.gate = residual > 1 ? gate.data() : nullptr;
        p.scale1 = scale.data();
        p.shift = shift.data();
        p.rows = rows;
        p.dim = dim;
        p.eps = 1e-6f;
        p.norm = norm;
        Rows sum[2] = {Rows(x.size(), kPoison), Rows(x.size(), kPoison)}, out[2] = {sum[0], sum[0]};
        for (const int side : {0, 1}) {
          p.sum = residual > 0 ? sum[side].data() : nullptr;
          p.out = norm != RowNorm::kNone ? out[side].data() : nullptr;
          if (side == 0) {
            ASSERT_EQ(layer_norm_modulate_ref(p), 0);
          } else {
            ASSERT_EQ(layer_norm_modulate_cpu(p, GetParam(), 0, 20), 0);
            if (p.out) {
              ASSERT_EQ(p.out[20 * dim], kPoison);
            }
            ASSERT_EQ(layer_norm_modulate_cpu(p, GetParam(), 20, rows), 0);
          }
        }
        if (residual > 0) {
          EXPECT_EQ(sum[1], sum[0]);
        }
        if (norm != RowNorm::kNone) {
          EXPECT_TRUE(relative_error(out[1], out[0]) <= kTolerance) << relative_error(out[1], out[0]);
        }
      }
    }
  }
}

TEST_P(RowsCpu, NormRopeWindowEqualsTwin) {
  for (const auto& [dim, head_dim, frames, height, width] :
       std::vector<std::tuple<int, int, int, int, int>>{{64, 64, 2, 8, 8}, {192, 64, 4, 16, 24}, {1536, 128, 2, 8, 16}}) {
    const int64_t tokens = int64_t{frames} * height * width;
    const Rows qkv = normal(tokens * 3 * dim, 3.f), q_weight = normal(dim), k_weight = normal(dim);
    std::vector<double> cosine(tokens * head_dim / 2), sine(cosine.size());
    for (size_t i = 0; i < cosine.size(); ++i) {
      cosine[i] = std::cos(0.37 * static_cast<double>(i));
      sine[i] = std::sin(0.37 * static_cast<double>(i));
    }
    NormRopeWindowParams p;
    p.qkv = qkv.data();
    p.q_weight = q_weight.data();
    p.k_weight = k_weight.data();
    p.cosine = cosine.data();
    p.sine = sine.data();
    p.frames = frames;
    p.height = height;
    p.width = width;
    p.dim = dim;
    p.head_dim = head_dim;
    p.eps = 1e-6f;
    const int64_t windows = tokens / 128;
    Rows q[2], k[2], v[2], q_mean[2], k_mean[2];
    for (const int side : {0, 1}) {
      for (Rows* x : {&q[side], &k[side], &v[side]}) x->assign(tokens * dim, kPoison);
      for (Rows* x : {&q_mean[side], &k_mean[side]}) x->assign(windows * dim, kPoison);
      p.q = q[side].data();
      p.k = k[side].data();
      p.v = v[side].data();
      p.q_mean = q_mean[side].data();
      p.k_mean = k_mean[side].data();
      p.workspace = side == 0 ? q_mean[side].data() : nullptr;
      if (side == 0) {
        ASSERT_EQ(norm_rope_window_ref(p), 0);
      } else {
        ASSERT_EQ(norm_rope_window_cpu(p, GetParam(), 1, windows), 0);
        ASSERT_EQ(p.v[0], kPoison);
        ASSERT_EQ(norm_rope_window_cpu(p, GetParam(), 0, 1), 0);
      }
    }
    SCOPED_TRACE(dim);
    EXPECT_EQ(v[1], v[0]);
    EXPECT_TRUE(relative_error(q[1], q[0]) <= kTolerance) << relative_error(q[1], q[0]);
    EXPECT_TRUE(relative_error(k[1], k[0]) <= kTolerance) << relative_error(k[1], k[0]);
    EXPECT_TRUE(relative_error(q_mean[1], q_mean[0]) <= kTolerance) << relative_error(q_mean[1], q_mean[0]);
    EXPECT_TRUE(relative_error(k_mean[1], k_mean[0]) <= kTolerance) << relative_error(k_mean[1], k_mean[0]);
  }
}

// Every number of bf16.
TEST_P(RowsCpu, GeluWithinTheLastPlace) {
  Rows values(65536);
  for (int i = 0; i < 65536; ++i) values[i] = static_cast<uint16_t>(i);
  const Rows input = values;
  ASSERT_EQ(gelu_cpu(values.data(), GetParam(), 16, 65536), 0);
  EXPECT_EQ(values[1], 1);  // not asked for
  ASSERT_EQ(gelu_cpu(values.data(), GetParam(), 0, 16), 0);
  for (int i = 0; i < 65536; ++i) {
    const double x = bf16_to_float(input[i]), got = bf16_to_float(values[i]);
    if (std::isinf(x)) continue;
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(got)) << i;
      continue;
    }
    const double want = x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    ASSERT_TRUE(std::fabs(got - want) <= std::fabs(want) * 0x1p-7 + 1e-35) << x << ": " << got << " " << want;
  }
}

TEST_P(RowsCpu, BadArgumentsAreRefused) {
  const Rows x = normal(32), scale = normal(16);
  Rows out(32);
  LayerNormModulateParams p;
  p.x = x.data();
  p.scale1 = p.shift = scale.data();
  p.out = out.data();
  p.rows = 2;
  p.dim = 16;
  EXPECT_EQ(layer_norm_modulate_cpu(p, GetParam(), 0, 2), 0);
  EXPECT_EQ(layer_norm_modulate_cpu(p, GetParam(), 0, 3), 1);
  EXPECT_EQ(layer_norm_modulate_cpu(p, GetParam(), 2, 1), 1);
  p.norm = RowNorm::kChannelRms;
  EXPECT_EQ(layer_norm_modulate_cpu(p, GetParam(), 0, 2), 1);
  p.norm = RowNorm::kAffine;
  p.dim = 8;
  EXPECT_EQ(layer_norm_modulate_cpu(p, GetParam(), 0, 2), 1);
  EXPECT_EQ(norm_rope_window_cpu({}, GetParam(), 0, 0), 1);
  EXPECT_EQ(gelu_cpu(out.data(), GetParam(), 0, 24), 1);
  EXPECT_EQ(gelu_cpu(nullptr, GetParam(), 0, 16), 1);
}

INSTANTIATE_TEST_SUITE_P(Isas, RowsCpu,
                         testing::Values(CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace flashvsr
