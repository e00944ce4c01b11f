// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The twins of the row kernels against hand-made cases.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/layer_norm_modulate.h"
#include "kernels/norm_rope_window.h"
#include "kernels/quantize_rows.h"

namespace flashvsr {
namespace {

std::vector<uint16_t> bf16(const std::vector<float>& values) {
  std::vector<uint16_t> result;
  for (const float value : values) result.push_back(float_to_bf16(value));
  return result;
}

TEST(LayerNormModulate, KnownRow) {
  // Mean 4, variance 4: the norm is +-1.
  const auto x = bf16({2, 6, 2, 6, 2, 6, 2, 6}), y = bf16({1, 1, 1, 1, 1, 1, 1, 1});
  const auto scale = bf16({1, 1, 2, 2, 3, 3, 0, 0}), shift = bf16({0, 0, 0, 0, 1, 1, 5, 5});
  std::vector<uint16_t> out(8), sum(8);
  LayerNormModulateParams p;
  p.rows = 1;
  p.dim = 8;
  p.x = x.data();
  p.scale1 = scale.data();
  p.shift = shift.data();
  p.out = out.data();
  for (const RowNorm norm : {RowNorm::kModulate, RowNorm::kAffine}) {
    p.norm = norm;
    ASSERT_EQ(layer_norm_modulate_ref(p), 0);
    EXPECT_EQ(out, bf16({-1, 1, -2, 2, -2, 4, 5, 5}));
  }
  p.y = y.data();
  p.sum = sum.data();
  ASSERT_EQ(layer_norm_modulate_ref(p), 0);
  EXPECT_EQ(sum, bf16({3, 7, 3, 7, 3, 7, 3, 7}));
  EXPECT_EQ(out, bf16({-1, 1, -2, 2, -2, 4, 5, 5}));  // a constant does not change the norm
  p.gate = scale.data();
  ASSERT_EQ(layer_norm_modulate_ref(p), 0);
  EXPECT_EQ(sum, bf16({3, 7, 4, 8, 5, 9, 2, 6}));

  const auto three_four = bf16({3, 4, 0, 0, 0, 0, 0, 0});
  p = {};
  p.rows = 1;
  p.dim = 8;
  p.x = three_four.data();
  p.scale1 = scale.data();
  p.out = out.data();
  p.norm = RowNorm::kRms;  // rms = 5 / sqrt(8)
  ASSERT_EQ(layer_norm_modulate_ref(p), 0);
  EXPECT_EQ(bf16_to_float(out[0]), round_to_bf16(3 * std::sqrt(8.0) / 5));
  p.norm = RowNorm::kChannelRms;
  ASSERT_EQ(layer_norm_modulate_ref(p), 0);
  const double v = round_to_bf16(double{round_to_bf16(0.6)} * round_to_bf16(std::sqrt(8.0)));
  EXPECT_EQ(bf16_to_float(out[0]), round_to_bf16(v / (1 + std::exp(-v))));
  EXPECT_EQ(bf16_to_float(out[7]), 0.f);
  p.y = y.data();
  EXPECT_EQ(check_layer_norm_modulate(p), 1);
}

TEST(QuantizeRows, EightBitNumbers) {
  // Every number that e4m3 has comes back; halfway values go to the even neighbour.
  for (int bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7f) == 0x7f) continue;
    EXPECT_EQ(float_to_e4m3(e4m3_to_float(bits)), bits);
  }
  EXPECT_EQ(e4m3_to_float(0x7e), 448.f);
  EXPECT_EQ(e4m3_to_float(0x01), 0.001953125f);
  EXPECT_EQ(float_to_e4m3(1e9f), 0x7e);
  EXPECT_EQ(e4m3_to_float(float_to_e4m3(17.f)), 16.f);
  EXPECT_EQ(e4m3_to_float(float_to_e4m3(19.f)), 20.f);
  const auto x = bf16({1, -2, 0.5, 0, 0, 0, 0, 0});
  std::vector<uint8_t> out(8);
  float scale = 0;
  QuantizeRowsParams p;
  p.x = x.data();
  p.output = out.data();
  p.scale = &scale;
  p.rows = 1;
  p.dim = 8;
  ASSERT_EQ(quantize_rows_ref(p), 0);
  EXPECT_EQ(scale, 2.f / 448.f);
  EXPECT_EQ(e4m3_to_float(out[1]), -448.f);
  EXPECT_EQ(e4m3_to_float(out[0]), 224.f);
}

TEST(NormRopeWindow, OrderAndRotation) {
  // Every token's vector is constant: the norm makes it 1, the rotation by 90 degrees (-1, 1), and v keeps its mark.
  const int frames = 4, height = 16, width = 24, dim = 64;
  const int tokens = frames * height * width;
  std::vector<uint16_t> qkv(size_t(tokens) * 3 * dim);
  for (int token = 0; token < tokens; ++token) {
    for (int c = 0; c < 3 * dim; ++c) {
      qkv[size_t(token) * 3 * dim + c] = c < 2 * dim ? float_to_bf16(2.f) : static_cast<uint16_t>(token);
    }
  }
  const std::vector<uint16_t> weight(dim, float_to_bf16(1.f));
  const std::vector<double> cosine(size_t(tokens) * 32, 0.0), sine(size_t(tokens) * 32, 1.0);
  std::vector<uint16_t> q(size_t(tokens) * dim), k(q.size()), v(q.size()), q_mean(tokens / 128 * dim), k_mean(q_mean);
  std::vector<float> workspace(4);
  NormRopeWindowParams p;
  p.qkv = qkv.data();
  p.q_weight = p.k_weight = weight.data();
  p.cosine = cosine.data();
  p.sine = sine.data();
  p.q = q.data();
  p.k = k.data();
  p.v = v.data();
  p.q_mean = q_mean.data();
  p.k_mean = k_mean.data();
  p.workspace = workspace.data();
  p.frames = frames;
  p.height = height;
  p.width = width;
  p.dim = p.head_dim = dim;
  ASSERT_EQ(norm_rope_window_ref(p), 0);
  for (int t = 0; t < frames; ++t) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int window = (t / 2 * 2 + y / 8) * 3 + x / 8, place = (t % 2 * 8 + y % 8) * 8 + x % 8;
        ASSERT_EQ(v[(size_t(window) * 128 + place) * dim], (t * height + y) * width + x);
      }
    }
  }
  EXPECT_EQ(bf16_to_float(q[0]), -1.f);
  EXPECT_EQ(bf16_to_float(q[1]), 1.f);
  EXPECT_EQ(bf16_to_float(k_mean[2]), -1.f);
  EXPECT_EQ(bf16_to_float(q_mean[3]), 1.f);
  p.width = 20;
  EXPECT_EQ(check_norm_rope_window(p), 1);
}

}  // namespace
}  // namespace flashvsr
