// SPDX-License-Identifier: LGPL-2.1-or-later
#include "stream/turns.h"

#include <algorithm>

namespace flashvsr {

Turns::Turn Turns::take(const std::atomic<bool>& cancel) {
  std::unique_lock<std::mutex> lock(mutex_);
  const uint64_t ticket = next_ticket_++;
  waiting_.push_back(ticket);
  changed_.wait(lock, [&] { return cancel || (!is_taken_ && waiting_.front() == ticket); });
  // Not always the front one: a cancelled user leaves from the middle.
  waiting_.erase(std::find(waiting_.begin(), waiting_.end(), ticket));
  if (cancel) {
    // It may have been the one whose turn it was, and have eaten the notice.
    changed_.notify_all();
    return Turn();
  }
  is_taken_ = true;
  return Turn(this);
}

void Turns::end() {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_taken_ = false;
  changed_.notify_all();
}

void Turns::wake() {
  // Under the lock: else the flag could be stored between a waiter's look at it and its sleep.
  const std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

size_t Turns::waiting() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return waiting_.size();
}

}  // namespace flashvsr
