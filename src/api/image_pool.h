// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures that come back when their last owner lets go, so that an endless stream
// allocates nothing.
//
// Ownership: shared pointers keep the pool alive. `keep`: free pictures held at most; more
// are freed. `picture_bytes`: what one takes, for the count. Thread-safety: safe.
#ifndef FLASHVSR_API_IMAGE_POOL_H_
#define FLASHVSR_API_IMAGE_POOL_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "image/frame.h"

namespace flashvsr {

class ImagePool : public std::enable_shared_from_this<ImagePool> {
 public:
  ImagePool(size_t keep, size_t picture_bytes) : keep_(keep), picture_bytes_(picture_bytes) {}

  // A picture of any shape; the caller resets it.
  std::shared_ptr<PlanarImage> take() {
    std::unique_ptr<PlanarImage> image;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        image = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (!image) {
      image = std::make_unique<PlanarImage>();
      ++pictures_;
    }
    auto self = shared_from_this();
    return std::shared_ptr<PlanarImage>(image.release(), [self](PlanarImage* returned) { self->give_back(returned); });
  }

  // Bytes of all its pictures, free or not.
  size_t bytes() const { return pictures_ * picture_bytes_; }

 private:
  void give_back(PlanarImage* returned) {
    std::unique_ptr<PlanarImage> image(returned);
    std::lock_guard<std::mutex> lock(mutex_);
    if (free_.size() < keep_) free_.push_back(std::move(image));
    else --pictures_;
  }

  const size_t keep_;
  const size_t picture_bytes_;
  std::atomic<size_t> pictures_{0};
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<PlanarImage>> free_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_API_IMAGE_POOL_H_
