// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Hopper: one producer warp feeds a ring of key and value blocks by TMA; two consumer warpgroups own
// 64 query rows each. One CTA per SM takes rows of the mask from a list until none is left.
//
// A consumer issues the scores of block j and the output of block j - 1 together; the softmax of
// block j then runs under the latter and under the other warpgroup's products. Barriers that make the
// warpgroups take turns, as dense kernels have them, were measured: 2 % slower here, where the card is
// at its power limit.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/block_sparse_attention_common.cuh"
#include "kernels/block_sparse_attention_launch.cuh"
#include "kernels/tensor_map.cuh"
#include "kernels/wgmma.cuh"

namespace flashvsr {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kThreads = 3 * kWarpgroup;
constexpr int kConsumerWarps = 8;
constexpr int kHalfColumns = 64;                                // bf16 in a 128-byte swizzled row
constexpr int kHalfBytes = kAttentionBlock * kHalfColumns * 2;  // 128 rows of it
constexpr int kSwizzleAtom = 1024;                              // 8 rows of 128 bytes

struct Arguments {
  CUtensorMap query;
  CUtensorMap key_ring;
  CUtensorMap value_ring;
  CUtensorMap key_current;
  CUtensorMap value_current;
  const int32_t* slot_map;
  const int32_t* column;
  const AttentionRow* order;
  AttentionCounter* counter;
  uint16_t* output;
  int32_t rows;
  int32_t windows;
  int32_t pitch;  // elements of a token
  float scale_log2;
  int32_t raster_height;  // 0: window order
  int32_t raster_width;
};

template <int kHeadDim>
struct Layout {
  static constexpr int kHalves = kHeadDim / kHalfColumns;
  static constexpr int kTileBytes = kHalves * kHalfBytes;
  static constexpr int kStages = kHeadDim == 128 ? 6 : 10;
  static constexpr int kBarriers = 2 * kStages + 2;
  static constexpr int kQuery = 0;
  static constexpr int kRing = kTileBytes;
  static constexpr int kBarrier = kRing + kStages * kTileBytes;
  static constexpr int kRow = kBarrier + kBarriers * 8;
  static constexpr int kBytes = kRow + 16 + kSwizzleAtom;  // the base is aligned by hand
};
static_assert(Layout<128>::kBytes <= 232448 && Layout<64>::kBytes <= 232448, "227 KiB of shared memory");

// ---- PTX ---------------------------------------------------------------------------------------

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

__device__ __forceinline__ void tma_load(uint32_t destination, const CUtensorMap* map, int row,
                                         int half, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(destination),
      "l"(map), "r"(0), "r"(row), "r"(half), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ void tma_prefetch(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

__device__ __forceinline__ void warpgroup_arrive() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void warpgroup_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int kPending>
__device__ __forceinline__ void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Pins register values at this place of the program: the compiler does not know that wgmma goes on
// reading and writing them after the instruction.
template <int kCount>
__device__ __forceinline__ void pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    asm volatile("" : "+f"(values[i])::"memory");
  }
}

template <int kCount>
__device__ __forceinline__ void pin(uint32_t (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    asm volatile("" : "+r"(values[i])::"memory");
  }
}

// ---- products ----------------------------------------------------------------------------------

// 128-byte swizzle. K-major operands: 1024 bytes from 8 rows to the next 8 (the leading offset is
// not used). Transposed ones: 1024 bytes from 8 keys to the next, kHalfBytes to the next 64 columns.
__device__ __forceinline__ uint64_t descriptor(uint32_t address, int leading_bytes) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) |
         static_cast<uint64_t>(leading_bytes >> 4) << 16 |
         static_cast<uint64_t>(kSwizzleAtom >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

template <int kHeadDim>
__device__ __forceinline__ void issue_scores(float (&scores)[64], uint32_t query, uint32_t key) {
  const uint64_t a = descriptor(query, 16);
  const uint64_t b = descriptor(key, 16);
#pragma unroll
  for (int k = 0; k < kHeadDim / 16; ++k) {
    const uint64_t step = (k / 4 * kHalfBytes + k % 4 * 32) >> 4;
    wgmma_m64n128_ss(scores, a + step, b + step, k > 0);
  }
}

template <int kHeadDim>
__device__ __forceinline__ void issue_output(float (&out)[kHeadDim / 2],
                                             const uint32_t (&probability)[32], uint32_t value,
                                             int accumulate) {
  const uint64_t b = descriptor(value, kHalfBytes);
#pragma unroll
  for (int k = 0; k < kAttentionBlock / 16; ++k) {
    const uint64_t step = (k * 2 * kSwizzleAtom) >> 4;
    if constexpr (kHeadDim == 128) {
      wgmma_m64n128_rs(out, &probability[4 * k], b + step, k > 0 ? 1 : accumulate);
    } else {
      wgmma_m64n64_rs(out, &probability[4 * k], b + step, k > 0 ? 1 : accumulate);
    }
  }
}

// ---- softmax -----------------------------------------------------------------------------------
// A thread holds columns 8 j + 2 (lane % 4) + {0, 1} of rows lane / 4 (values 4 j, 4 j + 1) and
// lane / 4 + 8 (values 4 j + 2, 4 j + 3) of its warp's 16 rows.
//
// exp2(score - reference) needs a reference that keeps it in range, not the largest score: the
// first block's largest serves for the whole row until some sum leaves the range, and only then are
// that block's scores computed again and the reference raised. Saves a fifth of the instructions.

constexpr float kTooLarge = 1e12f;  // of a block's sum in one thread; far from fp32's and bf16's 3e38

struct Softmax {
  float reference[2];  // score * scale_log2
  float sum[2];        // of this thread's columns
};

__device__ __forceinline__ float largest_of_row(const float (&scores)[64], int upper) {
  float a = fmaxf(scores[2 * upper], scores[2 * upper + 1]);
  float b = fmaxf(scores[2 * upper + 4], scores[2 * upper + 5]);
#pragma unroll
  for (int j = 2; j < 16; j += 2) {
    a = fmaxf(a, fmaxf(scores[4 * j + 2 * upper], scores[4 * j + 2 * upper + 1]));
    b = fmaxf(b, fmaxf(scores[4 * j + 2 * upper + 4], scores[4 * j + 2 * upper + 5]));
  }
  a = fmaxf(a, b);
  a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
  return fmaxf(a, __shfl_xor_sync(~0u, a, 2));
}

// Scores become probabilities relative to the reference; returns their sums.
__device__ __forceinline__ void exponentiate(float (&scores)[64], const Softmax& state,
                                             float scale_log2, float (&sums)[2]) {
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    float a = 0.f;
    float b = 0.f;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      float& low = scores[4 * j + 2 * upper];
      float& high = scores[4 * j + 2 * upper + 1];
      low = exp2_approx(fmaf(low, scale_log2, -state.reference[upper]));
      high = exp2_approx(fmaf(high, scale_log2, -state.reference[upper]));
      a += low;
      b += high;
    }
    sums[upper] = a + b;
  }
}

// The same scores as issue_scores, by one warp for its own 16 rows, without the other three warps.
template <int kHeadDim>
__device__ __forceinline__ void score_again(float (&scores)[64], uint32_t query, uint32_t key,
                                            int lane) {
#pragma unroll
  for (float& score : scores) {
    score = 0.f;
  }
#pragma unroll 1
  for (int k = 0; k < kHeadDim / 16; ++k) {
    // 16-byte groups of a row are permuted by the row: the 128-byte swizzle.
    const auto matrices = [&](uint32_t (&r)[4], uint32_t tile, int row, int group) {
      const uint32_t address =
          tile + k / 4 * kHalfBytes + row * 128 + (((k % 4 * 2 + group) ^ (row & 7)) << 4);
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                   : "r"(address)
                   : "memory");
    };
    uint32_t a[4];
    matrices(a, query, lane % 16, lane / 16);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      uint32_t b[4];
      matrices(b, key, n * 16 + lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float* d = &scores[8 * n + 4 * i];
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[2 * i]), "r"(b[2 * i + 1]));
      }
    }
  }
}

// The accumulator's layout of two column groups of 8 is the A operand's layout of 16.
__device__ __forceinline__ void to_operand(const float (&scores)[64], uint32_t (&probability)[32]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    probability[i] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
  }
}

template <int kCount>
__device__ __forceinline__ void rescale_output(float (&out)[kCount], const float (&rescale)[2]) {
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    out[4 * j] *= rescale[0];
    out[4 * j + 1] *= rescale[0];
    out[4 * j + 2] *= rescale[1];
    out[4 * j + 3] *= rescale[1];
  }
}

// ---- output ------------------------------------------------------------------------------------

template <int kHeadDim>
__device__ __forceinline__ void store_output(const Arguments& arguments, int head, int q_block,
                                             int first_row, int lane,
                                             const float (&out)[kHeadDim / 2],
                                             const float (&inverse)[2]) {
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const int64_t token = output_token(q_block, first_row + lane / 4 + 8 * upper, arguments.raster_height,
                                        arguments.raster_width);
    uint16_t* row = arguments.output + token * arguments.pitch + head * kHeadDim;
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; ++i) {
      uint32_t v[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int at = (4 * i + c) * 4 + 2 * upper;
        v[c] = pack_bf16(out[at] * inverse[upper], out[at + 1] * inverse[upper]);
      }
      const uint4 group = transpose_quad(v[0], v[1], v[2], v[3], lane);
      *reinterpret_cast<uint4*>(row + (4 * i + lane % 4) * 8) = group;
    }
  }
}

// ---- kernel ------------------------------------------------------------------------------------

template <int kStages>
struct RingPosition {
  uint32_t stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

template <int kHeadDim>
__device__ __forceinline__ void produce(const Arguments& arguments, uint32_t base,
                                        AttentionRow* shared_row) {
  using L = Layout<kHeadDim>;
  const uint32_t full = base + L::kBarrier;
  const uint32_t empty = full + 8 * L::kStages;
  const uint32_t query_full = empty + 8 * L::kStages;
  const uint32_t query_empty = query_full + 8;
  RingPosition<L::kStages> ring;
  uint32_t query_phase = 0;

  int head_half = 0;
  const auto load = [&](int block, bool is_key) {
    const int slot = block / arguments.windows;
    const int window = block - slot * arguments.windows;
    const int place = __ldg(arguments.slot_map + slot);
    const bool in_ring = place >= 0;
    const int token =
        ((in_ring ? place : -1 - place) * arguments.windows + window) * kAttentionBlock;
    const CUtensorMap* map = is_key ? (in_ring ? &arguments.key_ring : &arguments.key_current)
                                    : (in_ring ? &arguments.value_ring : &arguments.value_current);
    const uint32_t barrier = full + 8 * ring.stage;
    barrier_wait(empty + 8 * ring.stage, ring.phase ^ 1);
    barrier_expect(barrier, L::kTileBytes);
    tma_load(base + L::kRing + ring.stage * L::kTileBytes, map, token, head_half, barrier);
    ring.advance();
  };

  for (int item = blockIdx.x; item < arguments.rows;
       item = gridDim.x + atomicAdd(&arguments.counter->taken, 1)) {
    const int4 loaded = *reinterpret_cast<const int4*>(arguments.order + item);
    const int head = loaded.x;
    const int q_block = loaded.y;
    const int length = abs(loaded.w);
    const int step = loaded.w < 0 ? -1 : 1;
    const int32_t* column = arguments.column + loaded.z + (loaded.w < 0 ? length - 1 : 0);
    head_half = head * L::kHalves;
    // The first keys need a free stage only; the query must wait for the last product of the row
    // before.
    if (length > 0) {
      load(__ldg(column), true);
    }
    barrier_wait(query_empty, query_phase ^ 1);
    query_phase ^= 1;
    *reinterpret_cast<int4*>(shared_row) = loaded;
    if (length == 0) {
      barrier_arrive(query_full);
      continue;
    }
    barrier_expect(query_full, L::kTileBytes);
    tma_load(base + L::kQuery, &arguments.query, q_block * kAttentionBlock, head_half, query_full);
    int previous = __ldg(column);
    for (int j = 1; j < length; ++j) {
      const int block = __ldg(column + j * step);
      load(block, true);
      load(previous, false);
      previous = block;
    }
    load(previous, false);
  }
  barrier_wait(query_empty, query_phase ^ 1);
  shared_row->head = -1;
  barrier_arrive(query_full);
}

template <int kHeadDim>
__device__ __forceinline__ void consume(const Arguments& arguments, uint32_t base,
                                        const volatile AttentionRow* shared_row, int group) {
  using L = Layout<kHeadDim>;
  const uint32_t full = base + L::kBarrier;
  const uint32_t empty = full + 8 * L::kStages;
  const uint32_t query_full = empty + 8 * L::kStages;
  const uint32_t query_empty = query_full + 8;
  const uint32_t query = base + L::kQuery + group * (64 / 8) * kSwizzleAtom;
  const int lane = threadIdx.x % 32;
  const int first_row = group * 64 + threadIdx.x % kWarpgroup / 32 * 16;
  const float scale_log2 = arguments.scale_log2;
  RingPosition<L::kStages> ring;
  uint32_t query_phase = 0;

  const auto stage_address = [&](uint32_t stage) { return base + L::kRing + stage * L::kTileBytes; };
  const auto release = [&](uint32_t barrier) {
    if (lane == 0) {
      barrier_arrive(barrier);
    }
  };

  for (;;) {
    barrier_wait(query_full, query_phase);
    query_phase ^= 1;
    // Lane 0 reads, since lane 0 says when it has been read.
    const int head = __shfl_sync(~0u, lane == 0 ? shared_row->head : 0, 0);
    const int q_block = __shfl_sync(~0u, lane == 0 ? shared_row->q_block : 0, 0);
    const int length = abs(__shfl_sync(~0u, lane == 0 ? shared_row->length : 0, 0));
    if (head < 0) {
      break;
    }
    float out[kHeadDim / 2];
    if (length == 0) {
      release(query_empty);
#pragma unroll
      for (int i = 0; i < kHeadDim / 2; ++i) {
        out[i] = 0.f;
      }
      const float one[2] = {1.f, 1.f};
      store_output<kHeadDim>(arguments, head, q_block, first_row, lane, out, one);
      continue;
    }

    float scores[64];
    uint32_t probability[32];
    Softmax softmax;

    barrier_wait(full + 8 * ring.stage, ring.phase);
    pin(scores);
    warpgroup_arrive();
    issue_scores<kHeadDim>(scores, query, stage_address(ring.stage));
    warpgroup_commit();
    warpgroup_wait<0>();
    pin(scores);
    release(empty + 8 * ring.stage);
    ring.advance();
    if (length == 1) {
      release(query_empty);
    }
    softmax.reference[0] = largest_of_row(scores, 0) * scale_log2;
    softmax.reference[1] = largest_of_row(scores, 1) * scale_log2;
    exponentiate(scores, softmax, scale_log2, softmax.sum);
    to_operand(scores, probability);

    for (int j = 1; j < length; ++j) {
      const uint32_t key_stage = ring.stage;
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.advance();
      const uint32_t value_stage = ring.stage;
      pin(scores);
      pin(probability);
      pin(out);
      warpgroup_arrive();
      issue_scores<kHeadDim>(scores, query, stage_address(key_stage));
      warpgroup_commit();
      barrier_wait(full + 8 * ring.stage, ring.phase);
      ring.advance();
      warpgroup_arrive();
      issue_output<kHeadDim>(out, probability, stage_address(value_stage), j > 1);
      warpgroup_commit();
      warpgroup_wait<1>();
      pin(scores);
      float sums[2];
      exponentiate(scores, softmax, scale_log2, sums);
      // This branch also keeps the exponentials above the wait: without it the compiler lets them
      // sink, and nothing runs under the product.
      if (__any_sync(~0u, !(sums[0] + sums[1] < kTooLarge))) {
        warpgroup_wait<0>();
        pin(out);
        pin(probability);
        score_again<kHeadDim>(scores, query + (first_row - group * 64) * 128,
                              stage_address(key_stage), lane);
        float rescale[2];
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
          const float before = softmax.reference[upper];
          softmax.reference[upper] = fmaxf(before, largest_of_row(scores, upper) * scale_log2);
          rescale[upper] = exp2_approx(before - softmax.reference[upper]);
          softmax.sum[upper] *= rescale[upper];
        }
        rescale_output(out, rescale);
        exponentiate(scores, softmax, scale_log2, sums);
      }
      release(empty + 8 * key_stage);
      if (j == length - 1) {
        release(query_empty);
      }
      softmax.sum[0] += sums[0];
      softmax.sum[1] += sums[1];
      warpgroup_wait<0>();
      pin(out);
      pin(probability);
      release(empty + 8 * value_stage);
      to_operand(scores, probability);
    }

    barrier_wait(full + 8 * ring.stage, ring.phase);
    pin(probability);
    pin(out);
    warpgroup_arrive();
    issue_output<kHeadDim>(out, probability, stage_address(ring.stage), length > 1);
    warpgroup_commit();
    float inverse[2];
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      float sum = softmax.sum[upper];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      inverse[upper] = 1.f / sum;
    }
    warpgroup_wait<0>();
    pin(out);
    release(empty + 8 * ring.stage);
    ring.advance();
    store_output<kHeadDim>(arguments, head, q_block, first_row, lane, out, inverse);
  }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    attention_sm90_kernel(const __grid_constant__ Arguments arguments) {
  using L = Layout<kHeadDim>;
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + kSwizzleAtom - 1) & ~(kSwizzleAtom - 1);
  auto* shared_row = reinterpret_cast<AttentionRow*>(raw + (base - shared_address(raw)) + L::kRow);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < L::kStages; ++stage) {
      barrier_init(base + L::kBarrier + 8 * stage, 1);
      barrier_init(base + L::kBarrier + 8 * (L::kStages + stage), kConsumerWarps);
    }
    barrier_init(base + L::kBarrier + 16 * L::kStages, 1);
    barrier_init(base + L::kBarrier + 16 * L::kStages + 8, kConsumerWarps);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();

  const int warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) {
      tma_prefetch(&arguments.query);
      tma_prefetch(&arguments.key_ring);
      tma_prefetch(&arguments.value_ring);
      tma_prefetch(&arguments.key_current);
      tma_prefetch(&arguments.value_current);
      // Everything before this kernel is complete from here on; consumers start after the producer.
      asm volatile("griddepcontrol.wait;" ::: "memory");
      produce<kHeadDim>(arguments, base, shared_row);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    consume<kHeadDim>(arguments, base, shared_row, warpgroup - 1);
    // For ptxas only (13.0): if both roles end alike it merges their ends and then gives the
    // consumers the launch's 168 registers, not 232: spills, and every wgmma waits for the last.
    asm volatile("bar.sync 1, %0;" ::"n"(2 * kWarpgroup) : "memory");
  }
}

// ---- launch ------------------------------------------------------------------------------------

// [tokens][heads * head_dim] seen as [column half][token][64], so that one box is a block of one
// head in the layout that wgmma reads.
cudaError_t encode_map(EncodeTiled encode, CUtensorMap* map, const uint16_t* data, int64_t tokens,
                       int64_t pitch, int head_dim) {
  const cuuint64_t sizes[3] = {kHalfColumns, static_cast<cuuint64_t>(tokens),
                               static_cast<cuuint64_t>(pitch / kHalfColumns)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(pitch) * 2, kHalfColumns * 2};
  const cuuint32_t box[3] = {kHalfColumns, kAttentionBlock,
                             static_cast<cuuint32_t>(head_dim / kHalfColumns)};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<uint16_t*>(data), sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <int kHeadDim>
cudaError_t launch(const BlockSparseAttentionParams& params, int multiprocessors,
                   cudaStream_t stream) {
  const EncodeTiled encode = encode_tiled();
  if (encode == nullptr) {
    return cudaErrorSymbolNotFound;
  }
  cudaError_t status = cudaSuccess;
  Arguments arguments;
  const int64_t pitch = static_cast<int64_t>(params.heads) * kHeadDim;
  const int64_t slot_tokens = static_cast<int64_t>(params.windows) * kAttentionBlock;
  // A side without slots is never asked for; its map repeats the other side's.
  const bool has_ring = params.ring_slots > 0;
  const bool has_current = params.current_slots > 0;
  const uint16_t* key_ring = has_ring ? params.key_ring : params.key_current;
  const uint16_t* value_ring = has_ring ? params.value_ring : params.value_current;
  const uint16_t* key_current = has_current ? params.key_current : params.key_ring;
  const uint16_t* value_current = has_current ? params.value_current : params.value_ring;
  const int64_t ring_tokens =
      slot_tokens * (has_ring ? params.ring_slots : params.current_slots);
  const int64_t current_tokens =
      slot_tokens * (has_current ? params.current_slots : params.ring_slots);
  const struct {
    CUtensorMap* map;
    const uint16_t* data;
    int64_t tokens;
  } sources[] = {
      {&arguments.query, params.query, static_cast<int64_t>(params.q_blocks) * kAttentionBlock},
      {&arguments.key_ring, key_ring, ring_tokens},
      {&arguments.value_ring, value_ring, ring_tokens},
      {&arguments.key_current, key_current, current_tokens},
      {&arguments.value_current, value_current, current_tokens},
  };
  for (const auto& source : sources) {
    status = encode_map(encode, source.map, source.data, source.tokens, pitch, kHeadDim);
    if (status != cudaSuccess) {
      return status;
    }
  }
  arguments.slot_map = params.slot_map;
  arguments.column = params.column;
  arguments.counter = static_cast<AttentionCounter*>(params.workspace);
  arguments.order = reinterpret_cast<const AttentionRow*>(arguments.counter + 1);
  arguments.output = params.output;
  arguments.rows = params.heads * params.q_blocks;
  arguments.windows = params.windows;
  arguments.pitch = static_cast<int32_t>(pitch);
  arguments.scale_log2 = params.softmax_scale * 1.4426950408889634f;
  arguments.raster_height = params.raster_output ? params.height : 0;
  arguments.raster_width = params.raster_output ? params.width : 0;

  status = cudaFuncSetAttribute(attention_sm90_kernel<kHeadDim>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                Layout<kHeadDim>::kBytes);
  if (status != cudaSuccess) {
    return status;
  }
  // Set up while the order of rows is still being computed.
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(arguments.rows < multiprocessors ? arguments.rows : multiprocessors);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = Layout<kHeadDim>::kBytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, attention_sm90_kernel<kHeadDim>, arguments);
}

}  // namespace

cudaError_t launch_block_sparse_attention_sm90(const BlockSparseAttentionParams& params,
                                               int multiprocessors, cudaStream_t stream) {
  return params.head_dim == 128 ? launch<128>(params, multiprocessors, stream)
                                : launch<64>(params, multiprocessors, stream);
}

}  // namespace flashvsr
