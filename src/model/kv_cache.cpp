// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/kv_cache.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"

namespace flashvsr {
namespace {

constexpr double kLargestE4m3 = 448;
constexpr double kLeastScale = 0x1p-14;  // the least that fp16 holds without loss

// Channels that share a scale.
int64_t group_of(int64_t dim) { return dim % 64 == 0 ? 64 : dim; }

}  // namespace

void KvCache::Stored::put(int64_t place, const at::Tensor& slot) {
  if (!scale.defined()) {
    values[place].copy_(slot);
    return;
  }
  const at::Tensor groups = slot.unflatten(-1, {scale.size(3), -1});
  // The least power of two that brings the largest value of the group below e4m3's.
  const at::Tensor largest = groups.abs().amax(-1).to(at::kFloat);
  const at::Tensor step = at::exp2(at::ceil(at::log2((largest / kLargestE4m3).clamp_min(kLeastScale))));
  scale[place].copy_(step);
  values[place].copy_((groups / step.to(slot.scalar_type()).unsqueeze(-1)).flatten(-2));
}

at::Tensor KvCache::Stored::get(const at::TensorOptions& options) const {
  if (!scale.defined()) return values.to(options.device());
  const at::Tensor result = values.to(options.device()).to(options.dtype());
  result.unflatten(-1, {scale.size(3), -1}).mul_(scale.to(options.device()).unsqueeze(-1));
  return result;
}

int64_t KvCache::Stored::bytes() const {
  return static_cast<int64_t>(values.nbytes()) + (scale.defined() ? static_cast<int64_t>(scale.nbytes()) : 0);
}

KvCache::Stored KvCache::make_store(int64_t windows, int64_t dim, const at::TensorOptions& type) const {
  constexpr int64_t tokens = 128;
  const auto options = is_in_host(storage_) ? type.device(at::kCPU) : type;
  const bool is_small = is_in_8_bits(storage_);
  Stored stored;
  stored.values = at::empty({capacity_, windows, tokens, dim}, is_small ? options.dtype(at::kFloat8_e4m3fn) : options);
  if (is_small) stored.scale = at::empty({capacity_, windows, tokens, dim / group_of(dim)}, options);
  return stored;
}

void KvCache::take_memory(Layer& layer, int64_t windows, int64_t dim, const at::TensorOptions& options) {
  layer.key = make_store(windows, dim, options);
  layer.value = make_store(windows, dim, options);
  layer.key_mean = at::empty({capacity_, windows, dim}, options);
}

void KvCache::reserve(int64_t layers, int64_t windows, int64_t dim, int64_t kv_chunks, const at::TensorOptions& options) {
  if (capacity_ > 0) return;
  capacity_ = std::max<int64_t>(kv_chunks, 2);
  layers_.resize(static_cast<size_t>(layers));
  for (Layer& layer : layers_) take_memory(layer, windows, dim, options);
}

std::vector<int32_t> KvCache::slot_map(int64_t new_slots) const {
  std::vector<int32_t> map;
  for (int64_t i = 0; i < held_; ++i) map.push_back(static_cast<int32_t>((head_ + i) % capacity_));
  for (int64_t i = 0; i < new_slots; ++i) map.push_back(static_cast<int32_t>(-1 - i));
  return map;
}

KvPlace KvCache::place(int64_t index, int64_t new_slots) const {
  if (storage_ != CacheStorage::kDevice || held_ > 0 || new_slots != capacity_ || index >= static_cast<int64_t>(layers_.size()) ||
      !layers_[index].key_mean.defined() || at::GradMode::is_enabled()) {
    return {};
  }
  const Layer& ring = layers_[index];
  return {ring.key.values.flatten(0, 1), ring.value.values.flatten(0, 1)};
}

KvRing KvCache::layer(int64_t index) const {
  if (held_ == 0 || index >= static_cast<int64_t>(layers_.size()) || !layers_[index].key_mean.defined()) return {};
  const Layer& layer = layers_[index];
  const at::TensorOptions options = layer.key_mean.options();
  return {layer.key.get(options), layer.value.get(options), layer.key_mean};
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
  Layer& ring = layers_[index];
  if (!ring.key_mean.defined()) take_memory(ring, windows, key.size(2), key.options());
  const int64_t seen = held_ + new_slots, first_kept = dropped(seen, kv_chunks);
  FLASHVSR_CHECK(seen - first_kept <= capacity_, ErrorCode::kInternal, "kv_cache: ",
                 seen - first_kept, " slots for a ring of ", capacity_);
  for (int64_t slot = std::max(held_, first_kept); slot < seen; ++slot) {
    const int64_t place = (head_ + slot) % capacity_, begin = (slot - held_) * windows;
    if (key.data_ptr() != ring.key.values.data_ptr()) {
      ring.key.put(place, key.narrow(0, begin, windows));
      ring.value.put(place, value.narrow(0, begin, windows));
    }
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
  for (Layer& ring : copy.layers_) {
    for (at::Tensor* tensor : {&ring.key.values, &ring.key.scale, &ring.value.values, &ring.value.scale, &ring.key_mean}) {
      if (tensor->defined()) *tensor = tensor->clone();
    }
  }
  return copy;
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const Layer& ring : layers_) {
    if (ring.key_mean.defined()) total += ring.key.bytes() + ring.value.bytes() + static_cast<int64_t>(ring.key_mean.nbytes());
  }
  return total;
}

}  // namespace flashvsr
