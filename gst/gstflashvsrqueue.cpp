// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrqueue.h"

#include <algorithm>

namespace flashvsr_gst {

void Queue::set_limits(int64_t max_frames, int64_t max_results, int64_t first_results) {
  Lock lock(mutex_);
  max_frames_ = max_frames;
  max_results_ = max_results;
  first_results_ = first_results;
  changed_.notify_all();
}

void Queue::set_preroll_timeout(std::chrono::nanoseconds timeout) {
  Lock lock(mutex_);
  preroll_timeout_ = timeout;
  changed_.notify_all();
}

void Queue::set_idle_timeout(std::chrono::nanoseconds timeout) {
  Lock lock(mutex_);
  idle_timeout_ = timeout;
  changed_.notify_all();
}

Queue::Go Queue::reserve() {
  Lock lock(mutex_);
  for (;;) {
    if (is_flushing_) return Go::kFlushing;
    if (has_failed_) return Go::kFailed;
    if (flow_ != 0) return Go::kDownstream;
    if (frames_ < max_frames_) return Go::kYes;
    changed_.wait(lock);
  }
}

void Queue::add_frame(void* payload, uint64_t id, int64_t time) {
  Lock lock(mutex_);
  items_.push_back({ItemKind::kFrame, payload, id, time, 0});
  ++frames_;
  if (streams_.empty() || streams_.back().has_ended) streams_.push_back({});
  ++streams_.back().frames;
  ++added_;
  last_added_ = std::chrono::steady_clock::now();
  has_work_ = true;
  is_drained_ = false;
  changed_.notify_all();
}

bool Queue::add_event(void* payload) {
  Lock lock(mutex_);
  if (is_idle()) return false;
  items_.push_back({ItemKind::kEvent, payload, 0, -1, 0});
  changed_.notify_all();
  return true;
}

Queue::Go Queue::drain(bool wait_for_all) {
  Lock lock(mutex_);
  bool is_asked = false;
  for (;;) {
    if (is_flushing_) return Go::kFlushing;
    if (has_failed_) return Go::kFailed;
    if (flow_ != 0) return Go::kDownstream;
    if (!is_asked) {
      if (frames_ > 0) {
        wants_drain_ = true;
        changed_.notify_all();
      }
      is_asked = true;
    }
    if (!wants_drain_ && (!wait_for_all || (is_idle() && (!has_worker_ || (is_parked_ && !has_work_))))) return Go::kYes;
    changed_.wait(lock);
  }
}

Queue::WorkKind Queue::next_work() {
  Lock lock(mutex_);
  is_parked_ = true;
  changed_.notify_all();
  const auto go = [this](WorkKind kind) {
    is_parked_ = false;
    return kind;
  };
  for (;;) {
    if (is_stopped_) return WorkKind::kStop;
    if (!is_flushing_ && !has_failed_) {
      if (wants_options_) {
        wants_options_ = false;
        return go(WorkKind::kOptions);
      }
      if (wants_drain_) return go(WorkKind::kDrain);
      if (has_work_ && (results_ <= 0 || results_ + kLaterResults <= max_results_)) {
        added_at_run_ = added_;
        return go(WorkKind::kRun);
      }
    }
    // With frames that no result is expected for, wait no longer than the timeout.
    const auto timeout = idle_timeout_.count() > 0 || has_given_ ? idle_timeout_ : preroll_timeout_;
    if (timeout.count() > 0 && frames_ > results_ && !is_flushing_ && !has_failed_ && !is_drained_ &&
        !has_work_) {
      const auto deadline = last_added_ + timeout;
      if (std::chrono::steady_clock::now() >= deadline) {
        wants_drain_ = true;
        continue;
      }
      changed_.wait_until(lock, deadline);
    } else {
      changed_.wait(lock);
    }
  }
}

void Queue::drain_done() {
  Lock lock(mutex_);
  wants_drain_ = false;
  is_draining_ = true;
  for (Stream& stream : streams_) stream.has_ended = true;
  added_at_drain_ = added_;
  has_work_ = true;
  changed_.notify_all();
}

void Queue::run_done(RunResult result) {
  Lock lock(mutex_);
  switch (result) {
    case RunResult::kRan:
      ++runs_;
      has_given_ = true;
      count_results();
      break;
    case RunResult::kNothing:
      has_work_ = added_ != added_at_run_;
      if (is_draining_) {
        is_draining_ = false;
        is_drained_ = added_ == added_at_drain_;
      }
      break;
    case RunResult::kInterrupted:
      // Only a flush, a stop or a new start clears an interrupt; until then there is no work.
      has_work_ = false;
      break;
    case RunResult::kFailed:
      has_failed_ = true;
      break;
  }
  changed_.notify_all();
}

int64_t Queue::time_of_next_result() const {
  Lock lock(mutex_);
  int64_t skip = results_;
  for (const Item& item : items_) {
    if (item.kind != ItemKind::kFrame || skip-- > 0) continue;
    return item.time;
  }
  return -1;
}

void Queue::drop_finished_streams() {
  while (!streams_.empty() && streams_.front().has_ended && streams_.front().given == streams_.front().frames)
    streams_.pop_front();
}

int64_t Queue::next_results() const {
  if (streams_.empty()) return 0;
  const Stream& stream = streams_.front();
  return std::min(stream.given == 0 ? first_results_ : kLaterResults, stream.frames - stream.given);
}

bool Queue::has_complete_chunk() {
  Lock lock(mutex_);
  drop_finished_streams();
  if (streams_.empty()) return false;
  const Stream& stream = streams_.front();
  const int64_t results = stream.given == 0 ? first_results_ : kLaterResults;
  return stream.has_ended || stream.frames >= stream.given + results + kLookAhead;
}

void Queue::mark_next(int mark) {
  Lock lock(mutex_);
  drop_finished_streams();
  int64_t skip = results_, left = next_results();
  for (Item& item : items_) {
    if (left == 0) break;
    if (item.kind != ItemKind::kFrame || skip-- > 0) continue;
    item.mark = mark;
    --left;
  }
}

void Queue::count_results() {
  drop_finished_streams();
  const int64_t results = next_results();
  if (!streams_.empty()) streams_.front().given += results;
  results_ += results;
}

Queue::Output Queue::next_output() {
  Lock lock(mutex_);
  for (;;) {
    if (is_flushing_ || has_failed_ || flow_ != 0) return {OutputKind::kPark, nullptr, 0, epoch_, 0};
    if (!items_.empty()) {
      const Item item = items_.front();
      if (item.kind == ItemKind::kEvent) {
        items_.pop_front();
        is_pushing_ = true;
        pusher_ = std::this_thread::get_id();
        return {OutputKind::kEvent, item.payload, 0, epoch_, runs_};
      }
      if (seen_runs_ != runs_) {
        is_pushing_ = true;
        pusher_ = std::this_thread::get_id();
        return {OutputKind::kFrame, item.payload, item.id, epoch_, runs_};
      }
      if (is_drained_) return {OutputKind::kLost, nullptr, item.id, epoch_, runs_};
    }
    changed_.wait(lock);
  }
}

void Queue::no_result(uint64_t runs) {
  Lock lock(mutex_);
  seen_runs_ = runs;
  
  is_pushing_ = false;
  changed_.notify_all();
}

int Queue::take_frame() {
  Lock lock(mutex_);
  const int mark = items_.front().mark;
  items_.pop_front();
  --frames_;
  --results_;  // below 0 when P was faster than run_done
  changed_.notify_all();
  return mark;
}

bool Queue::is_current(uint64_t epoch) const {
  Lock lock(mutex_);
  return epoch == epoch_ && !is_flushing_;
}

void Queue::push_done(int flow, uint64_t epoch) {
  Lock lock(mutex_);
  is_pushing_ = false;
  if (flow != 0 && epoch == epoch_) flow_ = flow;
  changed_.notify_all();
}

void Queue::set_flushing(bool is_flushing) {
  Lock lock(mutex_);
  is_flushing_ = is_flushing;
  changed_.notify_all();
}

bool Queue::is_flushing() const {
  Lock lock(mutex_);
  return is_flushing_;
}

std::vector<Queue::Item> Queue::clear() {
  Lock lock(mutex_);
  changed_.wait(lock, [this] {
    return (is_parked_ || !has_worker_) && (!is_pushing_ || pusher_ == std::this_thread::get_id());
  });
  std::vector<Item> items(items_.begin(), items_.end());
  items_.clear();
  frames_ = results_ = 0;
  ++epoch_;
  seen_runs_ = runs_;
  flow_ = 0;
  has_failed_ = has_work_ = wants_drain_ = is_draining_ = is_drained_ = has_given_ = false;
  streams_.clear();
  changed_.notify_all();
  return items;
}

void Queue::fail() {
  Lock lock(mutex_);
  has_failed_ = true;
  changed_.notify_all();
}

bool Queue::has_failed() const {
  Lock lock(mutex_);
  return has_failed_;
}

int Queue::flow() const {
  Lock lock(mutex_);
  return flow_;
}

void Queue::set_flow(int flow) {
  Lock lock(mutex_);
  flow_ = flow;
  changed_.notify_all();
}

void Queue::request_options() {
  Lock lock(mutex_);
  wants_options_ = true;
  changed_.notify_all();
}

void Queue::start() {
  Lock lock(mutex_);
  is_stopped_ = false;
  has_worker_ = true;
  wants_options_ = false;
}

void Queue::stop() {
  Lock lock(mutex_);
  is_stopped_ = true;
  has_worker_ = false;
  changed_.notify_all();
}

int64_t Queue::frames_inside() const {
  Lock lock(mutex_);
  return frames_;
}

bool Queue::is_empty() const {
  Lock lock(mutex_);
  return is_idle();
}

}  // namespace flashvsr_gst
