// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/layer_norm_modulate.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/quantize_rows.h"

namespace flashvsr {

int check_layer_norm_modulate(const LayerNormModulateParams& p) {
  for (const void* pointer : {static_cast<const void*>(p.x), static_cast<const void*>(p.y),
                              static_cast<const void*>(p.gate), static_cast<const void*>(p.scale1),
                              static_cast<const void*>(p.shift), static_cast<const void*>(p.sum),
                              static_cast<const void*>(p.out)}) {
    if (reinterpret_cast<uintptr_t>(pointer) & 15) return 1;
  }
  if (!p.x || p.rows < 1 || p.dim < 8 || p.dim % 8 || p.dim > 3072 || (p.gate && !p.y)) return 1;
  const bool shifted = p.norm == RowNorm::kModulate || p.norm == RowNorm::kAffine;
  if (p.norm == RowNorm::kNone ? !p.sum || !p.y : !(p.out || p.out8) || !p.scale1) return 1;
  if (!p.out8 != !p.scale || (p.out8 && (p.out || !shifted || reinterpret_cast<uintptr_t>(p.out8) & 15))) return 1;
  if (shifted && !p.shift) return 1;
  if (!shifted && p.norm != RowNorm::kNone && (p.y || p.sum)) return 1;
  return 0;
}

int layer_norm_modulate_ref(const LayerNormModulateParams& p) {
  if (check_layer_norm_modulate(p)) return 1;
  std::vector<double> row(p.dim);
  const auto rounded = [](double value) { return double{round_to_bf16(value)}; };
  for (int64_t r = 0; r < p.rows; ++r) {
    double mean = 0, squares = 0;
    for (int c = 0; c < p.dim; ++c) {
      const int64_t at = r * p.dim + c;
      double value = bf16_to_float(p.x[at]);
      if (p.y) {
        double y = bf16_to_float(p.y[at]);
        if (p.gate) y = rounded(double{bf16_to_float(p.gate[c])} * y);
        value = rounded(value + y);
      }
      if (p.sum) p.sum[at] = float_to_bf16(static_cast<float>(value));
      row[c] = value;
      mean += value;
      squares += value * value;
    }
    if (p.norm == RowNorm::kNone) continue;
    mean /= p.dim;
    double variance = 0;
    for (const double value : row) variance += (value - mean) * (value - mean);
    const double inverse = 1.0 / std::sqrt(variance / p.dim + p.eps);
    const double rms = 1.0 / std::sqrt(squares / p.dim + p.eps);
    const double length = std::max(rounded(std::sqrt(squares)), 1e-12);
    const double root = rounded(std::sqrt(static_cast<double>(p.dim)));
    float top = 0.f;
    std::vector<float> result(p.dim);
    for (int c = 0; c < p.dim; ++c) {
      const double scale = bf16_to_float(p.scale1[c]);
      double value = 0;
      switch (p.norm) {
        case RowNorm::kModulate:
          value = rounded(rounded((row[c] - mean) * inverse) * scale) + double{bf16_to_float(p.shift[c])};
          break;
        case RowNorm::kAffine:
          value = (row[c] - mean) * inverse * scale + double{bf16_to_float(p.shift[c])};
          break;
        case RowNorm::kRms:
          value = rounded(row[c] * rms) * scale;
          break;
        case RowNorm::kChannelRms:
          value = rounded(rounded(rounded(row[c] / length) * root) * scale);
          value = value / (1.0 + std::exp(-value));
          break;
        case RowNorm::kNone:
          break;
      }
      result[c] = round_to_bf16(value);
      top = std::max(top, std::fabs(result[c]));
      if (p.out) p.out[r * p.dim + c] = float_to_bf16(result[c]);
    }
    if (p.out8) {
      p.scale[r] = top > 0.f ? top / 448.f : 1.f;
      for (int c = 0; c < p.dim; ++c) p.out8[r * p.dim + c] = float_to_e4m3(result[c] / p.scale[r]);
    }
  }
  return 0;
}

}  // namespace flashvsr
