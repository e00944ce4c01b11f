// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the files that register kernels share: device, stream, raw bf16, errors.
//
// Thread-safety: safe.
#ifndef FLASHVSR_CUDA_GLUE_CUH_
#define FLASHVSR_CUDA_GLUE_CUH_

#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>
#ifndef FLASHVSR_EMULATED
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <cstdint>
#include <optional>

#include "base/error.h"

namespace flashvsr {

using Maybe = std::optional<at::Tensor>;

#ifndef FLASHVSR_EMULATED
using c10::cuda::CUDAGuard;
inline void* stream() { return c10::cuda::getCurrentCUDAStream().stream(); }
#define FLASHVSR_KERNEL_DEVICE CUDA
#else
// tests/cuda runs these files over host tensors and emulated kernels.
struct CUDAGuard {
  explicit CUDAGuard(c10::Device) {}
};
inline void* stream() { return nullptr; }
#define FLASHVSR_KERNEL_DEVICE CPU
#endif

inline const uint16_t* bits(const at::Tensor& x) { return static_cast<const uint16_t*>(x.data_ptr()); }
inline uint16_t* mutable_bits(const at::Tensor& x) { return static_cast<uint16_t*>(x.data_ptr()); }
inline const uint16_t* bits(const Maybe& x) { return x ? bits(*x) : nullptr; }
inline void check(int status, const char* name) {
  FLASHVSR_CHECK(status == 0, ErrorCode::kInternal, name, ": ", cudaGetErrorString(static_cast<cudaError_t>(status)));
}

}  // namespace flashvsr

#endif  // FLASHVSR_CUDA_GLUE_CUH_
