// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A chunk's finished pictures on their way from the device: asked for when the chunk is run, looked at
// when a frame is received, so that the device goes on with the next chunk meanwhile.
//
//   samples  [F, 3, H, W]   uint8 (depth 8) or int16 (depth 10), on the device, of the current stream
//
// With `to_host` their planes in the caller's format are on their way to pinned host memory at once.
// samples stay, for pictures that something has to be done to; `settle` moves them to the host.
// What is held on the host, pinned or not, is added to `host_bytes` as long as the chunk lives.
//
// Errors: LibTorch's own when the device has failed; Error (kInterrupted) from wait once `cancel` is true.
// Thread-safety: safe.
#ifndef FLASHVSR_API_DEVICE_CHUNK_H_
#define FLASHVSR_API_DEVICE_CHUNK_H_

#include <ATen/core/Tensor.h>
#include <c10/core/StreamGuard.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "image/frame.h"
#include "model/stage_clock.h"

namespace flashvsr {

// Makes a stream current on which short work does not wait for the chunk that the device is at. Nothing on the CPU.
c10::OptionalStreamGuard beside_the_model(c10::Device device);

class DeviceChunk {
 public:
  DeviceChunk(at::Tensor samples, PixelFormat format, const ColorSpec& color, bool to_host,
              std::shared_ptr<std::atomic<uint64_t>> host_bytes);
  ~DeviceChunk();
  DeviceChunk(const DeviceChunk&) = delete;
  DeviceChunk& operator=(const DeviceChunk&) = delete;

  // Until the pictures are there. The others wait themselves.
  void wait(const std::atomic<bool>* cancel = nullptr) const { done_.wait(cancel); }

  // Picture `index` into the caller's planes, on the host (with to_host) or on the device (without); they are
  // written when this returns.
  void write(int64_t index, const FramePlanes& planes) const;

  // Planes R, G, B.
  void read(int64_t index, PlanarImage& picture) const;

  // Both may meet the other calls.
  void settle();
  bool is_settled() const;

 private:
  at::Tensor samples() const;
  void count(const at::Tensor& held);

  const PixelFormat format_;
  const ColorSpec color_;
  const int width_, height_, depth_;
  const std::shared_ptr<std::atomic<uint64_t>> host_bytes_;
  uint64_t mine_ = 0;  // of host_bytes_
  mutable std::mutex mutex_;
  at::Tensor samples_;  // under mutex_; of the host once settled
  at::Tensor planes_;   // bytes [F, planes of a picture], pinned; undefined without to_host
  DeviceMark done_;     // behind all that was asked for here
};

}  // namespace flashvsr

#endif  // FLASHVSR_API_DEVICE_CHUNK_H_
