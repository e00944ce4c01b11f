// SPDX-License-Identifier: LGPL-2.1-or-later
//
// HQ clips to LQ clips: the low-quality side that the student learns to undo.
//
//   hq      [B, 3, F, 4h, 4w]  fp32 in [-1, 1]
//   result  [B, 3, F, h, w]    values of 8-bit frames: (k / 127.5 - 1), k in 0 .. 255
//
// Most samples are reduced cleanly (antialiased bicubic, a = -0.5), many of them
// with chroma at half resolution as all video has it; the others get, each with its
// own probability and strength, Gaussian blur before, and noise and JPEG after the
// reduction. One sample keeps its parameters for all its frames.
//
// Thread-safety: safe (pure functions; random tensors come from the device's default
// generator, which the trainer seeds per iteration).
// Source: the degradation chain of RealBasicVSR in outline; numbers of nano_recipe.md 3.
#ifndef FLASHVSR_TRAIN_DEGRADATION_H_
#define FLASHVSR_TRAIN_DEGRADATION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "train/random.h"

namespace flashvsr::train {

struct DegradationOptions {
  double clean = 0.6;      // share of samples that are only reduced
  double chroma_half = 0.7;  // share of samples with 4:2:0 chroma
  double blur = 0.5, blur_low = 0.3, blur_high = 1.8;        // sigma, HQ pixels
  double noise = 0.5, noise_low = 0.5, noise_high = 6.0;     // sigma, of 255
  double jpeg = 0.5, jpeg_low = 50.0, jpeg_high = 95.0;      // quality
};

// Samples that have their LQ side already (`given`[i] defined, [3, F, h, w]) keep it.
at::Tensor degrade(const at::Tensor& hq, const DegradationOptions& options, Random& random,
                   const std::vector<at::Tensor>& given = {});

// The clean path: antialiased bicubic by 1/4, rounded to 8 bits.
at::Tensor reduce(const at::Tensor& hq);

// The enlargement that results are compared with and added to: [B, 3, F, 4h, 4w].
at::Tensor enlarge(const at::Tensor& lq);

// Parts, on planes [N, 3, h, w] in 0 .. 255. jpeg and halve_chroma work on any size.
at::Tensor gaussian_blur(const at::Tensor& planes, double sigma);
at::Tensor halve_chroma(const at::Tensor& rgb);
at::Tensor jpeg(const at::Tensor& rgb, double quality);

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_DEGRADATION_H_
