// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Integer coefficients between Y'CbCr and R'G'B', for the CPU's conversion (src/image/color_convert) and the
// device's (kernels/color_convert.h): one place, so that both give the same bits.
//
//   matrix  H.273 code; 0, 2 and unknown ones are taken as BT.601      depth  8 or 10
//
// Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_COLOR_COEFFICIENTS_H_
#define FLASHVSR_KERNELS_COLOR_COEFFICIENTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace flashvsr {

constexpr int kColorBits = 16;   // of the coefficients after the point
constexpr int kChromaScale = 8;  // chroma samples times 8 while halved or doubled: linear filters without rounding
constexpr int kChromaBits = 3;

struct LumaWeights {
  double r, b;
};

inline LumaWeights luma_weights(int matrix) {
  switch (matrix) {
    case 1: return {0.2126, 0.0722};
    case 4: return {0.30, 0.11};
    case 7: return {0.212, 0.087};
    case 9: return {0.2627, 0.0593};
    default: return {0.299, 0.114};
  }
}

struct ColorRange {
  double luma_offset, luma_scale, chroma_offset, chroma_scale, max;
};

inline ColorRange color_range(bool full_range, int depth) {
  const double unit = depth > 8 ? 4.0 : 1.0;
  const double max = depth > 8 ? 1023.0 : 255.0;
  if (full_range) return {0.0, max, 128.0 * unit, max, max};
  return {16.0 * unit, 219.0 * unit, 128.0 * unit, 224.0 * unit, max};
}

inline int32_t fixed_color(double value) { return static_cast<int32_t>(std::lround(value * (1 << kColorBits))); }

struct ToRgb {
  int32_t luma, luma_offset, red_v, green_u, green_v, blue_u, chroma_offset, max;
};

inline ToRgb to_rgb_coefficients(int matrix, bool full_range, int depth) {
  const auto [kr, kb] = luma_weights(matrix);
  const double kg = 1.0 - kr - kb;
  const ColorRange range = color_range(full_range, depth);
  const double chroma = range.max / range.chroma_scale;
  ToRgb c;
  c.luma = fixed_color(range.max / range.luma_scale);
  c.luma_offset = static_cast<int32_t>(range.luma_offset);
  c.red_v = fixed_color(2.0 * (1.0 - kr) * chroma);
  c.blue_u = fixed_color(2.0 * (1.0 - kb) * chroma);
  c.green_u = fixed_color(-2.0 * (1.0 - kb) * kb / kg * chroma);
  c.green_v = fixed_color(-2.0 * (1.0 - kr) * kr / kg * chroma);
  c.chroma_offset = static_cast<int32_t>(range.chroma_offset) * kChromaScale;
  c.max = static_cast<int32_t>(range.max);
  return c;
}

struct FromRgb {
  int32_t y_r, y_g, y_b, u_r, u_g, u_b, v_r, v_g, v_b, luma_offset, chroma_offset, max;
};

inline FromRgb from_rgb_coefficients(int matrix, bool full_range, int depth) {
  const auto [kr, kb] = luma_weights(matrix);
  const ColorRange range = color_range(full_range, depth);
  const double luma = range.luma_scale / range.max;
  const double chroma = range.chroma_scale / range.max;
  FromRgb c;
  c.y_r = fixed_color(kr * luma);
  c.y_b = fixed_color(kb * luma);
  c.y_g = fixed_color(luma) - c.y_r - c.y_b;  // so that greys stay exact
  c.u_r = fixed_color(-0.5 * kr / (1.0 - kb) * chroma);
  c.u_b = fixed_color(0.5 * chroma);
  c.u_g = -c.u_r - c.u_b;
  c.v_r = fixed_color(0.5 * chroma);
  c.v_b = fixed_color(-0.5 * kb / (1.0 - kr) * chroma);
  c.v_g = -c.v_r - c.v_b;
  c.luma_offset = (static_cast<int32_t>(range.luma_offset) << kColorBits) + (1 << (kColorBits - 1));
  const int chroma_bits = kColorBits + kChromaBits;
  c.chroma_offset = (static_cast<int32_t>(range.chroma_offset) << chroma_bits) + (1 << (chroma_bits - 1));
  c.max = static_cast<int32_t>(range.max);
  return c;
}

// R = G = B of each level of 8-bit luma.
inline void grey_levels(bool full_range, uint8_t (&levels)[256]) {
  const ColorRange range = color_range(full_range, 8);
  for (int i = 0; i < 256; ++i) {
    const double grey = (i - range.luma_offset) * range.max / range.luma_scale;
    levels[i] = static_cast<uint8_t>(std::clamp(std::lround(grey), 0L, 255L));
  }
}

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_COLOR_COEFFICIENTS_H_
