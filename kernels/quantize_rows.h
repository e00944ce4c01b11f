// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rows of bf16 to 8 bits with a scale each, for the scaled products of precision=fp8:
//   v = x, or round(gelu_tanh(x));   scale = max|v| / 448 (1 for a row of zeros);   output = e4m3(v / scale)
//
//   x       [rows][dim]   bf16, dense
//   output  [rows][dim]   e4m3, round to nearest even, saturating
//   scale   [rows]        fp32
//
// Deterministic. Cost: memory bound, 3 * rows * dim bytes; a row stays in registers between maximum and rounding.
// Limits: dim a multiple of 8, at most 16384; pointers 16-byte aligned.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said. Thread-safety: safe.
// Tolerance against the twin: scale 1e-6 relative (with gelu one bf16 step), values within one step of e4m3.
#ifndef FLASHVSR_KERNELS_QUANTIZE_ROWS_H_
#define FLASHVSR_KERNELS_QUANTIZE_ROWS_H_

#include <cstdint>

namespace flashvsr {

struct QuantizeRowsParams {
  const uint16_t* x = nullptr;
  uint8_t* output = nullptr;
  float* scale = nullptr;
  int64_t rows = 0;
  int32_t dim = 0;
  bool gelu = false;
};

int launch_quantize_rows(const QuantizeRowsParams& params, void* stream);
int quantize_rows_ref(const QuantizeRowsParams& params);
int check_quantize_rows(const QuantizeRowsParams& params);

// e4m3 on the host: 1 sign, 4 exponent (bias 7), 3 fraction bits, no infinities, 448 the largest.
float e4m3_to_float(uint8_t bits);
uint8_t float_to_e4m3(float value);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_QUANTIZE_ROWS_H_
