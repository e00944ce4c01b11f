// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The row operations between the transformer's matrix products, in one pass over memory:
//   sum  = round(x + round(gate * y))            with y; without gate: round(x + y); without y: x
//   norm = (sum - mean(sum)) / sqrt(var(sum) + eps)                     fp32, over a row
//   out  = round(round(round(norm) * scale1) + shift)                   kModulate
//   out  = round(norm * scale1 + shift)                                 kAffine
//   out  = round(round(x * rsqrt(mean(x^2) + eps)) * scale1)            kRms (shift unused, no y)
//
//   x, y, sum, out   [rows][dim]   bf16, dense     y, sum, out null when not wanted; sum may be x
//   gate, scale1, shift   [dim]    bf16            scale1 = 1 + scale, rounded
//
// With `scale` the result, rounded as above, leaves as e4m3 in `out8` instead of `out`, scaled per row as
// kernels/quantize_rows.h does (kModulate and kAffine).
//
// kChannelRms is the projector's norm, on [rows][dim] channel-last:
//   out = silu(round(round(round(x / max(round(|x|), 1e-12)) * round(sqrt(dim))) * scale1))
//
// Rounding: as written, each round() to bf16; inner products of a row in fp32.
// Deterministic. Cost: memory bound, (inputs + outputs) * rows * dim * 2 bytes. Workspace: none.
// Limits: dim a multiple of 8, at most 3072; pointers 16-byte aligned.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said.
// Thread-safety: safe. Tolerance against the twin: equal but for sums in another order; norm-relative 2e-3.
#ifndef FLASHVSR_KERNELS_LAYER_NORM_MODULATE_H_
#define FLASHVSR_KERNELS_LAYER_NORM_MODULATE_H_

#include <cstdint>

namespace flashvsr {

enum class RowNorm : int32_t { kNone = 0, kModulate = 1, kAffine = 2, kRms = 3, kChannelRms = 4 };

struct LayerNormModulateParams {
  const uint16_t* x = nullptr;
  const uint16_t* y = nullptr;
  const uint16_t* gate = nullptr;
  const uint16_t* scale1 = nullptr;
  const uint16_t* shift = nullptr;
  uint16_t* sum = nullptr;
  uint16_t* out = nullptr;  // null with kNone and with out8
  uint8_t* out8 = nullptr;
  float* scale = nullptr;  // [rows]
  int64_t rows = 0;
  int32_t dim = 0;
  float eps = 0.f;
  RowNorm norm = RowNorm::kModulate;
};

int launch_layer_norm_modulate(const LayerNormModulateParams& params, void* stream);
int layer_norm_modulate_ref(const LayerNormModulateParams& params);
int check_layer_norm_modulate(const LayerNormModulateParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_LAYER_NORM_MODULATE_H_
