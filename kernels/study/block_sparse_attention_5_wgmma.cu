// SPDX-License-Identifier: LGPL-2.1-or-later
// Rung 5: Hopper's wgmma, two warpgroups of 64 rows, whole blocks of 128 keys. Operands are read from
// shared memory by descriptor, in rows of 128 bytes whose 16-byte groups are permuted by the row
// (the 128-byte swizzle); values are read transposed. Two stages, filled by cp.async; scores, softmax
// and output still follow one another. What the real kernel adds: TMA and a producer warp, softmax
// under the products, persistent CTAs that take the longest rows first.
#include "../wgmma.cuh"
#include "launch.cuh"

constexpr int kThreads = 256;
constexpr int kTile = kBlock * kDim * 2;  // bytes; two halves of 64 columns, 128 rows each
constexpr int kHalf = kTile / 2;

__device__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

__device__ uint64_t descriptor(uint32_t address, int leading_bytes) {
  return static_cast<uint64_t>(address >> 4) | static_cast<uint64_t>(leading_bytes >> 4) << 16 |
         static_cast<uint64_t>(1024 >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

template <int kCount>
__device__ void pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

__device__ void load_tile(uint32_t destination, const bf16* source, int pitch) {
  for (int i = threadIdx.x; i < kBlock * kDim / 8; i += kThreads) {
    const int row = i / 16, group = i % 16;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(destination + group / 8 * kHalf + row * 128 +
                                                                    ((group % 8 ^ (row & 7)) << 4)),
                 "l"(source + static_cast<long long>(row) * pitch + group * 8));
  }
}

__global__ void __launch_bounds__(kThreads, 1) wgmma_kernel(Problem problem, int pitch) {
  extern __shared__ uint8_t raw[];
  const uint32_t query = (static_cast<uint32_t>(__cvta_generic_to_shared(raw)) + 1023) & ~1023u;
  const int q_block = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 32, group = threadIdx.x / 128;
  const int* bounds = problem.row_begin + head * (problem.q_blocks + 1) + q_block;
  const int length = bounds[1] - bounds[0];
  const auto stage = [&](int j) { return query + kTile + j % 2 * 2 * kTile; };  // keys, then values
  const auto load = [&](int j) {
    const long long at = static_cast<long long>(problem.column[bounds[0] + j]) * kBlock * pitch + head * kDim;
    load_tile(stage(j), problem.key + at, pitch);
    load_tile(stage(j) + kTile, problem.value + at, pitch);
  };
  load_tile(query, problem.query + static_cast<long long>(q_block) * kBlock * pitch + head * kDim, pitch);
  if (length > 0) load(0);
  asm volatile("cp.async.commit_group;");
  float out[64], largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
#pragma unroll
  for (float& value : out) value = 0.f;
  for (int j = 0; j < length; ++j) {
    if (j + 1 < length) load(j + 1);
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // wgmma reads through another proxy
    __syncthreads();
    float score[64];
    pin(score);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int at = k / 4 * kHalf + k % 4 * 32;
      flashvsr::wgmma_m64n128_ss(score, descriptor(query + group * 64 * 128 + at, 16), descriptor(stage(j) + at, 16), k > 0);
    }
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
    pin(score);
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      float top = largest[upper];
#pragma unroll
      for (int n = 0; n < 16; ++n) top = fmaxf(top, fmaxf(score[4 * n + 2 * upper], score[4 * n + 2 * upper + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const float rescale = exp2f((largest[upper] - top) * problem.scale_log2);
      largest[upper] = top;
      total[upper] *= rescale;
#pragma unroll
      for (int n = 0; n < 16; ++n) {
#pragma unroll
        for (int i = 4 * n + 2 * upper; i < 4 * n + 2 * upper + 2; ++i) {
          out[i] *= rescale;
          score[i] = exp2f((score[i] - top) * problem.scale_log2);
          total[upper] += score[i];
        }
      }
    }
    uint32_t probability[32];
#pragma unroll
    for (int i = 0; i < 32; ++i) probability[i] = pack(score[2 * i], score[2 * i + 1]);
    pin(out);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      flashvsr::wgmma_m64n128_rs(out, &probability[4 * k], descriptor(stage(j) + kTile + k * 2048, kHalf), 1);
    }
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
    pin(out);
    __syncthreads();
  }
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    float sum = total[upper];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    const float inverse = sum > 0.f ? 1.f / sum : 0.f;
    const int row = threadIdx.x / 32 * 16 + lane / 4 + 8 * upper;
    bf16* to = problem.output + static_cast<long long>(q_block * kBlock + row) * pitch + head * kDim + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 16; ++n) {
      *reinterpret_cast<uint32_t*>(to + n * 8) = pack(out[4 * n + 2 * upper] * inverse, out[4 * n + 2 * upper + 1] * inverse);
    }
  }
}

static void launch(const Problem& problem) {
  constexpr int kBytes = 5 * kTile + 1024;
  STUDY_CHECK(cudaFuncSetAttribute(wgmma_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  wgmma_kernel<<<dim3(problem.q_blocks, problem.heads), kThreads, kBytes>>>(problem, problem.pitch());
}

STUDY_MAIN("5 wgmma")
