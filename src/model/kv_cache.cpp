// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/kv_cache.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace flashvsr {

const KvSlots& KvCache::block(int64_t layer) const {
  static const KvSlots kEmpty;
  return layer < static_cast<int64_t>(blocks_.size()) ? blocks_[layer] : kEmpty;
}

const KvSlots& KvCache::append(int64_t layer, const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& key_mean, int64_t windows_per_slot) {
  FLASHVSR_CHECK(key.size(0) % windows_per_slot == 0 && key.sizes() == value.sizes() &&
                     key_mean.size(0) == key.size(0),
                 ErrorCode::kInternal, "kv_cache: ", key.size(0), " windows, ", key_mean.size(0),
                 " means, expected a multiple of ", windows_per_slot);
  if (layer >= static_cast<int64_t>(blocks_.size())) blocks_.resize(layer + 1);
  KvSlots& slots = blocks_[layer];
  for (int64_t begin = 0; begin < key.size(0); begin += windows_per_slot) {
    slots.key.push_back(key.narrow(0, begin, windows_per_slot));
    slots.value.push_back(value.narrow(0, begin, windows_per_slot));
    slots.key_mean.push_back(key_mean.narrow(0, begin, windows_per_slot));
  }
  return slots;
}

void KvCache::evict(int64_t layer, int64_t kv_chunks) {
  KvSlots& slots = blocks_.at(layer);
  if (slots.slots() <= kv_chunks) return;
  slots.key.erase(slots.key.begin());
  slots.value.erase(slots.value.begin());
  slots.key_mean.erase(slots.key_mean.begin());
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const KvSlots& slots : blocks_) {
    for (const auto* tensors : {&slots.key, &slots.value, &slots.key_mean}) {
      for (const at::Tensor& tensor : *tensors) total += tensor.nbytes();
    }
  }
  return total;
}

}  // namespace flashvsr
