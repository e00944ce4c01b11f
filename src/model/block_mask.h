// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which (query, key) blocks meet: locality window + joint top-k of pooled scores.
//
//   q, k    [Sq, 128, D], [Sk, 128, D]   window order; Sq = q_slots * L, Sk = kv_slots * L,
//                                        oldest slot first; D = heads * head_dim
//   result  CSR per head: row_begin [heads, Sq + 1] int32, offsets into `column`;
//           column [>= nnz] int32, ascending within a row. A row may be empty.
//
// Per head: s = round(round(mean q . mean k) / sqrt(head_dim)), -inf outside the local
// window (query block (r, c) sees rows r-R/2 .. r-R/2+R-1 and the same columns of every
// slot); p = softmax of a row in fp32; per q slot the (k+1)-th largest of all L*Sk
// probabilities is the threshold, k = min(L*Sk - 1, topk); kept: p > threshold, so equal
// values at the threshold all go.
//
// Cost: a [heads, Sq, Sk] map of scores, one value per pair of BLOCKS.
// Thread-safety: safe. Source: model.md 4.5.
#ifndef FLASHVSR_MODEL_BLOCK_MASK_H_
#define FLASHVSR_MODEL_BLOCK_MASK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace flashvsr {

struct BlockGrid {
  int64_t rows = 0;     // windows down: nh
  int64_t columns = 0;  // windows across: nw
  int64_t windows() const { return rows * columns; }
};

struct BlockPairs {
  at::Tensor row_begin;  // [heads, Sq + 1] int32
  at::Tensor column;     // [>= nnz] int32
};

// Intermediate results, for tests.
struct BlockMaskTrace {
  at::Tensor scores;     // [heads, Sq, Sk] with -inf
  at::Tensor prob;       // [heads, Sq, Sk] fp32
  at::Tensor threshold;  // [heads, q_slots] fp32
};

// topk of the model: trunc(L*L * (((sparse_ratio*768)*1280) / (H*W))) - 1 for a model that
// keeps 60 blocks per query; in general blocks_per_query*128*128 replaces 768*1280. Doubles, in
// this order.
int64_t block_topk(const BlockGrid& grid, double sparse_ratio, int64_t blocks_per_query);

// [L, L] bool.
at::Tensor local_window_mask(const BlockGrid& grid, int64_t local_range, c10::Device device);

// [heads, Sq, Sk] bool from pooled vectors q_mean [Sq, D], k_mean [Sk, D] (their dtype decides
// the roundings).
at::Tensor block_mask_from_means(const at::Tensor& q_mean, const at::Tensor& k_mean, int64_t heads,
                                 const BlockGrid& grid, int64_t local_range, int64_t topk,
                                 BlockMaskTrace* trace = nullptr);

BlockPairs mask_to_pairs(const at::Tensor& mask);

// [heads, Sq, Sk] bool.
at::Tensor pairs_to_mask(const BlockPairs& pairs, int64_t key_blocks);

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_BLOCK_MASK_H_
