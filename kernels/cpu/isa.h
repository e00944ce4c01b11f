// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The inner loops of kernels/cpu, once for each instruction set: the files *_isa.cpp are compiled with that
// set's flags and FLASHVSR_ISA=its namespace. Contracts stand in *_cpu.h; arguments were checked.
#ifndef FLASHVSR_KERNELS_CPU_ISA_H_
#define FLASHVSR_KERNELS_CPU_ISA_H_

#include <cstdint>

#include "kernels/block_sparse_attention.h"
#include "kernels/layer_norm_modulate.h"
#include "kernels/norm_rope_window.h"

#define FLASHVSR_DECLARE_ISA(isa)                                                                            \
  namespace isa {                                                                                            \
  void attention_rows(const BlockSparseAttentionParams& params, int64_t begin, int64_t end, void* workspace); \
  void attention_rows(const BlockSparseAttentionParamsF32& params, int64_t begin, int64_t end,               \
                      void* workspace);                                                                      \
  void layer_norm_rows(const LayerNormModulateParams& params, int64_t begin, int64_t end);                   \
  void norm_rope_windows(const NormRopeWindowParams& params, int64_t begin, int64_t end);                    \
  void gelu(uint16_t* values, int64_t begin, int64_t end);                                                   \
  }

namespace flashvsr {

FLASHVSR_DECLARE_ISA(portable)
FLASHVSR_DECLARE_ISA(avx2)
FLASHVSR_DECLARE_ISA(avx512)
FLASHVSR_DECLARE_ISA(avx512bf16)

}  // namespace flashvsr

#undef FLASHVSR_DECLARE_ISA

#endif  // FLASHVSR_KERNELS_CPU_ISA_H_
