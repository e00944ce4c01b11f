// SPDX-License-Identifier: LGPL-2.1-or-later
//
// D[128 features][256 tokens] a block, as in conv_nhwc_sm90.cu: the weight is wgmma's A and the tokens its B, both with K
// dense as they lie in memory; a thread then has two features only, so that the bias is two registers.
//
// Two blocks of a cluster take neighbouring features of the same tokens: each fetches half of the tokens and the copy
// engine writes it into both (32 bytes a cycle and SM from L2 in place of 48).
//
// A residual comes the way results leave, early in the tile, and takes the place of a stage.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/linear.h"
#include "kernels/sm90.cuh"
#include "kernels/tensor_map.cuh"

namespace flashvsr {
namespace {

using namespace sm90;

constexpr int kFeatures = 128, kTokens = 256, kDepth = 64;  // of a block's tile; K of a stage
constexpr int kCluster = 2;
constexpr uint32_t kWeightBytes = kFeatures * kDepth * 2;  // 16384
constexpr uint32_t kTokenBytes = kTokens * kDepth * 2;     // 32768
constexpr uint32_t kStageBytes = kWeightBytes + kTokenBytes;
constexpr uint32_t kBoxBytes = 64 * 128 * 2;  // 64 features of 128 tokens, on their way out
constexpr int kThreads = 384;

template <bool kResidual>
struct Layout {
  static constexpr int kStages = kResidual ? 3 : 4;
  static constexpr int kBoxes = kResidual ? 2 : 1;  // of a warpgroup
  static constexpr uint32_t kOutPlace = kStages * kStageBytes;
  static constexpr uint32_t kBarrierPlace = kOutPlace + 2 * kBoxes * kBoxBytes;
  static constexpr uint32_t kSharedBytes = kBarrierPlace + (2 * kStages + 2) * 8 + 1024;
  static_assert(kSharedBytes <= 232448, "227 KiB of shared memory");
};

struct Arguments {
  CUtensorMap x, weight, output, windowed, residual;
  const uint16_t *bias, *gate;
  int out, depth;              // depth: stages of a tile
  int token_tiles, feature_tiles;  // of a cluster: 256 tokens, 256 features
  int group;                   // token tiles that share what they read of the weight
  int columns;                 // features of `output`; those behind go to `windowed`
  int rows, height, width;     // height, width: for `windowed` only
};

struct Tile {
  int token, feature;
};

__device__ __forceinline__ Tile tile_at(const Arguments& a, int index) {
  const int group = index / (a.group * a.feature_tiles), first = group * a.group;
  const int count = min(a.group, a.token_tiles - first), rest = index - first * a.feature_tiles;
  return {(first + rest % count) * kTokens, rest / count * kFeatures * kCluster};
}

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// At the same place of the cluster's block `rank`. What it releases was read by wgmma, which has been waited for: at the
// cluster's scope, as one might write it, it would wait for all of the warp's memory accesses (a third of the time).
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}\n" ::"r"(barrier), "r"(rank) : "memory");
}
__device__ __forceinline__ void load_tile(uint32_t to, const CUtensorMap* map, int c0, int c1, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
               "l"(map), "r"(c0), "r"(c1), "r"(barrier) : "memory");
}
// Into the same place of both blocks, each of whose barriers counts it.
__device__ __forceinline__ void load_tile_for_both(uint32_t to, const CUtensorMap* map, int c0, int c1, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], [%4], "
      "%5;" ::"r"(to), "l"(map), "r"(c0), "r"(c1), "r"(barrier), "h"(uint16_t{3}) : "memory");
}
__device__ __forceinline__ void store_tile(const CUtensorMap* map, uint32_t from, int c0, int c1) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(c0), "r"(c1),
               "r"(from) : "memory");
}

// The row, in window order, of eight tokens that follow one another in x.
__device__ __forceinline__ int windowed_row(const Arguments& a, int token) {
  const int line = token / a.width, x = token - line * a.width, t = line / a.height, y = line - t * a.height;
  const int window = (t / 2 * (a.height / 8) + y / 8) * (a.width / 8) + x / 8;
  return window * 128 + t % 2 * 64 + y % 8 * 8;
}

__device__ __forceinline__ float gelu(float x) {
  const float argument = x * fmaf(.044715f * .79788456f, x * x, .79788456f), half = .5f * x;
  float tanh;
  asm("tanh.approx.f32 %0, %1;" : "=f"(tanh) : "f"(argument));
  return fmaf(half, tanh, half);
}

__device__ __forceinline__ float widened(const uint16_t* values, int at, int count) {
  return at < count ? __uint_as_float(uint32_t{values[at]} << 16) : 0.f;
}

template <bool kGelu, bool kResidual>
__global__ void __launch_bounds__(kThreads, 1) __cluster_dims__(kCluster, 1, 1) linear_sm90_kernel(const __grid_constant__ Arguments a) {
  using L = Layout<kResidual>;
  constexpr int kStages = L::kStages;
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023) & ~1023u;
  const auto full = [&](int s) { return base + L::kBarrierPlace + s * 8; };
  const auto empty = [&](int s) { return base + L::kBarrierPlace + (kStages + s) * 8; };
  const auto full_residual = [&](int w) { return base + L::kBarrierPlace + (2 * kStages + w) * 8; };
  const uint32_t rank = cluster_rank();
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(full(s), 1);
      barrier_init(empty(s), kCluster * 8);
    }
    barrier_init(full_residual(0), 1);
    barrier_init(full_residual(1), 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();

  const int clusters = gridDim.x / kCluster, tiles = a.token_tiles * a.feature_tiles;
  const int group = threadIdx.x / 128;
  if (group == 0) {
    fewer_registers<24>();
    if (threadIdx.x == 0) {
      prefetch_map(&a.x);
      prefetch_map(&a.weight);
      int stage = 0;
      uint32_t parity = 1;
      for (int index = blockIdx.x / kCluster; index < tiles; index += clusters) {
        const Tile tile = tile_at(a, index);
        for (int step = 0; step < a.depth; ++step) {
          barrier_wait(empty(stage), parity);
          barrier_expect(full(stage), kStageBytes);
          const uint32_t place = base + stage * kStageBytes;
          load_tile(place, &a.weight, step * kDepth, tile.feature + static_cast<int>(rank) * kFeatures, full(stage));
          load_tile_for_both(place + kWeightBytes + rank * (kTokenBytes / 2), &a.x, step * kDepth,
                             tile.token + static_cast<int>(rank) * (kTokens / 2), full(stage));
          if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
          }
        }
      }
    }
  } else {
    more_registers<240>();
    const int consumer = group - 1;
    const int warp = (threadIdx.x / 32) & 3, lane = threadIdx.x & 31;
    const int issuer = threadIdx.x & 127;  // who sends results off: the first thread, or, in window order, the first sixteen
    const uint32_t out_box = base + L::kOutPlace + consumer * L::kBoxes * kBoxBytes;
    const auto release = [&](int stage) {
      if (lane < kCluster) barrier_arrive_at(empty(stage), lane);
    };
    int stage = 0;
    uint32_t parity = 0, residual_parity = 0;
    float d[128];

    for (int index = blockIdx.x / kCluster; index < tiles; index += clusters) {
      const Tile tile = tile_at(a, index);
      int last = -1;
      for (int step = 0; step < a.depth; ++step) {
        barrier_wait(full(stage), parity);
        const uint64_t left = matrix_descriptor(base + stage * kStageBytes + consumer * (kWeightBytes / 2), 1024);
        const uint64_t right = matrix_descriptor(base + stage * kStageBytes + kWeightBytes, 1024);
        wgmma_hold(d);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kDepth / 16; ++k) wgmma_m64n256k16(d, left + 2 * k, right + 2 * k, step > 0 || k > 0);
        wgmma_commit();
        wgmma_hold(d);
        wgmma_wait<1>();
        if (last >= 0) release(last);
        last = stage;
        if (++stage == kStages) {
          stage = 0;
          parity ^= 1;
        }
        if (kResidual && issuer == 0 && step == min(2, a.depth) - 1) {
          store_wait_read();
          barrier_expect(full_residual(consumer), 2 * kBoxBytes);
          for (int half = 0; half < 2; ++half) {
            load_tile(out_box + half * kBoxBytes, &a.residual, tile.feature + static_cast<int>(rank) * kFeatures + consumer * 64,
                      tile.token + half * 128, full_residual(consumer));
          }
        }
      }
      wgmma_wait<0>();
      wgmma_hold(d);
      release(last);

      const int row = tile.feature + static_cast<int>(rank) * kFeatures + consumer * 64 + warp * 16 + lane / 4;
      const float bias[2] = {widened(a.bias, row, a.out), widened(a.bias, row + 8, a.out)};
      __nv_bfloat162 gate[2];
      if (kResidual) {
        for (int i = 0; i < 2; ++i) gate[i] = __float2bfloat162_rn(a.gate ? widened(a.gate, row + 8 * i, a.out) : 1.f);
        barrier_wait(full_residual(consumer), residual_parity);
        residual_parity ^= 1;
      }
      // As in conv_nhwc_sm90.cu: matrices of 8 features x 8 tokens, stored transposed, rows of 128 bytes swizzled.
      const uint32_t chunk = 2 * warp + ((lane >> 3) & 1);
      const uint32_t place = out_box + ((lane >> 4) * 8 + (lane & 7)) * 128 + ((chunk ^ (lane & 7)) << 4);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t bits[32];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
          // i: two columns of 8 tokens x (low, high) features
          const int at = half * 64 + i * 2;
          float low = d[at] + bias[i & 1], high = d[at + 1] + bias[i & 1];
          if (kGelu) {
            low = gelu(low);
            high = gelu(high);
          }
          const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
          bits[i] = reinterpret_cast<const uint32_t&>(pair);
        }
        if (!kResidual) {
          // What the box held has left.
          if (issuer < 16) store_wait_read();
          named_barrier(1 + consumer, 128);
        }
        const uint32_t box = kResidual ? half * kBoxBytes : 0;
#pragma unroll
        for (int j = 0; j < 16; j += 2) {
          uint32_t four[4] = {bits[2 * j], bits[2 * j + 1], bits[2 * j + 2], bits[2 * j + 3]};
          if (kResidual) {
            uint32_t old[4];
            load_matrix_x4_transposed(old, place + box + j * 1024);
#pragma unroll
            for (int m = 0; m < 4; ++m) {
              // Never contracted: each product and each sum is rounded.
              const __nv_bfloat162 y = __hmul2_rn(gate[m & 1], reinterpret_cast<const __nv_bfloat162&>(four[m]));
              const __nv_bfloat162 sum = __hadd2_rn(reinterpret_cast<const __nv_bfloat162&>(old[m]), y);
              four[m] = reinterpret_cast<const uint32_t&>(sum);
            }
          }
          store_matrix_x4_transposed(place + box + j * 1024, four);
        }
        fence_async_shared();
        named_barrier(1 + consumer, 128);
        const int feature = tile.feature + static_cast<int>(rank) * kFeatures + consumer * 64, token = tile.token + half * 128;
        if (feature < a.columns) {
          if (issuer == 0) store_tile(&a.output, out_box + box, feature, token);
        } else if (issuer < 16 && feature < a.out && token + issuer * 8 < a.rows) {
          store_tile(&a.windowed, out_box + issuer * 1024, feature - a.columns, windowed_row(a, token + issuer * 8));
        }
        if (issuer < 16) store_commit();
      }
    }
    if (issuer < 16) store_wait();
  }
  // Nobody leaves while the other may still write to its barriers. A warp's one busy lane comes last.
  __syncwarp();
  cluster_sync();
}

// Rows of `width` values in boxes of 64.
bool make_map(CUtensorMap* map, const uint16_t* pointer, int64_t width, int64_t rows, int box_rows = 128) {
  const cuuint64_t sizes[2] = {cuuint64_t(width), cuuint64_t(rows)}, strides[1] = {cuuint64_t(width) * 2};
  const cuuint32_t box[2] = {64, cuuint32_t(box_rows)}, ones[2] = {1, 1};
  return encode_tiled()(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<uint16_t*>(pointer), sizes, strides, box, ones,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <bool kGelu, bool kResidual>
cudaError_t launch(const Arguments& a, int processors, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(linear_sm90_kernel<kGelu, kResidual>, cudaFuncAttributeMaxDynamicSharedMemorySize, Layout<kResidual>::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int tiles = a.token_tiles * a.feature_tiles, clusters = processors / kCluster;
  const int grid = kCluster * (tiles < clusters ? tiles : clusters);
  linear_sm90_kernel<kGelu, kResidual><<<grid, kThreads, Layout<kResidual>::kSharedBytes, stream>>>(a);
  return cudaGetLastError();
}

}  // namespace

double linear_share_sm90(int64_t rows, int32_t out, int processors) {
  const int64_t clusters = processors / kCluster, features = kFeatures * kCluster;
  const int64_t tiles = (rows + kTokens - 1) / kTokens * ((out + features - 1) / features);
  const int64_t waves = (tiles + clusters - 1) / clusters;
  return static_cast<double>(rows) * out / (static_cast<double>(waves * clusters) * kTokens * features);
}

int launch_linear_sm90(const LinearParams& p, int processors, void* stream) {
  if (!encode_tiled()) return cudaErrorNotSupported;
  Arguments a = {};
  a.columns = linear_columns(p);
  if (!make_map(&a.x, p.x, p.in, p.rows) || !make_map(&a.weight, p.weight, p.in, p.out) ||
      !make_map(&a.output, p.output, a.columns, p.rows) ||
      (p.windowed && !make_map(&a.windowed, p.windowed, p.out - p.split, p.rows, 8)) ||
      (p.residual && !make_map(&a.residual, p.residual, p.out, p.rows))) {
    return cudaErrorInvalidValue;
  }
  a.rows = static_cast<int>(p.rows);
  a.height = p.height;
  a.width = p.width;
  a.bias = p.bias;
  a.gate = p.gate;
  a.out = p.out;
  a.depth = p.in / kDepth;
  a.token_tiles = static_cast<int>((p.rows + kTokens - 1) / kTokens);
  a.feature_tiles = (p.out + kFeatures * kCluster - 1) / (kFeatures * kCluster);
  a.group = 16;
  const auto s = static_cast<cudaStream_t>(stream);
  if (p.residual) return launch<false, true>(a, processors, s);
  return p.gelu ? launch<true, false>(a, processors, s) : launch<false, false>(a, processors, s);
}

}  // namespace flashvsr
