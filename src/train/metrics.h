// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How pictures are measured: on BT.601 limited-range luma of 8-bit RGB frames,
// 4 pixels cut at each side, mean of per-frame values.
//
//   frames   [F, H, W, 3] uint8, result first, truth second
//   luma     [F, 1, H, W] fp64, 16 .. 235
//
//   psnr_y           10 log10(255^2 / mse); identical frames count as 100 dB
//   ssim             11x11 Gaussian, sigma 1.5, K .01 / .03, valid region
//   gmsd             Prewitt gradients at half size, c = 170; 0 is perfect
//   temporal_error   mean |(out_t - out_t-1) - (ref_t - ref_t-1)|; 0 is perfect
//
// Thread-safety: safe (pure functions).
// Source: Wang et al. 2004 (SSIM); Xue et al. 2014 (GMSD).
#ifndef FLASHVSR_TRAIN_METRICS_H_
#define FLASHVSR_TRAIN_METRICS_H_

#include <ATen/core/Tensor.h>

namespace flashvsr::train {

struct Quality {
  double psnr_y = 0;
  double ssim = 0;
  double gmsd = 0;
  double temporal_error = 0;
};

// Luma with `border` pixels cut at each side.
at::Tensor luma(const at::Tensor& frames, int64_t border = 4);

double psnr_y(const at::Tensor& luma_a, const at::Tensor& luma_b);
double ssim(const at::Tensor& luma_a, const at::Tensor& luma_b);
double gmsd(const at::Tensor& luma_a, const at::Tensor& luma_b);
double temporal_error(const at::Tensor& luma_a, const at::Tensor& luma_b);

Quality measure(const at::Tensor& frames, const at::Tensor& truth);

// [1, 3, F, H, W] in [-1, 1] -> [F, H, W, 3] uint8, rounded and clamped.
at::Tensor to_eight_bit_frames(const at::Tensor& clip);

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_METRICS_H_
