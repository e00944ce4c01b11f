// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Turns at something that only one may use at a time, in the order in which they were asked for.
//
//     Turns::Turn turn = turns.take(cancel);  // waits
//     if (!turn) return;                      // cancelled while it waited
//     ...                                     // alone
//                                             // the end of `turn` lets the longest waiting in
//
// Whoever asks again right after a turn stands behind all who wait: of k users who always want
// another turn each has every k-th, whatever the scheduler of the threads thinks of them.
//
// A waiting user is called off by storing true into its `cancel` and then calling `wake`, from any
// thread. Neither that nor asking is held up by the turn in progress. A user that was called off
// while it waited leaves its place; those behind it move up.
//
// Not reentrant: a user must not ask for a second turn while it holds one.
// Thread-safety: safe; one std::mutex. A Turn may end on another thread than the one it began on,
// and must end before its Turns.
#ifndef FLASHVSR_STREAM_TURNS_H_
#define FLASHVSR_STREAM_TURNS_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

namespace flashvsr {

class Turns {
 public:
  class Turn {
   public:
    Turn() = default;
    Turn(Turn&& other) noexcept : turns_(std::exchange(other.turns_, nullptr)) {}
    Turn& operator=(Turn&& other) noexcept {
      std::swap(turns_, other.turns_);
      return *this;
    }
    ~Turn() {
      if (turns_ != nullptr) turns_->end();
    }
    explicit operator bool() const { return turns_ != nullptr; }

   private:
    friend class Turns;
    explicit Turn(Turns* turns) : turns_(turns) {}
    Turns* turns_ = nullptr;
  };

  Turns() = default;
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // Empty when *cancel is true before the turn has begun, also when nobody is in the way.
  Turn take(const std::atomic<bool>& cancel);

  // Makes everyone who waits look at its `cancel` again.
  void wake();

  // How many wait now.
  size_t waiting() const;

 private:
  void end();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool is_taken_ = false;
  uint64_t next_ticket_ = 0;
  std::deque<uint64_t> waiting_;  // tickets, in the order of asking
};

}  // namespace flashvsr

#endif  // FLASHVSR_STREAM_TURNS_H_
