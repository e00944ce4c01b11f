// SPDX-License-Identifier: LGPL-2.1-or-later
#include "stream/frame_ring.h"

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>
#include <thread>

namespace flashvsr {
namespace {

TEST(FrameRing, IdsFollowOneAnother) {
  FrameRing<int> ring(4);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(ring.push(i * 3), i);
    EXPECT_EQ(ring.at(i), i * 3);
    EXPECT_EQ(ring.pop(), i * 3);
    EXPECT_FALSE(ring.at(i).has_value());
  }
  EXPECT_FALSE(ring.pop().has_value());
}

TEST(FrameRing, RefusesMoreThanItsCapacity) {
  FrameRing<int> ring(3);
  EXPECT_TRUE(ring.push(0) && ring.push(1) && ring.push(2));
  EXPECT_FALSE(ring.push(3).has_value());
  ring.drop_before(1);
  EXPECT_EQ(ring.push(3), 3);
  EXPECT_EQ(ring.begin(), 1);
  EXPECT_EQ(ring.end(), 4);
}

TEST(FrameRing, ReleasesDroppedItemsAtOnce) {
  auto item = std::make_shared<int>(7);
  FrameRing<std::shared_ptr<int>> ring(8);
  for (int i = 0; i < 5; ++i) ring.push(item);
  EXPECT_EQ(item.use_count(), 6);
  ring.drop_before(3);
  EXPECT_EQ(item.use_count(), 3);
  ring.clear();
  EXPECT_EQ(item.use_count(), 1);
  EXPECT_EQ(ring.push(item), 0);
}

TEST(FrameRing, AgreesWithADequeUnderRandomUse) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const size_t capacity = 1 + random() % 80;
    FrameRing<int> ring(capacity);
    std::deque<int> plain;
    int64_t begin = 0;
    for (int step = 0; step < 400; ++step) {
      const int value = static_cast<int>(random());
      switch (random() % 5) {
        case 0:
        case 1:
        case 2:
          if (plain.size() < capacity) {
            ASSERT_EQ(ring.push(value), begin + static_cast<int64_t>(plain.size()));
            plain.push_back(value);
          } else {
            ASSERT_FALSE(ring.push(value).has_value());
          }
          break;
        case 3:
          if (plain.empty()) {
            ASSERT_FALSE(ring.pop().has_value());
          } else {
            ASSERT_EQ(ring.pop(), plain.front());
            plain.pop_front();
            ++begin;
          }
          break;
        default: {
          const int64_t bound = begin + static_cast<int64_t>(random() % 5);
          ring.drop_before(bound);
          while (!plain.empty() && begin < bound) {
            plain.pop_front();
            ++begin;
          }
        }
      }
      ASSERT_EQ(ring.size(), plain.size());
      for (size_t i = 0; i < plain.size(); ++i) ASSERT_EQ(ring.at(begin + static_cast<int64_t>(i)), plain[i]);
    }
  }
}

TEST(FrameRing, CarriesEverythingBetweenTwoThreads) {
  constexpr int kItems = 100000;
  FrameRing<int> ring(16);
  std::thread sender([&] {
    for (int i = 0; i < kItems;) {
      if (ring.push(i)) ++i;
      else std::this_thread::yield();
    }
  });
  int wrong = 0;
  for (int i = 0; i < kItems;) {
    if (auto item = ring.pop()) wrong += *item != i++;
    else std::this_thread::yield();
  }
  sender.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace flashvsr
