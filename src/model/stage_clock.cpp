// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/stage_clock.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <thread>

#include "model/cancel.h"

namespace flashvsr {

DeviceMark::DeviceMark(c10::Device device) : device_(device), host_(std::chrono::steady_clock::now()) {
  if (device.is_cpu()) return;
  event_.emplace(device.type(), c10::EventFlag::BACKEND_DEFAULT);  // one with a time
  event_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

void DeviceMark::wait(const std::atomic<bool>* cancel) const {
  if (!event_) return;
  // CUDA's own wait would spin on a core and not hear of `cancel`.
  while (!event_->query()) {
    throw_if_cancelled(cancel);
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

double DeviceMark::ms_until(const DeviceMark& later) const {
  if (event_) return event_->elapsedTime(*later.event_);
  return std::chrono::duration<double, std::milli>(later.host_ - host_).count();
}

void StageClock::wait_until_begun(double StageTimes::*stage, const std::atomic<bool>* cancel) const {
  for (size_t i = entries_.size(); i-- > 1;) {
    if (entries_[i].stage != stage) continue;
    entries_[i - 1].mark.wait(cancel);
    return;
  }
}

void StageClock::wait(const std::atomic<bool>* cancel) const {
  if (!entries_.empty()) entries_.back().mark.wait(cancel);
}

StageTimes StageClock::times() const {
  wait();
  StageTimes times;
  for (size_t i = 1; i < entries_.size(); ++i) {
    if (entries_[i].stage != nullptr) times.*entries_[i].stage += entries_[i - 1].mark.ms_until(entries_[i].mark);
  }
  return times;
}

}  // namespace flashvsr
