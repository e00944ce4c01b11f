// SPDX-License-Identifier: LGPL-2.1-or-later
#include "../../gst/gstflashvsrinterval.h"

#include <gtest/gtest.h>

#include <random>

using flashvsr_gst::IntervalMeter;

namespace {

constexpr int64_t kMs = 1000000;

int64_t add(IntervalMeter& meter, int64_t time, size_t window) {
  meter.add(time, window);
  return meter.median();
}

TEST(IntervalMeter, SaysNothingBeforeTheWindowIsFull) {
  IntervalMeter meter;
  for (int i = 0; i < 24; ++i) EXPECT_EQ(add(meter, i * 100 * kMs, 24), 0) << i;
  EXPECT_EQ(add(meter, 2400 * kMs, 24), 100 * kMs);
  meter.reset();
  for (int i = 0; i < 24; ++i) EXPECT_EQ(add(meter, i * 100 * kMs, 24), 0) << i;
}

TEST(IntervalMeter, LostFramesAndJitterDoNotCount) {
  IntervalMeter meter;
  std::mt19937 random(3);
  for (int i = 0; i < 400; ++i) {
    if (i % 5 == 4) continue;  // every fifth is lost
    const int64_t interval = add(meter, i * 40 * kMs + static_cast<int64_t>(random() % (4 * kMs)), 24);
    if (interval == 0) continue;
    EXPECT_GE(interval, 36 * kMs);
    EXPECT_LE(interval, 44 * kMs);
  }
}

TEST(IntervalMeter, FollowsWhenFramesBecomeRarer) {
  IntervalMeter meter;
  int64_t time = 0, interval = 0;
  for (int i = 0; i < 30; ++i) interval = add(meter, time += 33 * kMs, 24);
  EXPECT_EQ(interval, 33 * kMs);
  for (int i = 0; i < 11; ++i) interval = add(meter, time += 66 * kMs, 24);
  EXPECT_EQ(interval, 33 * kMs);
  interval = add(meter, time += 66 * kMs, 24);
  EXPECT_EQ(interval, 66 * kMs);
}

TEST(IntervalMeter, WhatIsNoStepBeginsAnew) {
  for (const int64_t odd : {int64_t{-1}, int64_t{0}, 400 * kMs, 3000 * kMs}) {  // none, backwards, the same, a stall
    IntervalMeter meter;
    for (int i = 0; i < 11; ++i) add(meter, i * 40 * kMs, 11);
    EXPECT_EQ(add(meter, odd, 11), 0) << odd;
    for (int i = 1; i < 11; ++i) EXPECT_EQ(add(meter, (4000 + i * 40) * kMs, 11), 0) << odd << ", " << i;
  }
}

}  // namespace
