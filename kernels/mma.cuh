// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One warp's product of 16 x 16 and 16 x 8 bf16, added to d in fp32, from compute capability 8.0. With g = lane / 4 and
// t = lane % 4: `a` holds row g (a0, a2) and row g + 8 (a1, a3), `b` column g, each at places 2t, 2t + 1 (a0, a1, b0) and
// 2t + 8, 2t + 9 (a2, a3, b1) of the sum; d holds columns 2t and 2t + 1 of row g, then of row g + 8.
#ifndef FLASHVSR_KERNELS_MMA_CUH_
#define FLASHVSR_KERNELS_MMA_CUH_

#include <cstdint>

namespace flashvsr {

#ifndef FLASHVSR_EMULATED
__device__ __forceinline__ void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#else
using emulator::mma_bf16;  // tests/kernels/emulator
#endif

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_MMA_CUH_
