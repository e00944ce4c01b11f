// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The blur of each level is a product of one along rows and one along columns, and those of different axes commute,
// borders included: all five along the rows come first, then all five along the columns.
//
// A block has 256 columns and goes down them. Its warps take two rows each of the next 16: ten values a lane, with 32
// columns more at either side, blurred in registers by exchanges between lanes. Then each thread takes one column of
// these rows through the five levels below one another. What a level of dilation r still needs is the 2 r rows before
// the one in hand: in registers for r up to 8, whose place in the ring is known at compile time since 16 rows are one
// turn of the largest of these; in shared memory for 16. Such a level is r rows behind the one above it, so a finished
// row leaves 31 rows behind the newest.
//
// Borders: what lies outside is, at each level, that level's value at the edge, not the blur of what lies outside.
#include "kernels/wavelet_color.h"

#include <cuda_runtime.h>

#include "kernels/finish_frames.cuh"

namespace flashvsr {
namespace {

using frames::clamped;
using frames::Levels;
using frames::row_of;
using frames::widened;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kBatch = 16;                              // rows at a time: one turn of the largest ring in registers
constexpr int kReach = 31, kSide = 32;                  // rows that count, columns that are read, at either side
constexpr int kRun = (kThreads + 2 * kSide) / 32;       // values of a lane
constexpr int kSegment = 20 * kBatch - kSide - kReach;  // rows of a block: it goes down twenty batches

__device__ __forceinline__ float2 load_two(const uint16_t* at) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(at);
  return make_float2(widened(uint16_t(word)), widened(uint16_t(word >> 16)));
}
__device__ __forceinline__ float2 load_two(const float* at) { return *reinterpret_cast<const float2*>(at); }

// style - input in columns begin .. begin + kRun - 1, those outside the picture from its edge.
template <typename Value>
__device__ __forceinline__ void load_run(const FinishFramesParams& p, int plane, int y, int begin, bool is_inside,
                                         float (&value)[kRun]) {
  const Value* const input = row_of<Value>(p.input, plane, y);
  const uint16_t* const style = row_of<uint16_t>(p.style, plane, y);
  const bool in_twos = reinterpret_cast<uintptr_t>(input) % (2 * sizeof(Value)) == 0 && reinterpret_cast<uintptr_t>(style) % 4 == 0;
  if (is_inside && in_twos) {
#pragma unroll
    for (int v = 0; v < kRun; v += 2) {
      const float2 content = load_two(input + begin + v), colors = load_two(style + begin + v);
      value[v] = colors.x - content.x;
      value[v + 1] = colors.y - content.y;
    }
    return;
  }
#pragma unroll
  for (int v = 0; v < kRun; ++v) {
    const int x = min(max(begin + v, 0), p.width - 1);
    value[v] = widened(style[x]) - widened(input[x]);
  }
}

// A tile's place in the row: position kSide + i is the block's column i.
struct Edges {
  int first, last;  // positions of the picture's first and last column
};

// The edges' values to all positions outside the picture.
__device__ __forceinline__ void extend(const Edges& edges, int lane, float (&value)[kRun]) {
  float at_first = value[0], at_last = value[0];
#pragma unroll
  for (int v = 1; v < kRun; ++v) {
    at_first = edges.first % kRun == v ? value[v] : at_first;
    at_last = edges.last % kRun == v ? value[v] : at_last;
  }
  at_first = __shfl_sync(~0u, at_first, edges.first / kRun);
  at_last = __shfl_sync(~0u, at_last, edges.last / kRun);
#pragma unroll
  for (int v = 0; v < kRun; ++v) {
    const int position = lane * kRun + v;
    value[v] = position < edges.first ? at_first : position > edges.last ? at_last : value[v];
  }
}

__device__ __forceinline__ float blur_between(float a, float middle, float b) { return fmaf(.5f, middle, .25f * (a + b)); }

// One level along the row. r positions more at either end of the tile are of no use afterwards.
template <int r>
__device__ __forceinline__ void blur_row(float (&value)[kRun]) {
  float sum[kRun];
#pragma unroll
  for (int v = 0; v < kRun; ++v) {
    // The places, in runs before or behind this lane's, of the two neighbours.
    constexpr int kFar = 2 * kRun;
    const int left = kFar + v - r, right = v + r;
    const float a = left >= kFar ? value[left % kRun] : __shfl_up_sync(~0u, value[left % kRun], 2 - left / kRun);
    const float b = right < kRun ? value[right % kRun] : __shfl_down_sync(~0u, value[right % kRun], right / kRun);
    sum[v] = blur_between(a, value[v], b);
  }
#pragma unroll
  for (int v = 0; v < kRun; ++v) value[v] = sum[v];
}

// All five levels.
__device__ __forceinline__ void blur_row(const Edges& edges, bool is_inside, int lane, float (&value)[kRun]) {
  blur_row<1>(value);  // loaded with its edges
  if (!is_inside) extend(edges, lane, value);
  blur_row<2>(value);
  if (!is_inside) extend(edges, lane, value);
  blur_row<4>(value);
  if (!is_inside) extend(edges, lane, value);
  blur_row<8>(value);
  if (!is_inside) extend(edges, lane, value);
  blur_row<16>(value);
}

// The 2 r rows of a level before the one that is in hand, `step` counting rows.
template <int r>
struct Ring {
  float value[2 * r] = {};

  __device__ __forceinline__ float newest(int step) const { return value[(step + 2 * r - 1) % (2 * r)]; }
  __device__ __forceinline__ void fill(float x) {
#pragma unroll
    for (int i = 0; i < 2 * r; ++i) value[i] = x;
  }
  // Takes a row and gives the level's result r rows before it.
  __device__ __forceinline__ float blur(int step, float x) {
    const float above = value[step % (2 * r)], middle = value[(step + r) % (2 * r)];
    value[step % (2 * r)] = x;
    return blur_between(above, middle, x);
  }
  // The same for a row that a level r - 1 rows behind the block's newest one gave: above the first row and below the
  // last one lies, at this level too, the edge.
  __device__ __forceinline__ float blur(int step, bool is_first_batch, bool is_below, float x) {
    x = is_below ? newest(step) : x;
    if (is_first_batch && step == r - 1) fill(x);
    return blur(step, x);
  }
};

template <typename Value, typename Sample>
__global__ void __launch_bounds__(kThreads, 3) wavelet_color_kernel(const FinishFramesParams p, int strips) {
  __shared__ float2 rows[kBatch][kThreads / 2];
  __shared__ float ring16[2][kBatch][kThreads];
  const int strip = blockIdx.x % strips, begin = blockIdx.x / strips * kSegment, plane = blockIdx.y;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int tile = strip * kThreads - kSide, column = strip * kThreads + int(threadIdx.x);
  const int end = min(begin + kSegment, p.height), top = max(begin - kSide, 0);
  const Edges edges{max(-tile, 0), min(p.width - 1 - tile, 32 * kRun - 1)};
  const bool is_inside = tile >= 0 && p.width - tile >= 32 * kRun;
  const Value* const content = row_of<Value>(p.input, plane, 0) + column;
  Sample* const samples = static_cast<Sample*>(p.samples) + int64_t(plane) * p.height * p.width + column;
  const Levels levels(p);
  Ring<1> ring1;
  Ring<2> ring2;
  Ring<4> ring4;
  Ring<8> ring8;
  float newest16 = 0;
  for (int batch = top, turn = 0; batch - kReach < end; batch += kBatch, turn ^= 1) {
#pragma unroll 1
    for (int row = warp; row < kBatch; row += kWarps) {
      float value[kRun];
      load_run<Value>(p, plane, min(batch + row, p.height - 1), tile + lane * kRun, is_inside, value);
      blur_row(edges, is_inside, lane, value);
#pragma unroll
      for (int v = 0; v < kRun; v += 2) {
        const int at = lane * kRun + v - kSide;
        if (at >= 0 && at < kThreads) rows[row][at / 2] = make_float2(value[v], value[v + 1]);
      }
    }
    __syncthreads();
    const bool is_first = batch == top;
#pragma unroll
    for (int step = 0; step < kBatch; ++step) {
      const int y = batch + step;
      float x = reinterpret_cast<const float*>(rows[step])[threadIdx.x];
      x = ring1.blur(step, is_first, false, x);
      x = ring2.blur(step, is_first, y - 1 >= p.height, x);
      x = ring4.blur(step, is_first, y - 3 >= p.height, x);
      x = ring8.blur(step, is_first, y - 7 >= p.height, x);
      newest16 = y - 15 >= p.height ? newest16 : x;
      if (is_first && step == 15) {
        for (int i = 0; i < 2 * kBatch; ++i) ring16[i / kBatch][i % kBatch][threadIdx.x] = newest16;
      }
      x = blur_between(ring16[turn][step][threadIdx.x], ring16[turn ^ 1][step][threadIdx.x], newest16);
      ring16[turn][step][threadIdx.x] = newest16;
      const int done = y - kReach;
      if (done >= begin && done < end && column < p.width) {
        const float sharp = widened(content[done * p.input.row_stride]);
        samples[int64_t(done) * p.width] = Sample(levels.of(clamped(sharp + x)));
      }
    }
    __syncthreads();
  }
}

}  // namespace

int launch_wavelet_color(const FinishFramesParams& p, void* stream) {
  if (check_wavelet_color(p)) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const int strips = (p.width + kThreads - 1) / kThreads;
  const dim3 grid(unsigned(strips) * unsigned((p.height + kSegment - 1) / kSegment), 3u * p.frames);
  if (p.input.is_fp32) {
    if (p.max_value > 255) {
      wavelet_color_kernel<float, uint16_t><<<grid, kThreads, 0, s>>>(p, strips);
    } else {
      wavelet_color_kernel<float, uint8_t><<<grid, kThreads, 0, s>>>(p, strips);
    }
  } else {
    if (p.max_value > 255) {
      wavelet_color_kernel<uint16_t, uint16_t><<<grid, kThreads, 0, s>>>(p, strips);
    } else {
      wavelet_color_kernel<uint16_t, uint8_t><<<grid, kThreads, 0, s>>>(p, strips);
    }
  }
  return cudaGetLastError();
}

}  // namespace flashvsr
