// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/layers.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

namespace flashvsr {

at::Tensor channel_rms_norm(const at::Tensor& x, const at::Tensor& gamma) {
  const at::Tensor norm = at::linalg_vector_norm(x, 2, {1}, /*keepdim=*/true);
  const double root = std::sqrt(static_cast<double>(x.size(1)));
  return x / norm.clamp_min(1e-12) * root * gamma;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor inverse = at::rsqrt(wide.pow(2).mean(-1, /*keepdim=*/true) + eps);
  return (wide * inverse).to(x.scalar_type()) * weight;
}

at::Tensor sinusoidal_embedding(double position, int64_t dim, c10::ScalarType dtype,
                                c10::Device device) {
  const int64_t half = dim / 2;
  at::Tensor values = at::empty({1, dim}, at::kDouble);
  double* out = values.data_ptr<double>();
  for (int64_t k = 0; k < half; ++k) {
    const double angle = position * std::pow(10000.0, -static_cast<double>(k) / half);
    out[k] = std::cos(angle);
    out[half + k] = std::sin(angle);
  }
  return values.to(dtype).to(device);
}

at::Tensor repeat_first(const at::Tensor& frames, int64_t missing) {
  return missing == 0 ? frames : at::cat({frames.narrow(2, 0, 1).expand({-1, -1, missing, -1, -1}), frames}, 2);
}

at::Tensor pack_condition(const at::Tensor& frames, int64_t u) {
  const int64_t batch = frames.size(0), f = frames.size(2) / 4, h = frames.size(3) / u, w = frames.size(4) / u;
  return frames.reshape({batch, 3, f, 4, h, u, w, u})
      .permute({0, 2, 1, 3, 5, 7, 4, 6})
      .reshape({batch * f, 3 * 4 * u * u, h, w});
}

at::Tensor to_device(const at::Tensor& host, c10::Device device) {
  if (device.is_cpu()) return host;
  // Pinned memory goes back to its cache when the copy is done.
  return host.pin_memory().to(device, host.scalar_type(), /*non_blocking=*/true);
}

void keep(at::Tensor& past, const at::Tensor& now) {
  if (past.defined() && past.sizes() == now.sizes() && !at::GradMode::is_enabled()) past.copy_(now);
  else past = now.clone();
}

}  // namespace flashvsr
