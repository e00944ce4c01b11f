// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Small layers that several modules share, rounding as the reference rounds: every
// line is one operation in the tensor's dtype unless it says fp32.
//
// Thread-safety: safe (pure functions).
// Source: model.md 3 item 3, 4.1, 4.4 item 1, 6.2.
#ifndef FLASHVSR_MODEL_LAYERS_H_
#define FLASHVSR_MODEL_LAYERS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace flashvsr {

// y = x / max(|x|_2 over channels, 1e-12) * sqrt(C) * gamma.
//   x      [B, C, ...]      gamma  [C, 1, ...] (one dimension fewer than x)
at::Tensor channel_rms_norm(const at::Tensor& x, const at::Tensor& gamma);

// y = round(x * rsqrt(mean(x^2) + eps)) * weight over the last dimension, inner part in fp32.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// [cos(angle_0..), sin(angle_0..)] with angle_k = position * 10000^(-k/(dim/2)), in double,
// as [1, dim] of `dtype`.
at::Tensor sinusoidal_embedding(double position, int64_t dim, c10::ScalarType dtype,
                                c10::Device device);

// The first of frames [B, C, F, H, W] `missing` times more in front.
at::Tensor repeat_first(const at::Tensor& frames, int64_t missing);

// Groups of 4 frames [B, 3, 4f, H, W] packed to channels ((c*4 + t)*u + dy)*u + dx: [B*f, 3*4*u*u, H/u, W/u].
at::Tensor pack_condition(const at::Tensor& frames, int64_t unshuffle);

// Copies a small host tensor to `device` in the order of its stream, without waiting for it.
at::Tensor to_device(const at::Tensor& host, c10::Device device);

// Makes `past` a copy of `now`: in its own memory where that has the shape and nobody wants a gradient.
void keep(at::Tensor& past, const at::Tensor& now);

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_LAYERS_H_
