// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Colours of the LQ frames onto the model's frames, frame by frame.
//
//   content  [1, 3, F, H, W]   decoder frames, not clamped
//   style    [1, 3, F, H, W]   LQ frames of the same instants, same dtype, in [-1,1]
//   result   [1, 3, F, H, W]   clamped to [-1,1]
//
// AdaIN: per frame and channel, (c - mean_c) / dev_c * dev_s + mean_s with
// dev = sqrt(var + 1e-5), population variance. Wavelet: five levels of a 3x3 blur with
// dilation 1, 2, 4, 8, 16 and replicated borders; high(content) + low(style).
//
// Callers pass visible pixels only. Statistics are per frame: chunking does not matter.
// Rounding: bf16 tensors round after each operation above; statistics accumulate in fp32.
// Tolerance against fixtures/color: fp32 2e-5; bf16 AdaIN 0.02 (mean 0.002), wavelet 0.06.
// Thread-safety: safe.
// Source: model.md 7.
#ifndef FLASHVSR_IMAGE_COLOR_FIX_H_
#define FLASHVSR_IMAGE_COLOR_FIX_H_

#include <ATen/core/Tensor.h>

namespace flashvsr {

enum class ColorFix { kNone, kAdain, kWavelet };

at::Tensor adain(const at::Tensor& content, const at::Tensor& style);
at::Tensor wavelet(const at::Tensor& content, const at::Tensor& style);

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_COLOR_FIX_H_
