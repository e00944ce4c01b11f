// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The other way round: each pixel is multiplied once by all 27 (tap, colour) vectors, a product of 16 x 32 x channels
// with the weights resident in registers, and the taps of neighbours are added in shared memory. So the input is
// read once, straight into mma fragments: the order of channels within a product is free, so a thread takes 8
// neighbouring ones and its weights in the same order.
#include "kernels/conv_to_planes.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/mma.cuh"

namespace flashvsr {
namespace {

constexpr int kBoxX = 32, kBoxY = 16, kOutX = kBoxX - 2, kOutY = kBoxY - 2;
constexpr int kWarps = 8, kPitch = 29;
constexpr int kSharedBytes = kBoxX * kBoxY * kPitch * 4;

__global__ void __launch_bounds__(kWarps * 32, 2) conv_to_planes_kernel(const ConvToPlanesParams p, int tiles_x,
                                                                       int tiles_y, int tiles) {
  extern __shared__ float sums[];  // [pixel of the box][27]
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, group = lane / 4, quad = lane & 3;
  const int quarters = p.channels / 32;

  // Fragment of column n = tap*3 + colour, channels quarter*32 + quad*8 + 0..7.
  uint32_t weight[4][4][4];
#pragma unroll
  for (int q = 0; q < 4; ++q) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int n = j * 8 + group;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        uint32_t pair = 0;
        if (n < 27 && q < quarters) {
          const int c = q * 32 + quad * 8 + 2 * e;
          const uint16_t* w = p.weight + n % 3 * p.stride_o + n / 3 * p.stride_xy + c * p.stride_c;
          pair = w[0] | uint32_t(w[p.stride_c]) << 16;
        }
        weight[q][j][e] = pair;
      }
    }
  }

  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int left = tile % tiles_x * kOutX - 1, top = tile / tiles_x % tiles_y * kOutY - 1;
    const int t = tile / (tiles_x * tiles_y);
    const uint16_t* frame = p.input + int64_t(t) * p.height * p.width * p.channels;
    for (int m = warp; m < kBoxX * kBoxY / 16; m += kWarps) {
      uint4 piece[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int pixel = m * 16 + half * 8 + group;
        const int y = top + pixel / kBoxX, x = left + pixel % kBoxX;
        const bool inside = y >= 0 && x >= 0 && y < p.height && x < p.width;
        const uint16_t* from = frame + (int64_t(y) * p.width + x) * p.channels + quad * 8;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          piece[half][q] = inside && q < quarters ? __ldg(reinterpret_cast<const uint4*>(from + q * 32))
                                                  : make_uint4(0, 0, 0, 0);
        }
      }
      float d[4][4] = {};
#pragma unroll
      for (int q = 0; q < 4; ++q) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mma_bf16(d[j], piece[0][q].x, piece[1][q].x, piece[0][q].y, piece[1][q].y, weight[q][j][0], weight[q][j][1]);
          mma_bf16(d[j], piece[0][q].z, piece[1][q].z, piece[0][q].w, piece[1][q].w, weight[q][j][2], weight[q][j][3]);
        }
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int n = j * 8 + quad * 2 + (e & 1);
          if (n < 27) sums[(m * 16 + (e >> 1) * 8 + group) * kPitch + n] = d[j][e];
        }
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kOutX * kOutY; i += kWarps * 32) {
      const int row = i / kOutX, column = i % kOutX, y = top + 1 + row, x = left + 1 + column;
      if (y < p.height && x < p.width) {
        float value[3];
#pragma unroll
        for (int c = 0; c < 3; ++c) value[c] = p.bias ? p.bias[c] : 0.f;
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) {
          const float* from = sums + ((row + tap / 3) * kBoxX + column + tap % 3) * kPitch + tap * 3;
#pragma unroll
          for (int c = 0; c < 3; ++c) value[c] += from[c];
        }
        const int64_t at = t * p.frame_stride + int64_t(y) * p.width + x;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
          p.output[c * p.plane_stride + at] = __bfloat16_as_ushort(__float2bfloat16_rn(value[c]));
        }
      }
    }
    __syncthreads();
  }
}

}  // namespace

int launch_conv_to_planes(const ConvToPlanesParams& p, void* stream) {
  if (check_conv_to_planes(p)) return cudaErrorInvalidValue;
  const int tiles_x = (p.width + kOutX - 1) / kOutX, tiles_y = (p.height + kOutY - 1) / kOutY;
  const int64_t tiles = int64_t{tiles_x} * tiles_y * p.frames;
  if (tiles >= int64_t{1} << 31) return cudaErrorInvalidValue;
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(conv_to_planes_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  }
  if (error != cudaSuccess) return error;
  const int64_t grid = tiles < 2 * processors ? tiles : 2 * processors;
  conv_to_planes_kernel<<<unsigned(grid), kWarps * 32, kSharedBytes, static_cast<cudaStream_t>(stream)>>>(
      p, tiles_x, tiles_y, static_cast<int>(tiles));
  return cudaGetLastError();
}

}  // namespace flashvsr
