// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda/allocator_settings.h"

#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstdlib>
#include <exception>
#include <string>

#include "base/log.h"

namespace flashvsr {
namespace {

// Any memory, given back or not: its segments stay.
bool is_used(int devices) {
  auto* const allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::kCUDA));
  if (allocator == nullptr || !allocator->initialized()) return false;
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  for (int device = 0; device < devices; ++device) {
    if (allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device)).allocation[kAll].allocated > 0) return true;
  }
  return false;
}

// Who has a say in it already; empty: nobody.
std::string owner(int devices) {
  for (const char* name : {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}) {
    if (const char* value = std::getenv(name)) return concat("the environment has ", name, "=", value);
  }
  const std::string settings = c10::CachingAllocator::getAllocatorSettings();
  if (!settings.empty()) return concat("the application has set ", settings);
  return is_used(devices) ? "the application has allocated with it" : "";
}

}  // namespace

bool prefer_expandable_segments(int devices) {
  if (devices == 0) return false;
  try {
    if (const std::string who = owner(devices); !who.empty()) {
      log(LogLevel::kInfo, "LibTorch's CUDA allocator keeps its settings: ", who);
      return false;
    }
    c10::CachingAllocator::setAllocatorSettings("expandable_segments:True");
  } catch (const std::exception& error) {
    log(LogLevel::kInfo, "LibTorch's CUDA allocator keeps its settings: ", error.what());
    return false;
  }
  return true;
}

}  // namespace flashvsr
