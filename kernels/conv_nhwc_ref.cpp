// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/conv_nhwc.h"

#include <cstddef>
#include <vector>

#include "kernels/bf16.h"

namespace flashvsr {

int64_t conv_weight_elements(const PackConvWeightsParams& p) {
  const int64_t out_tiles = (p.out_channels + kConvTileOut - 1) / kConvTileOut;
  const int64_t in_blocks = (p.in_channels + kConvTileIn - 1) / kConvTileIn;
  return (p.folded ? 4 : 1) * out_tiles * p.kernel_t * in_blocks * conv_taps(p.kernel_xy, p.folded) *
         kConvTileOut * kConvTileIn;
}

int check_conv_nhwc(const ConvNhwcParams& p) {
  const auto misaligned = [](const void* pointer) { return (reinterpret_cast<uintptr_t>(pointer) & 15) != 0; };
  if (!p.input || !p.weights || !p.output || misaligned(p.input) || misaligned(p.weights) || misaligned(p.output) ||
      misaligned(p.residual) || misaligned(p.past) || (reinterpret_cast<uintptr_t>(p.bias) & 3)) {
    return 1;
  }
  if (p.in_channels < 8 || p.in_channels % 8 || p.out_channels < 8 || p.out_channels % 8 || p.in_frames < 1 ||
      p.in_height < 1 || p.in_width < 1 || p.out_frames < 1 || p.in_channels > 1 << 16 || p.out_channels > 1 << 16) {
    return 1;
  }
  for (const int64_t stride : {p.in_stride_t, p.in_stride_y, p.in_stride_x, p.out_stride_t, p.out_stride_y,
                               p.out_stride_x}) {
    if (stride <= 0 || stride % 8) return 1;
  }
  if ((p.kernel_t != 1 && p.kernel_t != 2 && p.kernel_t != 4) || (p.stride_t != 1 && p.stride_t != 2)) return 1;
  if (p.past && (p.kernel_t != 2 || p.stride_t != 1)) return 1;
  if (p.in_frames < (p.out_frames - 1) * p.stride_t + (p.past ? 1 : p.kernel_t)) return 1;
  if (p.stride_t == 2 && p.in_frames % 2) return 1;
  if (!(p.kernel_xy == 3 && (p.pad == 0 || p.pad == 1)) && !(p.kernel_xy == 1 && p.pad == 0)) return 1;
  if (p.kernel_xy == 3 && p.pad == 0 && (p.in_height < 3 || p.in_width < 3)) return 1;
  if ((p.upsample != 1 && p.upsample != 2) || (p.grow != 1 && p.grow != 2)) return 1;
  if (p.upsample == 2 && (p.kernel_xy != 3 || p.pad != 1 || p.grow != 1)) return 1;
  if (p.folded && p.upsample != 2) return 1;
  if ((p.upsample == 2 || p.grow == 2) && p.out_channels % (p.grow * kConvTileOut)) return 1;
  return 0;
}

int pack_conv_weights_ref(const PackConvWeightsParams& p) {
  if (!p.source || !p.packed || (p.folded && p.kernel_xy != 3)) return 1;
  const int out_tiles = (p.out_channels + kConvTileOut - 1) / kConvTileOut;
  const int in_blocks = (p.in_channels + kConvTileIn - 1) / kConvTileIn;
  const int taps = conv_taps(p.kernel_xy, p.folded);
  uint16_t* tile = p.packed;
  for (int phase = 0; phase < (p.folded ? 4 : 1); ++phase) {
    for (int n = 0; n < out_tiles; ++n) {
      for (int dt = 0; dt < p.kernel_t; ++dt) {
        for (int block = 0; block < in_blocks; ++block) {
          for (int tap = 0; tap < taps; ++tap, tile += kConvTileOut * kConvTileIn) {
            for (int row = 0; row < kConvTileOut; ++row) {
              for (int column = 0; column < kConvTileIn; ++column) {
                const int o = n * kConvTileOut + row, c = block * kConvTileIn + column;
                uint16_t value = 0;
                if (o < p.out_channels && c < p.in_channels) {
                  const uint16_t* w = p.source + o * p.stride_o + c * p.stride_c + dt * p.stride_t;
                  if (!p.folded) {
                    value = w[tap * p.stride_xy];
                  } else {
                    // Phase (py, px), tap (a, b): the 3x3 taps that fall on the small pixel (py-1+a, px-1+b).
                    const int py = phase >> 1, px = phase & 1, a = tap >> 1, b = tap & 1;
                    const int dy_begin = py == 0 ? a : 2 * a, dy_end = py == 0 ? 1 + 2 * a : 2 + a;
                    const int dx_begin = px == 0 ? b : 2 * b, dx_end = px == 0 ? 1 + 2 * b : 2 + b;
                    float sum = 0.f;
                    for (int dy = dy_begin; dy < dy_end; ++dy) {
                      for (int dx = dx_begin; dx < dx_end; ++dx) sum += bf16_to_float(w[(dy * 3 + dx) * p.stride_xy]);
                    }
                    value = float_to_bf16(sum);
                  }
                }
                tile[conv_tile_place(row, column)] = value;
              }
            }
          }
        }
      }
    }
  }
  return 0;
}

int conv_nhwc_ref(const ConvNhwcParams& p) {
  if (check_conv_nhwc(p)) return 1;
  const int taps = conv_taps(p.kernel_xy, p.folded);
  const int out_tiles = (p.out_channels + kConvTileOut - 1) / kConvTileOut;
  const int in_blocks = (p.in_channels + kConvTileIn - 1) / kConvTileIn;
  const int border = p.kernel_xy == 3 && p.pad == 0 ? 1 : 0;
  const int height = (p.in_height - 2 * border) * p.upsample, width = (p.in_width - 2 * border) * p.upsample;
  const int sub_channels = p.out_channels / p.grow;
  const auto floor_half = [](int value) { return value >= 0 ? value / 2 : -((1 - value) / 2); };
  for (int t = 0; t < p.out_frames; ++t) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int phase = p.upsample == 2 ? (y & 1) * 2 + (x & 1) : 0;
        for (int o = 0; o < p.out_channels; ++o) {
          double sum = 0;
          for (int dt = 0; dt < p.kernel_t; ++dt) {
            for (int tap = 0; tap < taps; ++tap) {
              int in_y, in_x;
              if (p.folded) {
                in_y = y / 2 + (phase >> 1) - 1 + (tap >> 1);
                in_x = x / 2 + (phase & 1) - 1 + (tap & 1);
              } else {
                const int dy = p.kernel_xy == 3 ? tap / 3 - 1 : 0, dx = p.kernel_xy == 3 ? tap % 3 - 1 : 0;
                in_y = p.upsample == 2 ? floor_half(y + dy) : y + dy + border;
                in_x = p.upsample == 2 ? floor_half(x + dx) : x + dx + border;
              }
              if (in_y < 0 || in_x < 0 || in_y >= p.in_height || in_x >= p.in_width) continue;
              const uint16_t* source = p.past && dt == 0 ? p.past : p.input;
              const int step = p.past ? t : t * p.stride_t + dt;
              const uint16_t* pixel = source + step * p.in_stride_t + in_y * p.in_stride_y + in_x * p.in_stride_x;
              for (int c = 0; c < p.in_channels; ++c) {
                const int64_t tile =
                    ((((p.folded ? phase : 0) * int64_t{out_tiles} + o / kConvTileOut) * p.kernel_t + dt) * in_blocks +
                     c / kConvTileIn) * taps + tap;
                const uint16_t weight = p.weights[tile * kConvTileOut * kConvTileIn +
                                                  conv_tile_place(o % kConvTileOut, c % kConvTileIn)];
                sum += double{bf16_to_float(pixel[c])} * double{bf16_to_float(weight)};
              }
            }
          }
          if (p.bias) sum += p.bias[o];
          const int64_t place = (t * p.grow + o / sub_channels) * p.out_stride_t + y * p.out_stride_y +
                                x * p.out_stride_x + o % sub_channels;
          float value = round_to_bf16(sum);
          if (p.residual) value = round_to_bf16(double{value} + double{bf16_to_float(p.residual[place])});
          if (p.relu && !(value > 0.f)) value = value != value ? value : 0.f;
          p.output[place] = float_to_bf16(value);
        }
      }
    }
  }
  return 0;
}

}  // namespace flashvsr
