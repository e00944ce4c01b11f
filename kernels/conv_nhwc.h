// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Convolution over channel-last frames as an implicit GEMM, with everything that the decoder and the
// projector hang on to it:
//   output = [ReLU]( round( sum_{dt,dy,dx,c} input[t*stride_t + dt][y + dy][x + dx][c] w[o][c][dt][dy][dx]
//                           + bias[o] ) [+ residual] )
//
//   input     [in_frames][in_height][in_width][in_channels]   bf16, element strides given, channels dense
//   weights   packed by launch_pack_conv_weights / pack_conv_weights_ref
//   bias      [out_channels] fp32, or null
//   residual  where output lies (same strides), or null
//   output    bf16, element strides given, channels dense
//
// kernel_xy 3: pad 1 reads zeros outside the picture (in_height == out rows); pad 0 wants a picture with one
// more row and column on each side (how replicated borders are expressed). kernel_xy 1: pad 0, no border.
// kernel_t 1, 2 or 4 steps, never padded: a past is a step in front of the input. A MemBlock's
// conv(concat[x, x one step ago]) is kernel_t 2 over C channels, dt 0 being the past. With `past` (kernel_t 2,
// stride_t 1) step dt 0 reads past[t] and dt 1 input[t]: two pictures of the same strides and in_frames.
// upsample 2: the input is enlarged (nearest) before the convolution, without being written: each of the four
// output phases reads the small picture. With `folded` weights (sums of the taps that meet the same pixel,
// added in fp32, rounded to bf16) 4 taps instead of 9.
// grow 2: output channel o belongs to frame t*2 + o / (out_channels/2), channel o % (out_channels/2).
//
// Rounding: fp32 accumulation and bias, one rounding; the residual is added to that and rounded again.
// Deterministic. Cost: 2 * out elements * taps * kernel_t * in_channels flop. Workspace: none.
// Limits: in_channels and strides multiples of 8, pointers 16-byte aligned, out_channels a multiple of 8;
// with upsample or grow, out_channels / grow a multiple of 128.
// kSm90 wants compute capability 9.0; kAuto takes it there.
//
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said.
// Thread-safety: safe. Launches only: no synchronisation, no allocation.
// Tolerance against conv_nhwc_ref: norm-relative error 4e-3 (output rounding; measured, kernels/README.md).
#ifndef FLASHVSR_KERNELS_CONV_NHWC_H_
#define FLASHVSR_KERNELS_CONV_NHWC_H_

#include <cstdint>

namespace flashvsr {

enum class ConvKernel : int32_t { kAuto = 0, kSm80 = 1, kSm90 = 2 };

struct ConvNhwcParams {
  const uint16_t* input = nullptr;
  const uint16_t* past = nullptr;
  const uint16_t* weights = nullptr;
  const float* bias = nullptr;
  const uint16_t* residual = nullptr;
  uint16_t* output = nullptr;

  int64_t in_stride_t = 0, in_stride_y = 0, in_stride_x = 0;
  int64_t out_stride_t = 0, out_stride_y = 0, out_stride_x = 0;
  int32_t in_channels = 0, in_frames = 0, in_height = 0, in_width = 0;
  int32_t out_channels = 0;  // before grow
  int32_t out_frames = 0;    // before grow
  int32_t kernel_t = 1, stride_t = 1, kernel_xy = 3, pad = 1;
  int32_t upsample = 1, grow = 1;
  bool folded = false;
  bool relu = false;

  ConvKernel kernel = ConvKernel::kAuto;
};

// The source weights: element (o, c, dt, dy, dx) at
//   source[o*stride_o + c*stride_c + dt*stride_t + (dy*kernel_xy + dx)*stride_xy]
struct PackConvWeightsParams {
  const uint16_t* source = nullptr;  // bf16
  uint16_t* packed = nullptr;        // conv_weight_elements() of them
  int64_t stride_o = 0, stride_c = 0, stride_t = 0, stride_xy = 1;
  int32_t in_channels = 0, out_channels = 0, kernel_t = 1, kernel_xy = 3;
  bool folded = false;
};

int64_t conv_weight_elements(const PackConvWeightsParams& params);

// Enqueue on `stream` (a cudaStream_t) of the current device. Return a cudaError_t's value.
int launch_pack_conv_weights(const PackConvWeightsParams& params, void* stream);
int launch_conv_nhwc(const ConvNhwcParams& params, void* stream);

// Plain twins on host memory: the first makes the same bytes, the second computes in double from the packed
// weights. Return 0 or 1.
int pack_conv_weights_ref(const PackConvWeightsParams& params);
int conv_nhwc_ref(const ConvNhwcParams& params);

// 0 when the arguments are as promised above, else 1.
int check_conv_nhwc(const ConvNhwcParams& params);

// Shared by packers, kernels and twin. Weight tiles are [128 out][64 in] bf16 in the shared-memory order of a
// 128-byte swizzle, one after another: [phase][out tile][dt][in block][tap].
constexpr int kConvTileOut = 128;
constexpr int kConvTileIn = 64;
inline int conv_taps(int kernel_xy, bool folded) { return folded ? 4 : kernel_xy * kernel_xy; }
// Place of (row, column) in a weight tile: 16-byte pieces of a row are exchanged with the row's low bits.
#ifdef __CUDACC__
__host__ __device__
#endif
inline int conv_tile_place(int row, int column) {
  return row * kConvTileIn + ((((column >> 3) ^ row) & 7) << 3) + (column & 7);
}

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_CONV_NHWC_H_
