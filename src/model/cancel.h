// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The model's one way to stop early: a flag that another thread sets, looked at
// between transformer blocks and decoder stages.
//
// Errors: throws Error kInterrupted. Thread-safety: safe.
#ifndef FLASHVSR_MODEL_CANCEL_H_
#define FLASHVSR_MODEL_CANCEL_H_

#include <atomic>

#include "base/error.h"

namespace flashvsr {

inline void throw_if_cancelled(const std::atomic<bool>* cancel) {
  if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
    throw Error(ErrorCode::kInterrupted, "interrupted");
  }
}

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_CANCEL_H_
