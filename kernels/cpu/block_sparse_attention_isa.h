// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The rows of block_sparse_attention_cpu.h, once for each instruction set: block_sparse_attention_isa.cpp
// is compiled with that set's flags and FLASHVSR_ISA=its namespace. Arguments were checked by the caller.
#ifndef FLASHVSR_KERNELS_CPU_BLOCK_SPARSE_ATTENTION_ISA_H_
#define FLASHVSR_KERNELS_CPU_BLOCK_SPARSE_ATTENTION_ISA_H_

#include <cstdint>

#include "kernels/block_sparse_attention.h"

#define FLASHVSR_DECLARE_ISA(isa)                                                                            \
  namespace isa {                                                                                            \
  void attention_rows(const BlockSparseAttentionParams& params, int64_t begin, int64_t end, void* workspace); \
  void attention_rows(const BlockSparseAttentionParamsF32& params, int64_t begin, int64_t end,               \
                      void* workspace);                                                                      \
  }

namespace flashvsr {

FLASHVSR_DECLARE_ISA(portable)
FLASHVSR_DECLARE_ISA(avx2)
FLASHVSR_DECLARE_ISA(avx512)
FLASHVSR_DECLARE_ISA(avx512bf16)

}  // namespace flashvsr

#undef FLASHVSR_DECLARE_ISA

#endif  // FLASHVSR_KERNELS_CPU_BLOCK_SPARSE_ATTENTION_ISA_H_
