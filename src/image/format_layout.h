// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What sets one pixel format apart from another, for those who convert: color_convert.cpp and the CUDA library.
//
// Thread-safety: safe.
#ifndef FLASHVSR_IMAGE_FORMAT_LAYOUT_H_
#define FLASHVSR_IMAGE_FORMAT_LAYOUT_H_

#include "image/frame.h"

namespace flashvsr {

// Byte offsets of the components of a packed format; alpha -1: none, x is the fourth byte.
struct Packing {
  int step, red, green, blue, alpha, filler;
};

inline Packing packing_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::kRgb: return {3, 0, 1, 2, -1, -1};
    case PixelFormat::kBgr: return {3, 2, 1, 0, -1, -1};
    case PixelFormat::kRgbx: return {4, 0, 1, 2, -1, 3};
    case PixelFormat::kBgrx: return {4, 2, 1, 0, -1, 3};
    case PixelFormat::kXrgb: return {4, 1, 2, 3, -1, 0};
    case PixelFormat::kXbgr: return {4, 3, 2, 1, -1, 0};
    case PixelFormat::kRgba: return {4, 0, 1, 2, 3, -1};
    case PixelFormat::kBgra: return {4, 2, 1, 0, 3, -1};
    case PixelFormat::kArgb: return {4, 1, 2, 3, 0, -1};
    case PixelFormat::kAbgr: return {4, 3, 2, 1, 0, -1};
    default: return {0, 0, 0, 0, -1, -1};
  }
}

// Cb and Cr side by side in one plane.
inline bool is_paired(PixelFormat format) { return format == PixelFormat::kNv12 || format == PixelFormat::kP010_10le; }
inline bool is_halved_across(PixelFormat format) { return format != PixelFormat::kY444; }
inline bool is_halved_down(PixelFormat format) {
  return format != PixelFormat::kY444 && format != PixelFormat::kY42b;
}

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_FORMAT_LAYOUT_H_
