// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu/block_sparse_attention_cpu.h"

#include "kernels/cpu/isa.h"

namespace flashvsr {
namespace {

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue

template <class Element>
int run(const BlockSparseAttentionParamsOf<Element>& params, CpuIsa isa, int64_t begin, int64_t end,
        void* workspace) {
  if (const int status = check_block_sparse_attention(params)) {
    return status;
  }
  if (begin < 0 || begin > end || end > int64_t{params.heads} * params.q_blocks || !runs_here(isa) ||
      workspace == nullptr || (reinterpret_cast<uintptr_t>(workspace) & 63u) != 0) {
    return kInvalidValue;
  }
  switch (isa) {
#ifdef FLASHVSR_X86_ISAS
    case CpuIsa::kAvx512Bf16: avx512bf16::attention_rows(params, begin, end, workspace); break;
    case CpuIsa::kAvx512: avx512::attention_rows(params, begin, end, workspace); break;
    case CpuIsa::kAvx2: avx2::attention_rows(params, begin, end, workspace); break;
#endif
    default: portable::attention_rows(params, begin, end, workspace);
  }
  return 0;
}

}  // namespace

int block_sparse_attention_cpu(const BlockSparseAttentionParams& params, CpuIsa isa, int64_t begin,
                               int64_t end, void* workspace) {
  return run(params, isa, begin, end, workspace);
}

int block_sparse_attention_cpu(const BlockSparseAttentionParamsF32& params, CpuIsa isa, int64_t begin,
                               int64_t end, void* workspace) {
  return run(params, isa, begin, end, workspace);
}

}  // namespace flashvsr
