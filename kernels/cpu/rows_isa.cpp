// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes.h"

namespace flashvsr {
namespace FLASHVSR_ISA {
namespace {

FLASHVSR_INLINE Vec load_bf16(const uint16_t* from) { return (Vec)load_floats(from); }

// 1 / sqrt(squares / dim + eps)
float inverse_root(float squares, int dim, float eps) { return 1.f / __builtin_sqrtf(squares / dim + eps); }

// row = x, or x + round(gate * y) rounded; kept in `sum` where wanted.
void make_sum(const LayerNormModulateParams& p, int64_t r, float* row) {
  const int64_t at = r * p.dim;
  for (int c = 0; c < p.dim; c += kLanes) {
    Vec value = load_bf16(p.x + at + c);
    if (p.y) {
      Vec y = load_bf16(p.y + at + c);
      if (p.gate) y = rounded_to_bf16(load_bf16(p.gate + c) * y);
      value = rounded_to_bf16(value + y);
    }
    if (p.sum) store_floats(p.sum + at + c, value);
    store(row + c, value);
  }
}

float sum_of(const float* row, int dim) {
  Vec sum = {};
  for (int c = 0; c < dim; c += kLanes) sum += load<Vec>(row + c);
  return sum_of_lanes(sum);
}

float squares_of(const float* row, int dim, float mean) {
  Vec sum = {};
  for (int c = 0; c < dim; c += kLanes) {
    const Vec value = load<Vec>(row + c) - mean;
    sum += value * value;
  }
  return sum_of_lanes(sum);
}

// Row of q or k to its place in window order, with its sum for the mean.
struct Rotation {
  const double* cosine;
  const double* sine;
  int dim, head_dim;
  float eps;

  void apply(const uint16_t* in, const uint16_t* weight, float* row, uint16_t* out, float* sum) const {
    for (int c = 0; c < dim; c += kLanes) store(row + c, load_bf16(in + c));
    const float factor = inverse_root(squares_of(row, dim, 0.f), dim, eps);
    for (int c = 0; c < dim; c += kLanes) {
      store(row + c, rounded_to_bf16(rounded_to_bf16(load<Vec>(row + c) * factor) * load_bf16(weight + c)));
    }
    for (int head = 0; head < dim; head += head_dim) {
      float* pair = row + head;
      for (int angle = 0; angle < head_dim / 2; ++angle) {
        const double a = pair[2 * angle], b = pair[2 * angle + 1];
        pair[2 * angle] = static_cast<float>(a * cosine[angle] - b * sine[angle]);
        pair[2 * angle + 1] = static_cast<float>(a * sine[angle] + b * cosine[angle]);
      }
    }
    for (int c = 0; c < dim; c += kLanes) {
      const Vec value = load<Vec>(row + c);
      store_floats(out + c, value);
      store(sum + c, load<Vec>(sum + c) + rounded_to_bf16(value));
    }
  }
};

}  // namespace

void layer_norm_rows(const LayerNormModulateParams& p, int64_t begin, int64_t end) {
  alignas(64) float row[3072];
  for (int64_t r = begin; r < end; ++r) {
    make_sum(p, r, row);
    if (p.norm == RowNorm::kNone) continue;
    const bool is_rms = p.norm == RowNorm::kRms;
    const float mean = is_rms ? 0.f : sum_of(row, p.dim) / p.dim;
    const float inverse = inverse_root(squares_of(row, p.dim, mean), p.dim, p.eps);
    for (int c = 0; c < p.dim; c += kLanes) {
      const Vec norm = (load<Vec>(row + c) - mean) * inverse, scale = load_bf16(p.scale1 + c);
      Vec value = p.norm == RowNorm::kAffine ? norm * scale : rounded_to_bf16(norm) * scale;
      if (p.norm == RowNorm::kModulate) value = rounded_to_bf16(value);
      if (!is_rms) value += load_bf16(p.shift + c);
      store_floats(p.out + r * p.dim + c, value);
    }
  }
}

void norm_rope_windows(const NormRopeWindowParams& p, int64_t begin, int64_t end) {
  alignas(64) float row[1536], q_sum[1536], k_sum[1536];
  const int64_t rows = p.height / 8, columns = p.width / 8;
  for (int64_t window = begin; window < end; ++window) {
    for (int c = 0; c < p.dim; ++c) q_sum[c] = k_sum[c] = 0.f;
    for (int i = 0; i < 128; ++i) {
      const int64_t t = window / (rows * columns) * 2 + i / 64;
      const int64_t y = window / columns % rows * 8 + i / 8 % 8, x = window % columns * 8 + i % 8;
      const int64_t token = (t * p.height + y) * p.width + x, at = (window * 128 + i) * p.dim;
      const int64_t angles = token * (p.head_dim / 2);
      const Rotation rotation{p.cosine + angles, p.sine + angles, p.dim, p.head_dim, p.eps};
      const uint16_t* in = p.qkv + token * 3 * p.dim;
      rotation.apply(in, p.q_weight, row, p.q + at, q_sum);
      rotation.apply(in + p.dim, p.k_weight, row, p.k + at, k_sum);
      __builtin_memcpy(p.v + at, in + 2 * p.dim, p.dim * sizeof *p.v);
    }
    if (!p.q_mean) continue;
    for (int c = 0; c < p.dim; c += kLanes) {
      store_floats(p.q_mean + window * p.dim + c, load<Vec>(q_sum + c) * (1.f / 128));
      store_floats(p.k_mean + window * p.dim + c, load<Vec>(k_sum + c) * (1.f / 128));
    }
  }
}

void gelu(uint16_t* values, int64_t begin, int64_t end) {
  // x / (1 + e^(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x (1 + tanh u) / 2.
  const float factor = -2.f * 0.7978845608f * 1.4426950409f;
  const Vec most = splat(126.f);
  for (int64_t i = begin; i < end; i += kLanes) {
    const Vec x = load_bf16(values + i);
    const Vec power = factor * (x + 0.044715f * x * x * x);
    const Vec y = x / (1.f + power_of_two(power > most ? most : power));
    store_floats(values + i, power > most ? -Vec{} : y);
  }
}

}  // namespace FLASHVSR_ISA
}  // namespace flashvsr
