// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/quantize_rows.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bf16.h"

namespace flashvsr {

float e4m3_to_float(uint8_t bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  float value;
  if (exponent == 15 && fraction == 7) {
    value = NAN;
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(fraction), -9);
  } else {
    value = std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  }
  return bits & 0x80 ? -value : value;
}

uint8_t float_to_e4m3(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (value != value) return sign | 0x7f;
  const float size = std::min(std::fabs(value), 448.f);
  int exponent;
  std::frexp(size, &exponent);  // size in [2^(exponent-1), 2^exponent)
  const int step = std::max(exponent - 1, -6) - 3;
  const float steps = std::nearbyint(std::ldexp(size, -step));  // ties to even
  const float rounded = std::ldexp(steps, step);
  if (rounded == 0.f) return sign;
  std::frexp(rounded, &exponent);
  if (exponent - 1 < -6) return sign | static_cast<uint8_t>(std::ldexp(rounded, 9));
  const int fraction = static_cast<int>(std::ldexp(rounded, 3 - (exponent - 1))) - 8;
  return sign | static_cast<uint8_t>((exponent - 1 + 7) << 3 | fraction);
}

int check_quantize_rows(const QuantizeRowsParams& p) {
  if (!p.x || !p.output || !p.scale || reinterpret_cast<uintptr_t>(p.x) & 15 || reinterpret_cast<uintptr_t>(p.output) & 15) {
    return 1;
  }
  return p.rows < 1 || p.dim < 8 || p.dim % 8 || p.dim > 16384;
}

int quantize_rows_ref(const QuantizeRowsParams& p) {
  if (check_quantize_rows(p)) return 1;
  std::vector<float> row(p.dim);
  for (int64_t r = 0; r < p.rows; ++r) {
    float top = 0.f;
    for (int c = 0; c < p.dim; ++c) {
      const double x = bf16_to_float(p.x[r * p.dim + c]);
      row[c] = static_cast<float>(x);
      if (p.gelu) row[c] = round_to_bf16(0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))));
      top = std::max(top, std::fabs(row[c]));
    }
    const float scale = top > 0.f ? top / 448.f : 1.f;
    p.scale[r] = scale;
    for (int c = 0; c < p.dim; ++c) p.output[r * p.dim + c] = float_to_e4m3(row[c] / scale);
  }
  return 0;
}

}  // namespace flashvsr
