// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A warp a row, the row in registers: each element is read once and written once, statistics are exact two-pass.
#include "kernels/layer_norm_modulate.h"

#include "kernels/rows.cuh"

namespace flashvsr {
namespace {

using namespace rows;

template <int kPieces, RowNorm kNorm>
__global__ void __launch_bounds__(kWarps * 32) layer_norm_modulate_kernel(const LayerNormModulateParams p) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x & 31;
  if (row >= p.rows) return;
  float values[kPieces][8];
  uint4 raw_x[kPieces], raw_y[kPieces];
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int c = (i * 32 + lane) * 8;
    if (c < p.dim) {
      raw_x[i] = load(p.x + row * p.dim + c);
      if (p.y) raw_y[i] = load(p.y + row * p.dim + c);
    }
  }
  float sum = 0.f, squares = 0.f;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int c = (i * 32 + lane) * 8;
    if (c < p.dim) {
      unpack(raw_x[i], values[i]);
      if (p.y) {
        float y[8];
        unpack(raw_y[i], y);
        if (p.gate) {
          float gate[8];
          unpack(load(p.gate + c), gate);
#pragma unroll
          for (int j = 0; j < 8; ++j) y[j] = round_bf16(gate[j] * y[j]);
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) values[i][j] = round_bf16(values[i][j] + y[j]);
      }
      if (p.sum) store(p.sum + row * p.dim + c, pack(values[i]));
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        sum += values[i][j];
        squares += values[i][j] * values[i][j];
      }
    }
  }
  if (kNorm == RowNorm::kNone) return;
  float mean = 0.f, factor, root = 0.f;
  if (kNorm == RowNorm::kModulate || kNorm == RowNorm::kAffine) {
    mean = warp_sum(sum) / p.dim;
    float variance = 0.f;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if ((i * 32 + lane) * 8 < p.dim) {
#pragma unroll
        for (int j = 0; j < 8; ++j) variance += (values[i][j] - mean) * (values[i][j] - mean);
      }
    }
    factor = rsqrtf(warp_sum(variance) / p.dim + p.eps);
  } else if (kNorm == RowNorm::kRms) {
    factor = rsqrtf(warp_sum(squares) / p.dim + p.eps);
  } else {
    factor = fmaxf(round_bf16(sqrtf(warp_sum(squares))), 1e-12f);
    root = round_bf16(sqrtf(static_cast<float>(p.dim)));
  }
  float top = 0.f;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int c = (i * 32 + lane) * 8;
    if (c < p.dim) {
      float scale[8], shift[8] = {}, out[8];
      unpack(load(p.scale1 + c), scale);
      if (kNorm == RowNorm::kModulate || kNorm == RowNorm::kAffine) unpack(load(p.shift + c), shift);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (kNorm == RowNorm::kModulate) {
          out[j] = round_bf16(round_bf16((values[i][j] - mean) * factor) * scale[j]) + shift[j];
        } else if (kNorm == RowNorm::kAffine) {
          out[j] = (values[i][j] - mean) * factor * scale[j] + shift[j];
        } else if (kNorm == RowNorm::kRms) {
          out[j] = round_bf16(values[i][j] * factor) * scale[j];
        } else {
          const float v = round_bf16(round_bf16(round_bf16(values[i][j] / factor) * root) * scale[j]);
          out[j] = v / (1.f + __expf(-v));
        }
      }
      if (kNorm == RowNorm::kModulate || kNorm == RowNorm::kAffine) {
        if (p.out8) {
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            values[i][j] = round_bf16(out[j]);
            top = fmaxf(top, fabsf(values[i][j]));
          }
          continue;
        }
      }
      store(p.out + row * p.dim + c, pack(out));
    }
  }
  if ((kNorm == RowNorm::kModulate || kNorm == RowNorm::kAffine) && p.out8) {
    top = warp_max(top);
    const float scale = top > 0.f ? top / 448.f : 1.f, inverse = 1.f / scale;
    if (lane == 0) p.scale[row] = scale;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int c = (i * 32 + lane) * 8;
      if (c < p.dim) *reinterpret_cast<uint2*>(p.out8 + row * p.dim + c) = pack_e4m3(values[i], inverse);
    }
  }
}

template <int kPieces>
void launch(const LayerNormModulateParams& p, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>((p.rows + kWarps - 1) / kWarps);
  const int threads = kWarps * 32;
  switch (p.norm) {
    case RowNorm::kNone:
      layer_norm_modulate_kernel<kPieces, RowNorm::kNone><<<blocks, threads, 0, stream>>>(p);
      break;
    case RowNorm::kModulate:
      layer_norm_modulate_kernel<kPieces, RowNorm::kModulate><<<blocks, threads, 0, stream>>>(p);
      break;
    case RowNorm::kAffine:
      layer_norm_modulate_kernel<kPieces, RowNorm::kAffine><<<blocks, threads, 0, stream>>>(p);
      break;
    case RowNorm::kRms:
      layer_norm_modulate_kernel<kPieces, RowNorm::kRms><<<blocks, threads, 0, stream>>>(p);
      break;
    case RowNorm::kChannelRms:
      layer_norm_modulate_kernel<kPieces, RowNorm::kChannelRms><<<blocks, threads, 0, stream>>>(p);
      break;
  }
}

}  // namespace

int launch_layer_norm_modulate(const LayerNormModulateParams& p, void* stream) {
  if (check_layer_norm_modulate(p)) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const int pieces = (p.dim / 8 + 31) / 32;
  if (pieces <= 1) {
    launch<1>(p, s);
  } else if (pieces <= 6) {
    launch<6>(p, s);
  } else {
    launch<12>(p, s);
  }
  return cudaGetLastError();
}

}  // namespace flashvsr
