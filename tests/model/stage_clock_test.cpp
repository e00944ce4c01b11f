// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/stage_clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace flashvsr {
namespace {

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

TEST(StageClock, HasNothingBeforeARun) {
  StageClock clock(c10::kCPU);
  clock.wait_until_begun(&StageTimes::decoder_ms);
  EXPECT_EQ(clock.times().decoder_ms, 0);
}

// Sleeping takes at least as long as was asked for; what lies between two runs belongs to no stage.
TEST(StageClock, AddsUpTheStagesOfSeveralRuns) {
  const auto begin = std::chrono::steady_clock::now();
  StageClock clock(c10::kCPU);
  for (int run = 0; run < 2; ++run) {
    clock.begin();
    sleep_ms(2);
    clock.end_stage(&StageTimes::projector_ms);
    clock.end_stage(&StageTimes::transformer_ms);
    sleep_ms(4);
    clock.end_stage(&StageTimes::decoder_ms);
    if (run == 0) sleep_ms(20);
  }
  const StageTimes times = clock.times();
  EXPECT_GE(times.projector_ms, 4);
  EXPECT_GE(times.decoder_ms, 8);
  const double all = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_LE(times.projector_ms + times.transformer_ms + times.decoder_ms, all - 20);
}

}  // namespace
}  // namespace flashvsr
