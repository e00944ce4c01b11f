// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which key blocks each query block attends to, from the means of both:
//   s = round(round(q_mean . k_mean) / sqrt(head_dim)), -inf outside the local window
//   p = softmax of a row of s, fp32
//   threshold = the (topk+1)-th largest of all p of one (head, query slot); kept: p > threshold
//
//   q_mean     [q_slots * L][dim]      bf16, L = rows * columns windows, dim = heads * head_dim
//   k_slots    k_slot_count pointers (host array) to [L][dim] bf16 each, oldest slot first; the current ones last
//   row_begin  [heads][q_slots*L + 1]  int32, offsets into `column`
//   column     [heads * q_slots*L * k_slot_count*L]  int32 key blocks, ascending within a row
//   workspace  block_mask_workspace_bytes(): 4 bytes for each query block and key block that lies in its window (heads *
//              q_slots * L * k_slots * min(R, rows) * min(R, columns)), and about 12 KB a (head, query slot)
//
// Query block (r, c) may see rows r - R/2 .. r - R/2 + R - 1 and the same of columns (R = local_range), in every
// slot. topk is cut to L * key blocks - 1. Entries equal to the threshold all go; a row may be empty. Head h begins at
// h * q_blocks * k_blocks: between heads are gaps that nobody reads.
//
// The threshold is exact: counts by the bits of the fp32 values, no sampling, no sorting.
// Deterministic. Cost: five small launches; at large sizes what they read, 4 times the workspace and the means once for
// each tile of 4 x 4 windows.
// Limits: head_dim a multiple of 8 up to 128; at most 16 key slots and 6144 key blocks;
// heads * query blocks * key blocks < 2^31.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said.
// Thread-safety: safe. Launches only.
// Tolerance against the twin: the same mask, but for entries whose p lies within 2e-6 (relative) of the threshold.
// Source: model.md 4.5.
#ifndef FLASHVSR_KERNELS_BLOCK_MASK_H_
#define FLASHVSR_KERNELS_BLOCK_MASK_H_

#include <cstddef>
#include <cstdint>

namespace flashvsr {

constexpr int kBlockMaskSlots = 16;

struct BlockMaskParams {
  const uint16_t* q_mean = nullptr;
  const uint16_t* k_mean[kBlockMaskSlots] = {};
  int32_t* row_begin = nullptr;
  int32_t* column = nullptr;
  void* workspace = nullptr;
  int32_t heads = 0, head_dim = 0;
  int32_t rows = 0, columns = 0;  // windows of a slot
  int32_t q_slots = 0, k_slots = 0;
  int32_t local_range = 0;
  int64_t topk = 0;
};

size_t block_mask_workspace_bytes(const BlockMaskParams& params);
int launch_block_mask(const BlockMaskParams& params, void* stream);

// `probability` [heads][q_blocks][k_blocks] fp32 and `threshold` [heads][q_slots] may be null.
int block_mask_ref(const BlockMaskParams& params, float* probability, float* threshold);
int check_block_mask(const BlockMaskParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_BLOCK_MASK_H_
