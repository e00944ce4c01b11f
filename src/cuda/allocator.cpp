// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The allocator's settings, looked at when the CUDA library is opened: before the engine's first allocation. And what it
// keeps for later, given back.
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>

#include <mutex>

#include "cuda/allocator_settings.h"
#include "cuda/recording.h"
#include "model/device_cache.h"

namespace flashvsr {
namespace {

// 0 where not all can.
int devices_that_map_memory() {
  constexpr int kVirtualMemoryManagement = 102;  // CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return 0;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  const auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
  int devices = 0;
  if (init == nullptr || count == nullptr || attribute == nullptr || init(0) != 0 || count(&devices) != 0) return 0;
  for (int device = 0; device < devices; ++device) {
    int supported = 0;
    if (attribute(&supported, kVirtualMemoryManagement, device) != 0 || supported == 0) return 0;
  }
  return devices;
}

[[maybe_unused]] const bool is_set = prefer_expandable_segments(devices_that_map_memory());

void release(c10::Device device) {
  constexpr int64_t kMuch = int64_t{256} << 20;
  // An application's own allocator may be of another kind.
  auto* const allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
  if (allocator == nullptr) return;
  const auto stats = allocator->getDeviceStats(device.has_index() ? device.index() : 0);
  if (stats.reserved_bytes[0].current - stats.allocated_bytes[0].current < kMuch) return;
  const std::lock_guard<std::mutex> lock(recording_mutex());
  allocator->emptyCache();
}

[[maybe_unused]] const CacheReleaser before = set_cache_releaser(release);

}  // namespace
}  // namespace flashvsr
