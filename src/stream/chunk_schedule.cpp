// SPDX-License-Identifier: LGPL-2.1-or-later
#include "stream/chunk_schedule.h"

#include <algorithm>

#include "base/error.h"

namespace flashvsr {

int64_t ChunkSchedule::max_delay(Startup startup) {
  if (startup == Startup::kFull) return kFirstRunInputs - 1;
  return kLaterRunOutputs - 1 + kLookAhead;
}

void ChunkSchedule::add_frame() {
  FLASHVSR_CHECK(!is_ended_, ErrorCode::kInternal, "chunk_schedule: a frame after the end");
  ++frames_;
}

int64_t ChunkSchedule::needed_frames() const {
  if (next_output_ == 0 && startup_ == Startup::kFull) return kFirstRunInputs;
  return next_output_ + kLaterRunOutputs + kLookAhead;
}

bool ChunkSchedule::is_ready() const {
  if (is_ended_) return next_output_ < frames_;
  return frames_ >= needed_frames();
}

ChunkRun ChunkSchedule::next() const {
  const int64_t p = next_output_;
  ChunkRun run;
  if (has_state_) {
    run.inputs = {p, p + kLaterRunInputs};
    run.results = {p, p + kLaterRunOutputs};
    run.is_new_state = false;
  } else {
    const int64_t begin = p == 0 && startup_ == Startup::kFull ? 0 : p - kPrimingFrames;
    run.inputs = {begin, begin + kFirstRunInputs};
    run.results = {begin, begin + kFirstRunOutputs};
  }
  run.outputs = {p, is_ended_ ? std::min(run.results.end, frames_) : run.results.end};
  return run;
}

void ChunkSchedule::advance_model() {
  next_output_ = next().outputs.end;
  has_state_ = true;
}

void ChunkSchedule::advance_passthrough() {
  next_output_ = next().outputs.end;
  has_state_ = false;
}

int64_t ChunkSchedule::oldest_needed() const {
  return std::max<int64_t>(0, next_output_ - kPrimingFrames);
}

}  // namespace flashvsr
