// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/linear.h"

#include <cmath>

#include "kernels/bf16.h"

namespace flashvsr {

int check_linear(const LinearParams& p) {
  const auto misaligned = [](const void* pointer) { return (reinterpret_cast<uintptr_t>(pointer) & 15) != 0; };
  if (!p.x || !p.weight || !p.bias || !p.output || misaligned(p.x) || misaligned(p.weight) || misaligned(p.bias) ||
      misaligned(p.output)) {
    return 1;
  }
  if (p.rows < 1 || p.rows >= int64_t{1} << 31 || p.in < 64 || p.in % 64 || p.out < 8 || p.out % 8 || p.out >= 1 << 24) return 1;
  if (misaligned(p.residual) || misaligned(p.gate) || (p.residual && (p.gelu || p.windowed)) || (p.gate && !p.residual)) return 1;
  return p.windowed && (misaligned(p.windowed) || p.split < 64 || p.split % 64 || p.split >= p.out || p.frames < 2 || p.frames % 2 ||
                        p.height < 8 || p.height % 8 || p.width < 8 || p.width % 8 ||
                        int64_t{p.frames} * p.height * p.width != p.rows);
}

// Where a token lies in window order.
static int64_t windowed_row(const LinearParams& p, int64_t token) {
  const int64_t x = token % p.width, y = token / p.width % p.height, t = token / p.width / p.height;
  const int64_t window = (t / 2 * (p.height / 8) + y / 8) * (p.width / 8) + x / 8;
  return window * 128 + t % 2 * 64 + y % 8 * 8 + x % 8;
}

int linear_ref(const LinearParams& p) {
  if (check_linear(p)) return 1;
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t o = 0; o < p.out; ++o) {
      double sum = bf16_to_float(p.bias[o]);
      for (int64_t i = 0; i < p.in; ++i) {
        sum += static_cast<double>(bf16_to_float(p.x[r * p.in + i])) * bf16_to_float(p.weight[o * p.in + i]);
      }
      if (p.gelu) sum = 0.5 * sum * (1 + std::tanh(0.7978845608028654 * (sum + 0.044715 * sum * sum * sum)));
      if (p.residual) {
        double y = round_to_bf16(sum);
        if (p.gate) y = round_to_bf16(bf16_to_float(p.gate[o]) * y);
        sum = bf16_to_float(p.residual[r * p.out + o]) + y;
      }
      const int64_t columns = linear_columns(p);
      uint16_t& to = o < columns ? p.output[r * columns + o] : p.windowed[windowed_row(p, r) * (p.out - columns) + o - columns];
      to = float_to_bf16(static_cast<float>(sum));
    }
  }
  return 0;
}

}  // namespace flashvsr
