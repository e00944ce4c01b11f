// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A block makes 16 neighbouring pixels of the output: it reads their squares line by line, 16 bytes a thread, so that
// a warp has whole stretches of a frame's row, and turns them round in shared memory, so that all channels of a pixel
// leave in one stretch. An odd pitch keeps both sides free of bank conflicts.
#include "kernels/pack_frames.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/rows.cuh"

namespace flashvsr {
namespace {

using namespace rows;

constexpr int kThreads = 256, kCells = 16, kPieces = 4;

__device__ __forceinline__ int inside(int at, int count) { return at < 0 ? 0 : at < count ? at : count - 1; }

// A third by multiplication: for every bf16 number it rounds as the quotient does.
__device__ __forceinline__ float squashed(float value) {
  return 3.f * round_bf16(tanhf(round_bf16(value * (1.f / 3.f))));
}

// Grid: stretches of a row, rows, steps.
template <int kUnshuffle>
__global__ void __launch_bounds__(kThreads) pack_frames_kernel(const PackFramesParams p, int channels, int pitch) {
  extern __shared__ uint4 cells[];  // [kCells][pitch]
  constexpr int kParts = kUnshuffle / 8, kLine = kCells * kParts;
  const int border = p.border ? 1 : 0, width = p.width + 2 * border, height = p.height + 2 * border;
  const int left = blockIdx.x * kCells, row = blockIdx.y, step = blockIdx.z;
  const int count = width - left < kCells ? width - left : kCells;
  const int y = inside(row - border, p.height), lines = 3 * p.group * kUnshuffle;
#pragma unroll 4
  for (int i = threadIdx.x; i < lines * kLine; i += kThreads) {
    const int line = i / kLine, cell = i % kLine / kParts, part = i % kParts;
    if (cell >= count) continue;
    const int plane = line / kUnshuffle, c = plane / p.group, t = plane - c * p.group;
    const int frame = step * p.group + t - p.missing, x = inside(left + cell - border, p.width);
    uint4 piece = load(p.frames + c * p.plane_stride + (frame < 0 ? 0 : frame) * p.frame_stride +
                       (int64_t(y) * kUnshuffle + line % kUnshuffle) * p.row_stride + x * kUnshuffle + part * 8);
    if (p.squash) {
      float values[8];
      unpack(piece, values);
#pragma unroll
      for (int e = 0; e < 8; ++e) values[e] = squashed(values[e]);
      piece = pack(values);
    }
    cells[cell * pitch + line * kParts + part] = piece;
  }
  uint16_t* const singles = reinterpret_cast<uint16_t*>(cells + lines * kParts);
  for (int i = threadIdx.x; i < p.latent_channels * kCells; i += kThreads) {
    const int channel = i / kCells, cell = i % kCells;
    if (cell >= count) continue;
    const int x = inside(left + cell - border, p.width);
    uint16_t bits = p.latents ? p.latents[channel * p.latent_stride_c + step * p.latent_stride_t + y * p.latent_stride_y +
                                          x * p.latent_stride_x]
                              : uint16_t(0);
    if (p.squash) bits = __bfloat16_as_ushort(__float2bfloat16_rn(squashed(__uint_as_float(uint32_t(bits) << 16))));
    singles[cell * pitch * 8 + channel] = bits;
  }
  __syncthreads();
  const int pieces = channels / 8;
  uint16_t* const out = p.output + ((int64_t(step) * height + row) * width + left) * channels;
#pragma unroll 4
  for (int i = threadIdx.x; i < count * pieces; i += kThreads) {
    const int cell = i / pieces;
    store(out + int64_t(i) * 8, cells[cell * pitch + i - cell * pieces]);
  }
}

// Grid: stretches of a row, rows, steps.
__global__ void __launch_bounds__(kThreads) pad_steps_kernel(const PadStepsParams p) {
  const int pieces = p.channels / 8, count = (p.width + 2) * pieces;
  const int row = blockIdx.y, step = blockIdx.z;
  const uint16_t* const from = p.input + step * p.in_stride_t + inside(row - 1, p.height) * p.in_stride_y;
  uint16_t* const to = p.output + (int64_t(step) * (p.height + 2) + row) * count * 8;
  uint4 held[kPieces];
  const int first = blockIdx.x * kPieces * kThreads + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int at = first + i * kThreads, column = at / pieces;
    if (at < count) held[i] = load(from + inside(column - 1, p.width) * p.in_stride_x + (at - column * pieces) * 8);
  }
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int at = first + i * kThreads;
    if (at < count) store(to + int64_t(at) * 8, held[i]);
  }
}

}  // namespace

int launch_pack_frames(const PackFramesParams& p, void* stream) {
  if (check_pack_frames(p)) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const int channels = 3 * p.group * p.unshuffle * p.unshuffle + p.latent_channels, pitch = channels / 8 | 1;
  const int border = p.border ? 2 : 0;
  const dim3 grid(unsigned((p.width + border + kCells - 1) / kCells), unsigned(p.height + border), unsigned(p.steps));
  const size_t bytes = size_t(kCells) * pitch * sizeof(uint4);
  if (p.unshuffle == 8) {
    pack_frames_kernel<8><<<grid, kThreads, bytes, s>>>(p, channels, pitch);
  } else {
    pack_frames_kernel<16><<<grid, kThreads, bytes, s>>>(p, channels, pitch);
  }
  return cudaGetLastError();
}

int launch_pad_steps(const PadStepsParams& p, void* stream) {
  if (check_pad_steps(p)) return cudaErrorInvalidValue;
  const int64_t pieces = int64_t{p.width + 2} * (p.channels / 8);
  const dim3 grid(unsigned((pieces + kPieces * kThreads - 1) / (kPieces * kThreads)), unsigned(p.height + 2), unsigned(p.steps));
  pad_steps_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p);
  return cudaGetLastError();
}

}  // namespace flashvsr
