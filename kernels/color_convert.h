// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Callers' pictures <-> planar samples R, G, B: image/color_convert.h on the device, the same integers, bit for bit.
//
//   planes   1 to 3 for each of up to 32 frames, any addresses and strides (bytes; even where samples have 16 bits);
//            bytes between rows are neither read nor written
//   samples  [frames][3][height][width]   8 or 16 bit, dense
//
// Alpha is ignored on the way in and opaque on the way out, like the filler byte.
//
// Deterministic, exact: equal to the twins and to the CPU's conversion. Any width and height.
// Cost: memory bound; 16 bytes at a time wherever an address allows it.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said. Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_COLOR_CONVERT_H_
#define FLASHVSR_KERNELS_COLOR_CONVERT_H_

#include <cstdint>

#include "kernels/color_coefficients.h"

namespace flashvsr {

enum class PlanesKind {
  kYuvPaired,  // Y; Cb and Cr side by side, halved both ways
  kYuvHalved,  // Y, Cb, Cr; chroma halved across and, with halved_down, down
  kYuvFull,    // Y, Cb, Cr of one size
  kGbr,        // G, B, R
  kGrey,
  kPacked,     // pixels of `step` bytes
};

constexpr int kMaxConvertFrames = 32;

struct ConvertPlanesParams {
  void* planes[kMaxConvertFrames][3] = {};
  int64_t strides[kMaxConvertFrames][3] = {};
  void* samples = nullptr;
  int32_t frames = 0, height = 0, width = 0;
  PlanesKind kind = PlanesKind::kGrey;
  bool is_16_bit = false;
  bool halved_down = false;
  int32_t shift = 0;                              // of samples within their 16 bits: 6 where they are the upper ones
  int32_t step = 0, red = 0, green = 0, blue = 0;  // kPacked: 3 or 4, byte of each component
  ToRgb to_rgb = {};                              // planes to samples
  uint8_t grey[256] = {};                         // kGrey, planes to samples: grey_levels()
  FromRgb from_rgb = {};                          // samples to planes
};

int launch_planes_to_samples(const ConvertPlanesParams& params, void* stream);
int launch_samples_to_planes(const ConvertPlanesParams& params, void* stream);
int planes_to_samples_ref(const ConvertPlanesParams& params);
int samples_to_planes_ref(const ConvertPlanesParams& params);
int check_convert_planes(const ConvertPlanesParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_COLOR_CONVERT_H_
