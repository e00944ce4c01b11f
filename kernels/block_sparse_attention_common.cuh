// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the two attention kernels share: the last steps of softmax and the way out.
#ifndef FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_COMMON_CUH_
#define FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_COMMON_CUH_

#include <cstdint>

#include "kernels/block_sparse_attention.h"

namespace flashvsr {

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// Row of the output, in tokens, of position p of query block q_block; height 0 means window order.
__device__ __forceinline__ int64_t output_token(int q_block, int p, int height, int width) {
  if (height == 0) {
    return static_cast<int64_t>(q_block) * kAttentionBlock + p;
  }
  const int across = width / 8;
  const int per_slot = height / 8 * across;
  const int slot = q_block / per_slot;
  const int window = q_block - slot * per_slot;
  const int row = window / across;
  const int t = slot * 2 + p / 64;
  const int y = row * 8 + p / 8 % 8;
  const int x = (window - row * across) * 8 + p % 8;
  return (static_cast<int64_t>(t) * height + y) * width + x;
}

// Four lanes hold 4 bytes each of four 16-byte groups; afterwards lane i of the four holds group i.
__device__ __forceinline__ uint4 transpose_quad(uint32_t v0, uint32_t v1, uint32_t v2, uint32_t v3,
                                                int lane) {
  const bool odd = lane & 1;
  const uint32_t r0 = __shfl_xor_sync(~0u, odd ? v0 : v1, 1);
  const uint32_t r1 = __shfl_xor_sync(~0u, odd ? v2 : v3, 1);
  (odd ? v0 : v1) = r0;
  (odd ? v2 : v3) = r1;
  const bool second = lane & 2;
  const uint32_t r2 = __shfl_xor_sync(~0u, second ? v0 : v2, 2);
  const uint32_t r3 = __shfl_xor_sync(~0u, second ? v1 : v3, 2);
  (second ? v0 : v2) = r2;
  (second ? v1 : v3) = r3;
  return make_uint4(v0, v1, v2, v3);
}

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_COMMON_CUH_
