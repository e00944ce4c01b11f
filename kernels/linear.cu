// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/linear.h"

#include <cuda_runtime.h>

namespace flashvsr {

#ifdef FLASHVSR_HAVE_SM90A
int launch_linear_sm90(const LinearParams& params, int processors, void* stream);
double linear_share_sm90(int64_t rows, int32_t out, int processors);
#endif

namespace {

// Of the current device, where it has a kernel; else 0. A pair makes a cluster.
int processors_for_sm90() {
#ifdef FLASHVSR_HAVE_SM90A
  int device = 0, major = 0, minor = 0, processors = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 && minor == 0 &&
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) == cudaSuccess && processors >= 2) {
    return processors;
  }
#endif
  return 0;
}

}  // namespace

bool has_linear_kernel() { return processors_for_sm90() > 0; }

double linear_share(int64_t rows, int32_t out) {
  const int processors = processors_for_sm90();
  if (processors == 0 || rows <= 0 || out <= 0) return 0;
#ifdef FLASHVSR_HAVE_SM90A
  return linear_share_sm90(rows, out, processors);
#else
  return 0;
#endif
}

int launch_linear(const LinearParams& p, void* stream) {
  if (check_linear(p)) return cudaErrorInvalidValue;
  const int processors = processors_for_sm90();
  if (processors == 0) return cudaErrorNoKernelImageForDevice;
#ifdef FLASHVSR_HAVE_SM90A
  return launch_linear_sm90(p, processors, stream);
#else
  (void)stream;
  return cudaErrorNoKernelImageForDevice;
#endif
}

}  // namespace flashvsr
