// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Shapes that the convolution's tests share: every option, borders cut anywhere, channels that fill no tile.
#ifndef FLASHVSR_TESTS_KERNELS_CONV_CASES_H_
#define FLASHVSR_TESTS_KERNELS_CONV_CASES_H_

#include <cstdint>
#include <ostream>
#include <vector>

#include "kernels/conv_nhwc.h"

namespace flashvsr {

struct ConvCase {
  int in_channels, out_channels, frames, height, width;  // of the convolution's own grid
  int kernel_t, stride_t, kernel_xy, pad, upsample, grow;
  bool folded, relu, bias, residual;
  bool past = false;
};
inline std::ostream& operator<<(std::ostream& out, const ConvCase& c) {
  return out << c.in_channels << "->" << c.out_channels << ", " << c.frames << "x" << c.height << "x" << c.width
             << ", k " << c.kernel_t << "/" << c.stride_t << "/" << c.kernel_xy << " pad " << c.pad << " up "
             << c.upsample << " grow " << c.grow << (c.folded ? " folded" : "") << (c.relu ? " relu" : "")
             << (c.bias ? " bias" : "") << (c.residual ? " residual" : "")
             << (c.past ? " past" : "");
}

inline const std::vector<ConvCase>& conv_cases() {
  static const std::vector<ConvCase> cases = {
      {64, 128, 2, 16, 8, 1, 1, 3, 1, 1, 1, false, false, false, false},   // one tile
      {64, 128, 1, 5, 3, 1, 1, 3, 1, 1, 1, false, true, true, false},      // less than one
      {8, 8, 1, 1, 1, 1, 1, 3, 1, 1, 1, false, false, true, false},        // a single pixel
      {128, 256, 3, 21, 19, 1, 1, 3, 1, 1, 1, false, true, true, true},    // cut in all directions
      {80, 136, 2, 17, 9, 1, 1, 3, 1, 1, 1, false, false, true, false},    // channels that fill no tile
      {64, 128, 3, 18, 20, 2, 1, 3, 1, 1, 1, false, true, true, false},    // MemBlock: two steps
      {64, 136, 3, 18, 11, 2, 1, 3, 1, 1, 1, false, true, true, true, true},  // the same, past apart
      {64, 128, 2, 10, 11, 4, 2, 3, 0, 1, 1, false, false, true, false},   // projector: bordered, stride 2 in time
      {128, 128, 1, 9, 24, 4, 2, 3, 0, 1, 1, false, false, true, false},
      {64, 256, 3, 9, 17, 1, 1, 1, 0, 1, 2, false, false, false, false},   // TGrow 2
      {128, 128, 2, 20, 10, 1, 1, 1, 0, 1, 1, false, false, false, false}, // TGrow 1
      {64, 128, 2, 10, 9, 1, 1, 3, 1, 2, 1, false, true, false, false},    // enlarged, nine taps
      {64, 256, 3, 17, 9, 1, 1, 3, 1, 2, 1, true, true, true, true},       // enlarged, folded
      {192, 128, 1, 33, 7, 1, 1, 3, 1, 2, 1, true, false, false, false},
  };
  return cases;
}

// Strides and sizes of a case, with pitches wider than the rows; pointers are the caller's.
inline ConvNhwcParams conv_params(const ConvCase& c, bool wide_pitch, int64_t* in_elements, int64_t* out_elements) {
  ConvNhwcParams p;
  const int border = c.kernel_xy == 3 && c.pad == 0 ? 2 : 0;
  p.in_channels = c.in_channels;
  p.out_channels = c.out_channels;
  p.out_frames = c.frames;
  p.in_frames = (c.frames - 1) * c.stride_t + c.kernel_t;
  p.in_frames += p.in_frames % c.stride_t;
  if (c.past) p.in_frames = c.frames;
  p.in_height = c.height + border;
  p.in_width = c.width + border;
  p.kernel_t = c.kernel_t;
  p.stride_t = c.stride_t;
  p.kernel_xy = c.kernel_xy;
  p.pad = c.pad;
  p.upsample = c.upsample;
  p.grow = c.grow;
  p.folded = c.folded;
  p.relu = c.relu;
  p.in_stride_x = c.in_channels + (wide_pitch ? 8 : 0);
  p.in_stride_y = p.in_stride_x * p.in_width + (wide_pitch ? 24 : 0);
  p.in_stride_t = p.in_stride_y * p.in_height;
  const int sub_channels = c.out_channels / c.grow;
  p.out_stride_x = sub_channels + (wide_pitch && c.upsample == 1 ? 16 : 0);
  p.out_stride_y = p.out_stride_x * c.width * c.upsample + (wide_pitch ? 8 : 0);
  p.out_stride_t = p.out_stride_y * c.height * c.upsample;
  *in_elements = p.in_stride_t * p.in_frames;
  *out_elements = p.out_stride_t * c.frames * c.grow;
  return p;
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_KERNELS_CONV_CASES_H_
