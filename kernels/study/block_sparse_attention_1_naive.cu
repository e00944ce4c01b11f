// SPDX-License-Identifier: LGPL-2.1-or-later
// Rung 1: one warp per query row, one key at a time, everything from global memory. Each lane holds
// 4 of the 128 columns; a score is a sum over the warp. The online softmax is already the final one:
// a running maximum, and older sums scaled when it grows.
#include "launch.cuh"

__global__ void naive_kernel(Problem problem, int pitch) {
  const int lane = threadIdx.x % 32;
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int head = blockIdx.y;
  const int* bounds = problem.row_begin + head * (problem.q_blocks + 1) + row / kBlock;
  const long long offset = static_cast<long long>(row) * pitch + head * kDim + lane * 4;
  float query[4], sum[4] = {}, largest = -INFINITY, total = 0.f;
  for (int i = 0; i < 4; ++i) query[i] = __bfloat162float(problem.query[offset + i]) * problem.scale_log2;
  for (int pair = bounds[0]; pair < bounds[1]; ++pair) {
    for (int j = 0; j < kBlock; ++j) {
      const long long at = static_cast<long long>(problem.column[pair] * kBlock + j) * pitch + head * kDim + lane * 4;
      float score = 0.f;
      for (int i = 0; i < 4; ++i) score += query[i] * __bfloat162float(problem.key[at + i]);
      for (int step = 16; step > 0; step /= 2) score += __shfl_xor_sync(~0u, score, step);
      const float top = fmaxf(largest, score);
      const float rescale = exp2f(largest - top);
      const float p = exp2f(score - top);
      largest = top;
      total = total * rescale + p;
      for (int i = 0; i < 4; ++i) sum[i] = sum[i] * rescale + p * __bfloat162float(problem.value[at + i]);
    }
  }
  for (int i = 0; i < 4; ++i) problem.output[offset + i] = __float2bfloat16(total > 0.f ? sum[i] / total : 0.f);
}

static void launch(const Problem& problem) {
  naive_kernel<<<dim3(problem.q_blocks * kBlock / 8, problem.heads), 256>>>(problem, problem.pitch());
}

STUDY_MAIN("1 naive")
