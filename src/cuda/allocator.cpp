// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Expandable segments for LibTorch's caching allocator, set when the CUDA library is opened: before the first
// allocation. Otherwise each large block is a segment of its own and a free one serves only what fits into it;
// the first chunk's tensors then stay as free blocks beside those of the later chunks.
// Left alone where the environment says something about the allocator (PYTORCH_ALLOC_CONF, also as
// PYTORCH_CUDA_ALLOC_CONF), or a device lacks virtual memory management.
#include <c10/core/AllocatorConfig.h>
#include <dlfcn.h>

#include <cstdlib>
#include <exception>

namespace flashvsr {
namespace {

bool devices_map_memory() {
  constexpr int kVirtualMemoryManagement = 102;  // CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return false;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  const auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
  int devices = 0;
  if (init == nullptr || count == nullptr || attribute == nullptr || init(0) != 0 || count(&devices) != 0) return false;
  for (int device = 0; device < devices; ++device) {
    int supported = 0;
    if (attribute(&supported, kVirtualMemoryManagement, device) != 0 || supported == 0) return false;
  }
  return devices > 0;
}

[[maybe_unused]] const bool is_set = [] {
  if (std::getenv("PYTORCH_ALLOC_CONF") != nullptr || std::getenv("PYTORCH_CUDA_ALLOC_CONF") != nullptr) return false;
  if (!devices_map_memory()) return false;
  try {
    c10::CachingAllocator::setAllocatorSettings("expandable_segments:True");
  } catch (const std::exception&) {
    return false;  // this runs while the library is opened: nobody would catch it
  }
  return true;
}();

}  // namespace
}  // namespace flashvsr
