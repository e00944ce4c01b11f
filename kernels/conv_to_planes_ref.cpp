// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/conv_to_planes.h"

#include "kernels/bf16.h"

namespace flashvsr {

int check_conv_to_planes(const ConvToPlanesParams& p) {
  if (!p.input || !p.weight || !p.output || reinterpret_cast<uintptr_t>(p.input) & 15) return 1;
  if (p.channels < 32 || p.channels % 32 || p.channels > 128 || p.frames < 1 || p.height < 1 || p.width < 1) return 1;
  if (p.stride_o < 0 || p.stride_c < 0 || p.stride_xy < 0) return 1;
  return 0;
}

int conv_to_planes_ref(const ConvToPlanesParams& p) {
  if (check_conv_to_planes(p)) return 1;
  for (int t = 0; t < p.frames; ++t) {
    for (int y = 0; y < p.height; ++y) {
      for (int x = 0; x < p.width; ++x) {
        for (int c = 0; c < 3; ++c) {
          double sum = p.bias ? p.bias[c] : 0;
          for (int tap = 0; tap < 9; ++tap) {
            const int in_y = y + tap / 3 - 1, in_x = x + tap % 3 - 1;
            if (in_y < 0 || in_x < 0 || in_y >= p.height || in_x >= p.width) continue;
            const uint16_t* pixel = p.input + ((int64_t{t} * p.height + in_y) * p.width + in_x) * p.channels;
            for (int i = 0; i < p.channels; ++i) {
              sum += double{bf16_to_float(pixel[i])} *
                     bf16_to_float(p.weight[c * p.stride_o + i * p.stride_c + tap * p.stride_xy]);
            }
          }
          p.output[c * p.plane_stride + t * p.frame_stride + int64_t{y} * p.width + x] =
              float_to_bf16(round_to_bf16(sum));
        }
      }
    }
  }
  return 0;
}

}  // namespace flashvsr
