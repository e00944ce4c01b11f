// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/pinned_memory.h"

#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

namespace flashvsr {
namespace {

void* take(size_t bytes, c10::Device device) {
  // Not on another card, whose context this would make.
  const c10::cuda::CUDAGuard guard(device);
  void* memory = nullptr;
  // Portable: of every device's context.
  if (cudaHostAlloc(&memory, bytes, cudaHostAllocPortable) == cudaSuccess) return memory;
  cudaGetLastError();  // it is answered here
  return nullptr;
}

void give_back(void* memory) {
  if (cudaFreeHost(memory) != cudaSuccess) cudaGetLastError();
}

constexpr PinnedMemory kFunctions{take, give_back};

[[maybe_unused]] const bool is_set = [] {
  set_pinned_memory(&kFunctions);
  return true;
}();

}  // namespace
}  // namespace flashvsr
