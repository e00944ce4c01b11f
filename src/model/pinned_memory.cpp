// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/pinned_memory.h"

#include <ATen/ATen.h>

#include <atomic>

#include "base/log.h"

namespace flashvsr {
namespace {
std::atomic<const PinnedMemory*> g_functions{nullptr};
}  // namespace

void set_pinned_memory(const PinnedMemory* functions) { g_functions = functions; }

at::Tensor pinned_empty(at::IntArrayRef sizes, c10::ScalarType dtype, c10::Device device) {
  const auto options = at::TensorOptions().dtype(dtype);
  const PinnedMemory* functions = g_functions;
  if (functions == nullptr || device.is_cpu()) return at::empty(sizes, options);
  const size_t bytes = static_cast<size_t>(c10::multiply_integers(sizes)) * c10::elementSize(dtype);
  void* memory = bytes > 0 ? functions->take(bytes, device) : nullptr;
  if (memory == nullptr) {
    log(LogLevel::kWarning, "pinned_memory: no ", bytes, " bytes more; ordinary memory is taken, whose copies are slower");
    return at::empty(sizes, options);
  }
  return at::from_blob(memory, sizes, functions->give_back, options);
}

}  // namespace flashvsr
