// SPDX-License-Identifier: LGPL-2.1-or-later
//
// kernels/block_sparse_attention.h on the CPU: the same parameters, shapes and meaning, all pointers host
// memory, elements bf16 or fp32. `workspace` and `kernel` of the parameters are not looked at.
//
// Rows are the unit of work: row r is head r / q_blocks, query block r % q_blocks. The caller splits
// [0, heads * q_blocks) over its threads, in any way; each row is written by itself, and its bits do not
// depend on the split. No threads, no allocation in here.
//
// Rounding: scores, sums and exponentials fp32 (2^x to 1 ulp), a running maximum per query. fp32: no other rounding,
// so results differ from the reference's by the order of sums. bf16: with kAvx512Bf16 probabilities are
// rounded to bf16 before the second product (after the sum), as ops.h says; the other instruction sets
// keep them in fp32. The output is rounded once. NaN and infinite scores give NaN, as in the reference.
// Tolerance against block_sparse_attention_ref: norm-relative error and |diff| / max|v| 2e-6 for fp32 with scores
// within 30, 2e-5 and 2e-4 with scores of hundreds (fp32 knows those to 1e-5); 4e-3 and 2e-2 for bf16.
// Cost: 4 * 128 * 128 * head_dim flop per listed pair (see kernels/README.md).
//
// Errors: 1 (cudaErrorInvalidValue's value) as check_block_sparse_attention, for rows outside, for an
// instruction set that does not run here, for a workspace that is null or not 64-byte aligned.
// Thread-safety: safe, with a workspace for each thread.
#ifndef FLASHVSR_KERNELS_CPU_BLOCK_SPARSE_ATTENTION_CPU_H_
#define FLASHVSR_KERNELS_CPU_BLOCK_SPARSE_ATTENTION_CPU_H_

#include <cstddef>
#include <cstdint>

#include "kernels/block_sparse_attention.h"
#include "kernels/cpu/cpu_isa.h"

namespace flashvsr {

constexpr size_t kCpuAttentionWorkspace = 280 * 1024;  // bytes, 64-byte aligned, contents irrelevant

int block_sparse_attention_cpu(const BlockSparseAttentionParams& params, CpuIsa isa, int64_t begin,
                               int64_t end, void* workspace);
int block_sparse_attention_cpu(const BlockSparseAttentionParamsF32& params, CpuIsa isa, int64_t begin,
                               int64_t end, void* workspace);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_CPU_BLOCK_SPARSE_ATTENTION_CPU_H_
