// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/metrics.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <vector>

#include "base/error.h"

namespace flashvsr::train {
namespace {

void check_pair(const at::Tensor& a, const at::Tensor& b) {
  FLASHVSR_CHECK(a.sizes() == b.sizes() && a.size(0) > 0, ErrorCode::kInvalidArgument,
                 "metrics: ", a.sizes(), " against ", b.sizes());
}

using Taps = std::vector<double>;

// Correlation along one axis, valid region: shifted sums are several times faster than a convolution in fp64.
at::Tensor along(const at::Tensor& x, const Taps& taps, int64_t axis) {
  const int64_t length = x.size(axis) - static_cast<int64_t>(taps.size()) + 1;
  at::Tensor sum = x.narrow(axis, 0, length) * taps[0];
  for (size_t i = 1; i < taps.size(); ++i) {
    if (taps[i] != 0) sum.add_(x.narrow(axis, static_cast<int64_t>(i), length), taps[i]);
  }
  return sum;
}

at::Tensor separable(const at::Tensor& x, const Taps& down, const Taps& across) {
  return along(along(x, down, 2), across, 3);
}

// Prewitt gradient magnitude with zero padding, each kernel divided by 3.
at::Tensor prewitt(const at::Tensor& x) {
  const Taps flat = {1, 1, 1}, edge = {1.0 / 3, 0, -1.0 / 3};
  const at::Tensor padded = at::constant_pad_nd(x, {1, 1, 1, 1}, 0);
  return (separable(padded, flat, edge).square() + separable(padded, edge, flat).square()).sqrt();
}

}  // namespace

at::Tensor luma(const at::Tensor& frames, int64_t border) {
  const int64_t h = frames.size(1) - 2 * border, w = frames.size(2) - 2 * border;
  const at::Tensor rgb = frames.narrow(1, border, h).narrow(2, border, w).to(at::kDouble) / 255.0;
  const at::Tensor y = rgb.select(3, 0) * 65.481 + rgb.select(3, 1) * 128.553 + rgb.select(3, 2) * 24.966;
  return (y + 16.0).unsqueeze(1);
}

double psnr_y(const at::Tensor& a, const at::Tensor& b) {
  check_pair(a, b);
  const at::Tensor error = (a - b).square().mean(at::IntArrayRef{1, 2, 3});
  const at::Tensor per_frame = at::log10(255.0 * 255.0 / error) * 10.0;
  return per_frame.clamp_max(100.0).mean().item<double>();
}

double ssim(const at::Tensor& a, const at::Tensor& b) {
  check_pair(a, b);
  Taps g(11);
  double sum = 0;
  for (int i = 0; i < 11; ++i) sum += g[i] = std::exp(-(i - 5) * (i - 5) / (2 * 1.5 * 1.5));
  for (double& tap : g) tap /= sum;
  const double c1 = 0.01 * 0.01 * 255 * 255, c2 = 0.03 * 0.03 * 255 * 255;
  const at::Tensor mean_a = separable(a, g, g), mean_b = separable(b, g, g);
  const at::Tensor var_a = separable(a * a, g, g) - mean_a * mean_a;
  const at::Tensor var_b = separable(b * b, g, g) - mean_b * mean_b;
  const at::Tensor cov = separable(a * b, g, g) - mean_a * mean_b;
  const at::Tensor map = ((mean_a * mean_b * 2 + c1) * (cov * 2 + c2)) /
                         ((mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2));
  return map.mean().item<double>();
}

double gmsd(const at::Tensor& a, const at::Tensor& b) {
  check_pair(a, b);
  const at::Tensor ga = prewitt(at::avg_pool2d(a, {2, 2}, {2, 2})), gb = prewitt(at::avg_pool2d(b, {2, 2}, {2, 2}));
  const at::Tensor similarity = (ga * gb * 2 + 170.0) / (ga.square() + gb.square() + 170.0);
  return similarity.flatten(1).std(1, /*unbiased=*/true).mean().item<double>();
}

double temporal_error(const at::Tensor& a, const at::Tensor& b) {
  check_pair(a, b);
  if (a.size(0) < 2) return 0;
  const at::Tensor error = a - b;
  return (error.narrow(0, 1, error.size(0) - 1) - error.narrow(0, 0, error.size(0) - 1)).abs().mean().item<double>();
}

Quality measure(const at::Tensor& frames, const at::Tensor& truth) {
  const c10::NoGradGuard no_grad;
  check_pair(frames, truth);
  const int64_t count = frames.size(0);
  // Frame by frame, so that memory does not grow with the clip.
  Quality sum;
  at::Tensor past_a, past_b;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor a = luma(frames.narrow(0, i, 1)), b = luma(truth.narrow(0, i, 1));
    sum.psnr_y += psnr_y(a, b);
    sum.ssim += ssim(a, b);
    sum.gmsd += gmsd(a, b);
    if (i > 0) sum.temporal_error += temporal_error(at::cat({past_a, a}), at::cat({past_b, b}));
    past_a = a;
    past_b = b;
  }
  const double n = static_cast<double>(count);
  return {sum.psnr_y / n, sum.ssim / n, sum.gmsd / n, count > 1 ? sum.temporal_error / (n - 1) : 0};
}

at::Tensor to_eight_bit_frames(const at::Tensor& clip) {
  return ((clip.select(0, 0).to(at::kFloat) + 1) * 127.5).round().clamp(0, 255).to(at::kByte).permute({1, 2, 3, 0}).contiguous();
}

}  // namespace flashvsr::train
