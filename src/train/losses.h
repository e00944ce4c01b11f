// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What training minimises. Every function gives a differentiable fp32 scalar;
// clips are [B, 3, F, H, W] in [-1, 1].
//
// Thread-safety: safe (pure functions).
// Source: nano_recipe.md 6.
#ifndef FLASHVSR_TRAIN_LOSSES_H_
#define FLASHVSR_TRAIN_LOSSES_H_

#include <ATen/core/Tensor.h>

namespace flashvsr::train {

// mean (a - b)^2
at::Tensor mse(const at::Tensor& a, const at::Tensor& b);

// mean sqrt((a - b)^2 + eps^2). Its gradient at a zero residual is zero: a decoder whose last
// convolution starts at zero begins with mse.
at::Tensor charbonnier(const at::Tensor& a, const at::Tensor& b, double eps = 2e-3);

// Charbonnier of the differences of neighbouring frames: punishes flicker, not a constant error.
// Zero for a single frame.
at::Tensor temporal_difference(const at::Tensor& a, const at::Tensor& b, double eps = 2e-3);

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_LOSSES_H_
