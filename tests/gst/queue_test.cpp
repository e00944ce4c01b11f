// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The element's threading core alone, with an engine of integers in place of the model: no
// GStreamer, so that ThreadSanitizer sees every lock. Built twice, plain and with -fsanitize=thread.
#include "../../gst/gstflashvsrqueue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <random>
#include <thread>
#include <vector>

using flashvsr_gst::Queue;
using std::chrono::milliseconds;

namespace {

// The engine's protocol with ids for pictures; 25 in, 21 out, then 8 and 8.
class Engine {
 public:
  void send(uint64_t id) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (streams_.empty() || streams_.back().has_ended) streams_.push_back({});
    streams_.back().inputs.push_back(id);
  }
  Queue::RunResult run() {
    if (is_interrupted_) return Queue::RunResult::kInterrupted;
    for (int i = 0; i < 3 && !is_interrupted_; ++i) std::this_thread::yield();
    std::lock_guard<std::mutex> lock(mutex_);
    while (!streams_.empty() && streams_.front().has_ended && streams_.front().inputs.empty()) streams_.pop_front();
    if (streams_.empty()) return Queue::RunResult::kNothing;
    Stream& stream = streams_.front();
    const size_t gives = stream.is_first ? 21 : 8;
    if (!stream.has_ended && stream.inputs.size() < gives + 4) return Queue::RunResult::kNothing;
    for (size_t i = 0; i < gives && !stream.inputs.empty(); ++i) {
      results_.push_back(stream.inputs.front());
      stream.inputs.pop_front();
    }
    stream.is_first = false;
    return Queue::RunResult::kRan;
  }
  bool receive(uint64_t* id) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (results_.empty()) return false;
    *id = results_.front();
    results_.pop_front();
    return true;
  }
  void drain() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Stream& stream : streams_) stream.has_ended = true;
  }
  void flush() {
    std::lock_guard<std::mutex> lock(mutex_);
    streams_.clear();
    results_.clear();
    is_interrupted_ = false;
  }
  void interrupt() { is_interrupted_ = true; }

 private:
  struct Stream {
    std::deque<uint64_t> inputs;
    bool is_first = true;
    bool has_ended = false;
  };
  std::mutex mutex_;
  std::deque<Stream> streams_;
  std::deque<uint64_t> results_;
  std::atomic<bool> is_interrupted_{false};
};

// Worker and pushing thread as the element runs them; what is pushed is kept.
class Element {
 public:
  Element() {
    queue.set_flushing(false);
    queue.start();
    worker_ = std::thread([this] { work(); });
    pusher_ = std::thread([this] { push(); });
  }
  ~Element() {
    queue.set_flushing(true);
    engine.interrupt();
    queue.stop();
    worker_.join();
    is_over_ = true;
    pusher_.join();
    queue.clear();
  }

  Queue::Go send(uint64_t id) {
    const Queue::Go go = queue.reserve();
    if (go != Queue::Go::kYes) return go;
    engine.send(id);
    queue.add_frame(nullptr, id, static_cast<int64_t>(id));
    return go;
  }
  void flush_start() {
    queue.set_flushing(true);
    engine.interrupt();
  }
  void flush_stop() {
    queue.clear();
    engine.flush();
    queue.set_flushing(false);
  }
  std::vector<uint64_t> take() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::move(pushed_);
  }

  Queue queue;
  Engine engine;
  std::atomic<int> flow{0};

 private:
  void work() {
    for (;;) {
      switch (queue.next_work()) {
        case Queue::WorkKind::kStop:
          return;
        case Queue::WorkKind::kDrain:
          engine.drain();
          queue.drain_done();
          break;
        case Queue::WorkKind::kRun:
          queue.run_done(engine.run());
          break;
        case Queue::WorkKind::kOptions:
          break;
      }
    }
  }
  void push() {
    while (!is_over_) {
      const Queue::Output output = queue.next_output();
      if (output.kind == Queue::OutputKind::kPark) {
        std::this_thread::sleep_for(milliseconds(1));
        continue;
      }
      ASSERT_NE(output.kind, Queue::OutputKind::kLost);
      if (output.kind == Queue::OutputKind::kEvent) {
        keep(reinterpret_cast<uintptr_t>(output.payload));
        queue.push_done(0, output.epoch);
        continue;
      }
      uint64_t id;
      if (!engine.receive(&id)) {
        queue.no_result(output.runs);
        continue;
      }
      EXPECT_EQ(id, output.id);
      queue.take_frame();
      if (queue.is_current(output.epoch)) keep(id);
      queue.push_done(flow, output.epoch);
    }
  }
  void keep(uint64_t what) {
    std::lock_guard<std::mutex> lock(mutex_);
    pushed_.push_back(what);
  }

  std::mutex mutex_;
  std::vector<uint64_t> pushed_;
  std::atomic<bool> is_over_{false};
  std::thread worker_, pusher_;
};

}  // namespace

TEST(Queue, EveryFrameOnceInOrderForEachLength) {
  for (uint64_t length = 0; length <= 90; ++length) {
    Element element;
    for (uint64_t i = 0; i < length; ++i) ASSERT_EQ(element.send(i), Queue::Go::kYes);
    ASSERT_EQ(element.queue.drain(true), Queue::Go::kYes);
    const std::vector<uint64_t> pushed = element.take();
    ASSERT_EQ(pushed.size(), length);
    for (uint64_t i = 0; i < length; ++i) ASSERT_EQ(pushed[i], i);
  }
}

TEST(Queue, EventsKeepTheirPlace) {
  Element element;
  std::vector<uint64_t> wanted;
  for (uint64_t i = 1; i <= 300; ++i) {
    ASSERT_EQ(element.send(i), Queue::Go::kYes);
    wanted.push_back(i);
    if (i % 7 == 0) {
      const uint64_t event = 1000000 + i;
      ASSERT_TRUE(element.queue.add_event(reinterpret_cast<void*>(event)));
      wanted.push_back(event);
    }
  }
  ASSERT_EQ(element.queue.drain(true), Queue::Go::kYes);
  EXPECT_EQ(element.take(), wanted);
  EXPECT_FALSE(element.queue.add_event(reinterpret_cast<void*>(1)));  // nothing waits: the caller's
}

TEST(Queue, DrainsInMidStreamLoseNothing) {
  std::mt19937 random(5);
  Element element;
  uint64_t next = 0;
  for (int round = 0; round < 200; ++round) {
    const uint64_t frames = random() % 40;
    for (uint64_t i = 0; i < frames; ++i) ASSERT_EQ(element.send(next++), Queue::Go::kYes);
    ASSERT_EQ(element.queue.drain(random() % 3 == 0), Queue::Go::kYes);
  }
  ASSERT_EQ(element.queue.drain(true), Queue::Go::kYes);
  const std::vector<uint64_t> pushed = element.take();
  ASSERT_EQ(pushed.size(), next);
  for (uint64_t i = 0; i < next; ++i) ASSERT_EQ(pushed[i], i);
}

// Flushes by another thread, as fast as they come, while frames are sent: nothing old comes after.
TEST(Queue, FlushLetsNothingOldThrough) {
  std::mt19937 random(6);
  Element element;
  for (uint64_t round = 1; round <= 300; ++round) {
    const uint64_t base = round * 1000;
    std::thread upstream([&element, base] {
      for (uint64_t i = 0; i < 60; ++i)
        if (element.send(base + i) != Queue::Go::kYes) return;
      element.queue.drain(true);
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 800));
    element.flush_start();
    upstream.join();  // GStreamer's stream lock does this
    element.flush_stop();
    for (const uint64_t id : element.take()) ASSERT_EQ(id / 1000, round);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
    ASSERT_TRUE(element.take().empty()) << "something came after the flush of round " << round;
  }
  for (uint64_t i = 0; i < 25; ++i) ASSERT_EQ(element.send(i), Queue::Go::kYes);
  ASSERT_EQ(element.queue.drain(true), Queue::Go::kYes);
  EXPECT_EQ(element.take().size(), 25u);
}

TEST(Queue, BoundedAndWokenByTheEnd) {
  Element element;
  element.queue.set_limits(40, 8, 21);
  element.flow = -1;  // downstream refuses: nobody takes results any longer
  uint64_t sent = 0;
  Queue::Go go;
  while ((go = element.send(sent)) == Queue::Go::kYes) ASSERT_LT(++sent, 200u);
  EXPECT_EQ(go, Queue::Go::kDownstream);
  EXPECT_EQ(element.queue.flow(), -1);
}

TEST(Queue, FailureReachesUpstreamAndAFlushClearsIt) {
  Element element;
  for (uint64_t i = 0; i < 10; ++i) ASSERT_EQ(element.send(i), Queue::Go::kYes);
  element.queue.fail();
  EXPECT_EQ(element.send(10), Queue::Go::kFailed);
  EXPECT_EQ(element.queue.drain(true), Queue::Go::kFailed);
  element.flush_start();
  element.flush_stop();
  ASSERT_EQ(element.send(20), Queue::Go::kYes);
  ASSERT_EQ(element.queue.drain(true), Queue::Go::kYes);
  EXPECT_EQ(element.take(), std::vector<uint64_t>{20});
}

TEST(Queue, StalledLiveStreamDrainsItself) {
  Element element;
  element.queue.set_idle_timeout(milliseconds(30));
  for (uint64_t i = 0; i < 10; ++i) ASSERT_EQ(element.send(i), Queue::Go::kYes);
  std::vector<uint64_t> pushed;
  for (int i = 0; i < 500 && pushed.size() < 10; ++i) {
    std::this_thread::sleep_for(milliseconds(2));
    for (const uint64_t id : element.take()) pushed.push_back(id);
  }
  EXPECT_EQ(pushed.size(), 10u);
  for (uint64_t i = 10; i < 40; ++i) ASSERT_EQ(element.send(i), Queue::Go::kYes);
  ASSERT_EQ(element.queue.drain(true), Queue::Go::kYes);
  EXPECT_EQ(element.take().size(), 30u);
}

TEST(Queue, FramesTakenBeforeTheRunReturnsCarryItsMark) {
  Queue queue;
  queue.set_limits(100, 33, 21);
  queue.start();
  queue.set_flushing(false);
  uint64_t next = 0, taken = 0;
  const auto add = [&](int frames) {
    for (int i = 0; i < frames; ++i, ++next) queue.add_frame(nullptr, next, static_cast<int64_t>(next));
  };
  const auto take = [&](int frames, int mark) {
    for (int i = 0; i < frames; ++i, ++taken) {
      const Queue::Output output = queue.next_output();
      ASSERT_EQ(output.kind, Queue::OutputKind::kFrame);
      EXPECT_EQ(output.id, taken);
      EXPECT_EQ(queue.take_frame(), mark) << "frame " << taken;
      queue.push_done(0, output.epoch);
    }
  };
  add(24);
  EXPECT_FALSE(queue.has_complete_chunk());
  add(1);
  int mark = 1;
  for (const int results : {21, 8, 8, 8}) {
    EXPECT_TRUE(queue.has_complete_chunk());
    EXPECT_EQ(queue.next_work(), Queue::WorkKind::kRun);
    queue.mark_next(mark);
    const int early = mark == 1 ? 0 : 3;  // before the first run P has nothing to look for
    take(early, mark);
    queue.run_done(Queue::RunResult::kRan);
    EXPECT_EQ(queue.time_of_next_result(), static_cast<int64_t>(taken) + results - early);
    take(results - early, mark);
    ++mark;
    EXPECT_FALSE(queue.has_complete_chunk());
    add(8);
  }
  queue.stop();
}

TEST(Queue, ManyThreadsAtOnce) {
  std::atomic<bool> is_over{false};
  Element element;
  std::thread flusher([&] {
    std::mt19937 random(7);
    while (!is_over) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
      element.queue.request_options();
      element.queue.frames_inside();
      element.queue.time_of_next_result();
      element.queue.is_empty();
    }
  });
  for (uint64_t i = 0; i < 4000; ++i) {
    ASSERT_EQ(element.send(i), Queue::Go::kYes);
    if (i % 997 == 0) { ASSERT_EQ(element.queue.drain(false), Queue::Go::kYes); }
  }
  ASSERT_EQ(element.queue.drain(true), Queue::Go::kYes);
  is_over = true;
  flusher.join();
  EXPECT_EQ(element.take().size(), 4000u);
}
