// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The convolution as D[128 out channels][256 pixels] tiles: weights are wgmma's A, pixels its B, so that both
// lie with channels dense as they do in memory, and a warpgroup's 64x256 product reads 10 KB of shared memory
// for 128 cycles of arithmetic.
//
// A tile's pixels are 8 columns x 2 steps x 16 rows. One box of the input with its border (10 x 2 x 18 pixels,
// 64 channels) serves all taps of the 3x3 stencil: a tap is a different start of the same matrix, whose groups
// of 8 pixels are 10 pixels apart. This cuts the reads from L2 from 48 to 21 bytes a cycle. The order
// (row, step, column) inside the box keeps the distance between groups uniform.
//
// Warp roles: one thread fetches weights (a linear stream, packed in the order of use), one fetches pixels, two
// warpgroups multiply. Results leave through shared memory and the tensor copy, which also cuts them at borders,
// spreads the phases of an enlargement and the sub-steps of a growth. Residuals come in the same way, early.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/conv_nhwc_internal.h"
#include "kernels/sm90.cuh"
#include "kernels/tensor_map.cuh"

namespace flashvsr {
namespace {

using namespace sm90;

constexpr int kTileX = 8, kTileT = 2, kTileY = 16;
constexpr int kPixelStages = 2, kWeightStages = 4;
constexpr uint32_t kPixelBytes = (kTileX + 2) * kTileT * (kTileY + 2) * kConvTileIn * 2;  // 46080
constexpr uint32_t kWeightBytes = kConvTileOut * kConvTileIn * 2;                         // 16384
constexpr uint32_t kBoxBytes = kTileX * kTileT * kTileY * 64 * 2;                         // 32768, 64 out channels
constexpr uint32_t kWeightPlace = kPixelStages * kPixelBytes;
constexpr uint32_t kOutPlace = kWeightPlace + kWeightStages * kWeightBytes;
constexpr uint32_t kBarrierPlace = kOutPlace + 2 * kBoxBytes;
constexpr uint32_t kSharedBytes = kBarrierPlace + 256 + 1024;
constexpr int kThreads = 384;
static_assert(kPixelBytes % 1024 == 0 && kSharedBytes <= 232448);

struct Arguments {
  CUtensorMap input, past, output, residual;
  const uint16_t* weights;
  const float* bias;
  int out_channels;
  int tiles_x, tiles_y, pixel_tiles;
  int out_tiles, phases;  // 128 channels each; 4 phases when enlarging
  int inner;              // tiles that follow one another: 0 pixels, 1 channels and phases
  int tiles;
  int steps, in_blocks, taps;
  int start;              // of the box against the tile: -pad
  uint32_t load_bytes, group_bytes;
  int step_place[4], step_parity[4];
  int64_t phase_stride;   // of weights, in elements
  uint32_t tap_place[4][9];  // start of a tap's matrix, in bytes
  int sub_channels;       // channels of an output step or column
  int has_past, has_residual, relu, upsample;
};

struct Tile {
  int x, y, t, n, phase, channel, part;
};

__device__ __forceinline__ Tile tile_at(const Arguments& a, int index) {
  const int columns = a.out_tiles * a.phases;
  int pixel, column;
  if (a.inner) {
    pixel = index / columns;
    column = index - pixel * columns;
  } else {
    column = index / a.pixel_tiles;
    pixel = index - column * a.pixel_tiles;
  }
  Tile tile;
  tile.x = pixel % a.tiles_x * kTileX;
  pixel /= a.tiles_x;
  tile.y = pixel % a.tiles_y * kTileY;
  tile.t = pixel / a.tiles_y * kTileT;
  tile.phase = column / a.out_tiles;
  tile.n = column - tile.phase * a.out_tiles;
  const int channel = tile.n * kConvTileOut;
  if (a.upsample) {
    tile.channel = (tile.phase & 1) * a.sub_channels + channel;
    tile.part = tile.phase >> 1;
  } else {
    tile.part = channel / a.sub_channels;
    tile.channel = channel - tile.part * a.sub_channels;
  }
  return tile;
}

__global__ void __launch_bounds__(kThreads, 1) conv_nhwc_sm90_kernel(const __grid_constant__ Arguments a) {
  extern __shared__ uint8_t raw[];
  const uint32_t base = (shared_address(raw) + 1023) & ~1023u;
  const uint32_t barriers = base + kBarrierPlace;
  const auto full_pixels = [&](int s) { return barriers + s * 8; };
  const auto empty_pixels = [&](int s) { return barriers + 16 + s * 8; };
  const auto full_weights = [&](int s) { return barriers + 32 + s * 8; };
  const auto empty_weights = [&](int s) { return barriers + 64 + s * 8; };
  const auto full_residual = [&](int w) { return barriers + 96 + w * 8; };

  if (threadIdx.x == 0) {
    for (int s = 0; s < kPixelStages; ++s) {
      barrier_init(full_pixels(s), 1);
      barrier_init(empty_pixels(s), 8);
    }
    for (int s = 0; s < kWeightStages; ++s) {
      barrier_init(full_weights(s), 1);
      barrier_init(empty_weights(s), 8);
    }
    barrier_init(full_residual(0), 1);
    barrier_init(full_residual(1), 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();

  const int group = threadIdx.x / 128;
  const int loads = a.steps * a.in_blocks;
  if (group == 0) {
    fewer_registers<24>();
    if (threadIdx.x == 0) {
      int stage = 0;
      uint32_t parity = 1;
      const int tile_weights = a.steps * a.in_blocks * a.taps;
      for (int index = blockIdx.x; index < a.tiles; index += gridDim.x) {
        const Tile tile = tile_at(a, index);
        const uint16_t* from = a.weights + tile.phase * a.phase_stride +
                               int64_t{tile.n} * tile_weights * (kWeightBytes / 2);
        for (int i = 0; i < tile_weights; ++i, from += kWeightBytes / 2) {
          barrier_wait(empty_weights(stage), parity);
          barrier_expect(full_weights(stage), kWeightBytes);
          copy_bulk(base + kWeightPlace + stage * kWeightBytes, from, kWeightBytes, full_weights(stage));
          if (++stage == kWeightStages) {
            stage = 0;
            parity ^= 1;
          }
        }
      }
    } else if (threadIdx.x == 32) {
      prefetch_map(&a.input);
      int stage = 0;
      uint32_t parity = 1;
      for (int index = blockIdx.x; index < a.tiles; index += gridDim.x) {
        const Tile tile = tile_at(a, index);
        for (int step = 0; step < a.steps; ++step) {
          for (int block = 0; block < a.in_blocks; ++block) {
            barrier_wait(empty_pixels(stage), parity);
            barrier_expect(full_pixels(stage), a.load_bytes);
            load_box(base + stage * kPixelBytes, a.has_past && step == 0 ? &a.past : &a.input, block * kConvTileIn, tile.x + a.start,
                     tile.t + a.step_place[step], tile.y + a.start, a.step_parity[step], full_pixels(stage));
            if (++stage == kPixelStages) {
              stage = 0;
              parity ^= 1;
            }
          }
        }
      }
    }
  } else {
    more_registers<240>();
    const int consumer = group - 1;
    const int warp = (threadIdx.x / 32) & 3, lane = threadIdx.x & 31;
    const bool elected = (threadIdx.x & 127) == 0;
    const uint32_t out_box = base + kOutPlace + consumer * kBoxBytes;
    int pixel_stage = 0, weight_stage = 0;
    uint32_t pixel_parity = 0, weight_parity = 0, residual_parity = 0;
    float d[128];

    for (int index = blockIdx.x; index < a.tiles; index += gridDim.x) {
      const Tile tile = tile_at(a, index);
      int last_weights = -1, last_pixels = -1;
      for (int load = 0; load < loads; ++load) {
        barrier_wait(full_pixels(pixel_stage), pixel_parity);
        const uint32_t pixels = base + pixel_stage * kPixelBytes;
        for (int tap = 0; tap < a.taps; ++tap) {
          barrier_wait(full_weights(weight_stage), weight_parity);
          const uint64_t left = matrix_descriptor(
              base + kWeightPlace + weight_stage * kWeightBytes + consumer * (kWeightBytes / 2), 1024);
          const uint64_t right = matrix_descriptor(pixels + a.tap_place[tile.phase][tap], a.group_bytes);
          wgmma_hold(d);
          wgmma_fence();
#pragma unroll
          for (int k = 0; k < 4; ++k) wgmma_m64n256k16(d, left + 2 * k, right + 2 * k, last_weights >= 0 || k > 0);
          wgmma_commit();
          wgmma_hold(d);
          wgmma_wait<1>();
          if (lane == 0 && last_weights >= 0) {
            barrier_arrive(empty_weights(last_weights));
            if (last_pixels >= 0) barrier_arrive(empty_pixels(last_pixels));
          }
          last_pixels = -1;
          last_weights = weight_stage;
          if (++weight_stage == kWeightStages) {
            weight_stage = 0;
            weight_parity ^= 1;
          }
          // The previous tile's result has left shared memory by now, or soon will.
          if (elected && load == 0 && tap == min(2, a.taps - 1)) {
            store_wait_read();
            if (a.has_residual) {
              barrier_expect(full_residual(consumer), kBoxBytes);
              load_box(out_box, &a.residual, tile.channel + consumer * 64, tile.x, tile.t, tile.y, tile.part,
                       full_residual(consumer));
            }
          }
        }
        last_pixels = pixel_stage;
        if (++pixel_stage == kPixelStages) {
          pixel_stage = 0;
          pixel_parity ^= 1;
        }
      }
      wgmma_wait<0>();
      wgmma_hold(d);
      if (lane == 0) {
        barrier_arrive(empty_weights(last_weights));
        barrier_arrive(empty_pixels(last_pixels));
      }

      const int row = tile.n * kConvTileOut + consumer * 64 + warp * 16 + lane / 4;
      float bias[2] = {0.f, 0.f};
      if (a.bias) {
        if (row < a.out_channels) bias[0] = a.bias[row];
        if (row + 8 < a.out_channels) bias[1] = a.bias[row + 8];
      }
      if (a.has_residual) {
        barrier_wait(full_residual(consumer), residual_parity);
        residual_parity ^= 1;
      }
      named_barrier(1 + consumer, 128);
      const int pixel_in_pair = (lane >> 4) * 8 + (lane & 7);
      const uint32_t chunk = 2 * warp + ((lane >> 3) & 1);
      const uint32_t place = out_box + pixel_in_pair * 128 + ((chunk ^ (lane & 7)) << 4);
#pragma unroll
      for (int j = 0; j < 32; j += 2) {
        // Matrices of 8 channels x 8 pixels: (low, j), (high, j), (low, j+1), (high, j+1).
        __nv_bfloat162 value[4];
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          const int at = (j + m / 2) * 4 + (m & 1) * 2;
          value[m] = __floats2bfloat162_rn(d[at] + bias[m & 1], d[at + 1] + bias[m & 1]);
        }
        const uint32_t address = place + j * 1024;
        if (a.has_residual) {
          uint32_t old[4];
          load_matrix_x4_transposed(old, address);
#pragma unroll
          for (int m = 0; m < 4; ++m) value[m] = __hadd2(value[m], reinterpret_cast<__nv_bfloat162&>(old[m]));
        }
        uint32_t bits[4];
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          if (a.relu) value[m] = __hmax2_nan(value[m], __nv_bfloat162(__nv_bfloat16(0.f), __nv_bfloat16(0.f)));
          bits[m] = reinterpret_cast<uint32_t&>(value[m]);
        }
        store_matrix_x4_transposed(address, bits);
      }
      fence_async_shared();
      named_barrier(1 + consumer, 128);
      if (elected) {
        store_box(&a.output, out_box, tile.channel + consumer * 64, tile.x, tile.t, tile.y, tile.part);
        store_commit();
      }
    }
    if (elected) store_wait();
  }
}

bool make_map(CUtensorMap* map, const uint16_t* pointer, const cuuint64_t (&sizes)[5], const int64_t (&strides)[4],
              int box_x, int box_t, int box_y) {
  const cuuint64_t bytes[4] = {cuuint64_t(strides[0]) * 2, cuuint64_t(strides[1]) * 2, cuuint64_t(strides[2]) * 2,
                               cuuint64_t(strides[3]) * 2};
  const cuuint32_t box[5] = {64, cuuint32_t(box_x), cuuint32_t(box_t), cuuint32_t(box_y), 1};
  const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
  return encode_tiled()(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, const_cast<uint16_t*>(pointer), sizes, bytes, box,
                        ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

int launch_conv_nhwc_sm90(const ConvNhwcParams& p, void* stream) {
  if (!encode_tiled()) return cudaErrorNotSupported;
  Arguments a = {};
  const bool up = p.upsample == 2;
  const int border = p.kernel_xy == 3 && p.pad == 0 ? 2 : 0;
  const int height = p.in_height - border, width = p.in_width - border;  // small grid when enlarging
  a.weights = p.weights;
  a.bias = p.bias;
  a.out_channels = p.out_channels;
  a.tiles_x = (width + kTileX - 1) / kTileX;
  a.tiles_y = (height + kTileY - 1) / kTileY;
  a.pixel_tiles = a.tiles_x * a.tiles_y * ((p.out_frames + kTileT - 1) / kTileT);
  a.out_tiles = (p.out_channels + kConvTileOut - 1) / kConvTileOut;
  a.phases = up ? 4 : 1;
  a.tiles = a.pixel_tiles * a.out_tiles * a.phases;
  a.steps = p.kernel_t;
  a.in_blocks = (p.in_channels + kConvTileIn - 1) / kConvTileIn;
  a.taps = conv_taps(p.kernel_xy, p.folded);
    const int64_t tile_elements = int64_t{a.steps} * a.in_blocks * a.taps * (kWeightBytes / 2);
  a.phase_stride = p.folded ? a.out_tiles * tile_elements : 0;
  // Weights that L2 cannot keep are walked once; else neighbours share their pixels.
  a.inner = a.out_tiles * tile_elements * 2 < (16 << 20);
  a.start = -p.pad;
  const int box_x = p.kernel_xy == 3 ? kTileX + 2 : kTileX, box_y = p.kernel_xy == 3 ? kTileY + 2 : kTileY;
  a.load_bytes = uint32_t(box_x) * kTileT * box_y * kConvTileIn * 2;
  a.group_bytes = uint32_t(box_x) * 128;
  for (int dt = 0; dt < a.steps; ++dt) {
    a.step_place[dt] = p.past ? 0 : dt / p.stride_t;
    a.step_parity[dt] = dt % p.stride_t;
  }
  for (int phase = 0; phase < a.phases; ++phase) {
    for (int tap = 0; tap < a.taps; ++tap) {
      int dy = 0, dx = 0;  // within the box
      if (p.folded) {
        dy = (phase >> 1) + (tap >> 1);
        dx = (phase & 1) + (tap & 1);
      } else if (up) {
        dy = ((phase >> 1) + tap / 3 + 1) / 2;
        dx = ((phase & 1) + tap % 3 + 1) / 2;
      } else if (p.kernel_xy == 3) {
        dy = tap / 3;
        dx = tap % 3;
      }
      a.tap_place[phase][tap] = uint32_t(dy * kTileT * box_x + dx) * 128;
    }
  }
  a.has_residual = p.residual != nullptr;
  a.relu = p.relu;
  a.upsample = up;
  a.sub_channels = up ? p.out_channels : p.out_channels / p.grow;

  const cuuint64_t in_sizes[5] = {cuuint64_t(p.in_channels), cuuint64_t(p.in_width),
                                  cuuint64_t(p.in_frames / p.stride_t), cuuint64_t(p.in_height),
                                  cuuint64_t(p.stride_t)};
  const int64_t in_strides[4] = {p.in_stride_x, p.in_stride_t * p.stride_t, p.in_stride_y, p.in_stride_t};
  if (!make_map(&a.input, p.input, in_sizes, in_strides, box_x, kTileT, box_y)) return cudaErrorInvalidValue;
  a.has_past = p.past != nullptr;
  if (p.past && !make_map(&a.past, p.past, in_sizes, in_strides, box_x, kTileT, box_y)) return cudaErrorInvalidValue;
  const cuuint64_t out_sizes[5] = {cuuint64_t(up ? 2 * p.out_channels : a.sub_channels), cuuint64_t(width),
                                   cuuint64_t(p.out_frames), cuuint64_t(height), cuuint64_t(up ? 2 : p.grow)};
  const int64_t out_strides[4] = {p.out_stride_x * p.upsample, p.out_stride_t * p.grow, p.out_stride_y * p.upsample,
                                  up ? p.out_stride_y : p.out_stride_t};
  // Columns of an enlarged picture share the channel dimension: they must be dense.
  if (up && p.out_stride_x != p.out_channels) return cudaErrorInvalidValue;
  if (!make_map(&a.output, p.output, out_sizes, out_strides, kTileX, kTileT, kTileY)) return cudaErrorInvalidValue;
  if (p.residual && !make_map(&a.residual, p.residual, out_sizes, out_strides, kTileX, kTileT, kTileY)) {
    return cudaErrorInvalidValue;
  }

  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(conv_nhwc_sm90_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  }
  if (error != cudaSuccess) return error;
  const int grid = a.tiles < processors ? a.tiles : processors;
  conv_nhwc_sm90_kernel<<<grid, kThreads, kSharedBytes, static_cast<cudaStream_t>(stream)>>>(a);
  return cudaGetLastError();
}

}  // namespace flashvsr
