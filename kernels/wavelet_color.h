// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The model's frames -> samples: the visible part, low frequencies of the LQ frames (wavelet), clamping, quantisation.
//
//   frames, style, samples   those of kernels/finish_frames.h; style is needed, also with fp32 frames, the workspace is not
//
// For each frame and channel over height x width, B_r the blur with (1,2,1)(1,2,1)/16 of dilation r and replicated borders:
//   v = clamp(x + low(s - x), -1, 1), low = B_16(B_8(B_4(B_2(B_1(.)))))
// which is the high frequencies of x with the low ones of s, since the blurs are linear and their details telescope.
//   sample = int(clamp((v + 1) * max_value / 2 [+ 0.5 with nearest], 0, max_value)), in fp32; NaN becomes 0
//
// Everything in fp32, nothing rounded between the blurs: v within 1e-6 * (1 + max |x|, |s|) of the twin's; the same bits
// from run to run. What is not finite makes the samples within 31 rows and columns of it meaningless, no others.
// Cost: frames and style are read once, samples written once, plus what neighbouring blocks read of each other's: 64
// columns of 256 and 62 rows of 257. Nothing is kept in device memory.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said. Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_WAVELET_COLOR_H_
#define FLASHVSR_KERNELS_WAVELET_COLOR_H_

#include "kernels/finish_frames.h"

namespace flashvsr {

int launch_wavelet_color(const FinishFramesParams& params, void* stream);
int wavelet_color_ref(const FinishFramesParams& params);
int check_wavelet_color(const FinishFramesParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_WAVELET_COLOR_H_
