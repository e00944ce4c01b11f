// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the plain twins behind FinishFramesParams share.
#ifndef FLASHVSR_KERNELS_FINISH_FRAMES_INTERNAL_H_
#define FLASHVSR_KERNELS_FINISH_FRAMES_INTERNAL_H_

#include "kernels/bf16.h"
#include "kernels/finish_frames.h"

namespace flashvsr {

inline float frame_value(const ModelFrames& m, int64_t channel, int64_t frame, int64_t y, int64_t x) {
  const int64_t at = channel * m.plane_stride + frame * m.frame_stride + y * m.row_stride + x;
  return m.is_fp32 ? static_cast<const float*>(m.data)[at] : bf16_to_float(static_cast<const uint16_t*>(m.data)[at]);
}

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_FINISH_FRAMES_INTERNAL_H_
