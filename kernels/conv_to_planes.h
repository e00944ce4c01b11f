// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The decoder's last convolution, from channel-last features to colour planes:
//   output[c][t][y][x] = round( sum_{dy,dx,i} input[t][y+dy-1][x+dx-1][i] weight[c][i][dy][dx] + bias[c] )
//
//   input    [frames][height][width][channels]   bf16, dense; zeros outside the picture
//   weight   [3][channels][3][3]                 bf16, element strides stride_o, stride_c and stride_xy for (dy*3+dx)
//   bias     [3]                                 fp32, or null
//   output   plane c, frame t at output + c*plane_stride + t*frame_stride   bf16, rows dense
//
// Rounding: fp32 accumulation and bias, one rounding. Deterministic. Workspace: none.
// Cost: bound by reading the input once (1.2 times through L2). Limits: channels a multiple of 32 up to 128;
// input 16-byte aligned.
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said.
// Thread-safety: safe. Tolerance against the twin: norm-relative 4e-3.
#ifndef FLASHVSR_KERNELS_CONV_TO_PLANES_H_
#define FLASHVSR_KERNELS_CONV_TO_PLANES_H_

#include <cstdint>

namespace flashvsr {

struct ConvToPlanesParams {
  const uint16_t* input = nullptr;
  const uint16_t* weight = nullptr;
  const float* bias = nullptr;
  uint16_t* output = nullptr;
  int64_t plane_stride = 0, frame_stride = 0;
  int64_t stride_o = 0, stride_c = 0, stride_xy = 1;
  int32_t channels = 0, frames = 0, height = 0, width = 0;
};

int launch_conv_to_planes(const ConvToPlanesParams& params, void* stream);
int conv_to_planes_ref(const ConvToPlanesParams& params);
int check_conv_to_planes(const ConvToPlanesParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_CONV_TO_PLANES_H_
