// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures on the way into the model: one axis of the bicubic enlargement, and samples to model pixels.
//
// resize_axis: integer resampling along rows (vertical false) or columns:
//   out[x] = clip((2^(bits-1) + sum_k in[first[x] + k] * weights[x*taps + k]) >> bits, 0 .. max_value)
//
//   input    [planes][in_height][in_width]     8 or 16 bit samples, dense
//   output   [planes][out_height][out_width]   likewise; the other axis has the input's size
//   first    [n_out] int32    weights [n_out][taps] int32, 0 where a tap falls outside; reads beyond the axis are
//            cut to its last sample
// Sums are exact in int32 (the weights' absolute sum stays below 2^31 / max_value).
//
// normalize_samples: v = round_bf16(((s / max_value) * 2) - 1), three fp32 operations, each rounded; right and bottom
// filled by symmetric reflection, repeated where the picture is smaller than what is missing:
//
//   input    [frames][3][height][width]                samples, dense
//   output   [3][frames][padded_height][padded_width]  bf16, dense
//
// Deterministic, exact: equal to the twins. Cost: memory bound.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said. Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_RESIZE_SAMPLES_H_
#define FLASHVSR_KERNELS_RESIZE_SAMPLES_H_

#include <cstdint>

namespace flashvsr {

struct ResizeAxisParams {
  const void* input = nullptr;
  void* output = nullptr;
  const int32_t* first = nullptr;
  const int32_t* weights = nullptr;
  int64_t planes = 0;
  int32_t in_height = 0, in_width = 0, out_size = 0;
  int32_t taps = 0, bits = 0, max_value = 0;
  bool is_16_bit = false;
  bool vertical = false;
};

struct NormalizeSamplesParams {
  const void* input = nullptr;
  uint16_t* output = nullptr;
  int32_t frames = 0, height = 0, width = 0, padded_height = 0, padded_width = 0;
  int32_t max_value = 0;
  bool is_16_bit = false;
};

int launch_resize_axis(const ResizeAxisParams& params, void* stream);
int launch_normalize_samples(const NormalizeSamplesParams& params, void* stream);
int resize_axis_ref(const ResizeAxisParams& params);
int normalize_samples_ref(const NormalizeSamplesParams& params);
int check_resize_axis(const ResizeAxisParams& params);
int check_normalize_samples(const NormalizeSamplesParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_RESIZE_SAMPLES_H_
