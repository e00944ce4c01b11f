// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The distance of frames as their times tell it: caps may lack the frame rate or lie (cameras
// whose H.264 says nothing of it, webcams that slow down in the dark).
//
// The median, so that frames lost on the way and jitter of single ones do not count; over as many
// steps as a frame may wait for others, so that it is there before the first frame leaves.
//
// Thread-safety: unsafe; belongs to the upstream thread.
#ifndef FLASHVSR_GST_GSTFLASHVSRINTERVAL_H_
#define FLASHVSR_GST_GSTFLASHVSRINTERVAL_H_

#include <cstddef>
#include <cstdint>
#include <deque>

namespace flashvsr_gst {

class IntervalMeter {
 public:
  // Takes the time of the next frame in ns, -1: none, and keeps the last `window` steps. A frame without time, a step
  // that is not forward or longer than a second is no rate: counting begins again behind it.
  void add(int64_t time, size_t window);
  // Of the steps kept; 0 while they do not fill the window.
  int64_t median() const;
  void reset();

 private:
  static constexpr int64_t kLongest = 1000000000;
  std::deque<int64_t> steps_;
  size_t window_ = 0;
  int64_t last_ = -1;
};

}  // namespace flashvsr_gst

#endif  // FLASHVSR_GST_GSTFLASHVSRINTERVAL_H_
