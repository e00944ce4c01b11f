// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Between block_sparse_attention.cu and its two kernels; nobody else includes this.
//
// Workspace: one AttentionCounter, then one AttentionRow for each (head, query block) in the order
// the rows are to be taken: heads in groups whose keys and values fit in L2 together and whose rows
// fill the machine once, longest row first within a group. Greedy assignment then evens out: who
// got a long row of one group comes late to the next and gets a short one.
// Where a group fills the machine more than once (large pictures, whose head does not fit in L2),
// every second filling visits its keys backwards: it begins with the keys that the filling before
// it has just read, and its rows, which end together, meet at the other end.
#ifndef FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_LAUNCH_CUH_
#define FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_LAUNCH_CUH_

#include <cuda_runtime_api.h>

#include "kernels/block_sparse_attention.h"

namespace flashvsr {

struct AttentionCounter {
  int32_t taken;  // rows given out beyond the first one of each CTA
  int32_t padding[3];
};

struct AttentionRow {
  int32_t head;
  int32_t q_block;
  int32_t begin;   // first pair in `column`
  int32_t length;  // pairs; negative: visit them from the last to the first
};
static_assert(sizeof(AttentionCounter) == 16 && sizeof(AttentionRow) == 16, "one 16-byte load each");

cudaError_t launch_block_sparse_attention_sm80(const BlockSparseAttentionParams& params,
                                               cudaStream_t stream);
cudaError_t launch_block_sparse_attention_sm90(const BlockSparseAttentionParams& params,
                                               int multiprocessors, cudaStream_t stream);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_LAUNCH_CUH_
