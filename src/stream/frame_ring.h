// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A bounded queue of items with consecutive ids: push at the back, drop at the front,
// look at any in between.
//
// Ids start at 0 with the first item and grow by one; `clear` starts at 0 again. Storage
// is one ring that doubles up to `capacity` items and is reused from then on, so an
// endless stream allocates nothing. A dropped slot is reset to T{}, so that what it
// owned is released at once.
//
// Thread-safety: safe; one std::mutex. `T` must not throw when moved.
#ifndef FLASHVSR_STREAM_FRAME_RING_H_
#define FLASHVSR_STREAM_FRAME_RING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace flashvsr {

template <typename T>
class FrameRing {
 public:
  explicit FrameRing(size_t capacity) : capacity_(capacity) {}

  // The id of the new item, or nothing when `capacity` items are inside.
  std::optional<int64_t> push(T item) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (size_ == capacity_) return std::nullopt;
    if (size_ == slots_.size()) grow();
    slots_[(head_ + size_) % slots_.size()] = std::move(item);
    ++size_;
    return begin_ + static_cast<int64_t>(size_) - 1;
  }

  // Removes and returns the oldest item.
  std::optional<T> pop() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (size_ == 0) return std::nullopt;
    std::optional<T> item(std::move(slots_[head_]));
    drop_one();
    return item;
  }

  // A copy of item `id`, or nothing when it is not inside.
  std::optional<T> at(int64_t id) const {
    std::lock_guard<std::mutex> lock(mutex_);
    if (id < begin_ || id >= begin_ + static_cast<int64_t>(size_)) return std::nullopt;
    return slots_[(head_ + static_cast<size_t>(id - begin_)) % slots_.size()];
  }

  // Drops every item with an id below `id`.
  void drop_before(int64_t id) {
    std::lock_guard<std::mutex> lock(mutex_);
    while (size_ > 0 && begin_ < id) drop_one();
  }

  void clear() {
    std::lock_guard<std::mutex> lock(mutex_);
    while (size_ > 0) drop_one();
    begin_ = 0;
    head_ = 0;
  }

  size_t size() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return size_;
  }

  // Ids inside are [begin, end).
  int64_t begin() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return begin_;
  }
  int64_t end() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return begin_ + static_cast<int64_t>(size_);
  }

  // Calls visit(item) for each item, oldest first, under the lock.
  template <typename Visit>
  void for_each(Visit visit) const {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < size_; ++i) visit(slots_[(head_ + i) % slots_.size()]);
  }

 private:
  void drop_one() {
    slots_[head_] = T{};
    head_ = (head_ + 1) % slots_.size();
    --size_;
    ++begin_;
  }

  void grow() {
    const size_t wanted = slots_.empty() ? 32 : slots_.size() * 2;
    std::vector<T> larger(std::min(capacity_, wanted));
    for (size_t i = 0; i < size_; ++i) larger[i] = std::move(slots_[(head_ + i) % slots_.size()]);
    slots_ = std::move(larger);
    head_ = 0;
  }

  mutable std::mutex mutex_;
  const size_t capacity_;
  std::vector<T> slots_;
  size_t head_ = 0;
  size_t size_ = 0;
  int64_t begin_ = 0;
};

}  // namespace flashvsr

#endif  // FLASHVSR_STREAM_FRAME_RING_H_
