// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/pinned_memory.h"

#include <cuda_runtime_api.h>

#include "cuda/recording.h"

namespace flashvsr {
namespace {

void* take(size_t bytes) {
  void* memory = nullptr;
  // Portable: of every device's context.
  if (cudaHostAlloc(&memory, bytes, cudaHostAllocPortable) == cudaSuccess) return memory;
  cudaGetLastError();  // it is answered here
  return nullptr;
}

void give_back(void* memory) {
  const std::lock_guard<std::mutex> lock(recording_mutex());
  cudaDeviceSynchronize();  // copies may be on their way
  cudaFreeHost(memory);
}

constexpr PinnedMemory kFunctions{take, give_back};

[[maybe_unused]] const bool is_set = [] {
  set_pinned_memory(&kFunctions);
  return true;
}();

}  // namespace
}  // namespace flashvsr
