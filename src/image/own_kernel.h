// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Operations on pictures that are made of ATen calls or plain loops, and that the CUDA library has a kernel for.
//
// Thread-safety: safe.
#ifndef FLASHVSR_IMAGE_OWN_KERNEL_H_
#define FLASHVSR_IMAGE_OWN_KERNEL_H_

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdlib>
#include <optional>
#include <string>

namespace flashvsr {

// The kernel of flashvsr::`name` for x's device: none on the CPU (but in tests/cuda, where the CUDA library runs
// emulated), where the CUDA library is not loaded, and under FLASHVSR_REFERENCE.
template <typename Signature>
std::optional<c10::TypedOperatorHandle<Signature>> own_kernel(const char* name, const at::Tensor& x) {
  if (std::getenv("FLASHVSR_REFERENCE") != nullptr) return std::nullopt;
  const auto op = c10::Dispatcher::singleton().findSchema({std::string("flashvsr::") + name, ""});
  const auto key = x.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  if (!op || !op->hasKernelForDispatchKey(key)) return std::nullopt;
  return op->typed<Signature>();
}

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_OWN_KERNEL_H_
