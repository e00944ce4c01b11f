// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How long the stages of a run take, without waiting for the device between them: marks on its
// current stream, read when they have passed. On the CPU the marks are the clock's.
//
//     StageClock clock(device);
//     upscaler.run(..., &clock);          // begin(), end_stage() after each stage
//     clock.wait_until_begun(&StageTimes::decoder_ms);
//     StageTimes times = clock.times();   // waits for the end
//
// A clock that saw several runs (tiles) gives their sums.
//
// Errors: throws LibTorch's own when the device has failed, Error (kInterrupted) from a wait once `cancel` is true.
// Thread-safety: unsafe.
#ifndef FLASHVSR_MODEL_STAGE_CLOCK_H_
#define FLASHVSR_MODEL_STAGE_CLOCK_H_

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <vector>

namespace flashvsr {

// Milliseconds.
struct StageTimes {
  double projector_ms = 0;
  double transformer_ms = 0;
  double decoder_ms = 0;
  double finish_ms = 0;  // colours, quantisation, the way to the host: the caller's
};

// A point in the work given to a device's current stream so far.
class DeviceMark {
 public:
  explicit DeviceMark(c10::Device device);
  // Until the device has reached it; looks at `cancel` meanwhile.
  void wait(const std::atomic<bool>* cancel = nullptr) const;
  c10::Device device() const { return device_; }
  // Both have been reached.
  double ms_until(const DeviceMark& later) const;

 private:
  c10::Device device_;
  std::chrono::steady_clock::time_point host_;
  std::optional<c10::Event> event_;  // none on the CPU
};

class StageClock {
 public:
  explicit StageClock(c10::Device device) : device_(device) {}

  void begin() { add(nullptr); }
  void end_stage(double StageTimes::*stage) { add(stage); }

  // Until the device is at that stage of the newest run.
  void wait_until_begun(double StageTimes::*stage, const std::atomic<bool>* cancel = nullptr) const;
  // Until it is through with all that was marked.
  void wait(const std::atomic<bool>* cancel = nullptr) const;
  StageTimes times() const;

 private:
  struct Entry {
    DeviceMark mark;
    double StageTimes::*stage;  // that ended here; null: a run began
  };
  void add(double StageTimes::*stage) { entries_.push_back({DeviceMark(device_), stage}); }

  c10::Device device_;
  std::vector<Entry> entries_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_STAGE_CLOCK_H_
