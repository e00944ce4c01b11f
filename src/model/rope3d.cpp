// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/rope3d.h"

#include <ATen/ATen.h>

#include <cmath>

#include "model/layers.h"

namespace flashvsr {
namespace {

// [count, axis_dim/2] angles of the positions first, first+1, ...
at::Tensor axis_angles(int64_t first, int64_t count, int64_t axis_dim) {
  at::Tensor angles = at::empty({count, axis_dim / 2}, at::kDouble);
  double* out = angles.data_ptr<double>();
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t p = 0; p < axis_dim / 2; ++p) {
      out[i * (axis_dim / 2) + p] = static_cast<double>(first + i) *
                                    std::pow(10000.0, -2.0 * static_cast<double>(p) / axis_dim);
    }
  }
  return angles;
}

}  // namespace

std::array<int64_t, 3> rope_axis_dims(int64_t head_dim) {
  const int64_t side = 2 * (head_dim / 6);
  return {head_dim - 2 * side, side, side};
}

std::pair<at::Tensor, at::Tensor> rope3d_table(int64_t head_dim, int64_t position, int64_t f,
                                               int64_t h, int64_t w, c10::Device device) {
  const auto dims = rope_axis_dims(head_dim);
  const at::Tensor time = to_device(axis_angles(position, f, dims[0]), device).view({f, 1, 1, -1}).expand({f, h, w, -1});
  const at::Tensor row = to_device(axis_angles(0, h, dims[1]), device).view({1, h, 1, -1}).expand({f, h, w, -1});
  const at::Tensor column = to_device(axis_angles(0, w, dims[2]), device).view({1, 1, w, -1}).expand({f, h, w, -1});
  const at::Tensor angles = at::cat({time, row, column}, 3).view({f * h * w, head_dim / 2});
  return {at::cos(angles), at::sin(angles)};
}

at::Tensor rope3d(const at::Tensor& x, int64_t heads, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor pairs =
      x.to(at::kDouble).view({x.size(0), heads, cos.size(1), 2});
  const at::Tensor even = pairs.select(3, 0), odd = pairs.select(3, 1);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  return at::stack({even * c - odd * s, even * s + odd * c}, 3).view(x.sizes()).to(x.scalar_type());
}

}  // namespace flashvsr
