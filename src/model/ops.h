// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one dispatch point where own kernels replace reference operations. Each
// function below calls the operator `flashvsr::<name>` through LibTorch's dispatcher:
// the reference (ATen, in ops.cpp, any device) is registered for every backend, the CUDA
// library overrides it for CUDA tensors when it is loaded; host tensors go to the kernels of
// ops_cpu.h where these take them. `reference::` is always there.
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
#include <vector>

#include "model/block_mask.h"

namespace flashvsr {

// One visit of the token grid, as operators need it.
struct TokenGrid {
  int64_t f = 0, h = 0, w = 0;
  int64_t tokens() const { return f * h * w; }
  BlockGrid blocks() const { return {h / 8, w / 8}; }
};

struct WindowedQkv {
  at::Tensor q, k, v;         // [M, 128, D] each, contiguous
  at::Tensor q_mean, k_mean;  // [M, D]: means over the 128 tokens, fp32 sums, rounded to the dtype
};

// Keys and values that a chunk attends to. Rings [capacity, L, 128, D] may be undefined.
struct AttentionKv {
  at::Tensor key_ring, value_ring;
  at::Tensor key_now, value_now;  // [new_slots * L, 128, D]
};

// The slots of `ring` [capacity, L, ...] and `now` [new_slots, L, ...] that `slot_map` names, in its
// order, as [slots * L, ...].
at::Tensor visible_slots(const at::Tensor& ring, const at::Tensor& now,
                         const std::vector<int32_t>& slot_map);

// Where keys and values shall be written, [windows, 128, D] each and dense; undefined: to new tensors.
struct KvPlace {
  at::Tensor key, value;
};

#define FLASHVSR_MODEL_OPS                                                                        \
  /* --- transformer -------------------------------------------------------------------------*/ \
  /* y = round(round(LN(x) * scale1) + shift), LN without affine, fp32 statistics.             */ \
  /*   x [S, D]   scale1 [D] = 1 + scale   shift [D]                                            */ \
  at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1,                   \
                                 const at::Tensor& shift, double eps);                            \
  /* y = LN(x) * weight + bias (norm3).                                                         */ \
  at::Tensor layer_norm_affine(const at::Tensor& x, const at::Tensor& weight,                     \
                               const at::Tensor& bias, double eps);                               \
  /* The sum s = x + round(gate * y) (x + y without gate) and its norm in one pass: {s, LN(s)     */ \
  /* modulated or, with `affine`, LN(s) * scale + shift}.                                       */ \
  std::tuple<at::Tensor, at::Tensor> residual_norm(const at::Tensor& x, const at::Tensor& y,      \
                                                   const at::Tensor& gate,                        \
                                                   const at::Tensor& scale,                       \
                                                   const at::Tensor& shift, double eps,           \
                                                   bool affine);                                  \
  /* residual_norm of x and of the product a W^T + b.   a [S, I]   weight [O, I]   bias [O]         */ \
  std::tuple<at::Tensor, at::Tensor> linear_residual_norm(                                        \
      const at::Tensor& a, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& x, \
      const at::Tensor& gate, const at::Tensor& scale, const at::Tensor& shift, double eps,       \
      bool affine);                                                                               \
  /* Rows to 8 bits: v = x or gelu_tanh(x); {e4m3(v / scale) [S, D], scale = max|v| / 448 [S]}.   */ \
  std::tuple<at::Tensor, at::Tensor> quantize_rows(const at::Tensor& x, bool gelu);               \
  /* x W^T + b of quantized rows and weights, bf16.   x [S, I], weight [O, I] e4m3; bias [O]      */ \
  /*   x_scale [S], weight_scale [O]                                                            */ \
  at::Tensor scaled_linear(const at::Tensor& x, const at::Tensor& x_scale,                        \
                           const at::Tensor& weight, const at::Tensor& weight_scale,              \
                           const at::Tensor& bias);                                               \
  /* residual_norm with quantized rows as its norm: {s, values, scale}; without y, s is x.       */ \
  std::tuple<at::Tensor, at::Tensor, at::Tensor> residual_norm8(                                  \
      const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate, const at::Tensor& scale,  \
      const at::Tensor& shift, double eps, bool affine);                                          \
  /* x + round(gate * y).   x, y [S, D]   gate [D]                                               */ \
  at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate);    \
  /* GELU (tanh form) of x W^T + b.   x [S, I]   weight [O, I]   bias [O]                         */ \
  at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);  \
  /* RMS norm of q and k over D, RoPE on both, window order and window means.                   */ \
  /*   qkv [S, 3D] (q, k, v side by side)   weights [D]   cos, sin [S, head_dim/2] double        */ \
  /*   The result's k and v are `place`'s tensors where it has them.                              */ \
  WindowedQkv norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight,                 \
                               const at::Tensor& k_weight, double eps, int64_t heads,             \
                               const TokenGrid& grid, const at::Tensor& cos,                      \
                               const at::Tensor& sin, const KvPlace& place);                      \
  /* norm_rope_window of the product that it reads: x W^T + b.   x [S, D]   weight [3D, D]         */ \
  WindowedQkv qkv_window(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,   \
                         const at::Tensor& q_weight, const at::Tensor& k_weight, double eps,      \
                         int64_t heads, const TokenGrid& grid, const at::Tensor& cos,             \
                         const at::Tensor& sin, const KvPlace& place);                            \
  /* RMS norm over D (cross-attention's query).                                                 */ \
  at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps);            \
  /* model/block_mask.h.   q_mean [Sq, D]   k_mean [Sk, D]. `column` may be longer than the      */ \
  /* last row's end; what lies behind is undefined.                                             */ \
  BlockPairs block_mask(const at::Tensor& q_mean, const at::Tensor& k_mean, int64_t heads,        \
                        const BlockGrid& grid, int64_t local_range, int64_t topk);                \
  /* softmax(q k^T / sqrt(head_dim)) v over the listed blocks; rows without blocks give 0.      */ \
  /*   q [Sq,128,D]   slot_map int32, on the device: KvCache::slot_map   result [S, D] in RASTER  */ \
  /*   order of `grid`; fp32 accumulation, probabilities rounded to the dtype before the        */ \
  /*   product with v (kernels/cpu: or not rounded at all)                                      */ \
  at::Tensor block_sparse_attention(const at::Tensor& q, const AttentionKv& kv,                   \
                                    const at::Tensor& slot_map, const BlockPairs& pairs,          \
                                    int64_t heads, const TokenGrid& grid);                        \
  /* softmax(q k^T / sqrt(head_dim)) v over the P tokens of the prompt.                          */ \
  /*   q [S, D]   key, value [P, D]   result [S, D]                                             */ \
  at::Tensor cross_attention(const at::Tensor& q, const at::Tensor& key, const at::Tensor& value, \
                             int64_t heads);                                                      \
  /* --- projector ---------------------------------------------------------------------------*/ \
  /* Frames as steps, the first one `missing` times more in front; channel (c*u + dy)*u + dx.      */ \
  /*   frames [1, 3, F, H, W]   result [1, 3*u*u, missing + F, H/u, W/u], channels last           */ \
  at::Tensor projector_input(const at::Tensor& frames, int64_t missing, int64_t unshuffle);       \
  /* Conv3d, kernel (4,3,3), stride (2,1,1), replicate padding of one in space, none in time, over */ \
  /* the P steps of past (undefined: none) and those of x.                                      */ \
  /*   x [1, C, T, h, w], past [1, C, P, h, w], channels last   weight [O, C, 4, 3, 3]            */ \
  /*   result [1, O, (P+T-2)/2, h, w] channels_last_3d; the weight may be on the host            */ \
  at::Tensor projector_conv(const at::Tensor& x, const at::Tensor& past, const at::Tensor& weight, \
                            const at::Tensor& bias);                                              \
  /* SiLU of model/layers.h channel_rms_norm.   x [1, C, T, h, w]   gamma [C, 1, 1, 1]            */ \
  at::Tensor channel_rms_norm_silu(const at::Tensor& x, const at::Tensor& gamma);                 \
  /* --- noise -------------------------------------------------------------------------------*/ \
  /* Fills out [C, f, H, W] fp32 with standard normal values: Philox4x32-10 of key `seed` and    */ \
  /* counter (first_frame + frame, channel, row, column), Box-Muller of the first two words in  */ \
  /* double.                                                                                    */ \
  void philox_noise(at::Tensor& out, uint64_t seed, int64_t first_frame);                         \
  /* --- TC decoder --------------------------------------------------------------------------*/ \
  /* What its first convolution reads: 3 tanh(v / 3) of frames, the first one `missing` times more */ \
  /* in front, packed as model/layers.h pack_condition does, and of the latents behind them.     */ \
  /*   frames [B, 3, F, H, W]   latents [B, L, f, H/u, W/u] or undefined: zeros                   */ \
  /*   result [B*f, 3*4*u*u + L, H/u, W/u] channels_last                                         */ \
  at::Tensor decoder_input(const at::Tensor& frames, const at::Tensor& latents,                   \
                           int64_t latent_channels, int64_t missing, int64_t unshuffle);          \
  /* Conv2d 3x3, zero padding 1, on `up` times nearest-enlarged x (up 1 or 2), or on the         */ \
  /* channel concatenation [x, past]; then + bias, + add, ReLU, each where given.               */ \
  /*   x [T, C, H, W] channels_last   past like x or undefined   weight [O, C or 2C, 3, 3]       */ \
  /*   bias [O] or undefined   add like the result or undefined   result [T, O, H*up, W*up]      */ \
  /*   feeds_memory: mem_conv will read the result, which then may have room for the step before  */ \
  at::Tensor conv3x3(const at::Tensor& x, const at::Tensor& past, const at::Tensor& weight,       \
                     const at::Tensor& bias, const at::Tensor& add, bool relu, int64_t up,        \
                     bool feeds_memory = false);                                                  \
  /* A MemBlock's first convolution: conv3x3 with ReLU of x and, as past, x one step earlier;     */ \
  /*   memory [1, C, H, W]: the step before the first, undefined: zeros                          */ \
  at::Tensor mem_conv(const at::Tensor& x, const at::Tensor& memory, const at::Tensor& weight,    \
                      const at::Tensor& bias);                                                    \
  /* TGrow: 1x1 convolution without bias; sub-step s takes the channels [C's, C'(s+1)).         */ \
  /*   x [T, C, H, W] channels_last   weight [g*C', C, 1, 1]   result [T*g, C', H, W]             */ \
  at::Tensor time_grow(const at::Tensor& x, const at::Tensor& weight, int64_t grow);

namespace ops {
// FLASHVSR_REFERENCE, or a guard in this thread: the reference is called directly, without the dispatcher.
bool wants_reference();
class ReferenceGuard {
 public:
  ReferenceGuard();
  ~ReferenceGuard();
  ReferenceGuard(const ReferenceGuard&) = delete;
  ReferenceGuard& operator=(const ReferenceGuard&) = delete;
};
// FLASHVSR_STRICT: what would fall back to something slower is an error.
bool is_strict();
FLASHVSR_MODEL_OPS
// conv3x3 of x plus `add`, in whose memory the result may come: for an addend that nobody reads any more.
at::Tensor conv3x3_onto(at::Tensor add, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool relu,
                        bool feeds_memory = false);
}  // namespace ops

namespace reference {
FLASHVSR_MODEL_OPS
}  // namespace reference

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_OPS_H_
