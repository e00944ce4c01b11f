// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/device_chunk.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "image/device_pictures.h"

namespace flashvsr {
namespace {

at::Tensor to_pinned_host(const at::Tensor& bytes) {
  const at::Tensor host = at::empty(bytes.sizes(), bytes.options().device(at::kCPU).pinned_memory(bytes.is_cuda()));
  host.copy_(bytes, /*non_blocking=*/true);
  return host;
}

}  // namespace

c10::OptionalStreamGuard beside_the_model(c10::Device device) {
  if (device.is_cpu()) return c10::OptionalStreamGuard(std::nullopt);
  // One for each device: the allocator keeps memory apart for every stream.
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const std::lock_guard<std::mutex> lock(mutex);
  auto found = streams.find(device.index());
  if (found == streams.end()) {
    const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/true);
    found = streams.emplace(device.index(), stream).first;
  }
  return c10::OptionalStreamGuard(found->second);
}

DeviceChunk::DeviceChunk(at::Tensor samples, PixelFormat format, const ColorSpec& color, bool to_host,
                         std::shared_ptr<std::atomic<uint64_t>> host_bytes)
    : format_(format),
      color_(color),
      width_(static_cast<int>(samples.size(3))),
      height_(static_cast<int>(samples.size(2))),
      depth_(samples.element_size() > 1 ? 10 : 8),
      host_bytes_(std::move(host_bytes)),
      samples_(std::move(samples)),
      planes_(to_host ? to_pinned_host(samples_to_packed(samples_, format, color)) : at::Tensor()),
      done_(samples_.device()) {
  count(planes_);
  count(samples_);
}

DeviceChunk::~DeviceChunk() { *host_bytes_ -= mine_; }

void DeviceChunk::count(const at::Tensor& held) {
  if (!held.defined() || !held.is_cpu()) return;
  mine_ += held.nbytes();
  *host_bytes_ += held.nbytes();
}

at::Tensor DeviceChunk::samples() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return samples_;
}

void DeviceChunk::write(int64_t index, const FramePlanes& planes) const {
  done_.wait();
  if (planes_.defined()) {
    copy_planes(packed_planes(planes_[index].data_ptr(), format_, width_, height_), planes, format_, width_, height_);
    return;
  }
  const at::Tensor mine = samples();
  const auto guard = beside_the_model(done_.device());
  samples_to_planes(mine.narrow(0, index, 1).to(done_.device()), format_, color_, {planes});
  DeviceMark(done_.device()).wait();
}

void DeviceChunk::read(int64_t index, PlanarImage& picture) const {
  done_.wait();
  const at::Tensor mine = samples();
  const auto guard = beside_the_model(done_.device());
  const at::Tensor host = mine[index].cpu();
  picture.reset(width_, height_, depth_, false);
  std::memcpy(picture.plane<uint8_t>(0), host.data_ptr(), host.nbytes());
}

void DeviceChunk::settle() {
  done_.wait();
  const at::Tensor mine = samples();
  const auto guard = beside_the_model(done_.device());
  at::Tensor host = mine.cpu();
  count(host);
  const std::lock_guard<std::mutex> lock(mutex_);
  samples_ = std::move(host);
}

bool DeviceChunk::is_settled() const { return samples().is_cpu(); }

}  // namespace flashvsr
