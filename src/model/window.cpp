// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/window.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace flashvsr {

at::Tensor window_partition(const at::Tensor& raster, int64_t f, int64_t h, int64_t w) {
  FLASHVSR_CHECK(f % 2 == 0 && h % 8 == 0 && w % 8 == 0 && raster.size(0) == f * h * w,
                 ErrorCode::kInternal, "window: ", raster.size(0), " tokens of a grid ", f, "x", h,
                 "x", w, ", expected multiples of 2x8x8");
  return raster.view({f / 2, 2, h / 8, 8, w / 8, 8, -1})
      .permute({0, 2, 4, 1, 3, 5, 6})
      .reshape({f / 2 * (h / 8) * (w / 8), kWindowTokens, raster.size(1)});
}

at::Tensor window_reverse(const at::Tensor& windows, int64_t f, int64_t h, int64_t w) {
  return windows.view({f / 2, h / 8, w / 8, 2, 8, 8, -1})
      .permute({0, 3, 1, 4, 2, 5, 6})
      .reshape({f * h * w, windows.size(2)});
}

}  // namespace flashvsr
