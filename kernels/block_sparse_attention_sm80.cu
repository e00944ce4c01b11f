// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Everything from compute capability 8.0: mma.sync and cp.async. One CTA of 4 warps per row of the
// mask, 32 query rows a warp, so that each key or value fragment read from shared memory feeds two
// products. Keys and values come kKeys at a time, one buffer each: values travel under scores and
// softmax, the next keys under the output; two CTAs on an SM cover the rest.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "kernels/block_sparse_attention_common.cuh"
#include "kernels/block_sparse_attention_launch.cuh"

namespace flashvsr {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kWarpRows = kAttentionBlock / kWarps;
constexpr int kRowTiles = kWarpRows / 16;
constexpr float kTooLarge = 1e12f;  // of the sums of a thread; far from fp32's and bf16's 3e38

struct Arguments {
  const uint16_t* query;
  const uint16_t* key_ring;
  const uint16_t* value_ring;
  const uint16_t* key_current;
  const uint16_t* value_current;
  const int32_t* slot_map;
  const int32_t* column;
  const AttentionRow* order;
  uint16_t* output;
  int32_t windows;
  int32_t pitch;
  float scale_log2;
  int32_t raster_height;
  int32_t raster_width;
};

__device__ __forceinline__ void copy_async(uint32_t destination, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(destination), "l"(source)
               : "memory");
}

__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

__device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Rows of kHeadDim bf16; 16-byte groups are permuted by the row so that 8 rows of one group fall in
// 8 different bank groups.
template <int kHeadDim>
__device__ __forceinline__ uint32_t place(int row, int group) {
  return row * kHeadDim * 2 + ((group ^ (row & 7)) << 4);
}

template <int kHeadDim, int kRows>
__device__ __forceinline__ void load_tile(uint32_t destination, const uint16_t* source, int pitch) {
  constexpr int kGroups = kHeadDim / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kGroups; i += kThreads) {
    const int row = i / kGroups;
    const int group = i % kGroups;
    copy_async(destination + place<kHeadDim>(row, group),
               source + static_cast<int64_t>(row) * pitch + group * 8);
  }
}

template <int kHeadDim, int kKeys>
__global__ void __launch_bounds__(kThreads)
    attention_sm80_kernel(const __grid_constant__ Arguments arguments) {
  constexpr int kParts = kAttentionBlock / kKeys;
  constexpr int kScoreTiles = kKeys / 8;
  constexpr int kOutTiles = kHeadDim / 8;
  extern __shared__ __align__(128) uint8_t raw[];
  const uint32_t shared_query = static_cast<uint32_t>(__cvta_generic_to_shared(raw));
  const uint32_t shared_key = shared_query + kAttentionBlock * kHeadDim * 2;
  const uint32_t shared_value = shared_key + kKeys * kHeadDim * 2;

  const AttentionRow item = arguments.order[blockIdx.x];
  const int length = abs(item.length);
  const int step = item.length < 0 ? -1 : 1;
  const int32_t* column = arguments.column + item.begin + (item.length < 0 ? length - 1 : 0);
  const int parts = length * kParts;
  const int lane = threadIdx.x % 32;
  const int first_row = threadIdx.x / 32 * kWarpRows;
  const int pitch = arguments.pitch;
  const int head_offset = item.head * kHeadDim;

  // Offset in elements of a part, and whether it lies with the current slots, not in the ring.
  const auto locate = [&](int part, bool* is_current) {
    const int block = __ldg(column + part / kParts * step);
    const int slot = block / arguments.windows;
    const int at = __ldg(arguments.slot_map + slot);
    *is_current = at < 0;
    const int64_t row =
        ((at < 0 ? -1 - at : at) * arguments.windows + (block - slot * arguments.windows)) *
            kAttentionBlock + part % kParts * kKeys;
    return row * pitch + head_offset;
  };

  float out[kRowTiles][kOutTiles][4];
  float reference[kRowTiles][2];  // score * scale_log2
  float sum[kRowTiles][2];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kOutTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[m][n][i] = 0.f;
    }
    reference[m][0] = reference[m][1] = -INFINITY;
    sum[m][0] = sum[m][1] = 0.f;
  }

  bool is_current = false;
  int64_t offset = 0;
  if (parts > 0) {
    load_tile<kHeadDim, kAttentionBlock>(
        shared_query,
        arguments.query + static_cast<int64_t>(item.q_block) * kAttentionBlock * pitch + head_offset,
        pitch);
    offset = locate(0, &is_current);
    load_tile<kHeadDim, kKeys>(
        shared_key, (is_current ? arguments.key_current : arguments.key_ring) + offset, pitch);
    copy_commit();
  }

  for (int part = 0; part < parts; ++part) {
    copy_wait();
    __syncthreads();
    load_tile<kHeadDim, kKeys>(
        shared_value, (is_current ? arguments.value_current : arguments.value_ring) + offset, pitch);
    copy_commit();

    // exp2(score - reference) needs a reference that keeps it in range, not the largest score: the
    // first part's largest serves until a sum leaves the range; then once more with a new one.
    float scores[kRowTiles][kScoreTiles][4];
    float sums[kRowTiles][2];
    for (bool renew = part == 0;; renew = true) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) scores[m][n][i] = 0.f;
        }
      }
#pragma unroll
      for (int k = 0; k < kHeadDim / 16; ++k) {
        uint32_t a[kRowTiles][4];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          load_matrices(a[m], shared_query + place<kHeadDim>(first_row + m * 16 + lane % 16,
                                                             2 * k + lane / 16));
        }
#pragma unroll
        for (int n = 0; n < kScoreTiles / 2; ++n) {
          uint32_t b[4];
          load_matrices(b, shared_key + place<kHeadDim>(n * 16 + lane / 16 * 8 + lane % 8,
                                                        2 * k + lane / 8 % 2));
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) {
            multiply(scores[m][2 * n], a[m], b[0], b[1]);
            multiply(scores[m][2 * n + 1], a[m], b[2], b[3]);
          }
        }
      }
      if (renew) {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
          for (int upper = 0; upper < 2; ++upper) {
            float top = -INFINITY;
#pragma unroll
            for (int n = 0; n < kScoreTiles; ++n) {
              top = fmaxf(top, fmaxf(scores[m][n][2 * upper], scores[m][n][2 * upper + 1]));
            }
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            top = fmaxf(reference[m][upper], top * arguments.scale_log2);
            const float rescale = exp2_approx(reference[m][upper] - top);
            reference[m][upper] = top;
            sum[m][upper] *= rescale;
#pragma unroll
            for (int n = 0; n < kOutTiles; ++n) {
              out[m][n][2 * upper] *= rescale;
              out[m][n][2 * upper + 1] *= rescale;
            }
          }
        }
      }
      float largest_sum = 0.f;
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
          sums[m][upper] = 0.f;
#pragma unroll
          for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
            for (int i = 2 * upper; i < 2 * upper + 2; ++i) {
              scores[m][n][i] = exp2_approx(
                  fmaf(scores[m][n][i], arguments.scale_log2, -reference[m][upper]));
              sums[m][upper] += scores[m][n][i];
            }
          }
          largest_sum += sums[m][upper];
        }
      }
      if (renew || !__any_sync(~0u, !(largest_sum < kTooLarge))) {
        break;
      }
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      sum[m][0] += sums[m][0];
      sum[m][1] += sums[m][1];
    }

    copy_wait();
    __syncthreads();
    if (part + 1 < parts) {
      offset = locate(part + 1, &is_current);
      load_tile<kHeadDim, kKeys>(
          shared_key, (is_current ? arguments.key_current : arguments.key_ring) + offset, pitch);
      copy_commit();
    }

#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* pair = &scores[m][2 * k + i / 2][i % 2 * 2];
          a[m][i] = pack_bf16(pair[0], pair[1]);
        }
      }
#pragma unroll
      for (int n = 0; n < kOutTiles / 2; ++n) {
        uint32_t b[4];
        load_matrices_transposed(b, shared_value + place<kHeadDim>(k * 16 + lane % 16,
                                                                   2 * n + lane / 16));
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          multiply(out[m][2 * n], a[m], b[0], b[1]);
          multiply(out[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      float total = sum[m][upper];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const float inverse = parts > 0 ? 1.f / total : 0.f;
      const int64_t token =
          output_token(item.q_block, first_row + m * 16 + lane / 4 + 8 * upper,
                       arguments.raster_height, arguments.raster_width);
      uint16_t* row = arguments.output + token * pitch + head_offset;
#pragma unroll
      for (int i = 0; i < kHeadDim / 32; ++i) {
        uint32_t v[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          v[c] = pack_bf16(out[m][4 * i + c][2 * upper] * inverse,
                           out[m][4 * i + c][2 * upper + 1] * inverse);
        }
        const uint4 group = transpose_quad(v[0], v[1], v[2], v[3], lane);
        *reinterpret_cast<uint4*>(row + (4 * i + lane % 4) * 8) = group;
      }
    }
  }
}

template <int kHeadDim, int kKeys>
cudaError_t launch(const Arguments& arguments, int rows, cudaStream_t stream) {
  constexpr int kBytes = (kAttentionBlock + 2 * kKeys) * kHeadDim * 2;
  static_assert(kBytes <= 101376, "99 KiB on 8.6, 8.9 and 12.0");
  const cudaError_t status =
      cudaFuncSetAttribute(attention_sm80_kernel<kHeadDim, kKeys>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (status != cudaSuccess) {
    return status;
  }
  attention_sm80_kernel<kHeadDim, kKeys><<<rows, kThreads, kBytes, stream>>>(arguments);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_block_sparse_attention_sm80(const BlockSparseAttentionParams& params,
                                               cudaStream_t stream) {
  int device = 0;
  int shared_per_sm = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&shared_per_sm, cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                                    device);
  }
  if (status != cudaSuccess) {
    return status;
  }
  Arguments arguments;
  arguments.query = params.query;
  arguments.key_ring = params.key_ring;
  arguments.value_ring = params.value_ring;
  arguments.key_current = params.key_current;
  arguments.value_current = params.value_current;
  arguments.slot_map = params.slot_map;
  arguments.column = params.column;
  arguments.order = reinterpret_cast<const AttentionRow*>(
      static_cast<const AttentionCounter*>(params.workspace) + 1);
  arguments.output = params.output;
  arguments.windows = params.windows;
  arguments.pitch = params.heads * params.head_dim;
  arguments.scale_log2 = params.softmax_scale * 1.4426950408889634f;
  arguments.raster_height = params.raster_output ? params.height : 0;
  arguments.raster_width = params.raster_output ? params.width : 0;
  const int rows = params.heads * params.q_blocks;
  // Two CTAs an SM in any case: 64 keys need 2 x 64 KiB, 32 keys 2 x 48 KiB.
  if (params.head_dim == 64) {
    return launch<64, 64>(arguments, rows, stream);
  }
  return shared_per_sm >= 2 * 65 * 1024 ? launch<128, 64>(arguments, rows, stream)
                                        : launch<128, 32>(arguments, rows, stream);
}

}  // namespace flashvsr
