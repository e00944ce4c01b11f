// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One warp holds one row: lane l keeps the 16-byte pieces l, l+32, ... of it in registers as fp32.
// Device code shared by the row kernels.
#ifndef FLASHVSR_KERNELS_ROWS_CUH_
#define FLASHVSR_KERNELS_ROWS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace flashvsr::rows {

constexpr int kWarps = 8;

__device__ __forceinline__ float round_bf16(float value) { return __bfloat162float(__float2bfloat16_rn(value)); }

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

__device__ __forceinline__ void unpack(const uint4& piece, float (&values)[8]) {
  const uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(words[i] << 16);
    values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ __forceinline__ uint4 pack(const float (&values)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
    words[i] = reinterpret_cast<const uint32_t&>(pair);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}
__device__ __forceinline__ uint4 load(const uint16_t* pointer) { return *reinterpret_cast<const uint4*>(pointer); }
__device__ __forceinline__ void store(uint16_t* pointer, const uint4& piece) {
  *reinterpret_cast<uint4*>(pointer) = piece;
}

// Eight values times `factor` as e4m3, saturating.
__device__ __forceinline__ uint2 pack_e4m3(const float (&values)[8], float factor) {
  uint32_t words[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float* v = values + 4 * i;
    const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(v[0] * factor, v[1] * factor), __NV_SATFINITE, __NV_E4M3);
    const uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(v[2] * factor, v[3] * factor), __NV_SATFINITE, __NV_E4M3);
    words[i] = low | high << 16;
  }
  return make_uint2(words[0], words[1]);
}

}  // namespace flashvsr::rows

#endif  // FLASHVSR_KERNELS_ROWS_CUH_
