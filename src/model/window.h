// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Raster order <-> window order. A window is 2 latent frames x 8 rows x 8 columns = 128
// tokens, one attention block:
//   token (t, y, x) -> window ((t/2)*nh + y/8)*nw + x/8, place ((t%2)*8 + y%8)*8 + x%8.
//
//   raster   [f*h*w, D]        f even, h and w multiples of 8
//   windows  [f/2 * L, 128, D]  L = nh*nw
//
// Thread-safety: safe. Source: model.md 4.4 items 3, 7.
#ifndef FLASHVSR_MODEL_WINDOW_H_
#define FLASHVSR_MODEL_WINDOW_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace flashvsr {

constexpr int64_t kWindowTokens = 128;

at::Tensor window_partition(const at::Tensor& raster, int64_t f, int64_t h, int64_t w);
at::Tensor window_reverse(const at::Tensor& windows, int64_t f, int64_t h, int64_t w);

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_WINDOW_H_
