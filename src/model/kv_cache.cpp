// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"

namespace flashvsr {

std::vector<int32_t> KvCache::slot_map(int64_t new_slots) const {
  std::vector<int32_t> map;
  for (int64_t i = 0; i < held_; ++i) map.push_back(static_cast<int32_t>((head_ + i) % capacity_));
  for (int64_t i = 0; i < new_slots; ++i) map.push_back(static_cast<int32_t>(-1 - i));
  return map;
}

const KvRing& KvCache::layer(int64_t index) const {
  static const KvRing kEmpty;
  return index < static_cast<int64_t>(layers_.size()) ? layers_[index] : kEmpty;
}

void KvCache::store(int64_t index, const at::Tensor& key, const at::Tensor& value,
                    const at::Tensor& key_mean, int64_t new_slots, int64_t kv_chunks) {
  FLASHVSR_CHECK(new_slots > 0 && key.size(0) % new_slots == 0 && key.sizes() == value.sizes() &&
                     key_mean.size(0) == key.size(0),
                 ErrorCode::kInternal, "kv_cache: ", key.size(0), " windows and ", key_mean.size(0),
                 " means for ", new_slots, " slots");
  if (capacity_ == 0) capacity_ = std::max<int64_t>(kv_chunks, 2);
  if (index >= static_cast<int64_t>(layers_.size())) layers_.resize(index + 1);
  const int64_t windows = key.size(0) / new_slots;
  KvRing& ring = layers_[index];
  if (!ring.key.defined()) {
    ring.key = at::empty({capacity_, windows, key.size(1), key.size(2)}, key.options());
    ring.value = at::empty_like(ring.key);
    ring.key_mean = at::empty({capacity_, windows, key.size(2)}, key_mean.options());
  }
  const int64_t seen = held_ + new_slots, first_kept = dropped(seen, kv_chunks);
  FLASHVSR_CHECK(seen - first_kept <= capacity_, ErrorCode::kInternal, "kv_cache: ",
                 seen - first_kept, " slots for a ring of ", capacity_);
  for (int64_t slot = std::max(held_, first_kept); slot < seen; ++slot) {
    const int64_t place = (head_ + slot) % capacity_, begin = (slot - held_) * windows;
    ring.key[place].copy_(key.narrow(0, begin, windows));
    ring.value[place].copy_(value.narrow(0, begin, windows));
    ring.key_mean[place].copy_(key_mean.narrow(0, begin, windows));
  }
}

void KvCache::advance(int64_t new_slots, int64_t kv_chunks) {
  const int64_t seen = held_ + new_slots, gone = dropped(seen, kv_chunks);
  head_ = (head_ + gone) % capacity_;
  held_ = seen - gone;
}

KvCache KvCache::clone() const {
  KvCache copy = *this;
  for (KvRing& ring : copy.layers_) {
    if (ring.key.defined()) ring = {ring.key.clone(), ring.value.clone(), ring.key_mean.clone()};
  }
  return copy;
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const KvRing& ring : layers_) {
    if (ring.key.defined()) total += 2 * ring.key.nbytes() + ring.key_mean.nbytes();
  }
  return total;
}

}  // namespace flashvsr
