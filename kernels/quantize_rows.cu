// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/quantize_rows.h"

#include "kernels/rows.cuh"

namespace flashvsr {
namespace {

using namespace rows;

constexpr int kThreads = 256;

__device__ __forceinline__ float gelu_tanh(float x) {
  return 0.5f * x * (1.f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

template <int kPieces>
__global__ void __launch_bounds__(kThreads) quantize_rows_kernel(const QuantizeRowsParams p) {
  __shared__ float tops[kThreads / 32];
  const int64_t row = blockIdx.x;
  float values[kPieces][8];
  float top = 0.f;
  uint4 raw[kPieces];
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int c = (i * kThreads + threadIdx.x) * 8;
    if (c < p.dim) raw[i] = load(p.x + row * p.dim + c);
  }
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int c = (i * kThreads + threadIdx.x) * 8;
    if (c < p.dim) {
      unpack(raw[i], values[i]);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        if (p.gelu) values[i][e] = round_bf16(gelu_tanh(values[i][e]));
        top = fmaxf(top, fabsf(values[i][e]));
      }
    }
  }
  top = warp_max(top);
  if ((threadIdx.x & 31) == 0) tops[threadIdx.x / 32] = top;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) top = fmaxf(top, tops[w]);
  const float scale = top > 0.f ? top / 448.f : 1.f, inverse = 1.f / scale;
  if (threadIdx.x == 0) p.scale[row] = scale;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int c = (i * kThreads + threadIdx.x) * 8;
    if (c < p.dim) *reinterpret_cast<uint2*>(p.output + row * p.dim + c) = pack_e4m3(values[i], inverse);
  }
}

}  // namespace

int launch_quantize_rows(const QuantizeRowsParams& p, void* stream) {
  if (check_quantize_rows(p) || p.rows >= int64_t{1} << 31) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const int pieces = (p.dim / 8 + kThreads - 1) / kThreads;
  if (pieces <= 1) {
    quantize_rows_kernel<1><<<unsigned(p.rows), kThreads, 0, s>>>(p);
  } else if (pieces <= 5) {
    quantize_rows_kernel<5><<<unsigned(p.rows), kThreads, 0, s>>>(p);
  } else {
    quantize_rows_kernel<8><<<unsigned(p.rows), kThreads, 0, s>>>(p);
  }
  return cudaGetLastError();
}

}  // namespace flashvsr
