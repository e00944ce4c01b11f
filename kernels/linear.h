// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A linear layer with what follows it, for the transformer's wide ones:
//   output[r][o] = act(sum over i of x[r][i] * weight[o][i] + bias[o]),   act: identity or GELU in its tanh form
//
//   x       [rows][in]    bf16, dense
//   weight  [out][in]     bf16, dense
//   bias    [out]         bf16
//   output  [rows][out]   bf16, dense; may not overlap an input
//
// With `windowed`, only the features before `split` go to output, [rows][split]. The others, for which nothing is left to
// do, go where attention reads them, in window order (block_sparse_attention.h) of the token grid [frames][height][width]:
//   windowed [rows / 128][128][out - split]   bf16, dense
//
// With `residual`, what was computed is added to it:
//   output[r][o] = round(residual[r][o] + round(gate[o] * round(x[r] * weight[o] + bias[o]))),   without gate its round is left out
//   residual [rows][out]   bf16, dense; may be `output`
//   gate     [out]         bf16
//
// Rounding: sums and act in fp32, output rounded once (with residual as written); tanh is the hardware's approximation
// (2^-11 absolute).
// Deterministic. Cost: 2 * rows * out * in flop.
// Limits: compute capability 9.0 only (else cudaErrorNoKernelImageForDevice: cuBLASLt is the other way); in a multiple of
// 64, out of 8 and below 2^24, rows < 2^31; pointers 16-byte aligned; split a multiple of 64, less than out; frames even, height and
// width multiples of 8, their product rows; residual neither with gelu nor with windowed.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said.
// Thread-safety: safe. Launches only: no synchronisation, no allocation.
// Tolerance against the twin: norm-relative 3e-3.
#ifndef FLASHVSR_KERNELS_LINEAR_H_
#define FLASHVSR_KERNELS_LINEAR_H_

#include <cstdint>

namespace flashvsr {

struct LinearParams {
  const uint16_t* x = nullptr;
  const uint16_t* weight = nullptr;
  const uint16_t* bias = nullptr;
  uint16_t* output = nullptr;
  int64_t rows = 0;
  int32_t in = 0;
  int32_t out = 0;
  bool gelu = false;

  const uint16_t* residual = nullptr;
  const uint16_t* gate = nullptr;

  uint16_t* windowed = nullptr;
  int32_t split = 0;  // this and what follows: with `windowed` only
  int32_t frames = 0;
  int32_t height = 0;
  int32_t width = 0;
};

int launch_linear(const LinearParams& params, void* stream);
// Whether launch_linear has a kernel for the current device.
bool has_linear_kernel();
// The share of what the current device computes for such a product that is wanted: tiles reach over its edges, and the last
// of their waves may not fill the device. 0 without a kernel. Few rows are better off with cuBLASLt's smaller tiles.
double linear_share(int64_t rows, int32_t out);
int linear_ref(const LinearParams& params);
int check_linear(const LinearParams& params);

// Features of `output`.
inline int32_t linear_columns(const LinearParams& params) { return params.windowed ? params.split : params.out; }

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_LINEAR_H_
