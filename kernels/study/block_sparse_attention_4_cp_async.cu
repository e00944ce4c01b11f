// SPDX-License-Identifier: LGPL-2.1-or-later
// Rung 4: rung 3 with copies that do not wait. Values travel under the scores and the next keys under
// softmax and output (cp.async), fragments come four at a time by ldmatrix from rows whose 16-byte
// groups are permuted instead of padded, and 4 warps of 32 rows use each key fragment twice.
// This is the idea of ../block_sparse_attention_sm80.cu without its cases.
#include "launch.cuh"

constexpr int kKeys = 64;
constexpr int kThreads = 128;

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

template <bool kTransposed>
__device__ void ldmatrix(uint32_t (&r)[4], uint32_t address) {
  if (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
  }
}

__device__ uint32_t place(int row, int group) { return row * kDim * 2 + ((group ^ (row & 7)) << 4); }

__device__ void load_rows(uint32_t destination, const bf16* source, int rows, int pitch) {
  for (int i = threadIdx.x; i < rows * kDim / 8; i += kThreads) {
    const int row = i / (kDim / 8), group = i % (kDim / 8);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(destination + place(row, group)),
                 "l"(source + static_cast<long long>(row) * pitch + group * 8));
  }
  asm volatile("cp.async.commit_group;");
}

__device__ void arrived() {
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) cp_async_kernel(Problem problem, int pitch) {
  extern __shared__ __align__(128) uint8_t raw[];
  const uint32_t query = static_cast<uint32_t>(__cvta_generic_to_shared(raw));
  const uint32_t key = query + kBlock * kDim * 2, value = key + kKeys * kDim * 2;
  const int q_block = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 32, row = threadIdx.x / 32 * 32;
  const int* bounds = problem.row_begin + head * (problem.q_blocks + 1) + q_block;
  const int parts = (bounds[1] - bounds[0]) * (kBlock / kKeys);
  const auto offset = [&](int part) {
    return static_cast<long long>(problem.column[bounds[0] + part / 2] * kBlock + part % 2 * kKeys) * pitch + head * kDim;
  };
  load_rows(query, problem.query + static_cast<long long>(q_block) * kBlock * pitch + head * kDim, kBlock, pitch);
  if (parts > 0) load_rows(key, problem.key + offset(0), kKeys, pitch);
  float out[2][kDim / 8][4] = {}, largest[2][2], total[2][2] = {};
  largest[0][0] = largest[0][1] = largest[1][0] = largest[1][1] = -INFINITY;
  for (int part = 0; part < parts; ++part) {
    arrived();  // the keys; and everyone has done with the values
    load_rows(value, problem.value + offset(part), kKeys, pitch);
    float score[2][kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t a[2][4], b[4];
      for (int m = 0; m < 2; ++m) ldmatrix<false>(a[m], query + place(row + m * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        ldmatrix<false>(b, key + place(n * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        for (int m = 0; m < 2; ++m) mma(score[m][2 * n], a[m], b[0], b[1]), mma(score[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
    arrived();  // the values; and everyone has done with the keys
    if (part + 1 < parts) load_rows(key, problem.key + offset(part + 1), kKeys, pitch);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        float top = largest[m][upper];
        for (int n = 0; n < kKeys / 8; ++n) top = fmaxf(top, fmaxf(score[m][n][2 * upper], score[m][n][2 * upper + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        const float rescale = exp2f((largest[m][upper] - top) * problem.scale_log2);
        largest[m][upper] = top;
        total[m][upper] *= rescale;
        for (int n = 0; n < kDim / 8; ++n) out[m][n][2 * upper] *= rescale, out[m][n][2 * upper + 1] *= rescale;
        for (int n = 0; n < kKeys / 8; ++n) {
          for (int i = 2 * upper; i < 2 * upper + 2; ++i) {
            score[m][n][i] = exp2f((score[m][n][i] - top) * problem.scale_log2);
            total[m][upper] += score[m][n][i];
          }
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      uint32_t a[2][4], b[4];
      for (int m = 0; m < 2; ++m) {
        for (int i = 0; i < 4; ++i) {
          a[m][i] = pack(score[m][2 * k + i / 2][i % 2 * 2], score[m][2 * k + i / 2][i % 2 * 2 + 1]);
        }
      }
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        ldmatrix<true>(b, value + place(k * 16 + lane % 16, 2 * n + lane / 16));
        for (int m = 0; m < 2; ++m) mma(out[m][2 * n], a[m], b[0], b[1]), mma(out[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      float sum = total[m][upper];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      const float inverse = sum > 0.f ? 1.f / sum : 0.f;
      bf16* to = problem.output +
                 static_cast<long long>(q_block * kBlock + row + m * 16 + lane / 4 + 8 * upper) * pitch + head * kDim + lane % 4 * 2;
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(to + n * 8) = pack(out[m][n][2 * upper] * inverse, out[m][n][2 * upper + 1] * inverse);
      }
    }
  }
}

static void launch(const Problem& problem) {
  constexpr int kBytes = (kBlock + 2 * kKeys) * kDim * 2;
  STUDY_CHECK(cudaFuncSetAttribute(cp_async_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  cp_async_kernel<<<dim3(problem.q_blocks, problem.heads), kThreads, kBytes>>>(problem, problem.pitch());
}

STUDY_MAIN("4 cp.async")
