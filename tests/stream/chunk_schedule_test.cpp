// SPDX-License-Identifier: LGPL-2.1-or-later
#include "stream/chunk_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "base/error.h"

namespace flashvsr {
namespace {

struct Trace {
  std::vector<ChunkRun> runs;
  std::vector<int64_t> arrived;  // frames arrived when the run was done
  std::vector<int64_t> left;     // frames in the order they left
  int64_t worst_wait = 0;        // frames after its own, among those that were not drained
};

// Sends n frames one by one, runs whenever possible, drains. `passes(k)`: run k goes past the model.
template <typename Passes>
Trace play(Startup startup, int64_t n, Passes passes) {
  ChunkSchedule schedule(startup);
  Trace trace;
  const auto run_all = [&](bool draining) {
    while (schedule.is_ready()) {
      const ChunkRun run = schedule.next();
      for (int64_t frame = run.outputs.begin; frame < run.outputs.end; ++frame) {
        trace.left.push_back(frame);
        if (!draining) trace.worst_wait = std::max(trace.worst_wait, schedule.frames() - 1 - frame);
      }
      trace.runs.push_back(run);
      trace.arrived.push_back(schedule.frames());
      if (passes(trace.runs.size() - 1)) schedule.advance_passthrough();
      else schedule.advance_model();
    }
  };
  for (int64_t i = 0; i < n; ++i) {
    schedule.add_frame();
    run_all(false);
  }
  schedule.end();
  run_all(true);
  EXPECT_TRUE(schedule.is_done());
  EXPECT_EQ(schedule.next_output(), n);
  return trace;
}

Trace play(Startup startup, int64_t n) {
  return play(startup, n, [](size_t) { return false; });
}

const Startup kStartups[] = {Startup::kFull, Startup::kPrimed};

TEST(ChunkSchedule, EveryFrameLeavesOnceInOrder) {
  for (Startup startup : kStartups) {
    for (int64_t n = 0; n <= 500; ++n) {
      const Trace trace = play(startup, n);
      ASSERT_EQ(static_cast<int64_t>(trace.left.size()), n);
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(trace.left[static_cast<size_t>(i)], i) << "of " << n;
    }
  }
}

TEST(ChunkSchedule, FullIsTheReferenceSchedule) {
  for (int64_t n = 0; n <= 500; ++n) {
    const Trace trace = play(Startup::kFull, n);
    int64_t padded = std::max<int64_t>(n, 21);  // the reference's N' = 5 mod 8
    while (padded % 8 != 5) ++padded;
    const int64_t runs = n == 0 ? 0 : 1 + (padded - 21) / 8;
    ASSERT_EQ(static_cast<int64_t>(trace.runs.size()), runs) << n;
    for (int64_t i = 0; i < runs; ++i) {
      const ChunkRun& run = trace.runs[static_cast<size_t>(i)];
      ASSERT_EQ(run.is_new_state, i == 0);
      ASSERT_EQ(run.inputs.begin, i == 0 ? 0 : 8 * i + 13);
      ASSERT_EQ(run.inputs.end, 8 * i + 25);
      ASSERT_EQ(run.results.begin, i == 0 ? 0 : 8 * i + 13);
      ASSERT_EQ(run.results.end, 8 * i + 21);
      ASSERT_EQ(run.outputs.begin, run.results.begin);
      ASSERT_EQ(run.outputs.end, std::min(n, run.results.end));
      // not before its frames have arrived, and not later than with the last of them
      if (8 * i + 25 <= n) {
        ASSERT_EQ(trace.arrived[static_cast<size_t>(i)], 8 * i + 25);
      }
    }
  }
}

TEST(ChunkSchedule, PrimedRunsAreAlike) {
  for (int64_t n = 0; n <= 500; ++n) {
    const Trace trace = play(Startup::kPrimed, n);
    ASSERT_EQ(static_cast<int64_t>(trace.runs.size()), (n + 7) / 8);
    for (size_t i = 0; i < trace.runs.size(); ++i) {
      const ChunkRun& run = trace.runs[i];
      const int64_t p = 8 * static_cast<int64_t>(i);
      ASSERT_EQ(run.is_new_state, i == 0);
      ASSERT_EQ(run.inputs.begin, i == 0 ? -13 : p);
      ASSERT_EQ(run.inputs.end, p + 12);
      ASSERT_EQ(run.results.begin, i == 0 ? -13 : p);
      ASSERT_EQ(run.results.end, p + 8);
      ASSERT_EQ(run.outputs.begin, p);
      ASSERT_EQ(run.outputs.end, std::min(n, p + 8));
      if (p + 12 <= n) {
        ASSERT_EQ(trace.arrived[i], p + 12);
      }
    }
  }
}

TEST(ChunkSchedule, NoFrameWaitsLongerThanMaxDelay) {
  EXPECT_EQ(ChunkSchedule::max_delay(Startup::kFull), 24);
  EXPECT_EQ(ChunkSchedule::max_delay(Startup::kPrimed), 11);
  for (Startup startup : kStartups) {
    for (int64_t n = 0; n <= 500; ++n) {
      ASSERT_LE(play(startup, n).worst_wait, ChunkSchedule::max_delay(startup)) << n;
    }
    EXPECT_EQ(play(startup, 500).worst_wait, ChunkSchedule::max_delay(startup));
  }
}

// Fewer than 13 copies would make frame 0 wait longer than any frame of a later run.
TEST(ChunkSchedule, ThirteenIsTheSmallestPriming) {
  const int64_t later_wait = ChunkSchedule::kLaterRunOutputs - 1 + ChunkSchedule::kLookAhead;
  int64_t smallest = 0;
  while (ChunkSchedule::kFirstRunInputs - 1 - smallest > later_wait) ++smallest;
  EXPECT_EQ(smallest, ChunkSchedule::kPrimingFrames);
  EXPECT_LE(ChunkSchedule::kPrimingFrames, ChunkSchedule::kFirstRunOutputs - 1);
}

// Any mixture of model and passthrough runs: each frame once, sizes as the model wants them,
// no input that was forgotten, a continued state only directly after a run of the model.
TEST(ChunkSchedule, RandomPassthroughKeepsTheContract) {
  std::mt19937 random(20261123);
  for (int round = 0; round < 2000; ++round) {
    const Startup startup = kStartups[random() % 2];
    const int64_t n = static_cast<int64_t>(random() % 200);
    const uint32_t one_in = 1 + random() % 5;
    ChunkSchedule schedule(startup);
    int64_t expected = 0;
    bool has_state = false;
    const auto run_all = [&] {
      while (schedule.is_ready()) {
        const int64_t oldest = schedule.oldest_needed();
        const ChunkRun run = schedule.next();
        ASSERT_EQ(run.is_new_state, !has_state);
        ASSERT_EQ(run.inputs.size(), has_state ? 12 : 25);
        ASSERT_EQ(run.results.size(), has_state ? 8 : 21);
        ASSERT_EQ(run.outputs.begin, expected);
        ASSERT_GT(run.outputs.size(), 0);
        ASSERT_GE(run.outputs.begin, run.results.begin);
        ASSERT_LE(run.outputs.end, run.results.end);
        ASSERT_LE(run.outputs.end, schedule.frames());
        ASSERT_EQ(run.results.begin - run.inputs.begin, 0);
        ASSERT_GE(std::max<int64_t>(run.inputs.begin, 0), oldest);
        if (!schedule.is_ended()) {
          ASSERT_LE(run.inputs.end, schedule.frames());
        }
        expected = run.outputs.end;
        has_state = random() % one_in != 0;
        if (has_state) schedule.advance_model();
        else schedule.advance_passthrough();
        ASSERT_GE(schedule.oldest_needed(), oldest);
      }
    };
    for (int64_t i = 0; i < n; ++i) {
      schedule.add_frame();
      run_all();
      // what is inside stays bounded: history, look-ahead and one unfinished chunk
      ASSERT_LE(schedule.frames() - schedule.oldest_needed(), 25);
    }
    schedule.end();
    run_all();
    ASSERT_EQ(expected, n);
    ASSERT_TRUE(schedule.is_done());
  }
}

TEST(ChunkSchedule, RefusesAFrameAfterTheEnd) {
  ChunkSchedule schedule;
  schedule.add_frame();
  schedule.end();
  schedule.end();
  EXPECT_THROW(schedule.add_frame(), Error);
}

}  // namespace
}  // namespace flashvsr
