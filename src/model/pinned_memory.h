// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Host memory that a device copies from and to by itself, beside its other work: as many bytes as asked for, unlike
// LibTorch's caching allocator for it, which rounds up to a power of two. For what is held long.
//
// Ordinary memory where the CUDA library is not loaded, or has no more of the other kind (said in the log).
// Thread-safety: safe.
#ifndef FLASHVSR_MODEL_PINNED_MEMORY_H_
#define FLASHVSR_MODEL_PINNED_MEMORY_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace flashvsr {

// A dense host tensor for copies from and to `device`; its values are undefined. Whoever drops it has waited for them.
at::Tensor pinned_empty(at::IntArrayRef sizes, c10::ScalarType dtype, c10::Device device);

// Takes and gives back; take returns null where there is none.
struct PinnedMemory {
  void* (*take)(size_t bytes, c10::Device device);
  void (*give_back)(void* memory);
};
void set_pinned_memory(const PinnedMemory* functions);  // the CUDA library's, as it is opened

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_PINNED_MEMORY_H_
