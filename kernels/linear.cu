// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/linear.h"

#include <cuda_runtime.h>

namespace flashvsr {

#ifdef FLASHVSR_HAVE_SM90A
int launch_linear_sm90(const LinearParams& params, void* stream);
double linear_share_sm90(int64_t rows, int32_t out);
#endif

bool has_linear_kernel() {
#ifdef FLASHVSR_HAVE_SM90A
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 && minor == 0;
#else
  return false;
#endif
}

double linear_share(int64_t rows, int32_t out) {
#ifdef FLASHVSR_HAVE_SM90A
  if (has_linear_kernel() && rows > 0 && out > 0) return linear_share_sm90(rows, out);
#endif
  (void)rows;
  (void)out;
  return 0;
}

int launch_linear(const LinearParams& p, void* stream) {
  if (check_linear(p)) return cudaErrorInvalidValue;
  if (!has_linear_kernel()) return cudaErrorNoKernelImageForDevice;
#ifdef FLASHVSR_HAVE_SM90A
  return launch_linear_sm90(p, stream);
#else
  (void)stream;
  return cudaErrorNoKernelImageForDevice;
#endif
}

}  // namespace flashvsr
