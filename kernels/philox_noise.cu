// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/philox_noise.h"

#include <cuda_runtime.h>

namespace flashvsr {
namespace {

__global__ void philox_noise_kernel(const PhiloxNoiseParams p, int64_t count) {
  for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += int64_t(gridDim.x) * blockDim.x) {
    int64_t rest = at / p.width;
    uint32_t c3 = uint32_t(at % p.width), c2 = uint32_t(rest % p.height);
    rest /= p.height;
    uint32_t c0 = uint32_t(p.first_frame + rest % p.frames), c1 = uint32_t(rest / p.frames);
    uint32_t k0 = uint32_t(p.seed), k1 = uint32_t(p.seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = uint64_t{0xD2511F53u} * c0, b = uint64_t{0xCD9E8D57u} * c2;
      c0 = uint32_t(b >> 32) ^ c1 ^ k0;
      c2 = uint32_t(a >> 32) ^ c3 ^ k1;
      c1 = uint32_t(b);
      c3 = uint32_t(a);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const double u = (c0 + 1.0) * 0x1p-32, v = c1 * 0x1p-32;
    p.output[at] = float(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
  }
}

}  // namespace

int launch_philox_noise(const PhiloxNoiseParams& p, void* stream) {
  if (!p.output || p.channels < 1 || p.frames < 1 || p.height < 1 || p.width < 1) return cudaErrorInvalidValue;
  const int64_t count = int64_t{p.channels} * p.frames * p.height * p.width;
  const int64_t blocks = (count + 255) / 256;
  philox_noise_kernel<<<unsigned(blocks < 65535 ? blocks : 65535), 256, 0, static_cast<cudaStream_t>(stream)>>>(p, count);
  return cudaGetLastError();
}

}  // namespace flashvsr
