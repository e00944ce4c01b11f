// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one dispatch point where own kernels replace reference operations. Each
// function below calls the operator `flashvsr::<name>` through LibTorch's dispatcher:
// the reference (ATen, in ops.cpp, any device) is registered for every backend, the CUDA
// library overrides it for CUDA tensors when it is loaded. `reference::` is always there.
//
// FLASHVSR_REFERENCE=1 in the environment always takes the reference.
// When a CUDA tensor meets no kernel of ours, that is logged once per operator at INFO;
// FLASHVSR_STRICT=1 makes it an error (ErrorCode::kInternal).
//
// Common shapes: S tokens in raster order, D = heads * head_dim, M = S/128 windows.
// Thread-safety: safe.
#ifndef FLASHVSR_MODEL_OPS_H_
#define FLASHVSR_MODEL_OPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>

#include "model/block_mask.h"

namespace flashvsr {

// One visit of the token grid, as operators need it.
struct TokenGrid {
  int64_t f = 0, h = 0, w = 0;
  int64_t tokens() const { return f * h * w; }
  BlockGrid blocks() const { return {h / 8, w / 8}; }
};

struct WindowedQkv {
  at::Tensor q, k, v;  // [M, 128, D] each, contiguous
};

#define FLASHVSR_MODEL_OPS                                                                        \
  /* y = round(round(LN(x) * scale1) + shift), LN without affine, fp32 statistics.             */ \
  /*   x [S, D]   scale1 [D] = 1 + scale   shift [D]                                            */ \
  at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1,                   \
                                 const at::Tensor& shift, double eps);                            \
  /* y = LN(x) * weight + bias (norm3).                                                         */ \
  at::Tensor layer_norm_affine(const at::Tensor& x, const at::Tensor& weight,                     \
                               const at::Tensor& bias, double eps);                               \
  /* x + round(gate * y).   x, y [S, D]   gate [D]                                               */ \
  at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate);    \
  /* RMS norm of q and k over D, RoPE on both, window order of all three.                       */ \
  /*   qkv [S, 3D] (q, k, v side by side)   weights [D]   cos, sin [S, head_dim/2] double        */ \
  WindowedQkv norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight,                 \
                               const at::Tensor& k_weight, double eps, int64_t heads,             \
                               const TokenGrid& grid, const at::Tensor& cos,                      \
                               const at::Tensor& sin);                                            \
  /* RMS norm over D (cross-attention's query).                                                 */ \
  at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps);            \
  /* model/block_mask.h on the means of q [Sq,128,D] and k [Sk,128,D].                           */ \
  BlockPairs block_mask(const at::Tensor& q, const at::Tensor& k, int64_t heads,                  \
                        const BlockGrid& grid, int64_t local_range, int64_t topk);                \
  /* softmax(q k^T / sqrt(head_dim)) v over the listed blocks; rows without blocks give 0.      */ \
  /*   q [Sq,128,D]   k, v [Sk,128,D]   result [Sq,128,D]; fp32 accumulation, probabilities      */ \
  /*   rounded to the dtype before the product with v                                            */ \
  at::Tensor block_sparse_attention(const at::Tensor& q, const at::Tensor& k,                     \
                                    const at::Tensor& v, const BlockPairs& pairs, int64_t heads);

namespace ops {
FLASHVSR_MODEL_OPS
}  // namespace ops

namespace reference {
FLASHVSR_MODEL_OPS
}  // namespace reference

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_OPS_H_
