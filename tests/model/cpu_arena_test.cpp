// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/cpu_arena.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/counting_allocator.h"

namespace flashvsr {
namespace {

const c10::Device kCpu(c10::kCPU);

at::Tensor bytes(int64_t count) { return at::empty({count}, at::kByte); }

// Below the arena: what reaches it was not cached.
class CpuArenaTest : public testing::Test {
 protected:
  void SetUp() override { below.restart(); }
  CountingAllocator& below = CountingAllocator::get();
};

TEST_F(CpuArenaTest, TheSecondRunTakesNothing) {
  const CpuArena arena(kCpu);
  for (int n = 0; n < 3; ++n) {
    const CpuArena::Run run(arena);
    below.restart();
    const at::Tensor a = bytes(5000), b = bytes(5000), c = bytes(3), d = bytes(int64_t{9} << 20);
    EXPECT_NE(a.data_ptr(), b.data_ptr());
    EXPECT_EQ(below.requests(), n == 0 ? 4 : 0) << n;
    std::memset(d.data_ptr(), n, d.nbytes());
  }
}

// A block is longer than wanted, and serves what is a little shorter; not what is much shorter, nor what is longer.
TEST_F(CpuArenaTest, BlocksServeNeighbouringSizes) {
  const CpuArena arena(kCpu);
  const CpuArena::Run run(arena);
  for (int64_t size = 513; size < int64_t{1} << 24; size = size * 17 / 16 + 1) {
    bytes(size).reset();
    below.restart();
    bytes(size - size / 8).reset();
    EXPECT_EQ(below.requests(), 0) << size;
  }
  const CpuArena::Held held = CpuArena::held();
  EXPECT_EQ(held.bytes, held.unused_bytes);
  at::Tensor large = bytes(int64_t{1} << 26);
  EXPECT_LE(CpuArena::held().bytes - held.bytes, (size_t{1} << 26) / 8 * 9);
  large.reset();
  below.restart();
  const at::Tensor half = bytes(int64_t{1} << 25), longer = bytes((int64_t{1} << 26) + (int64_t{1} << 24));
  EXPECT_EQ(below.requests(), 2);
}

TEST_F(CpuArenaTest, EverybodyElseHasTheFormerAllocator) {
  const CpuArena arena(kCpu);
  const c10::DeleterFnPtr former = below.raw_deleter();
  const auto is_former = [&](const at::Tensor& tensor) { return tensor.storage().data_ptr().get_deleter() == former; };
  EXPECT_TRUE(is_former(bytes(100)));
  {
    const CpuArena::Run run(arena);
    EXPECT_FALSE(is_former(bytes(100)));
    EXPECT_EQ(bytes(0).data_ptr(), nullptr);
    {
      const CpuArena::Run inner(arena);
      const CpuArena other(c10::Device(c10::kCUDA, 0));
      const CpuArena::Run elsewhere(other);
    }
    EXPECT_FALSE(is_former(bytes(100)));
    std::thread([&] {
      for (int n = 0; n < 3; ++n) {
        below.restart();
        EXPECT_TRUE(is_former(bytes(100)));
        EXPECT_EQ(below.requests(), 1);
      }
      const CpuArena::Run its_own(arena);
      EXPECT_FALSE(is_former(bytes(100)));
    }).join();
  }
  EXPECT_TRUE(is_former(bytes(100)));
  const CpuArena other(c10::Device(c10::kCUDA, 0));
  const CpuArena::Run run(other);
  EXPECT_TRUE(is_former(bytes(100)));
}

// oneDNN takes its memory so, and keeps some from one operation to another.
TEST_F(CpuArenaTest, PointersComeBackFromInsideAndOutside) {
  const int64_t live = below.live();
  {
    void* const older = below.raw_allocate(1000);
    const CpuArena arena(kCpu);
    c10::Allocator& now = *c10::GetCPUAllocator();
    EXPECT_NE(&now, &below);
    void* const outside = now.raw_allocate(1000);
    void* inside = nullptr;
    {
      const CpuArena::Run run(arena);
      inside = now.raw_allocate(1000);
      now.raw_deallocate(older);
      now.raw_deallocate(outside);
    }
    now.raw_deallocate(inside);
    now.raw_deallocate(now.raw_allocate(0));
    const CpuArena::Run run(arena);
    void* const again = now.raw_allocate(1000);
    EXPECT_EQ(again, inside);
    now.raw_deallocate(again);
  }
  EXPECT_EQ(below.live(), live);
}

TEST_F(CpuArenaTest, ATensorMayOutliveEverything) {
  const int64_t live = below.live();
  at::Tensor kept, last;
  {
    const CpuArena arena(kCpu);
    {
      const CpuArena::Run run(arena);
      kept = at::full({100000}, 7, at::kByte);
      last = at::full({200000}, 9, at::kByte);
      bytes(300000).reset();
    }
    EXPECT_GE(below.live() - live, 600000);
  }
  EXPECT_LT(below.live() - live, 2 * 300000);
  EXPECT_EQ(CpuArena::held().unused_bytes, 0u);
  EXPECT_EQ(kept.sum().item<int64_t>(), 700000);
  std::thread([&] { kept.reset(); }).join();
  {
    // Also while another arena is there, to which it then belongs.
    const CpuArena arena(kCpu);
    last.reset();
    EXPECT_GE(CpuArena::held().unused_bytes, 200000u);
  }
  EXPECT_EQ(below.live(), live);
  EXPECT_EQ(CpuArena::held().bytes, 0u);
  EXPECT_EQ(CpuArena::held().blocks, 0u);
}

TEST_F(CpuArenaTest, WhatNobodyWantsIsGivenBack) {
  const int64_t live = below.live();
  const CpuArena arena(kCpu);
  const auto run_once = [&](std::initializer_list<int64_t> sizes) {
    const CpuArena::Run run(arena);
    std::vector<at::Tensor> tensors;
    for (const int64_t size : sizes) tensors.push_back(bytes(size));
  };
  run_once({100000, 100000, 1000000});
  for (int n = 0; n + 1 < CpuArena::kKeptRuns; ++n) run_once({100000});
  EXPECT_GE(below.live() - live, 1200000);
  run_once({100000});
  EXPECT_LT(below.live() - live, 120000);
  below.restart();
  run_once({100000});
  EXPECT_EQ(below.requests(), 0);

  // Nothing is held beside a stream's first chunk, nor of it.
  run_once({100000, 1000000});
  {
    const CpuArena::Run first(arena, /*is_first=*/true);
    EXPECT_EQ(CpuArena::held().unused_bytes, 0u);
    bytes(1000000).reset();
    EXPECT_EQ(below.live(), live);
  }

  // A stream that closes leaves nothing to those that go on.
  run_once({100000, 1000000});
  std::make_unique<CpuArena>(kCpu).reset();
  EXPECT_EQ(CpuArena::held().unused_bytes, 0u);
  EXPECT_EQ(below.live(), live);
}

TEST_F(CpuArenaTest, UnusedBlocksMakeRoomWhenMemoryRunsOut) {
  const CpuArena arena(kCpu);
  const CpuArena::Run run(arena);
  below.set_limit(below.live() + 2500000);
  bytes(1000000).reset();
  const at::Tensor kept = bytes(500000);
  EXPECT_NO_THROW(bytes(1700000));
  EXPECT_THROW(bytes(2200000), std::bad_alloc);
  EXPECT_NO_THROW(bytes(1000000));
  below.set_limit(std::numeric_limits<int64_t>::max());
}

// Threads with runs of their own that give each other tensors to free: no byte belongs to two of them.
TEST_F(CpuArenaTest, ManyThreads) {
  const int64_t live = below.live();
  {
    const CpuArena arena(kCpu);
    std::mutex mutex;
    std::vector<at::Tensor> pool;
    std::atomic<int> spoilt{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(static_cast<unsigned>(t));
        for (int n = 0; n < 200; ++n) {
          std::optional<CpuArena> own;
          if (n % 50 == 0) own.emplace(kCpu);
          const CpuArena::Run run(arena);
          for (int k = 0; k < 20; ++k) {
            const int fill = static_cast<int>(random() % 256);
            at::Tensor tensor = at::full({static_cast<int64_t>(1 + random() % 5000)}, fill, at::kByte);
            const std::lock_guard<std::mutex> lock(mutex);
            pool.push_back(std::move(tensor));
            if (pool.size() < 30) continue;
            std::swap(pool[random() % pool.size()], pool.back());
            const at::Tensor victim = std::move(pool.back());
            pool.pop_back();
            const auto* const values = victim.const_data_ptr<uint8_t>();
            for (int64_t i = 1; i < victim.numel(); ++i) spoilt += values[i] != values[0];
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(spoilt, 0);
  }
  EXPECT_EQ(below.live(), live);
}

// A host's own allocator of a higher priority, or one that gives no memory by pointer, stays.
class HostAllocator final : public c10::Allocator {
 public:
  explicit HostAllocator(bool is_raw) : is_raw_(is_raw) {}
  c10::DataPtr allocate(size_t n) override {
    ++requests;
    void* const place = std::malloc(n);
    return {place, place, &std::free, kCpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return is_raw_ ? &std::free : nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
  int requests = 0;

 private:
  const bool is_raw_;
};

void exit_well_if_host_stays(bool is_raw, uint8_t priority) {
  static HostAllocator host(is_raw);
  c10::SetCPUAllocator(&host, priority);
  {
    const CpuArena arena(kCpu);
    for (int n = 0; n < 3; ++n) {
      const CpuArena::Run run(arena);
      bytes(100).reset();
    }
  }
  std::exit(c10::GetCPUAllocator() == &host && host.requests == 3 ? 0 : 1);
}

// In a process of its own: the allocator is installed once.
TEST(CpuArenaDeathTest, AnotherAllocatorMayStay) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(exit_well_if_host_stays(true, 1), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(exit_well_if_host_stays(false, 0), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace flashvsr
