// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Operations of model/ops.h with own CPU kernels, for tensors that `takes` accepts: host memory, bf16 or fp32,
// no gradient asked for. ops.cpp asks and goes to the reference otherwise.
//
// Threads: LibTorch's. What a call needs beside its result is kept by each thread for the next call.
// Thread-safety: safe.
#ifndef FLASHVSR_MODEL_OPS_CPU_H_
#define FLASHVSR_MODEL_OPS_CPU_H_

#include "model/ops.h"

namespace flashvsr::cpu {

bool takes_attention(const at::Tensor& q, const AttentionKv& kv, int64_t heads);

// kernels/cpu/block_sparse_attention_cpu.h
at::Tensor block_sparse_attention(const at::Tensor& q, const AttentionKv& kv, const at::Tensor& slot_map,
                                  const BlockPairs& pairs, int64_t heads, const TokenGrid& grid);

}  // namespace flashvsr::cpu

#endif  // FLASHVSR_MODEL_OPS_CPU_H_
