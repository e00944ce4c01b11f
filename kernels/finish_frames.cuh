// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the kernels behind FinishFramesParams share: where a row lies, its values in fp32, a value's level. `Value` is
// uint16_t for bf16, or float.
#ifndef FLASHVSR_KERNELS_FINISH_FRAMES_CUH_
#define FLASHVSR_KERNELS_FINISH_FRAMES_CUH_

#include <cuda_runtime.h>

#include "kernels/finish_frames.h"

namespace flashvsr::frames {

// plane = frame * 3 + channel
template <typename Value>
__device__ __forceinline__ const Value* row_of(const ModelFrames& m, int plane, int y) {
  return static_cast<const Value*>(m.data) + (plane % 3) * m.plane_stride + (plane / 3) * m.frame_stride + y * m.row_stride;
}

__device__ __forceinline__ float widened(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }
__device__ __forceinline__ float widened(float value) { return value; }

// NaN: -1
__device__ __forceinline__ float clamped(float value) {
  value = value > -1.f ? value : -1.f;
  return value < 1.f ? value : 1.f;
}

struct Levels {
  float max, half, offset;
  __device__ __forceinline__ explicit Levels(const FinishFramesParams& p)
      : max(float(p.max_value)), half(max / 2.f), offset(p.nearest ? .5f : 0.f) {}
  // NaN: 0
  __device__ __forceinline__ int of(float value) const {
    float exact = __fadd_rn(__fmul_rn(__fadd_rn(value, 1.f), half), offset);
    exact = exact > 0.f ? exact : 0.f;
    return int(exact < max ? exact : max);
  }
};

}  // namespace flashvsr::frames

#endif  // FLASHVSR_KERNELS_FINISH_FRAMES_CUH_
