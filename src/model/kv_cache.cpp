// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/kv_cache.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "model/pinned_memory.h"

namespace flashvsr {
namespace {

constexpr double kLargestE4m3 = 448;
constexpr double kLeastScale = 0x1p-14;  // the least that fp16 holds without loss

// Channels that share a scale.
int64_t group_of(int64_t dim) { return dim % 64 == 0 ? 64 : dim; }

}  // namespace

void KvCache::Stored::put(int64_t place, const at::Tensor& slot) {
  if (!scale.defined()) {
    values[place].copy_(slot, /*non_blocking=*/true);
    return;
  }
  const at::Tensor groups = slot.unflatten(-1, {scale.size(3), -1});
  // The least power of two that brings the largest value of the group below e4m3's.
  const at::Tensor largest = groups.abs().amax(-1).to(at::kFloat);
  const at::Tensor step = at::exp2(at::ceil(at::log2((largest / kLargestE4m3).clamp_min(kLeastScale))));
  scale[place].copy_(step.to(scale.scalar_type()), /*non_blocking=*/true);
  // To 8 bits where the slot is: half the bytes then go to the host.
  values[place].copy_((groups / step.to(slot.scalar_type()).unsqueeze(-1)).flatten(-2).to(values.scalar_type()), /*non_blocking=*/true);
}

at::Tensor KvCache::Stored::get(const at::TensorOptions& options) const {
  if (!scale.defined()) return values.to(options.device());
  const at::Tensor result = values.to(options.device()).to(options.dtype());
  result.unflatten(-1, {scale.size(3), -1}).mul_(scale.to(options.device()).unsqueeze(-1));
  return result;
}

void KvCache::Stored::copy_to(Stored& device) const {
  device.values.copy_(values, /*non_blocking=*/true);
  if (scale.defined()) device.scale.copy_(scale, /*non_blocking=*/true);
}

KvCache::Landing::Landing(c10::Device device)
    : stream(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/false)),
      places{Place{-1, {}, {}, c10::Event(device.type())}, Place{-1, {}, {}, c10::Event(device.type())}},
      stored(device.type()) {}

KvCache::Landing::~Landing() {
  try {
    for (const Place& place : places) place.arrived.synchronize();
    stored.synchronize();
  } catch (const std::exception& e) {
    log(LogLevel::kWarning, "kv_cache: ", e.what());
  }
}

void KvCache::rest() {
  if (!landing_) return;
  for (Landing::Place& place : landing_->places) {
    place.layer = -1;
    place.key = place.value = {};
  }
}

// Rings are filled and read on the current stream. A copy to the device waits for all that was asked of that so far: the
// place's last reader and the last store into this layer are among it.
KvCache::Landing::Place& KvCache::fetch(int64_t index) {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const c10::Device device = layer.key_mean.device();
  if (!landing_) landing_ = std::make_shared<Landing>(device);
  for (Landing::Place& place : landing_->places) {
    if (place.layer == index) return place;
  }
  Landing::Place& place = landing_->places[1 - landing_->at_work];
  place.layer = index;
  if (!place.key.values.defined()) {
    for (auto [stored, here] : {std::pair(&layer.key, &place.key), std::pair(&layer.value, &place.value)}) {
      here->values = at::empty_like(stored->values, stored->values.options().device(device));
      if (stored->scale.defined()) here->scale = at::empty_like(stored->scale, stored->scale.options().device(device));
    }
  }
  const c10::impl::VirtualGuardImpl guard(device.type());
  c10::Event asked(device.type());
  asked.record(guard.getStream(device));
  asked.block(landing_->stream);
  const c10::StreamGuard beside(landing_->stream);
  layer.key.copy_to(place.key);
  layer.value.copy_to(place.value);
  // Their memory may be given away only after this.
  for (const Stored* stored : {&place.key, &place.value}) {
    guard.recordDataPtrOnStream(stored->values.storage().data_ptr(), landing_->stream);
    if (stored->scale.defined()) guard.recordDataPtrOnStream(stored->scale.storage().data_ptr(), landing_->stream);
  }
  place.arrived.record(landing_->stream);
  return place;
}

int64_t KvCache::Stored::bytes() const {
  return static_cast<int64_t>(values.nbytes()) + (scale.defined() ? static_cast<int64_t>(scale.nbytes()) : 0);
}

KvCache::Stored KvCache::make_store(int64_t windows, int64_t dim, const at::TensorOptions& type) const {
  constexpr int64_t tokens = 128;
  const auto make = [&](at::IntArrayRef sizes, c10::ScalarType dtype) {
    return is_in_host(storage_) ? pinned_empty(sizes, dtype, type.device()) : at::empty(sizes, type.dtype(dtype));
  };
  const c10::ScalarType dtype = c10::typeMetaToScalarType(type.dtype());
  const bool is_small = is_in_8_bits(storage_);
  Stored stored;
  stored.values = make({capacity_, windows, tokens, dim}, is_small ? at::kFloat8_e4m3fn : dtype);
  if (is_small) stored.scale = make({capacity_, windows, tokens, dim / group_of(dim)}, dtype);
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

void KvCache::fetch_first() {
  if (is_in_host(storage_) && held_ > 0 && !layers_.empty() && layers_[0].key_mean.defined() && !layers_[0].key_mean.is_cpu()) fetch(0);
}

KvRing KvCache::layer(int64_t index) {
  if (held_ == 0 || index >= static_cast<int64_t>(layers_.size()) || !layers_[index].key_mean.defined()) return {};
  const Layer& layer = layers_[index];
  const at::TensorOptions options = layer.key_mean.options();
  if (!is_in_host(storage_) || layer.key_mean.is_cpu()) return {layer.key.get(options), layer.value.get(options), layer.key_mean};
  const Landing::Place& here = fetch(index);
  landing_->at_work = static_cast<size_t>(&here - landing_->places.data());
  here.arrived.block(c10::impl::VirtualGuardImpl(layer.key_mean.device().type()).getStream(layer.key_mean.device()));
  KvRing ring{here.key.get(options), here.value.get(options), layer.key_mean};
  if (index + 1 < static_cast<int64_t>(layers_.size()) && layers_[static_cast<size_t>(index + 1)].key_mean.defined()) fetch(index + 1);
  return ring;
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
  if (landing_) {  // what came to the device is of before
    for (Landing::Place& place : landing_->places) {
      if (place.layer == index) place.layer = -1;
    }
  }
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
  if (is_in_host(storage_) && !key.is_cpu()) {
    if (!landing_) landing_ = std::make_shared<Landing>(key.device());
    landing_->stored.record(c10::impl::VirtualGuardImpl(key.device().type()).getStream(key.device()));
  }
}

void KvCache::advance(int64_t new_slots, int64_t kv_chunks) {
  const int64_t seen = held_ + new_slots, gone = dropped(seen, kv_chunks);
  head_ = (head_ + gone) % capacity_;
  held_ = seen - gone;
}

KvCache KvCache::clone() const {
  KvCache copy = *this;
  copy.landing_.reset();
  for (Layer& ring : copy.layers_) {
    for (at::Tensor* tensor : {&ring.key.values, &ring.key.scale, &ring.value.values, &ring.value.scale, &ring.key_mean}) {
      if (tensor->defined()) *tensor = tensor->clone();
    }
  }
  return copy;
}

int64_t KvCache::device_bytes() const {
  int64_t total = landing_bytes();
  for (const Layer& ring : layers_) {
    if (!ring.key_mean.defined()) continue;
    total += static_cast<int64_t>(ring.key_mean.nbytes());
    if (!is_in_host(storage_)) total += ring.key.bytes() + ring.value.bytes();
  }
  return total;
}

int64_t KvCache::landing_bytes() const {
  int64_t total = 0;
  if (landing_) {
    for (const Landing::Place& place : landing_->places) {
      if (place.key.values.defined()) total += place.key.bytes() + place.value.bytes();
    }
  }
  return total;
}

int64_t KvCache::bytes() const {
  int64_t total = landing_bytes();
  for (const Layer& ring : layers_) {
    if (ring.key_mean.defined()) total += ring.key.bytes() + ring.value.bytes() + static_cast<int64_t>(ring.key_mean.nbytes());
  }
  return total;
}

}  // namespace flashvsr
