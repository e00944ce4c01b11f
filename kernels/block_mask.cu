// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Five launches, each over the whole card. Scores and softmax: a block has a tile of 4 x 4 query windows of a head, which
// share most of the keys that they see; products by mma, and only what lies in the local window is kept. It also
// counts the values by the upper 10 of their 30 bits (positive floats order like integers, and none is above 1).
// Two more launches count by the next 10 bits what shares the threshold's bits so far; the fourth counts each row's
// kept blocks, the fifth writes the lists. What is added by atomics are integers: no order changes a result.
#include "kernels/block_mask.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/mma.cuh"
#include "kernels/rows.cuh"

namespace flashvsr {
namespace {

using namespace rows;

constexpr int kThreads = 256, kAcross = 4, kQueries = 16;
constexpr int kLevels = 3, kLevelBits = 10, kBins = 1 << kLevelBits;
constexpr int kHeld = 16;  // values of a thread in a counting launch
constexpr size_t kScoreBytes = 64 << 10;
constexpr uint32_t kEverything = 0xffffffffu;  // no threshold: whatever is positive is kept

struct Found {
  uint32_t prefix;  // the upper bits of the threshold
  int32_t above;    // so many of the values with these bits may lie above the threshold
};

// Where things are in the workspace. A query block's values are those of the box of windows that may be seen:
// box_rows x box_columns in each slot, in the order of the keys.
struct Map {
  uint32_t* bins;      // [heads * q_slots][kLevels][kBins]
  Found* found;        // [heads * q_slots][kLevels]
  int32_t* counts;     // [heads][q_blocks]: kept
  float* probability;  // [heads][q_blocks][box]
  int box_rows, box_columns, box;
};

size_t rounded(size_t bytes) { return (bytes + 255) / 256 * 256; }

Map make_map(const BlockMaskParams& p, size_t* total) {
  Map map = {};
  map.box_rows = p.local_range < p.rows ? p.local_range : p.rows;
  map.box_columns = p.local_range < p.columns ? p.local_range : p.columns;
  map.box = p.k_slots * map.box_rows * map.box_columns;
  const size_t groups = size_t(p.heads) * p.q_slots, rows = groups * p.rows * p.columns;
  char* at = static_cast<char*>(p.workspace);
  const auto take = [&](size_t bytes) {
    char* const mine = at;
    at += rounded(bytes);
    *total += rounded(bytes);
    return mine;
  };
  *total = 0;
  map.bins = reinterpret_cast<uint32_t*>(take(groups * kLevels * kBins * sizeof(uint32_t)));
  map.found = reinterpret_cast<Found*>(take(groups * kLevels * sizeof(Found)));
  map.counts = reinterpret_cast<int32_t*>(take(rows * sizeof(int32_t)));
  map.probability = reinterpret_cast<float*>(take(rows * map.box * sizeof(float)));
  return map;
}

// First window of the box on an axis of `count`.
__device__ __forceinline__ int origin(int at, int count, int box, int range) {
  const int first = at - range / 2, last = count - box;
  return first < 0 ? 0 : first < last ? first : last;
}

__device__ __forceinline__ bool sees(int from, int to, int range) {
  const int offset = to - from + range / 2;
  return offset >= 0 && offset < range;
}

// Grid: tiles of windows, heads, query slots. tile_rows * kAcross queries a block, their products in rows 0 to 15.
__global__ void __launch_bounds__(kThreads) block_mask_score_kernel(const BlockMaskParams p, const Map map,
                                                                    int tile_rows) {
  extern __shared__ uint16_t scores[];  // [tile_rows * kAcross][box] bf16
  __shared__ uint32_t bins[kBins];
  const int windows = p.rows * p.columns, dim = p.heads * p.head_dim, head = blockIdx.y, slot = blockIdx.z;
  const int tiles_across = (p.columns + kAcross - 1) / kAcross;
  const int top = blockIdx.x / tiles_across * tile_rows, left = blockIdx.x % tiles_across * kAcross;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, group = lane / 4, part = lane & 3;
  const int bottom = top + tile_rows < p.rows ? top + tile_rows : p.rows;
  const int right = left + kAcross < p.columns ? left + kAcross : p.columns;
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;

  // The order of channels within a product is free: a lane takes 8 neighbouring ones of queries and of keys.
  uint4 query[2][4];
  int y[2], x[2], box_y[2], box_x[2];
  bool valid[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int m = group + 8 * half;
    y[half] = top + m / kAcross;
    x[half] = left + m % kAcross;
    valid[half] = y[half] < bottom && x[half] < right;
    box_y[half] = origin(y[half], p.rows, map.box_rows, p.local_range);
    box_x[half] = origin(x[half], p.columns, map.box_columns, p.local_range);
    const uint16_t* const from =
        p.q_mean + int64_t(slot * windows + y[half] * p.columns + x[half]) * dim + head * p.head_dim + part * 8;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      query[half][c] = valid[half] && c * 32 + part * 8 < p.head_dim ? load(from + c * 32) : make_uint4(0, 0, 0, 0);
    }
  }
  // Windows that any query of the tile sees.
  const int key_top = origin(top, p.rows, map.box_rows, p.local_range);
  const int key_left = origin(left, p.columns, map.box_columns, p.local_range);
  const int key_rows = origin(bottom - 1, p.rows, map.box_rows, p.local_range) + map.box_rows - key_top;
  const int key_columns = origin(right - 1, p.columns, map.box_columns, p.local_range) + map.box_columns - key_left;
  const int keys = p.k_slots * key_rows * key_columns;
  const float root = sqrtf(static_cast<float>(p.head_dim));
#pragma unroll 2
  for (int base = warp * 8; base < keys; base += kThreads / 32 * 8) {
    const int key = base + group < keys ? base + group : keys - 1;
    const int line = key / key_columns, key_slot = line / key_rows;
    const int key_y = key_top + line - key_slot * key_rows, key_x = key_left + key - line * key_columns;
    const uint16_t* const from =
        p.k_mean[key_slot] + int64_t(key_y * p.columns + key_x) * dim + head * p.head_dim + part * 8;
    uint4 piece[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      piece[c] = c * 32 + part * 8 < p.head_dim ? load(from + c * 32) : make_uint4(0, 0, 0, 0);
    }
    float d[4] = {};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (c * 32 >= p.head_dim) break;
      mma_bf16(d, query[0][c].x, query[1][c].x, query[0][c].y, query[1][c].y, piece[c].x, piece[c].y);
      mma_bf16(d, query[0][c].z, query[1][c].z, query[0][c].w, query[1][c].w, piece[c].z, piece[c].w);
    }
    // Rows and columns are below 2^13, slots below 2^4.
    const int place = key_slot << 26 | key_y << 13 | key_x;
    const int places[2] = {__shfl_sync(0xffffffffu, place, part * 8), __shfl_sync(0xffffffffu, place, part * 8 + 4)};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int to_slot = places[e] >> 26, to_y = places[e] >> 13 & 8191, to_x = places[e] & 8191;
      if (base + 2 * part + e >= keys) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int dy = to_y - box_y[half], dx = to_x - box_x[half];
        if (!valid[half] || dy < 0 || dy >= map.box_rows || dx < 0 || dx >= map.box_columns) continue;
        const bool allowed = sees(y[half], to_y, p.local_range) && sees(x[half], to_x, p.local_range);
        const float score = allowed ? round_bf16(d[2 * half + e]) / root : -INFINITY;
        scores[(group + 8 * half) * map.box + (to_slot * map.box_rows + dy) * map.box_columns + dx] =
            __bfloat16_as_ushort(__float2bfloat16_rn(score));
      }
    }
  }
  __syncthreads();

  const int groups = head * p.q_slots + slot;
  for (int m = warp; m < tile_rows * kAcross; m += kThreads / 32) {
    const int row = top + m / kAcross, column = left + m % kAcross;
    if (row >= bottom || column >= right) continue;
    const uint16_t* const from = scores + m * map.box;
    float* const out = map.probability + (int64_t(groups) * windows + row * p.columns + column) * map.box;
    float highest = -INFINITY, sum = 0.f;
    for (int k = lane; k < map.box; k += 32) highest = fmaxf(highest, __uint_as_float(uint32_t(from[k]) << 16));
    highest = warp_max(highest);
    for (int k = lane; k < map.box; k += 32) sum += expf(__uint_as_float(uint32_t(from[k]) << 16) - highest);
    sum = warp_sum(sum);
    for (int k = lane; k < map.box; k += 32) {
      const float value = expf(__uint_as_float(uint32_t(from[k]) << 16) - highest) / sum;
      out[k] = value;
      if (value > 0.f) atomicAdd(&bins[__float_as_uint(value) >> 2 * kLevelBits], 1u);
    }
  }
  __syncthreads();
  uint32_t* const all = map.bins + int64_t(groups) * kLevels * kBins;
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    if (bins[i] != 0) atomicAdd(&all[i], bins[i]);
  }
}

// The threshold is the largest T with more than `wanted` values >= T: its bits down to those of `level`, in every
// thread of the block. Bins of a level are complete when its launch is.
template <int kLevel>
__device__ __forceinline__ Found find_level(const BlockMaskParams& p, const Map& map, int group) {
  __shared__ Found result;
  __shared__ int totals[kThreads / 32];
  Found before;
  if (kLevel == 0) {
    const int64_t others = int64_t(p.rows) * p.columns * p.rows * p.columns * p.k_slots - 1;
    before = {0, int32_t(p.topk < others ? p.topk : others)};
  } else {
    before = map.found[group * kLevels + kLevel - 1];
  }
  if (before.prefix == kEverything) return before;
  const uint32_t* const bins = map.bins + (int64_t(group) * kLevels + kLevel) * kBins;
  const int lane = threadIdx.x & 31, last = kBins - 4 * (int(threadIdx.x) + 1);  // the highest bins first
  const uint4 mine = *reinterpret_cast<const uint4*>(bins + last);
  const int counts[4] = {int(mine.w), int(mine.z), int(mine.y), int(mine.x)};
  const int sum = counts[0] + counts[1] + counts[2] + counts[3];
  int above = sum;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, above, offset);
    if (lane >= offset) above += other;
  }
  if (lane == 31) totals[threadIdx.x / 32] = above;
  if (threadIdx.x == 0) result = {kEverything, 0};
  __syncthreads();
  above -= sum;
  for (int i = 0; i < int(threadIdx.x) / 32; ++i) above += totals[i];
  if (above <= before.above && above + sum > before.above) {
    int bin = last + 3;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      if (bin == last + 3 - i && above + counts[i] <= before.above) {
        above += counts[i];
        --bin;
      }
    }
    result = {before.prefix << kLevelBits | uint32_t(bin), before.above - above};
  }
  __syncthreads();
  return result;
}

// Counts by the bits of kLevel what shares the threshold's bits above them. Grid: parts, heads * q_slots.
template <int kLevel>
__global__ void __launch_bounds__(kThreads) block_mask_count_kernel(const BlockMaskParams p, const Map map) {
  __shared__ uint32_t bins[kBins];
  constexpr int kShift = (kLevels - 1 - kLevel) * kLevelBits;
  const int group = blockIdx.y, count = p.rows * p.columns * map.box;
  const uint32_t* const values = reinterpret_cast<const uint32_t*>(map.probability) + int64_t(group) * count;
  uint32_t held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = (blockIdx.x * kHeld + i) * kThreads + threadIdx.x;
    held[i] = at < count ? values[at] : 0u;
  }
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = 0;
  const Found found = find_level<kLevel - 1>(p, map, group);
  if (blockIdx.x == 0 && threadIdx.x == 0) map.found[group * kLevels + kLevel - 1] = found;
  if (found.prefix == kEverything) return;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (held[i] != 0 && held[i] >> (kShift + kLevelBits) == found.prefix) {
      atomicAdd(&bins[held[i] >> kShift & (kBins - 1)], 1u);
    }
  }
  __syncthreads();
  uint32_t* const all = map.bins + (int64_t(group) * kLevels + kLevel) * kBins;
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    if (bins[i] != 0) atomicAdd(&all[i], bins[i]);
  }
}

__device__ __forceinline__ uint32_t threshold_of(const Found& found) {
  return found.prefix == kEverything ? 0u : found.prefix;
}

// A warp a row. Grid: rows of a slot, heads * q_slots.
__global__ void __launch_bounds__(kThreads) block_mask_rows_kernel(const BlockMaskParams p, const Map map) {
  const int group = blockIdx.y, windows = p.rows * p.columns, lane = threadIdx.x & 31;
  const Found found = find_level<kLevels - 1>(p, map, group);
  if (blockIdx.x == 0 && threadIdx.x == 0) map.found[group * kLevels + kLevels - 1] = found;
  const uint32_t threshold = threshold_of(found);
  const int row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (row >= windows) return;
  const int64_t at = int64_t(group) * windows + row;
  const uint32_t* const values = reinterpret_cast<const uint32_t*>(map.probability) + at * map.box;
  int count = 0;
  for (int k = lane; k < map.box; k += 32) count += values[k] > threshold;
  count = __reduce_add_sync(0xffffffffu, count);
  if (lane == 0) map.counts[at] = count;
}

// A warp a row. Grid: rows of all slots, heads.
__global__ void __launch_bounds__(kThreads) block_mask_lists_kernel(const BlockMaskParams p, const Map map) {
  __shared__ int sums[kThreads / 32];
  const int windows = p.rows * p.columns, q_blocks = p.q_slots * windows, k_blocks = p.k_slots * windows;
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int first = blockIdx.x * (kThreads / 32), row = first + warp;
  const int32_t* const counts = map.counts + int64_t(head) * q_blocks;
  int before = 0;
  for (int i = threadIdx.x; i < first; i += kThreads) before += counts[i];
  before = __reduce_add_sync(0xffffffffu, before);
  if (lane == 0) sums[warp] = before;
  __syncthreads();
  if (row >= q_blocks) return;
  int at = head * q_blocks * k_blocks;
  for (int i = 0; i < kThreads / 32; ++i) at += sums[i];
  for (int i = first; i < row; ++i) at += counts[i];
  int* const row_begin = p.row_begin + int64_t(head) * (q_blocks + 1);
  if (lane == 0 && row == 0) row_begin[0] = at;
  if (lane == 0) row_begin[row + 1] = at + counts[row];

  const int slot = row / windows, window = row - slot * windows;
  const int y = window / p.columns, x = window - y * p.columns;
  const int corner = origin(y, p.rows, map.box_rows, p.local_range) * p.columns +
                     origin(x, p.columns, map.box_columns, p.local_range);
  const uint32_t threshold = threshold_of(map.found[(head * p.q_slots + slot) * kLevels + kLevels - 1]);
  const uint32_t* const values =
      reinterpret_cast<const uint32_t*>(map.probability) + (int64_t(head) * q_blocks + row) * map.box;
  for (int k = lane; k - lane < map.box; k += 32) {
    const bool kept = k < map.box && values[k] > threshold;
    const uint32_t votes = __ballot_sync(0xffffffffu, kept);
    if (kept) {
      const int line = k / map.box_columns, key_slot = line / map.box_rows;
      p.column[at + __popc(votes & ((1u << lane) - 1))] =
          key_slot * windows + corner + (line - key_slot * map.box_rows) * p.columns + k - line * map.box_columns;
    }
    at += __popc(votes);
  }
}

}  // namespace

size_t block_mask_workspace_bytes(const BlockMaskParams& p) {
  size_t total = 0;
  make_map(p, &total);
  return total;
}

int launch_block_mask(const BlockMaskParams& p, void* stream) {
  if (check_block_mask(p)) return cudaErrorInvalidValue;
  const auto s = static_cast<cudaStream_t>(stream);
  size_t total = 0;
  const Map map = make_map(p, &total);
  const int windows = p.rows * p.columns, groups = p.heads * p.q_slots;
  int tile_rows = kQueries / kAcross;
  const auto score_bytes = [&] { return size_t(tile_rows) * kAcross * map.box * sizeof(uint16_t); };
  while (score_bytes() > kScoreBytes) tile_rows /= 2;
  const unsigned tiles = unsigned((p.rows + tile_rows - 1) / tile_rows * ((p.columns + kAcross - 1) / kAcross));
  const unsigned parts = unsigned((int64_t{windows} * map.box + kHeld * kThreads - 1) / (kHeld * kThreads));
  constexpr int kRows = kThreads / 32;
  const dim3 slot_grid(unsigned((windows + kRows - 1) / kRows), groups);
  const dim3 list_grid(unsigned((p.q_slots * windows + kRows - 1) / kRows), p.heads);

  cudaError_t error = cudaSuccess;
  if (score_bytes() > 40 << 10) {
    error = cudaFuncSetAttribute(block_mask_score_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kScoreBytes));
  }
  if (error == cudaSuccess) {
    error = cudaMemsetAsync(map.bins, 0, size_t(groups) * kLevels * kBins * sizeof(uint32_t), s);
  }
  if (error != cudaSuccess) return error;
  block_mask_score_kernel<<<dim3(tiles, p.heads, p.q_slots), kThreads, score_bytes(), s>>>(p, map, tile_rows);
  if ((error = cudaGetLastError()) != cudaSuccess) return error;
  block_mask_count_kernel<1><<<dim3(parts, groups), kThreads, 0, s>>>(p, map);
  if ((error = cudaGetLastError()) != cudaSuccess) return error;
  block_mask_count_kernel<2><<<dim3(parts, groups), kThreads, 0, s>>>(p, map);
  if ((error = cudaGetLastError()) != cudaSuccess) return error;
  block_mask_rows_kernel<<<slot_grid, kThreads, 0, s>>>(p, map);
  if ((error = cudaGetLastError()) != cudaSuccess) return error;
  block_mask_lists_kernel<<<list_grid, kThreads, 0, s>>>(p, map);
  return cudaGetLastError();
}

}  // namespace flashvsr
