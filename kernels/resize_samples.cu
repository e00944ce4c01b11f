// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A thread makes four neighbouring samples of a row; weights and source rows come from cache.
#include "kernels/resize_samples.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace flashvsr {
namespace {

constexpr int kThreads = 256, kRun = 4;

template <typename Sample>
__global__ void __launch_bounds__(kThreads) resize_axis_kernel(const ResizeAxisParams p, int height, int width) {
  const int64_t runs = (width + kRun - 1) / kRun;
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= runs * height * p.planes) return;
  const int begin = int(at % runs) * kRun, y = int(at / runs % height);
  const int64_t plane = at / runs / height;
  const Sample* in = static_cast<const Sample*>(p.input) + plane * p.in_height * p.in_width;
  Sample* out = static_cast<Sample*>(p.output) + (plane * height + y) * width;
  int sum[kRun];
#pragma unroll
  for (int i = 0; i < kRun; ++i) sum[i] = 1 << (p.bits - 1);
  if (p.vertical) {
    const int first = p.first[y];
    for (int k = 0; k < p.taps; ++k) {
      const int from = first + k < p.in_height ? first + k : p.in_height - 1;
      const int weight = p.weights[int64_t(y) * p.taps + k];
      const Sample* row = in + int64_t(from) * p.in_width + begin;
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        if (begin + i < width) sum[i] += int(row[i]) * weight;
      }
    }
  } else {
    const Sample* row = in + int64_t(y) * p.in_width;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const int x = begin + i < width ? begin + i : width - 1;
      const int first = p.first[x];
      for (int k = 0; k < p.taps; ++k) {
        const int from = first + k < p.in_width ? first + k : p.in_width - 1;
        sum[i] += int(row[from]) * p.weights[int64_t(x) * p.taps + k];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (begin + i < width) {
      const int value = sum[i] >> p.bits;
      out[begin + i] = Sample(value < 0 ? 0 : value > p.max_value ? p.max_value : value);
    }
  }
}

__device__ __forceinline__ int mirrored(int at, int size) {
  at %= 2 * size;
  return at < size ? at : 2 * size - 1 - at;
}

template <typename Sample>
__global__ void __launch_bounds__(kThreads) normalize_samples_kernel(const NormalizeSamplesParams p) {
  const int64_t runs = (p.padded_width + kRun - 1) / kRun;
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= runs * p.padded_height * p.frames * 3) return;
  const int begin = int(at % runs) * kRun, y = int(at / runs % p.padded_height);
  const int plane = int(at / runs / p.padded_height), c = plane / p.frames, f = plane % p.frames;
  const Sample* row =
      static_cast<const Sample*>(p.input) + (int64_t(f * 3 + c) * p.height + mirrored(y, p.height)) * p.width;
  uint16_t* out = p.output + (int64_t(plane) * p.padded_height + y) * p.padded_width;
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (begin + i < p.padded_width) {
      const float ratio = __fdiv_rn(float(row[mirrored(begin + i, p.width)]), float(p.max_value));
      out[begin + i] = __bfloat16_as_ushort(__float2bfloat16_rn(__fsub_rn(__fmul_rn(ratio, 2.f), 1.f)));
    }
  }
}

unsigned blocks_for(int64_t threads) { return unsigned((threads + kThreads - 1) / kThreads); }

}  // namespace

int launch_resize_axis(const ResizeAxisParams& p, void* stream) {
  if (check_resize_axis(p)) return cudaErrorInvalidValue;
  const int height = p.vertical ? p.out_size : p.in_height, width = p.vertical ? p.in_width : p.out_size;
  const int64_t threads = int64_t{(width + kRun - 1) / kRun} * height * p.planes;
  if (threads >= int64_t{kThreads} << 31) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const unsigned blocks = blocks_for(threads);
  if (p.is_16_bit) {
    resize_axis_kernel<uint16_t><<<blocks, kThreads, 0, s>>>(p, height, width);
  } else {
    resize_axis_kernel<uint8_t><<<blocks, kThreads, 0, s>>>(p, height, width);
  }
  return cudaGetLastError();
}

int launch_normalize_samples(const NormalizeSamplesParams& p, void* stream) {
  if (check_normalize_samples(p)) return cudaErrorInvalidValue;
  const int64_t threads = int64_t{(p.padded_width + kRun - 1) / kRun} * p.padded_height * p.frames * 3;
  if (threads >= int64_t{kThreads} << 31) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const unsigned blocks = blocks_for(threads);
  if (p.is_16_bit) {
    normalize_samples_kernel<uint16_t><<<blocks, kThreads, 0, s>>>(p);
  } else {
    normalize_samples_kernel<uint8_t><<<blocks, kThreads, 0, s>>>(p);
  }
  return cudaGetLastError();
}

}  // namespace flashvsr
