// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrinterval.h"

#include <algorithm>
#include <vector>

namespace flashvsr_gst {

void IntervalMeter::add(int64_t time, size_t window) {
  const int64_t step = time - last_;
  const bool is_step = time >= 0 && last_ >= 0 && step > 0 && step <= kLongest;
  last_ = time;
  window_ = window;
  if (!is_step) {
    steps_.clear();
    return;
  }
  steps_.push_back(step);
  while (steps_.size() > window_) steps_.pop_front();
}

int64_t IntervalMeter::median() const {
  if (steps_.size() < window_ || window_ == 0) return 0;
  std::vector<int64_t> sorted(steps_.begin(), steps_.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(window_ / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

void IntervalMeter::reset() {
  steps_.clear();
  last_ = -1;
}

}  // namespace flashvsr_gst
