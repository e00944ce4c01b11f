// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What waits between the element's three threads, and who may go on.
//
//   U  upstream's thread     reserve, send to the engine, add_frame; add_event; drain
//   W  worker                next_work, run the engine, run_done
//   P  source pad's task     next_output, receive from the engine, take_frame, push, push_done
//
// The engine holds the pictures; this holds, in stream order, what belongs to them (an opaque
// `payload` for each frame) and the events between them. An event leaves when it is at the front.
//
// Bounds: `reserve` waits while `max_frames` are inside; `next_work` waits while the results
// that nobody has taken exceed `max_results`. Both come from set_limits.
//
// Stopping: set_flushing(true) makes every wait return at once and keeps W and P from
// beginning anything. clear() waits until both are parked, then empties the queue and bumps the
// epoch; what P took before it fails is_current() afterwards.
//
// Knows nothing of GStreamer or the engine, so that ThreadSanitizer can watch it alone.
// Thread-safety: safe; each call by the thread named above, the others by any.
#ifndef FLASHVSR_GST_GSTFLASHVSRQUEUE_H_
#define FLASHVSR_GST_GSTFLASHVSRQUEUE_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace flashvsr_gst {

class Queue {
 public:
  enum class Go { kYes, kFlushing, kFailed, kDownstream };  // kDownstream: see flow()
  enum class ItemKind { kFrame, kEvent };
  enum class WorkKind { kRun, kDrain, kOptions, kStop };
  enum class RunResult { kRan, kNothing, kInterrupted, kFailed };
  enum class OutputKind { kPark, kFrame, kEvent, kLost };  // kLost: drained, and no result for a frame

  struct Item {
    ItemKind kind;
    void* payload;
    uint64_t id;
    int64_t time;  // kFrame: running time in ns, -1: none
    int mark;      // kFrame: the caller's, from the run that gave its result
  };

  struct Output {
    OutputKind kind;
    void* payload;  // kEvent: now the caller's; kFrame: still the queue's, see take_frame
    uint64_t id;
    uint64_t epoch;
    uint64_t runs;  // for no_result
  };

  // first_results: what the first run of a stream gives (21, or 8 when primed); later ones give 8.
  void set_limits(int64_t max_frames, int64_t max_results, int64_t first_results);

  // Live streams: nothing arriving for so long while frames are inside drains them. 0: never.
  void set_idle_timeout(std::chrono::nanoseconds timeout);
  // The same for streams without that timeout, as long as no run has given anything since `clear`.
  void set_preroll_timeout(std::chrono::nanoseconds timeout);

  // ---- U
  Go reserve();
  void add_frame(void* payload, uint64_t id, int64_t time);
  // False: nothing is waiting and P is idle, so that the caller may forward the event itself.
  bool add_event(void* payload);
  // Ends the engine's stream. `wait_for_all`: returns when everything has left and W and P are
  // parked; else when W has told the engine.
  Go drain(bool wait_for_all);

  // ---- W
  WorkKind next_work();
  void drain_done();
  // Whether the next run has all its frames, by the schedule.
  bool has_complete_chunk();
  // The frames that the next run will give carry `mark`. Before the run: P may take the first
  // of them before run_done.
  void mark_next(int mark);
  void run_done(RunResult result);
  // Running time of the first frame that the next run gives; -1: none.
  int64_t time_of_next_result() const;

  // ---- P
  Output next_output();
  void no_result(uint64_t runs);
  int take_frame();  // its mark
  bool is_current(uint64_t epoch) const;
  void push_done(int flow, uint64_t epoch);

  // ---- any thread
  void set_flushing(bool is_flushing);
  bool is_flushing() const;
  // Waits for W and P to park, which needs set_flushing(true) or an empty queue; gives back
  // what was inside. Forgets failures. P itself may call it, from inside a push (an application
  // that seeks in a pad's probe), and is then not waited for.
  std::vector<Item> clear();
  void fail();
  bool has_failed() const;
  int flow() const;
  void set_flow(int flow);
  void request_options();
  void start();
  void stop();  // makes next_work return kStop
  int64_t frames_inside() const;
  bool is_empty() const;

 private:
  using Lock = std::unique_lock<std::mutex>;
  static constexpr int64_t kLaterResults = 8;
  static constexpr int64_t kLookAhead = 4;

  // The engine's stream between two drains: tells how many results a run gave.
  struct Stream {
    int64_t frames = 0;
    int64_t given = 0;
    bool has_ended = false;
  };

  void count_results();
  void drop_finished_streams();
  int64_t next_results() const;
  bool is_idle() const { return items_.empty() && !is_pushing_; }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  std::deque<Stream> streams_;
  int64_t frames_ = 0;   // in items_
  int64_t results_ = 0;  // run, not yet taken
  int64_t max_frames_ = 74;
  int64_t max_results_ = 33;
  int64_t first_results_ = 21;
  std::chrono::nanoseconds idle_timeout_{0};
  std::chrono::nanoseconds preroll_timeout_{0};
  uint64_t epoch_ = 0;
  std::chrono::steady_clock::time_point last_added_;
  uint64_t added_ = 0;
  uint64_t added_at_run_ = 0;
  uint64_t added_at_drain_ = 0;
  uint64_t runs_ = 0;          // that gave something
  bool has_given_ = false;     // one of them since the last clear
  uint64_t seen_runs_ = 0;     // P has taken every result of these
  int flow_ = 0;
  bool is_flushing_ = true;
  bool is_stopped_ = false;
  bool has_failed_ = false;
  bool has_work_ = false;      // frames since the last run that gave nothing
  bool wants_drain_ = false;
  bool wants_options_ = false;
  bool is_draining_ = false;   // the engine was told; runs until nothing
  bool is_drained_ = false;    // and gave nothing more; no frame since
  bool is_parked_ = false;     // W
  bool is_pushing_ = false;    // P
  std::thread::id pusher_;     // while it does
  bool has_worker_ = false;
};

}  // namespace flashvsr_gst

#endif  // FLASHVSR_GST_GSTFLASHVSRQUEUE_H_
