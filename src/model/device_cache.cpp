// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/device_cache.h"

#include <atomic>

namespace flashvsr {
namespace {
std::atomic<CacheReleaser> g_releaser{nullptr};
}  // namespace

CacheReleaser set_cache_releaser(CacheReleaser releaser) { return g_releaser.exchange(releaser); }

void release_cached(c10::Device device) {
  const CacheReleaser releaser = g_releaser;
  if (releaser != nullptr && !device.is_cpu()) releaser(device);
}

}  // namespace flashvsr
