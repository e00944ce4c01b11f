// SPDX-License-Identifier: LGPL-2.1-or-later
//
// First kernel: scores and softmax, one block for kRows query blocks of a head. Second kernel: one
// block a head finds the threshold of each query slot by a search over the bits of the values (positive floats order
// like integers), counting what lies above; small maps stay in registers. Then it writes the lists.
#include "kernels/block_mask.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/rows.cuh"

namespace flashvsr {
namespace {

using namespace rows;

constexpr int kRows = 4, kScoreThreads = 256, kSelectThreads = 1024, kHeld = 24;

__device__ __forceinline__ bool sees(int from, int to, int range) {
  const int offset = to - from + range / 2;
  return offset >= 0 && offset < range;
}

// Eight lanes a key, so that a warp reads whole rows; each lane keeps its channels of the query rows in registers.
__global__ void __launch_bounds__(kScoreThreads) block_mask_score_kernel(const BlockMaskParams p, float* probability) {
  extern __shared__ float scores[];  // [kRows][k_blocks]
  const int windows = p.rows * p.columns, q_blocks = p.q_slots * windows, k_blocks = p.k_slots * windows;
  const int dim = p.heads * p.head_dim, head = blockIdx.y, first = blockIdx.x * kRows;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, part = lane & 7;
  const bool has[2] = {part * 8 < p.head_dim, 64 + part * 8 < p.head_dim};
  float query[kRows][2][8];
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 piece = make_uint4(0, 0, 0, 0);
      if (first + row < q_blocks && has[half]) {
        piece = load(p.q_mean + int64_t(first + row) * dim + head * p.head_dim + half * 64 + part * 8);
      }
      unpack(piece, query[row][half]);
    }
  }
  const float root = sqrtf(static_cast<float>(p.head_dim));
#pragma unroll 2
  for (int base = warp * 4; base < k_blocks; base += kScoreThreads / 8) {
    const int k = base + lane / 8;
    const int slot = k < k_blocks ? k / windows : 0, window = k < k_blocks ? k - slot * windows : 0;
    const uint16_t* key = p.k_mean[slot] + int64_t(window) * dim + head * p.head_dim + part * 8;
    float dot[kRows] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float values[8];
      unpack(has[half] ? load(key + half * 64) : make_uint4(0, 0, 0, 0), values);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
#pragma unroll
        for (int e = 0; e < 8; ++e) dot[row] += values[e] * query[row][half][e];
      }
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
      for (int offset = 4; offset > 0; offset /= 2) dot[row] += __shfl_xor_sync(0xffffffffu, dot[row], offset);
    }
    if (part < kRows && k < k_blocks) {
      float sum = dot[0];
#pragma unroll
      for (int row = 1; row < kRows; ++row) sum = part == row ? dot[row] : sum;
      const int q = (first + part) % windows;
      const bool allowed = sees(q / p.columns, window / p.columns, p.local_range) &&
                           sees(q % p.columns, window % p.columns, p.local_range);
      scores[part * k_blocks + k] = allowed ? round_bf16(round_bf16(sum) / root) : -INFINITY;
    }
  }
  __syncthreads();
  if (warp < kRows && first + warp < q_blocks) {
    float* const row = scores + warp * k_blocks;
    float* const out = probability + (int64_t(head) * q_blocks + first + warp) * k_blocks;
    float top = -INFINITY;
    for (int k = lane; k < k_blocks; k += 32) top = fmaxf(top, row[k]);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, offset));
    float sum = 0.f;
    for (int k = lane; k < k_blocks; k += 32) {
      const float e = expf(row[k] - top);
      row[k] = e;
      sum += e;
    }
    sum = warp_sum(sum);
    for (int k = lane; k < k_blocks; k += 32) out[k] = row[k] / sum;
  }
}

// Sum over the block, in every thread. `slots` [2][32] alternate so that one barrier a call is enough.
__device__ __forceinline__ int block_sum(int value, int (*slots)[32], int turn) {
  value = __reduce_add_sync(0xffffffffu, value);
  int* const mine = slots[turn & 1];
  if ((threadIdx.x & 31) == 0) mine[threadIdx.x / 32] = value;
  __syncthreads();
  return __reduce_add_sync(0xffffffffu, mine[threadIdx.x & 31]);
}

__global__ void __launch_bounds__(kSelectThreads) block_mask_select_kernel(const BlockMaskParams p,
                                                                          const float* probability) {
  extern __shared__ uint32_t copy[];  // the map of a slot, where it fits
  __shared__ int slots[2][32];
  __shared__ int offsets[kSelectThreads / 32 + 1];
  const int windows = p.rows * p.columns, q_blocks = p.q_slots * windows, k_blocks = p.k_slots * windows;
  const int head = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int64_t flat = int64_t(windows) * k_blocks;
  const int64_t wanted = p.topk < flat - 1 ? p.topk : flat - 1;  // so many lie above the threshold, at most
  int* const row_begin = p.row_begin + int64_t(head) * (q_blocks + 1);
  int begin = head * q_blocks * k_blocks;
  if (threadIdx.x == 0) row_begin[0] = begin;

  for (int slot = 0; slot < p.q_slots; ++slot) {
    const float* const map = probability + (int64_t(head) * q_blocks + slot * windows) * k_blocks;
    const uint32_t* const bits = reinterpret_cast<const uint32_t*>(map);
    const bool held = flat <= int64_t(kHeld) * kSelectThreads;
    uint32_t value[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int64_t at = int64_t(i) * kSelectThreads + threadIdx.x;
      value[i] = held && at < flat ? bits[at] : 0u;
      if (held && at < flat) copy[at] = value[i];
    }
    // The largest T with more than `wanted` values >= T is the (wanted+1)-th largest value; 0 when there is none.
    // Values are at most 1.
    uint32_t threshold = 0;
    int turn = 0;
    for (int bit = 29; bit >= 0; --bit) {
      const uint32_t candidate = threshold | (1u << bit);
      int count = 0;
      if (held) {
#pragma unroll
        for (int i = 0; i < kHeld; ++i) count += value[i] >= candidate;
      } else {
        for (int64_t at = threadIdx.x; at < flat; at += kSelectThreads) count += bits[at] >= candidate;
      }
      if (block_sum(count, slots, turn++) > wanted) threshold = candidate;
    }

    // Lists: a warp a row, in batches of as many rows as there are warps.
    for (int base = 0; base < windows; base += kSelectThreads / 32) {
      const int row = base + warp;
      const uint32_t* const values = (held ? copy : bits) + int64_t(row) * k_blocks;
      int count = 0;
      if (row < windows) {
        for (int k = lane; k < k_blocks; k += 32) count += values[k] > threshold;
      }
      count = __reduce_add_sync(0xffffffffu, count);
      __syncthreads();
      if (lane == 0) slots[0][warp] = count;
      __syncthreads();
      if (warp == 0) {
        int sum = slots[0][lane];
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
          const int other = __shfl_up_sync(0xffffffffu, sum, offset);
          if (lane >= offset) sum += other;
        }
        offsets[lane + 1] = sum;
        if (lane == 0) offsets[0] = 0;
      }
      __syncthreads();
      if (row < windows) {
        int at = begin + offsets[warp];
        if (lane == 0) row_begin[slot * windows + row + 1] = begin + offsets[warp + 1];
        for (int k = lane; k - lane < k_blocks; k += 32) {
          const bool kept = k < k_blocks && values[k] > threshold;
          const uint32_t votes = __ballot_sync(0xffffffffu, kept);
          if (kept) p.column[at + __popc(votes & ((1u << lane) - 1))] = k;
          at += __popc(votes);
        }
      }
      begin += offsets[kSelectThreads / 32];
    }
    __syncthreads();
  }
}

}  // namespace

size_t block_mask_workspace_bytes(const BlockMaskParams& p) {
  const size_t windows = size_t(p.rows) * p.columns;
  return size_t(p.heads) * p.q_slots * windows * p.k_slots * windows * sizeof(float);
}

int launch_block_mask(const BlockMaskParams& p, void* stream) {
  if (check_block_mask(p)) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  const int q_blocks = p.q_slots * p.rows * p.columns;
  const int64_t k_blocks = int64_t{p.k_slots} * p.rows * p.columns, flat = k_blocks * p.rows * p.columns;
  const size_t score_bytes = size_t(kRows) * k_blocks * sizeof(float);
  const size_t map_bytes = flat <= kHeld * kSelectThreads ? size_t(flat) * sizeof(float) : 0;
  float* const probability = static_cast<float*>(p.workspace);
  cudaError_t error = cudaSuccess;
  if (score_bytes > 48 << 10) {
    error = cudaFuncSetAttribute(block_mask_score_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(score_bytes));
  }
  if (error == cudaSuccess && map_bytes > 40 << 10) {
    error = cudaFuncSetAttribute(block_mask_select_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 int(kHeld * kSelectThreads * sizeof(float)));
  }
  if (error != cudaSuccess) return error;
  block_mask_score_kernel<<<dim3((q_blocks + kRows - 1) / kRows, p.heads), kScoreThreads, score_bytes, s>>>(p,
                                                                                                          probability);
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  block_mask_select_kernel<<<p.heads, kSelectThreads, map_bytes, s>>>(p, probability);
  return cudaGetLastError();
}

}  // namespace flashvsr
