// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Statistics: up to 32 blocks for a plane, whose sums lie in the workspace. Application: each block adds its plane's sums
// first, always in the same order, so nothing waits for the host and no atomics are needed.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/finish_frames.cuh"

namespace flashvsr {
namespace {

using frames::clamped;
using frames::Levels;
using frames::row_of;
using frames::widened;

constexpr int kThreads = 256, kRun = 8, kMostSlices = 32, kRunsOfThread = 4;

struct Sums {
  double sum, squares;
};

// Behind the `left` values 0.
__device__ __forceinline__ void load_run(const uint16_t* from, int left, float (&to)[kRun]) {
  if (left >= kRun && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    const uint4 part = *reinterpret_cast<const uint4*>(from);
    const uint32_t word[4] = {part.x, part.y, part.z, part.w};
#pragma unroll
    for (int i = 0; i < kRun; ++i) to[i] = widened(uint16_t(word[i / 2] >> (i % 2 * 16)));
    return;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) to[i] = i < left ? widened(from[i]) : 0.f;
}
__device__ __forceinline__ void load_run(const float* from, int left, float (&to)[kRun]) {
  if (left >= kRun && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kRun; i += 4) {
      const float4 part = *reinterpret_cast<const float4*>(from + i);
      to[i] = part.x;
      to[i + 1] = part.y;
      to[i + 2] = part.z;
      to[i + 3] = part.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) to[i] = i < left ? from[i] : 0.f;
}

__device__ __forceinline__ Sums warp_total(Sums sums) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    sums.sum += __shfl_xor_sync(~0u, sums.sum, mask);
    sums.squares += __shfl_xor_sync(~0u, sums.squares, mask);
  }
  return sums;
}

// Of a run: exact in fp32 for bf16 values, in double for fp32 ones.
__device__ __forceinline__ void add_run(const float (&value)[kRun], const uint16_t*, Sums& sums) {
  float sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    sum += value[i];
    squares = fmaf(value[i], value[i], squares);
  }
  sums.sum += sum;
  sums.squares += squares;
}
__device__ __forceinline__ void add_run(const float (&value)[kRun], const float*, Sums& sums) {
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    sums.sum += value[i];
    sums.squares += double(value[i]) * value[i];
  }
}

template <typename Value>
__device__ __forceinline__ Sums sums_of(const FinishFramesParams& p, const ModelFrames& m, int plane, int slice) {
  const unsigned runs = (p.width + kRun - 1) / kRun, total = runs * p.height;
  Sums sums{0, 0};
  for (unsigned at = slice * kThreads + threadIdx.x; at < total; at += gridDim.x * kThreads) {
    const int begin = int(at % runs) * kRun;
    const Value* const from = row_of<Value>(m, plane, int(at / runs)) + begin;
    float value[kRun];
    load_run(from, p.width - begin, value);
    add_run(value, from, sums);
  }
  return sums;
}

__global__ void __launch_bounds__(kThreads) frame_sums_kernel(const FinishFramesParams p) {
  __shared__ Sums of_warp[kThreads / 32];
  const int slice = blockIdx.x, plane = blockIdx.y;
  const bool is_style = blockIdx.z == 1;
  Sums sums = is_style          ? sums_of<uint16_t>(p, p.style, plane, slice)
              : p.input.is_fp32 ? sums_of<float>(p, p.input, plane, slice)
                                : sums_of<uint16_t>(p, p.input, plane, slice);
  sums = warp_total(sums);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sums;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / 32; ++warp) {
      sums.sum += of_warp[warp].sum;
      sums.squares += of_warp[warp].squares;
    }
    static_cast<Sums*>(p.workspace)[(blockIdx.z * gridDim.y + plane) * kMostSlices + slice] = sums;
  }
}

// To the type of the frames.
template <typename Value>
__device__ __forceinline__ float rounded(float value) {
  if constexpr (sizeof(Value) == 4) return value;
  return widened(__bfloat16_as_ushort(__float2bfloat16_rn(value)));
}

// Two values of 16 bits, or four of 8, to a word.
template <typename Sample>
__device__ __forceinline__ void store_run(const int (&level)[kRun], int left, Sample* to) {
  constexpr int kBits = 8 * int(sizeof(Sample)), kWords = kRun * kBits / 32;
  if (left >= kRun && reinterpret_cast<uintptr_t>(to) % (4 * kWords) == 0) {
    uint32_t word[kWords] = {};
#pragma unroll
    for (int i = 0; i < kRun; ++i) word[i * kBits / 32] |= uint32_t(level[i]) << (i * kBits % 32);
    if constexpr (kWords == 4) {
      *reinterpret_cast<uint4*>(to) = make_uint4(word[0], word[1], word[2], word[3]);
    } else {
      *reinterpret_cast<uint2*>(to) = make_uint2(word[0], word[1]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (i < left) to[i] = Sample(level[i]);
  }
}

template <typename Value, typename Sample, bool kStyled>
__global__ void __launch_bounds__(kThreads) finish_frames_kernel(const FinishFramesParams p, int slices) {
  __shared__ float mean[2], deviation[2];  // of content and style
  const int plane = blockIdx.y;
  if constexpr (kStyled) {
    const int side = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (side < 2) {
      const Sums* of_slice = static_cast<const Sums*>(p.workspace) + (side * gridDim.y + plane) * kMostSlices;
      const Sums sums = warp_total(lane < slices ? of_slice[lane] : Sums{0, 0});
      if (lane == 0) {
        const double count = double(p.height) * p.width, average = sums.sum / count;
        const double variance = sums.squares / count - average * average;
        mean[side] = rounded<Value>(float(average));
        const float above_zero = rounded<Value>(rounded<Value>(variance < 0 ? 0.f : float(variance)) + 1e-5f);
        deviation[side] = rounded<Value>(sqrtf(above_zero));
      }
    }
    __syncthreads();
  }
  const Levels levels(p);
  const unsigned runs = (p.width + kRun - 1) / kRun, total = runs * p.height;
#pragma unroll
  for (int k = 0; k < kRunsOfThread; ++k) {
    const unsigned at = (blockIdx.x * kRunsOfThread + k) * kThreads + threadIdx.x;
    if (at >= total) return;
    const int y = int(at / runs), begin = int(at % runs) * kRun;
    float value[kRun];
    int level[kRun];
    load_run(row_of<Value>(p.input, plane, y) + begin, p.width - begin, value);
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      float v = value[i];
      if constexpr (kStyled) {
        v = rounded<Value>(__fsub_rn(v, mean[0]));
        v = rounded<Value>(__fdiv_rn(v, deviation[0]));
        v = rounded<Value>(__fmul_rn(v, deviation[1]));
        v = clamped(rounded<Value>(__fadd_rn(v, mean[1])));
      }
      level[i] = levels.of(v);
    }
    store_run(level, p.width - begin, static_cast<Sample*>(p.samples) + (int64_t(plane) * p.height + y) * p.width + begin);
  }
}

template <typename Value, typename Sample>
void launch(const FinishFramesParams& p, const dim3& grid, int slices, cudaStream_t stream) {
  if (p.style.data) {
    finish_frames_kernel<Value, Sample, true><<<grid, kThreads, 0, stream>>>(p, slices);
  } else {
    finish_frames_kernel<Value, Sample, false><<<grid, kThreads, 0, stream>>>(p, slices);
  }
}

}  // namespace

int launch_finish_frames(const FinishFramesParams& p, void* stream) {
  if (check_finish_frames(p)) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const unsigned planes = 3u * p.frames, total = unsigned((p.width + kRun - 1) / kRun) * p.height;
  const dim3 grid((total + kThreads * kRunsOfThread - 1) / (kThreads * kRunsOfThread), planes);
  const int slices = int(total < kThreads * kMostSlices ? (total + kThreads - 1) / kThreads : kMostSlices);
  if (p.style.data) frame_sums_kernel<<<dim3(slices, planes, 2), kThreads, 0, s>>>(p);
  if (p.input.is_fp32) {
    if (p.max_value > 255) {
      launch<float, uint16_t>(p, grid, slices, s);
    } else {
      launch<float, uint8_t>(p, grid, slices, s);
    }
  } else if (p.max_value > 255) {
    launch<uint16_t, uint16_t>(p, grid, slices, s);
  } else {
    launch<uint16_t, uint8_t>(p, grid, slices, s);
  }
  return cudaGetLastError();
}

}  // namespace flashvsr
