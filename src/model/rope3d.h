// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rotary position embedding over (time, row, column):
//   (x[2p], x[2p+1]) -> complex product with exp(i * angle_p(t, y, x)).
//
//   x         [f*h*w, D] raster order (t*h + y)*w + x, any dtype; D = heads * head_dim
//   position  temporal position of the first latent frame; any value >= 0 (no table ends)
//   result    like x
//
// The head_dim d splits into d - 4*(d/6) channels for time and 2*(d/6) each for row and
// column: 44, 42, 42 of 128; 24, 20, 20 of 64. angle = pos * 10000^(-2p/axis_dim), p counted
// within its axis. Angles, cosines and the rotation are in double; the result is rounded once.
//
// Thread-safety: safe. Source: model.md 4.4 item 2.
#ifndef FLASHVSR_MODEL_ROPE3D_H_
#define FLASHVSR_MODEL_ROPE3D_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace flashvsr {

// Channels of {time, row, column}.
std::array<int64_t, 3> rope_axis_dims(int64_t head_dim);

// cos and sin of every token: [f*h*w, head_dim/2] in double on `device`. No host synchronisation.
std::pair<at::Tensor, at::Tensor> rope3d_table(int64_t head_dim, int64_t position, int64_t f,
                                               int64_t h, int64_t w, c10::Device device);

at::Tensor rope3d(const at::Tensor& x, int64_t heads, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_ROPE3D_H_
