// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Gives back to the device what LibTorch's allocator keeps for later and no tensor uses, when that is much (256 MiB).
// Of all streams of the process: they map their memory again when they next want it. Waits for the device, but never
// while a stage is recorded.
//
// Thread-safety: safe.
#ifndef FLASHVSR_MODEL_DEVICE_CACHE_H_
#define FLASHVSR_MODEL_DEVICE_CACHE_H_

#include <c10/core/Device.h>

namespace flashvsr {

using CacheReleaser = void (*)(c10::Device device);
// The CUDA library's, as it is opened; tests may set their own. Returns the one before.
CacheReleaser set_cache_releaser(CacheReleaser releaser);
// Nothing where the device has no such cache.
void release_cached(c10::Device device);

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_DEVICE_CACHE_H_
