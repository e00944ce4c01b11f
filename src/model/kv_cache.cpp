// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/kv_cache.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace flashvsr {

const KvSlots& KvCache::block(int64_t layer) const {
  static const KvSlots kEmpty;
  return layer < static_cast<int64_t>(blocks_.size()) ? blocks_[layer] : kEmpty;
}

void KvCache::update(int64_t layer, const at::Tensor& key, const at::Tensor& value,
                     int64_t windows_per_slot, int64_t kv_chunks) {
  FLASHVSR_CHECK(key.size(0) % windows_per_slot == 0 && key.sizes() == value.sizes(),
                 ErrorCode::kInternal, "kv_cache: ", key.size(0), " windows are no multiple of ",
                 windows_per_slot);
  if (layer >= static_cast<int64_t>(blocks_.size())) blocks_.resize(layer + 1);
  const int64_t slots = key.size(0) / windows_per_slot;
  if (slots > kv_chunks) {
    // A copy, not a view: a view would keep the dropped slot's memory.
    const int64_t keep = (slots - 1) * windows_per_slot;
    blocks_[layer] = {key.narrow(0, windows_per_slot, keep).clone(),
                      value.narrow(0, windows_per_slot, keep).clone()};
  } else {
    blocks_[layer] = {key, value};
  }
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const KvSlots& slots : blocks_) {
    if (slots.key.defined()) total += slots.key.nbytes() + slots.value.nbytes();
  }
  return total;
}

}  // namespace flashvsr
