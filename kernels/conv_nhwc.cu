// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Packing of weights, the choice between kernels, and the convolution for compute capability 8.0 and later:
// 128 pixels x 128 out channels a block, three stages of cp.async, mma.sync m16n8k16. Pixels are gathered by
// address, borders arrive as zeros; 96 KB of shared memory fit every such card.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/conv_nhwc_internal.h"
#include "kernels/mma.cuh"

namespace flashvsr {
namespace {

constexpr int kTilePixels = 128, kStages = 3, kThreads = 256;
constexpr int kStageBytes = (kTilePixels + kConvTileOut) * kConvTileIn * 2;

__global__ void pack_conv_weights_kernel(PackConvWeightsParams p, int out_tiles, int in_blocks, int taps) {
  int64_t tile = blockIdx.x;
  uint16_t* packed = p.packed + tile * kConvTileOut * kConvTileIn;
  const int tap = tile % taps;
  tile /= taps;
  const int block = tile % in_blocks;
  tile /= in_blocks;
  const int dt = tile % p.kernel_t;
  tile /= p.kernel_t;
  const int n = tile % out_tiles, phase = tile / out_tiles;
  for (int i = threadIdx.x; i < kConvTileOut * kConvTileIn; i += blockDim.x) {
    const int row = i / kConvTileIn, column = i % kConvTileIn;
    const int o = n * kConvTileOut + row, c = block * kConvTileIn + column;
    uint16_t value = 0;
    if (o < p.out_channels && c < p.in_channels) {
      const uint16_t* w = p.source + o * p.stride_o + c * p.stride_c + dt * p.stride_t;
      if (!p.folded) {
        value = w[tap * p.stride_xy];
      } else {
        const int py = phase >> 1, px = phase & 1, a = tap >> 1, b = tap & 1;
        const int dy_begin = py == 0 ? a : 2 * a, dy_end = py == 0 ? 1 + 2 * a : 2 + a;
        const int dx_begin = px == 0 ? b : 2 * b, dx_end = px == 0 ? 1 + 2 * b : 2 + b;
        float sum = 0.f;
        for (int dy = dy_begin; dy < dy_end; ++dy) {
          for (int dx = dx_begin; dx < dx_end; ++dx) {
            sum += __bfloat162float(__ushort_as_bfloat16(w[(dy * 3 + dx) * p.stride_xy]));
          }
        }
        value = __bfloat16_as_ushort(__float2bfloat16(sum));
      }
    }
    packed[conv_tile_place(row, column)] = value;
  }
}

__device__ __forceinline__ void copy_async(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

struct Grid {
  int height, width;  // of the small picture when enlarging
  int border;
  int out_tiles, in_blocks, taps;
  int64_t pixels;
};

__global__ void __launch_bounds__(kThreads, 1) conv_nhwc_sm80_kernel(const ConvNhwcParams p, const Grid g) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const uint32_t base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int n_tile = blockIdx.x % g.out_tiles, phase = blockIdx.y;
  const int64_t first_pixel = int64_t(blockIdx.x / g.out_tiles) * kTilePixels;
  const int thread = threadIdx.x, lane = thread & 31, warp = thread / 32;
  const int iterations = p.kernel_t * g.in_blocks * g.taps;

  // Rows of the pixel tile that this thread fetches.
  const int chunk = thread & 7;
  int64_t row_place[4];
  int row_y[4], row_x[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t pixel = first_pixel + thread / 8 + 32 * i;
    const int x = pixel % g.width;
    const int64_t line = pixel / g.width;
    const int y = line % g.height;
    const int64_t t = line / g.height;
    row_x[i] = x + g.border;
    row_y[i] = pixel < g.pixels ? y + g.border : -(1 << 20);
    row_place[i] = t * p.stride_t * p.in_stride_t + chunk * 8;
  }
  const uint16_t* weights = p.weights + (int64_t(p.folded ? phase : 0) * g.out_tiles + n_tile) * iterations *
                                            (kConvTileOut * kConvTileIn);

  int tap = 0, block = 0, dt = 0;
  const auto fetch = [&](int iteration) {
    if (iteration < iterations) {
      int dy = 0, dx = 0;
      if (p.folded) {
        dy = (phase >> 1) + (tap >> 1) - 1;
        dx = (phase & 1) + (tap & 1) - 1;
      } else if (p.upsample == 2) {
        dy = ((phase >> 1) + tap / 3 + 1) / 2 - 1;
        dx = ((phase & 1) + tap % 3 + 1) / 2 - 1;
      } else if (p.kernel_xy == 3) {
        dy = tap / 3 - 1;
        dx = tap % 3 - 1;
      }
      const uint32_t stage = base + iteration % kStages * kStageBytes;
      const uint16_t* source = p.past ? (dt == 0 ? p.past : p.input) : p.input + dt * p.in_stride_t;
      const bool has_channels = block * kConvTileIn + chunk * 8 < p.in_channels;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int y = row_y[i] + dy, x = row_x[i] + dx, row = thread / 8 + 32 * i;
        const bool inside = has_channels && y >= 0 && x >= 0 && y < p.in_height && x < p.in_width;
        const uint16_t* from = inside ? source + row_place[i] + y * p.in_stride_y + x * p.in_stride_x +
                                            block * kConvTileIn
                                      : p.input;
        copy_async(stage + row * 128 + (((chunk ^ row) & 7) << 4), from, inside ? 16 : 0);
      }
      const uint16_t* from = weights + int64_t(iteration) * (kConvTileOut * kConvTileIn);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int piece = thread + i * kThreads;
        copy_async(stage + kTilePixels * 128 + piece * 16, from + piece * 8, 16);
      }
      if (++tap == g.taps) {
        tap = 0;
        if (++block == g.in_blocks) {
          block = 0;
          ++dt;
        }
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };

  const int warp_pixel = (warp & 1) * 64, warp_out = (warp >> 1) * 32;
  float d[4][4][4] = {};
  for (int i = 0; i < kStages - 1; ++i) fetch(i);
  for (int i = 0; i < iterations; ++i) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    fetch(i + kStages - 1);
    const uint32_t pixels = base + i % kStages * kStageBytes, outs = pixels + kTilePixels * 128;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint32_t a[4][4], b[2][4];
      const int column = 2 * k + (lane >> 4);
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const int row = warp_pixel + m * 16 + (lane & 15);
        load_matrix_x4(a[m], pixels + row * 128 + (((column ^ row) & 7) << 4));
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int row = warp_out + n * 16 + (lane & 15);
        load_matrix_x4(b[n], outs + row * 128 + (((column ^ row) & 7) << 4));
      }
#pragma unroll
      for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          mma_bf16(d[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[n / 2][n & 1], b[n / 2][2 + (n & 1)]);
        }
      }
    }
  }

  const int sub_channels = p.out_channels / p.grow;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t pixel = first_pixel + warp_pixel + m * 16 + half * 8 + lane / 4;
      if (pixel >= g.pixels) continue;
      const int64_t line = pixel / g.width;
      const int x = (pixel % g.width) * p.upsample + (phase & 1), y = line % g.height * p.upsample + (phase >> 1);
      const int64_t t = line / g.height;
      const int64_t place = y * p.out_stride_y + x * p.out_stride_x;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int o = n_tile * kConvTileOut + warp_out + n * 8 + (lane & 3) * 2;
        if (o >= p.out_channels) continue;
        float low = d[m][n][half * 2], high = d[m][n][half * 2 + 1];
        if (p.bias) {
          low += p.bias[o];
          high += p.bias[o + 1];
        }
        __nv_bfloat162 value = __floats2bfloat162_rn(low, high);
        const int64_t at = place + (t * p.grow + o / sub_channels) * p.out_stride_t + o % sub_channels;
        if (p.residual) value = __hadd2(value, *reinterpret_cast<const __nv_bfloat162*>(p.residual + at));
        if (p.relu) value = __hmax2_nan(value, __nv_bfloat162(__nv_bfloat16(0.f), __nv_bfloat16(0.f)));
        *reinterpret_cast<__nv_bfloat162*>(p.output + at) = value;
      }
    }
  }
}

int launch_conv_nhwc_sm80(const ConvNhwcParams& p, void* stream) {
  Grid g;
  g.border = p.kernel_xy == 3 && p.pad == 0 ? 1 : 0;
  g.height = p.in_height - 2 * g.border;
  g.width = p.in_width - 2 * g.border;
  g.out_tiles = (p.out_channels + kConvTileOut - 1) / kConvTileOut;
  g.in_blocks = (p.in_channels + kConvTileIn - 1) / kConvTileIn;
  g.taps = conv_taps(p.kernel_xy, p.folded);
  g.pixels = int64_t{p.out_frames} * g.height * g.width;
  const int64_t blocks = (g.pixels + kTilePixels - 1) / kTilePixels * g.out_tiles;
  if (blocks >= int64_t{1} << 31) return cudaErrorInvalidValue;
  const cudaError_t error = cudaFuncSetAttribute(conv_nhwc_sm80_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 kStages * kStageBytes);
  if (error != cudaSuccess) return error;
  conv_nhwc_sm80_kernel<<<dim3(unsigned(blocks), p.upsample == 2 ? 4 : 1), kThreads, kStages * kStageBytes,
                          static_cast<cudaStream_t>(stream)>>>(p, g);
  return cudaGetLastError();
}

}  // namespace

int launch_pack_conv_weights(const PackConvWeightsParams& p, void* stream) {
  if (!p.source || !p.packed || p.in_channels < 1 || p.out_channels < 1 || (p.kernel_xy != 1 && p.kernel_xy != 3) ||
      (p.folded && p.kernel_xy != 3)) {
    return cudaErrorInvalidValue;
  }
  const int out_tiles = (p.out_channels + kConvTileOut - 1) / kConvTileOut;
  const int in_blocks = (p.in_channels + kConvTileIn - 1) / kConvTileIn;
  const int64_t tiles = conv_weight_elements(p) / (kConvTileOut * kConvTileIn);
  pack_conv_weights_kernel<<<unsigned(tiles), 256, 0, static_cast<cudaStream_t>(stream)>>>(
      p, out_tiles, in_blocks, conv_taps(p.kernel_xy, p.folded));
  return cudaGetLastError();
}

int launch_conv_nhwc(const ConvNhwcParams& params, void* stream) {
  if (check_conv_nhwc(params)) return cudaErrorInvalidValue;
  ConvKernel kernel = params.kernel;
#ifdef FLASHVSR_HAVE_SM90A
  int device = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error != cudaSuccess) return error;
  if (kernel == ConvKernel::kAuto) kernel = major == 9 && minor == 0 ? ConvKernel::kSm90 : ConvKernel::kSm80;
  if (kernel == ConvKernel::kSm90) {
    if (major != 9 || minor != 0) return cudaErrorNoKernelImageForDevice;
    return launch_conv_nhwc_sm90(params, stream);
  }
#else
  if (kernel == ConvKernel::kSm90) return cudaErrorNoKernelImageForDevice;
#endif
  return launch_conv_nhwc_sm80(params, stream);
}

}  // namespace flashvsr
