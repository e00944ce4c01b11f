// SPDX-License-Identifier: LGPL-2.1-or-later
// Rung 3: tensor cores through mma.sync, 8 warps of 16 rows. Scores and output live in registers in
// the accumulator's layout; two of its column groups of 8 are an A operand of 16, so probabilities
// never leave the registers. Fragments come by plain loads from padded rows; every load waits.
#include "launch.cuh"

constexpr int kKeys = 64;
constexpr int kRow = kDim + 8;  // padded: rows start 4 banks apart

__device__ uint32_t pair_at(const bf16* p) { return *reinterpret_cast<const uint32_t*>(p); }

__device__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

__device__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ void load_rows(bf16 (*destination)[kRow], const bf16* source, int rows, int pitch) {
  for (int i = threadIdx.x; i < rows * kDim / 8; i += blockDim.x) {
    const int row = i / (kDim / 8), group = i % (kDim / 8) * 8;
    *reinterpret_cast<uint4*>(&destination[row][group]) =
        *reinterpret_cast<const uint4*>(source + static_cast<long long>(row) * pitch + group);
  }
}

__global__ void __launch_bounds__(256) mma_kernel(Problem problem, int pitch) {
  extern __shared__ __align__(16) uint8_t raw[];
  bf16(*query)[kRow] = reinterpret_cast<bf16(*)[kRow]>(raw);
  bf16(*key)[kRow] = query + kBlock;
  bf16(*value)[kRow] = key + kKeys;
  const int q_block = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 32;
  const int row = threadIdx.x / 32 * 16 + lane / 4, column = lane % 4 * 2;
  const int* bounds = problem.row_begin + head * (problem.q_blocks + 1) + q_block;
  load_rows(query, problem.query + static_cast<long long>(q_block) * kBlock * pitch + head * kDim, kBlock, pitch);
  float out[kDim / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int pair = bounds[0]; pair < bounds[1]; ++pair) {
    for (int part = 0; part < kBlock; part += kKeys) {
      const long long at = static_cast<long long>(problem.column[pair] * kBlock + part) * pitch + head * kDim;
      __syncthreads();
      load_rows(key, problem.key + at, kKeys, pitch);
      load_rows(value, problem.value + at, kKeys, pitch);
      __syncthreads();
      float score[kKeys / 8][4] = {};
#pragma unroll
      for (int k = 0; k < kDim; k += 16) {
        const uint32_t a[4] = {pair_at(&query[row][k + column]), pair_at(&query[row + 8][k + column]),
                               pair_at(&query[row][k + 8 + column]), pair_at(&query[row + 8][k + 8 + column])};
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
          const bf16* b = &key[n * 8 + lane / 4][k + column];
          mma(score[n], a, pair_at(b), pair_at(b + 8));
        }
      }
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        float top = largest[upper];
        for (int n = 0; n < kKeys / 8; ++n) top = fmaxf(top, fmaxf(score[n][2 * upper], score[n][2 * upper + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float rescale = exp2f((largest[upper] - top) * problem.scale_log2);
        largest[upper] = top;
        total[upper] *= rescale;
        for (int n = 0; n < kDim / 8; ++n) out[n][2 * upper] *= rescale, out[n][2 * upper + 1] *= rescale;
        for (int n = 0; n < kKeys / 8; ++n) {
          for (int i = 2 * upper; i < 2 * upper + 2; ++i) {
            score[n][i] = exp2f((score[n][i] - top) * problem.scale_log2);
            total[upper] += score[n][i];
          }
        }
      }
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k) {
        const float(&low)[4] = score[2 * k];
        const float(&high)[4] = score[2 * k + 1];
        const uint32_t a[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]), pack(high[2], high[3])};
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          const bf16* b = &value[k * 16 + column][n * 8 + lane / 4];  // transposed: two loads a register
          const auto two = [&](int at) {
            return static_cast<uint32_t>(__bfloat16_as_ushort(b[at * kRow])) |
                   static_cast<uint32_t>(__bfloat16_as_ushort(b[(at + 1) * kRow])) << 16;
          };
          mma(out[n], a, two(0), two(8));
        }
      }
    }
  }
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    float sum = total[upper];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    const float inverse = sum > 0.f ? 1.f / sum : 0.f;
    bf16* to = problem.output + static_cast<long long>(q_block * kBlock + row + 8 * upper) * pitch + head * kDim + column;
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<uint32_t*>(to + n * 8) = pack(out[n][2 * upper] * inverse, out[n][2 * upper + 1] * inverse);
    }
  }
}

static void launch(const Problem& problem) {
  constexpr int kBytes = (kBlock + 2 * kKeys) * kRow * 2;
  STUDY_CHECK(cudaFuncSetAttribute(mma_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  mma_kernel<<<dim3(problem.q_blocks, problem.heads), 256, kBytes>>>(problem, problem.pitch());
}

STUDY_MAIN("3 mma")
