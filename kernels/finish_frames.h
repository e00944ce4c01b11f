// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The model's frames -> samples: the visible part, colours of the LQ frames (AdaIN), clamping, quantisation.
//
//   frames   [3][F][Hp][Wp]       bf16 or fp32; strides of planes, frames and rows in elements, columns dense
//   style    likewise, or null    bf16; LQ frames of the same instants
//   samples  [F][3][height][width]  8 bits (max_value up to 255) or 16, dense
//
// With style, for each frame and channel over height x width, population variance:
//   v = clamp((x - mean_x) / dev_x * dev_s + mean_s, -1, 1), dev = sqrt(var + 1e-5)
// rounded to the frames' type after each of the four operations, like means, variances, their sum with 1e-5 and deviations.
//   sample = int(clamp((v + 1) * max_value / 2 [+ 0.5 with nearest], 0, max_value)), in fp32; NaN becomes 0
//
// Sums: fp32 of eight values (products of two bf16 are exact), then double, and of fp32 values double at once, in one
// order on every card: the same bits from run to run. Equal to the twin but where a statistic lies within 1e-7 of the middle
// of two bf16 values; with fp32 frames and style a level may be one off where a value lies that near to the next.
// Cost: memory bound; with style frames and style are read once more, for the statistics. 16 bytes at a time wherever
// an address allows it.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said. Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_FINISH_FRAMES_H_
#define FLASHVSR_KERNELS_FINISH_FRAMES_H_

#include <cstddef>
#include <cstdint>

namespace flashvsr {

struct ModelFrames {
  const void* data = nullptr;  // at multiples of its elements' size
  int64_t plane_stride = 0, frame_stride = 0, row_stride = 0;
  bool is_fp32 = false;  // else bf16
};

struct FinishFramesParams {
  ModelFrames input, style;   // style.data null: no AdaIN
  void* samples = nullptr;
  void* workspace = nullptr;  // finish_frames_workspace_bytes, 16-byte aligned; unused without style
  int32_t frames = 0, height = 0, width = 0;
  int32_t max_value = 0;
  bool nearest = false;
};

size_t finish_frames_workspace_bytes(int32_t frames);
int launch_finish_frames(const FinishFramesParams& params, void* stream);
int finish_frames_ref(const FinishFramesParams& params);
int check_finish_frames(const FinishFramesParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_FINISH_FRAMES_H_
