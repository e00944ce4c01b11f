// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Attention over 128-token blocks, visiting only the (query, key) block pairs that a CSR lists:
//   output = softmax(query key^T * softmax_scale, over the listed keys) value, for each head.
//
//   query          [q_blocks][128][heads * head_dim]               bf16, window order
//   key_ring       [ring_slots][windows][128][heads * head_dim]    bf16, cached slots
//   key_current    [current_slots][windows][128][heads * head_dim] bf16, slots of this chunk
//   value_ring, value_current                                      likewise
//   slot_map       [slots]                 int32, device: where logical slot s lies;
//                                          r >= 0 ring slot r, r < 0 current slot -1 - r
//   row_begin      [heads][q_blocks + 1]   int32, offsets into `column`; null: every row lists
//                                          column[0] .. column[shared_columns - 1]
//   column         [nnz]                   int32, logical key block = logical slot * windows + window
//   output         as query; or, with raster_output, [frames][height][width][heads * head_dim] tokens
//
// Row (h, q) lists column[row_begin[h][q]] .. column[row_begin[h][q + 1]), ascending, no duplicates.
// Heads need not follow one another in `column`: offsets are absolute and may leave gaps.
// Logical slots run oldest first, current last, so that the CSR does not move with the ring; slot_map
// and the CSR are read on the device, so one CUDA graph serves every steady chunk.
// Tokens of a block are one window of 2 frames x 8 rows x 8 columns (x fastest). raster_output undoes
// the window order on the way out: q_blocks = frames/2 * height/8 * width/8, window (t, y, x) first.
// A row may list nothing: its output is 0. `output` may not overlap any input. Batch is 1.
//
// Rounding: scores and sums fp32; one running reference per row, raised only when exp2 would leave its
// range; probabilities rounded to bf16 before the second
// product, output rounded once. Determinism: bit-equal from run to run, whichever SM takes a row.
// Cost: 4 * 128 * 128 * head_dim flop per pair. Workspace: block_sparse_attention_workspace_bytes,
// device memory, contents irrelevant before and after; one launch at a time may use it.
// Limits: head_dim 64 or 128; pointers 16-byte aligned; heads * q_blocks < 2^30.
//
// Errors: cudaErrorInvalidValue for sizes, nulls and alignment (contents are not looked at),
// cudaErrorNoKernelImageForDevice when the wanted kernel does not run here, or what the launch said.
// Thread-safety: safe. Launches only: no synchronisation, no allocation.
// Tolerance against block_sparse_attention_ref: norm-relative error 4e-3 and |diff| <= 2e-2 max|v|
// (measured: see kernels/README.md).
#ifndef FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_H_
#define FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_H_

#include <cstddef>
#include <cstdint>

namespace flashvsr {

constexpr int kAttentionBlock = 128;  // tokens of a block, queries and keys

enum class AttentionKernel : int32_t {
  kAuto = 0,  // kSm90 on compute capability 9.0, else kSm80
  kSm80 = 1,  // mma.sync, cp.async: 8.0 and later
  kSm90 = 2,  // wgmma, TMA: 9.0 only
};

// Element: uint16_t holds bf16; float is for the CPU kernel and the twin.
template <class Element>
struct BlockSparseAttentionParamsOf {
  const Element* query = nullptr;
  const Element* key_ring = nullptr;  // null when ring_slots is 0
  const Element* value_ring = nullptr;
  const Element* key_current = nullptr;  // null when current_slots is 0
  const Element* value_current = nullptr;
  const int32_t* slot_map = nullptr;
  const int32_t* row_begin = nullptr;
  const int32_t* column = nullptr;
  Element* output = nullptr;
  void* workspace = nullptr;

  int32_t heads = 0;
  int32_t head_dim = 0;
  int32_t q_blocks = 0;
  int32_t windows = 0;  // windows of a slot
  int32_t ring_slots = 0;
  int32_t current_slots = 0;
  int32_t slots = 0;  // logical slots: entries of slot_map
  int32_t shared_columns = 0;  // without row_begin only: at least 1, at most slots * windows
  float softmax_scale = 0.f;  // 1 / sqrt(head_dim) in the model

  bool raster_output = false;
  int32_t frames = 0;  // latent frames and token rows and columns, for raster_output only
  int32_t height = 0;
  int32_t width = 0;

  AttentionKernel kernel = AttentionKernel::kAuto;
};

// Part of `column` that a row lists.
struct AttentionRowSpan {
  int32_t begin, end;
};

template <class Element>
AttentionRowSpan attention_row(const BlockSparseAttentionParamsOf<Element>& params, int64_t head, int64_t q_block) {
  if (params.row_begin == nullptr) {
    return {0, params.shared_columns};
  }
  const int32_t* bounds = params.row_begin + head * (params.q_blocks + 1) + q_block;
  return {bounds[0], bounds[1]};
}

using BlockSparseAttentionParams = BlockSparseAttentionParamsOf<uint16_t>;
using BlockSparseAttentionParamsF32 = BlockSparseAttentionParamsOf<float>;

size_t block_sparse_attention_workspace_bytes(int32_t heads, int32_t q_blocks);

// Enqueues on `stream` (a cudaStream_t) of the current device. Returns a cudaError_t's value.
int launch_block_sparse_attention(const BlockSparseAttentionParams& params, void* stream);

// The kernel kAuto means on the current device, for logs and FLASHVSR_STRICT.
int choose_attention_kernel(AttentionKernel* kernel);

// Plain twin: all pointers are host memory, arithmetic in double, output rounded once.
// `workspace` and `kernel` are not looked at. Returns 0 or cudaErrorInvalidValue's value (1).
int block_sparse_attention_ref(const BlockSparseAttentionParams& params);
int block_sparse_attention_ref(const BlockSparseAttentionParamsF32& params);

// Shared by launchers and twins: 0 when sizes, nulls and alignment are as promised above, else 1.
int check_block_sparse_attention(const BlockSparseAttentionParams& params);
int check_block_sparse_attention(const BlockSparseAttentionParamsF32& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_BLOCK_SPARSE_ATTENTION_H_
