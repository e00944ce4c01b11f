// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The driver's encoder of tensor maps for Hopper's copy engine, asked for once and through the runtime, so that nothing
// links libcuda. Host code. Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_TENSOR_MAP_CUH_
#define FLASHVSR_KERNELS_TENSOR_MAP_CUH_

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace flashvsr {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                                 const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Null where the driver has none.
inline EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* pointer = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &pointer, 12000, cudaEnableDefault, &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess) {
      pointer = nullptr;
    }
    return reinterpret_cast<EncodeTiled>(pointer);
  }();
  return function;
}

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_TENSOR_MAP_CUH_
