// SPDX-License-Identifier: LGPL-2.1-or-later
//
// LibTorch keeps the settings without CUDA too; what the allocator has given out is a fake one's.
#include "cuda/allocator_settings.h"

#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/log.h"

namespace flashvsr {
namespace {

struct FakeAllocator final : c10::DeviceAllocator {
  std::vector<int64_t> allocated;  // ever, of each device; empty: CUDA has not been started

  c10::DataPtr allocate(size_t) override { return {}; }
  void copy_data(void*, const void*, std::size_t) const override {}
  bool initialized() override { return !allocated.empty(); }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocation[0].allocated = allocated.at(static_cast<size_t>(device));
    stats.allocation[0].freed = stats.allocation[0].allocated;
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
};

class AllocatorSettings : public ::testing::Test {
 protected:
  // The process has them once: what a test leaves behind, the next one would see.
  void SetUp() override {
    unsetenv("PYTORCH_ALLOC_CONF");
    unsetenv("PYTORCH_CUDA_ALLOC_CONF");
    c10::SetAllocator(c10::kCUDA, &allocator_, 100);
    allocator_.allocated.clear();
    c10::CachingAllocator::setAllocatorSettings("");
    said_.clear();
    set_log_callback(
        [](LogLevel level, const char* message, void*) {
          EXPECT_EQ(level, LogLevel::kInfo);
          said_ += message;
        },
        nullptr);
  }
  void TearDown() override { set_log_callback(nullptr, nullptr); }

  static std::string settings() { return c10::CachingAllocator::getAllocatorSettings(); }
  static bool expands() { return c10::CachingAllocator::AcceleratorAllocatorConfig::use_expandable_segments(); }

  static FakeAllocator allocator_;
  static std::string said_;
};
FakeAllocator AllocatorSettings::allocator_;
std::string AllocatorSettings::said_;

TEST_F(AllocatorSettings, AreSetWhereNobodyElseHasASay) {
  EXPECT_FALSE(prefer_expandable_segments(0));
  EXPECT_EQ(settings(), "");
  EXPECT_TRUE(prefer_expandable_segments(2));
  EXPECT_TRUE(expands());
  EXPECT_EQ(said_, "");
  c10::CachingAllocator::setAllocatorSettings("expandable_segments:False");
}

TEST_F(AllocatorSettings, OfTheApplicationStay) {
  c10::CachingAllocator::setAllocatorSettings("garbage_collection_threshold:0.7");
  EXPECT_FALSE(prefer_expandable_segments(1));
  EXPECT_EQ(settings(), "garbage_collection_threshold:0.7");
  EXPECT_EQ(c10::CachingAllocator::AcceleratorAllocatorConfig::garbage_collection_threshold(), 0.7);
  EXPECT_FALSE(expands());
  EXPECT_EQ(said_, "LibTorch's CUDA allocator keeps its settings: the application has set garbage_collection_threshold:0.7");
}

TEST_F(AllocatorSettings, OfTheEnvironmentStay) {
  for (const char* name : {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}) {
    said_.clear();
    setenv(name, "max_split_size_mb:64", 1);
    EXPECT_FALSE(prefer_expandable_segments(1));
    unsetenv(name);
    EXPECT_FALSE(expands());
    EXPECT_EQ(said_, "LibTorch's CUDA allocator keeps its settings: the environment has " + std::string(name) +
                         "=max_split_size_mb:64");
  }
}

TEST_F(AllocatorSettings, StayOnceMemoryWasTaken) {
  allocator_.allocated = {0, 3};  // on the second device, and given back
  EXPECT_FALSE(prefer_expandable_segments(2));
  EXPECT_FALSE(expands());
  EXPECT_EQ(said_, "LibTorch's CUDA allocator keeps its settings: the application has allocated with it");
  allocator_.allocated = {0, 0};  // started, as asking for a device's name does
  EXPECT_TRUE(prefer_expandable_segments(2));
  EXPECT_TRUE(expands());
  c10::CachingAllocator::setAllocatorSettings("expandable_segments:False");
}

}  // namespace
}  // namespace flashvsr
