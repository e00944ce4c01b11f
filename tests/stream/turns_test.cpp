// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Built twice: as it is, and under ThreadSanitizer.
#include "stream/turns.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace flashvsr {
namespace {

const std::atomic<bool> kNever{false};

void wait_for(const Turns& turns, size_t waiting) {
  while (turns.waiting() != waiting) std::this_thread::yield();
}

TEST(Turns, AFreeTurnIsTakenAtOnce) {
  Turns turns;
  for (int i = 0; i < 3; ++i) {
    const Turns::Turn turn = turns.take(kNever);
    EXPECT_TRUE(turn);
    EXPECT_EQ(turns.waiting(), 0u);
  }
}

TEST(Turns, ComeInTheOrderOfAsking) {
  constexpr size_t kUsers = 12;
  Turns turns;
  std::vector<size_t> order;  // written by who has the turn
  std::vector<std::thread> users;
  {
    const Turns::Turn first = turns.take(kNever);
    for (size_t i = 0; i < kUsers; ++i) {
      users.emplace_back([&, i] {
        const Turns::Turn turn = turns.take(kNever);
        order.push_back(i);
      });
      wait_for(turns, i + 1);
    }
    EXPECT_TRUE(order.empty());
  }
  for (std::thread& user : users) user.join();
  ASSERT_EQ(order.size(), kUsers);
  for (size_t i = 0; i < kUsers; ++i) EXPECT_EQ(order[i], i);
}

// Users that ask again at once go round and round; nobody overtakes, nobody is alone with another.
TEST(Turns, UsersThatAlwaysWantAnotherGoRound) {
  constexpr size_t kUsers = 4;
  constexpr int kRounds = 200;
  Turns turns;
  std::vector<size_t> order;
  bool is_inside = false;  // no atomic: the turn alone guards it
  int overlaps = 0;
  std::vector<std::thread> users;
  {
    const Turns::Turn first = turns.take(kNever);
    for (size_t i = 0; i < kUsers; ++i) {
      users.emplace_back([&, i] {
        for (int round = 0; round < kRounds; ++round) {
          const Turns::Turn turn = turns.take(kNever);
          overlaps += is_inside;
          is_inside = true;
          order.push_back(i);
          // Whoever had the turn before asks again before this one ends, as sessions do whose chunk
          // takes longer than what they do between chunks.
          if (round + 1 < kRounds) wait_for(turns, kUsers - 1);
          is_inside = false;
        }
      });
      wait_for(turns, i + 1);
    }
  }
  for (std::thread& user : users) user.join();
  EXPECT_EQ(overlaps, 0);
  ASSERT_EQ(order.size(), kUsers * kRounds);
  for (size_t i = 0; i < order.size(); ++i) ASSERT_EQ(order[i], i % kUsers) << i;
}

TEST(Turns, CancelledBeforeAskingIsNoTurn) {
  Turns turns;
  const std::atomic<bool> cancelled{true};
  EXPECT_FALSE(turns.take(cancelled));
  EXPECT_TRUE(turns.take(kNever));
}

// While the turn in progress goes on, and whichever place in the line it has.
TEST(Turns, CancelReachesAWaitingUser) {
  for (int place = 0; place < 3; ++place) {
    Turns turns;
    std::atomic<bool> cancels[3] = {{false}, {false}, {false}};
    std::vector<int> order;
    std::vector<std::thread> users;
    Turns::Turn first = turns.take(kNever);
    for (int i = 0; i < 3; ++i) {
      users.emplace_back([&, i] {
        const Turns::Turn turn = turns.take(cancels[i]);
        EXPECT_EQ(static_cast<bool>(turn), i != place);
        if (turn) order.push_back(i);
      });
      wait_for(turns, static_cast<size_t>(i) + 1);
    }
    cancels[place] = true;
    turns.wake();
    users[static_cast<size_t>(place)].join();  // the turn is still taken
    EXPECT_EQ(turns.waiting(), 2u);
    first = Turns::Turn();
    for (std::thread& user : users) {
      if (user.joinable()) user.join();
    }
    ASSERT_EQ(order.size(), 2u);
    EXPECT_LT(order[0], order[1]);
  }
}

// The end of a turn and the cancelling of the next in line at one moment: the one behind must not sleep on.
TEST(Turns, ACancelledFirstInLineHandsOn) {
  for (int round = 0; round < 300; ++round) {
    Turns turns;
    std::atomic<bool> cancel{false};
    auto first = std::make_unique<Turns::Turn>(turns.take(kNever));
    std::thread next([&] { turns.take(cancel); });
    wait_for(turns, 1);
    std::thread last([&] { EXPECT_TRUE(turns.take(kNever)); });
    wait_for(turns, 2);
    std::thread canceller([&] {
      cancel = true;
      turns.wake();
    });
    first.reset();
    next.join();
    last.join();
    canceller.join();
    EXPECT_EQ(turns.waiting(), 0u);
  }
}

// Cancelled at any moment between asking and sleeping, with one wake only.
TEST(Turns, ACancelIsNotLostOnTheWayToSleep) {
  Turns turns;
  const Turns::Turn first = turns.take(kNever);
  std::atomic<bool> cancel{true};
  std::atomic<int> asked{0}, called_off{0};
  constexpr int kRounds = 20000;
  std::thread user([&] {
    for (int round = 1; round <= kRounds; ++round) {
      cancel = false;
      asked = round;
      EXPECT_FALSE(turns.take(cancel));
      called_off = round;
    }
  });
  for (int round = 1; round <= kRounds; ++round) {
    while (asked != round) {}
    for (volatile int i = 0; i < round % 400; ++i) {}
    cancel = true;
    turns.wake();
    while (called_off != round) std::this_thread::yield();
  }
  user.join();
}

TEST(Turns, AThrowEndsTheTurn) {
  Turns turns;
  try {
    const Turns::Turn turn = turns.take(kNever);
    throw 1;
  } catch (int) {
  }
  EXPECT_TRUE(turns.take(kNever));
}

TEST(Turns, MovingKeepsOneTurn) {
  Turns turns;
  Turns::Turn a = turns.take(kNever), b(std::move(a)), c;
  EXPECT_FALSE(a);
  EXPECT_TRUE(b);
  c = std::move(b);
  EXPECT_FALSE(b);
  EXPECT_TRUE(c);
  std::atomic<bool> has_begun{false};
  std::thread other([&] {
    const Turns::Turn turn = turns.take(kNever);
    has_begun = true;
  });
  wait_for(turns, 1);
  EXPECT_FALSE(has_begun);
  c = Turns::Turn();
  other.join();
  EXPECT_TRUE(has_begun);
}

// Everything at once, for ThreadSanitizer and for lost notices: never two inside, everyone comes to an end.
TEST(Turns, RandomUse) {
  constexpr size_t kUsers = 6;
  Turns turns;
  std::atomic<bool> cancels[kUsers] = {};
  std::atomic<int> running{kUsers};
  int inside = 0, overlaps = 0, had = 0;  // guarded by the turn
  std::vector<std::thread> users;
  for (size_t i = 0; i < kUsers; ++i) {
    users.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      for (int round = 0; round < 400; ++round) {
        {
          const Turns::Turn turn = turns.take(cancels[i]);
          if (turn) {
            overlaps += inside++;
            ++had;
            if (random() % 4 == 0) std::this_thread::yield();
            --inside;
          }
        }
        cancels[i] = false;
      }
      --running;
    });
  }
  std::mt19937 random(99);
  while (running > 0) {
    cancels[random() % kUsers] = true;
    turns.wake();
    std::this_thread::yield();
  }
  for (std::thread& user : users) user.join();
  EXPECT_EQ(overlaps, 0);
  EXPECT_GT(had, 0);
  EXPECT_EQ(turns.waiting(), 0u);
}

}  // namespace
}  // namespace flashvsr
