// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From the fused query, key and value product to what attention reads, in one pass:
//   q, k = rope(round(round(x * rsqrt(mean(x^2) + eps)) * weight)), v as it is; all three in window order;
//   means of q and k over each window.
//
//   qkv              [frames*height*width][3*dim]   bf16, tokens in raster order, q, k, v side by side; without v
//                    (null, when linear has put it in its place) [frames*height*width][2*dim]
//   q_weight, k_weight   [dim]                       bf16; the norm runs over the whole dim, before heads split
//   cosine, sine     [tokens][head_dim/2]            double; pair p of a head is turned by angle p of its token
//   q, k, v          [windows][128][dim]             bf16; window (t/2, y/8, x/8), token (t%2, y%8, x%8)
//   q_mean, k_mean   [windows][dim]                  bf16, fp32 sums; null when not wanted
//   workspace        norm_rope_window_workspace_bytes(), contents irrelevant; null without means
//
// Rounding: as written, then one after the rotation (fp32 rotation: within the last bit of the double one).
// Deterministic: sums of a window are added in a fixed order. Cost: memory bound, 12 * tokens * dim bytes, 8 without v.
// Limits: dim a multiple of 8 up to 1536 (and of head_dim), head_dim 64 or 128; frames even, height and width
// multiples of 8; pointers 16-byte aligned.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said.
// Thread-safety: safe. Tolerance against the twin: norm-relative 2e-3.
#ifndef FLASHVSR_KERNELS_NORM_ROPE_WINDOW_H_
#define FLASHVSR_KERNELS_NORM_ROPE_WINDOW_H_

#include <cstddef>
#include <cstdint>

namespace flashvsr {

struct NormRopeWindowParams {
  const uint16_t* qkv = nullptr;
  const uint16_t* q_weight = nullptr;
  const uint16_t* k_weight = nullptr;
  const double* cosine = nullptr;
  const double* sine = nullptr;
  uint16_t* q = nullptr;
  uint16_t* k = nullptr;
  uint16_t* v = nullptr;
  uint16_t* q_mean = nullptr;
  uint16_t* k_mean = nullptr;
  void* workspace = nullptr;
  int32_t frames = 0, height = 0, width = 0;
  int32_t dim = 0, head_dim = 0;
  float eps = 0.f;
};

size_t norm_rope_window_workspace_bytes(const NormRopeWindowParams& params);
int launch_norm_rope_window(const NormRopeWindowParams& params, void* stream);
int norm_rope_window_ref(const NormRopeWindowParams& params);
int check_norm_rope_window(const NormRopeWindowParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_NORM_ROPE_WINDOW_H_
