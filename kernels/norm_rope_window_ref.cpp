// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/norm_rope_window.h"

#include <cmath>
#include <vector>

#include "kernels/bf16.h"

namespace flashvsr {

int check_norm_rope_window(const NormRopeWindowParams& p) {
  for (const void* pointer : {static_cast<const void*>(p.qkv), static_cast<const void*>(p.q_weight),
                              static_cast<const void*>(p.k_weight), static_cast<const void*>(p.cosine),
                              static_cast<const void*>(p.sine), static_cast<const void*>(p.q),
                              static_cast<const void*>(p.k)}) {
    if (!pointer || reinterpret_cast<uintptr_t>(pointer) & 15) return 1;
  }
  if ((reinterpret_cast<uintptr_t>(p.v) | reinterpret_cast<uintptr_t>(p.q_mean) | reinterpret_cast<uintptr_t>(p.k_mean) |
       reinterpret_cast<uintptr_t>(p.workspace)) & 15) {
    return 1;
  }
  if (!p.q_mean != !p.k_mean || (p.q_mean && !p.workspace)) return 1;
  if (p.frames < 2 || p.frames % 2 || p.height < 8 || p.height % 8 || p.width < 8 || p.width % 8) return 1;
  if ((p.head_dim != 64 && p.head_dim != 128) || p.dim < p.head_dim || p.dim % p.head_dim || p.dim > 1536) return 1;
  return 0;
}

int norm_rope_window_ref(const NormRopeWindowParams& p) {
  if (check_norm_rope_window(p)) return 1;
  const int rows = p.height / 8, columns = p.width / 8, windows = p.frames / 2 * rows * columns;
  const auto rounded = [](double value) { return double{round_to_bf16(value)}; };
  std::vector<double> row(p.dim);
  for (int window = 0; window < windows; ++window) {
    std::vector<double> sums[2] = {std::vector<double>(p.dim), std::vector<double>(p.dim)};
    for (int i = 0; i < 128; ++i) {
      const int t = window / (rows * columns) * 2 + i / 64;
      const int y = window / columns % rows * 8 + i / 8 % 8, x = window % columns * 8 + i % 8;
      const int64_t token = (int64_t{t} * p.height + y) * p.width + x;
      const int parts = p.v ? 3 : 2;
      for (int part = 0; part < parts; ++part) {
        const uint16_t* in = p.qkv + token * parts * p.dim + part * p.dim;
        uint16_t* out = (part == 0 ? p.q : part == 1 ? p.k : p.v) + (int64_t{window} * 128 + i) * p.dim;
        if (part == 2) {
          for (int c = 0; c < p.dim; ++c) out[c] = in[c];
          continue;
        }
        const uint16_t* weight = part == 0 ? p.q_weight : p.k_weight;
        double squares = 0;
        for (int c = 0; c < p.dim; ++c) squares += double{bf16_to_float(in[c])} * bf16_to_float(in[c]);
        const double factor = 1.0 / std::sqrt(squares / p.dim + p.eps);
        for (int c = 0; c < p.dim; ++c) {
          row[c] = rounded(rounded(bf16_to_float(in[c]) * factor) * bf16_to_float(weight[c]));
        }
        for (int c = 0; c < p.dim; c += 2) {
          const int64_t angle = token * (p.head_dim / 2) + c % p.head_dim / 2;
          const double a = row[c], b = row[c + 1], cosine = p.cosine[angle], sine = p.sine[angle];
          out[c] = float_to_bf16(round_to_bf16(a * cosine - b * sine));
          out[c + 1] = float_to_bf16(round_to_bf16(a * sine + b * cosine));
          sums[part][c] += bf16_to_float(out[c]);
          sums[part][c + 1] += bf16_to_float(out[c + 1]);
        }
      }
    }
    if (!p.q_mean) continue;
    for (int c = 0; c < p.dim; ++c) {
      p.q_mean[int64_t{window} * p.dim + c] = float_to_bf16(round_to_bf16(sums[0][c] / 128));
      p.k_mean[int64_t{window} * p.dim + c] = float_to_bf16(round_to_bf16(sums[1][c] / 128));
    }
  }
  return 0;
}

}  // namespace flashvsr
