// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A block takes half or a quarter of a window of q, k or v, a warp eight or four of its tokens. The token's angles serve all heads,
// and because 32 pieces are a whole number of heads, a lane needs only four of them. Sums for the window means stay
// in registers, meet in shared memory, and a second small kernel adds the blocks'.
#include "kernels/norm_rope_window.h"

#include "kernels/rows.cuh"

namespace flashvsr {
namespace {

using namespace rows;

// Blocks of a window. Few windows want many blocks; many want little besides the tokens: each warp fills its pipeline and
// gives its sums away once.
constexpr int kMostSplits = 4, kFewWindows = 60;

template <int kPieces, int kSplits>
__global__ void __launch_bounds__(kWarps * 32, 2) norm_rope_window_kernel(const NormRopeWindowParams p) {
  constexpr int kTokens = 128 / kSplits / kWarps;
  extern __shared__ float shared[];  // [kWarps][dim]
  const int window = blockIdx.x, split = blockIdx.y, part = blockIdx.z;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int columns = p.width / 8, rows_of_windows = p.height / 8;
  const int window_t = window / (columns * rows_of_windows), window_y = window / columns % rows_of_windows,
            window_x = window % columns;
  uint16_t* const out = part == 0 ? p.q : part == 1 ? p.k : p.v;
  const uint16_t* const weights = part == 0 ? p.q_weight : p.k_weight;

  const auto token_at = [&](int n) {
    const int i = split * (128 / kSplits) + warp * kTokens + n;
    return (int64_t(window_t * 2 + i / 64) * p.height + window_y * 8 + i / 8 % 8) * p.width + window_x * 8 + i % 8;
  };
  uint4 next[kPieces];
  const auto fetch = [&](int n) {
    const uint16_t* in = p.qkv + (token_at(n) * gridDim.z + part) * p.dim;
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      const int c = (j * 32 + lane) * 8;
      if (c < p.dim) next[j] = load(in + c);
    }
  };
  float sums[kPieces][8] = {};
  const int half = p.head_dim / 2, angle = lane * 8 % p.head_dim / 2;
  fetch(0);
#pragma unroll 1
  for (int n = 0; n < kTokens; ++n) {
    uint4 raw[kPieces];
#pragma unroll
    for (int j = 0; j < kPieces; ++j) raw[j] = next[j];
    if (n + 1 < kTokens) fetch(n + 1);
    uint16_t* to = out + (int64_t(window) * 128 + split * (128 / kSplits) + warp * kTokens + n) * p.dim;
    if (part == 2) {
#pragma unroll
      for (int j = 0; j < kPieces; ++j) {
        const int c = (j * 32 + lane) * 8;
        if (c < p.dim) store(to + c, raw[j]);
      }
      continue;
    }
    float cosine[4], sine[4];
    const int64_t angles = token_at(n) * half + angle;
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
      const double2 cosines = *reinterpret_cast<const double2*>(p.cosine + angles + e);
      const double2 sines = *reinterpret_cast<const double2*>(p.sine + angles + e);
      cosine[e] = static_cast<float>(cosines.x);
      cosine[e + 1] = static_cast<float>(cosines.y);
      sine[e] = static_cast<float>(sines.x);
      sine[e + 1] = static_cast<float>(sines.y);
    }
    float squares = 0.f;
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      if ((j * 32 + lane) * 8 < p.dim) {
        float x[8];
        unpack(raw[j], x);
#pragma unroll
        for (int e = 0; e < 8; ++e) squares += x[e] * x[e];
      }
    }
    const float factor = rsqrtf(warp_sum(squares) / p.dim + p.eps);
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      const int c = (j * 32 + lane) * 8;
      if (c < p.dim) {
        float x[8], weight[8], turned[8];
        unpack(raw[j], x);
        unpack(load(weights + c), weight);
#pragma unroll
        for (int e = 0; e < 8; ++e) x[e] = round_bf16(round_bf16(x[e] * factor) * weight[e]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          turned[2 * e] = x[2 * e] * cosine[e] - x[2 * e + 1] * sine[e];
          turned[2 * e + 1] = x[2 * e] * sine[e] + x[2 * e + 1] * cosine[e];
        }
        const uint4 packed = pack(turned);
        store(to + c, packed);
        unpack(packed, turned);
#pragma unroll
        for (int e = 0; e < 8; ++e) sums[j][e] += turned[e];
      }
    }
  }
  if (part == 2) return;
  if (!p.q_mean) return;
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int c = (j * 32 + lane) * 8;
    if (c < p.dim) {
#pragma unroll
      for (int e = 0; e < 8; ++e) shared[warp * p.dim + c + e] = sums[j][e];
    }
  }
  __syncthreads();
  float* partial = static_cast<float*>(p.workspace) + (int64_t(part * gridDim.x + window) * kSplits + split) * p.dim;
  for (int c = threadIdx.x; c < p.dim; c += kWarps * 32) {
    float sum = 0.f;
    for (int w = 0; w < kWarps; ++w) sum += shared[w * p.dim + c];
    partial[c] = sum;
  }
}

template <int kSplits>
__global__ void window_mean_kernel(const NormRopeWindowParams p, int windows) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t count = int64_t(windows) * p.dim;
  if (at >= 2 * count) return;
  const int64_t row = at / p.dim;
  const int c = at % p.dim;
  const float* partial = static_cast<const float*>(p.workspace) + row * kSplits * p.dim + c;
  float sum = 0.f;
#pragma unroll
  for (int s = 0; s < kSplits; ++s) sum += partial[s * p.dim];
  uint16_t* out = at < count ? p.q_mean + at : p.k_mean + (at - count);
  *out = __bfloat16_as_ushort(__float2bfloat16_rn(sum * (1.f / 128.f)));
}

}  // namespace

size_t norm_rope_window_workspace_bytes(const NormRopeWindowParams& p) {
  return size_t(2) * kMostSplits * (size_t(p.frames) * p.height * p.width / 128) * p.dim * sizeof(float);
}

template <int kSplits>
static int launch(const NormRopeWindowParams& p, int windows, cudaStream_t stream) {
  const dim3 grid(windows, kSplits, p.v ? 3 : 2);
  const size_t shared = size_t(kWarps) * p.dim * sizeof(float);
  if (p.dim <= 256) {
    norm_rope_window_kernel<1, kSplits><<<grid, kWarps * 32, shared, stream>>>(p);
  } else {
    norm_rope_window_kernel<6, kSplits><<<grid, kWarps * 32, shared, stream>>>(p);
  }
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || !p.q_mean) return error;
  const int64_t count = int64_t(2) * windows * p.dim;
  window_mean_kernel<kSplits><<<unsigned((count + 255) / 256), 256, 0, stream>>>(p, windows);
  return cudaGetLastError();
}

int launch_norm_rope_window(const NormRopeWindowParams& p, void* stream) {
  if (check_norm_rope_window(p)) return cudaErrorInvalidValue;
  const int windows = p.frames / 2 * (p.height / 8) * (p.width / 8);
  const auto s = static_cast<cudaStream_t>(stream);
  return windows < kFewWindows ? launch<kMostSplits>(p, windows, s) : launch<2>(p, windows, s);
}

}  // namespace flashvsr
