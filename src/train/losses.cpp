// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/losses.h"

#include <ATen/ATen.h>

namespace flashvsr::train {
namespace {

at::Tensor frame_steps(const at::Tensor& clip) {
  const int64_t frames = clip.size(2);
  return clip.narrow(2, 1, frames - 1) - clip.narrow(2, 0, frames - 1);
}

}  // namespace

at::Tensor mse(const at::Tensor& a, const at::Tensor& b) { return (a - b).square().mean(); }

at::Tensor charbonnier(const at::Tensor& a, const at::Tensor& b, double eps) {
  return ((a - b).square() + eps * eps).sqrt().mean();
}

at::Tensor temporal_difference(const at::Tensor& a, const at::Tensor& b, double eps) {
  if (a.size(2) < 2) return at::zeros({}, a.options());
  // The difference of the differences is the difference of neighbouring errors.
  return (frame_steps(a - b).square() + eps * eps).sqrt().mean();
}

}  // namespace flashvsr::train
