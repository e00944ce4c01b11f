// SPDX-License-Identifier: LGPL-2.1-or-later
// Rung 2: a CTA owns a query block; keys and values pass through shared memory 32 at a time, as
// floats, and every value read is used for 8 rows or 4 keys from registers. Still no tensor cores.
#include "launch.cuh"

constexpr int kKeys = 32;
constexpr int kPad = 4;
// Thread (r, c) of 16 x 16: rows r + 16 i (8 of them), keys c + 16 j (2), output columns c + 16 j (8).

__global__ void __launch_bounds__(256) shared_kernel(Problem problem, int pitch) {
  extern __shared__ float raw[];
  float(*query)[kDim + kPad] = reinterpret_cast<float(*)[kDim + kPad]>(raw);
  float(*key)[kDim + kPad] = query + kBlock;
  float(*value)[kDim + kPad] = key + kKeys;
  float(*probability)[kKeys + 1] = reinterpret_cast<float(*)[kKeys + 1]>(value + kKeys);
  const int q_block = blockIdx.x, head = blockIdx.y;
  const int r = threadIdx.x / 16, c = threadIdx.x % 16;
  const int* bounds = problem.row_begin + head * (problem.q_blocks + 1) + q_block;
  for (int i = threadIdx.x; i < kBlock * kDim; i += 256) {
    query[i / kDim][i % kDim] =
        __bfloat162float(problem.query[static_cast<long long>(q_block * kBlock + i / kDim) * pitch + head * kDim + i % kDim]) *
        problem.scale_log2;
  }
  float out[8][8] = {}, largest[8], total[8] = {};
  for (float& top : largest) top = -INFINITY;
  for (int pair = bounds[0]; pair < bounds[1]; ++pair) {
    for (int part = 0; part < kBlock; part += kKeys) {
      __syncthreads();
      for (int i = threadIdx.x; i < kKeys * kDim; i += 256) {
        const long long at = static_cast<long long>(problem.column[pair] * kBlock + part + i / kDim) * pitch + head * kDim + i % kDim;
        key[i / kDim][i % kDim] = __bfloat162float(problem.key[at]);
        value[i / kDim][i % kDim] = __bfloat162float(problem.value[at]);
      }
      __syncthreads();
      float score[8][2] = {};
      for (int k = 0; k < kDim; ++k) {
        const float key0 = key[c][k], key1 = key[c + 16][k];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          score[i][0] += query[r + 16 * i][k] * key0;
          score[i][1] += query[r + 16 * i][k] * key1;
        }
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float top = fmaxf(largest[i], fmaxf(score[i][0], score[i][1]));
        for (int step = 8; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
        const float rescale = exp2f(largest[i] - top);
        largest[i] = top;
        total[i] *= rescale;
        for (int j = 0; j < 2; ++j) {
          const float p = exp2f(score[i][j] - top);
          total[i] += p;
          probability[r + 16 * i][c + 16 * j] = p;
        }
        for (int j = 0; j < 8; ++j) out[i][j] *= rescale;
      }
      __syncwarp();  // the 16 threads of a row are in one warp
      for (int k = 0; k < kKeys; ++k) {
        float v[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) v[j] = value[k][c + 16 * j];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float p = probability[r + 16 * i][k];
#pragma unroll
          for (int j = 0; j < 8; ++j) out[i][j] += p * v[j];
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    for (int step = 8; step > 0; step /= 2) total[i] += __shfl_xor_sync(~0u, total[i], step);
    for (int j = 0; j < 8; ++j) {
      problem.output[static_cast<long long>(q_block * kBlock + r + 16 * i) * pitch + head * kDim + c + 16 * j] =
          __float2bfloat16(total[i] > 0.f ? out[i][j] / total[i] : 0.f);
    }
  }
}

static void launch(const Problem& problem) {
  constexpr int kBytes = ((kBlock + 2 * kKeys) * (kDim + kPad) + kBlock * (kKeys + 1)) * 4;
  STUDY_CHECK(cudaFuncSetAttribute(shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  shared_kernel<<<dim3(problem.q_blocks, problem.heads), 256, kBytes>>>(problem, problem.pitch());
}

STUDY_MAIN("2 shared")
