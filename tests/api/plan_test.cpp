// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/plan.h"

#include <gtest/gtest.h>

namespace flashvsr {
namespace {

constexpr uint64_t kGb = 1000000000;
constexpr uint64_t kHost64 = 64 * kGb;

struct Size {
  int width, height;  // of the source; four times that is what the released model was made for
};
constexpr Size kSizes[] = {{352, 192}, {672, 384}, {960, 540}};  // 1408x768, 2688x1536, 3840x2160

MemoryPlan plan_of(const Size& size, uint64_t device_limit, uint64_t host_limit = kHost64) {
  const ModelConfig released;
  const Geometry geometry(released, size.width, size.height, 4, 1);
  return plan_memory({released, geometry, released.kv_chunks, DecoderKind::kTc, 2, false, device_limit, host_limit});
}

// What a card has left beside the released weights in bf16 and the margin.
uint64_t left_on_card(uint64_t card) {
  Upscaler released{ModelConfig()};
  uint64_t weights = 0;
  released.visit_parameters(
      [&](const std::string&, at::Tensor&, const std::vector<int64_t>& shape) {
        uint64_t count = 2;
        for (const int64_t side : shape) count *= static_cast<uint64_t>(side);
        weights += count;
      },
      false);
  const uint64_t free = card - weights;
  return free - free / 20;
}

struct Expected {
  uint64_t card;  // GB
  size_t size;    // in kSizes
  size_t columns, rows;
  CacheStorage cache;
  bool parks;
};

constexpr CacheStorage kDevice = CacheStorage::kDevice, kFp8 = CacheStorage::kFp8, kHost = CacheStorage::kHost;
constexpr Expected kTable[] = {
    {8, 0, 1, 1, kHost, false},    {8, 1, 3, 1, kHost, true},   {8, 2, 5, 2, kHost, true},
    {12, 0, 1, 1, kDevice, false}, {12, 1, 1, 1, kHost, false}, {12, 2, 3, 1, kHost, true},
    {16, 0, 1, 1, kDevice, false}, {16, 1, 1, 1, kHost, false}, {16, 2, 1, 2, kHost, true},
    {24, 0, 1, 1, kDevice, false}, {24, 1, 1, 1, kFp8, false},  {24, 2, 1, 1, kHost, false},
};

// Prints the table of docs/performance.md.
TEST(Plan, CardsOfEverySizeRunTheReleasedModel) {
  for (const Expected& e : kTable) {
    const Size& size = kSizes[e.size];
    const uint64_t limit = left_on_card(e.card * kGb);
    const MemoryPlan plan = plan_of(size, limit);
    printf("| %llu GB | %dx%d | %s of %s | %s |\n", static_cast<unsigned long long>(e.card), 4 * size.height,
           4 * size.width, readable_bytes(plan.session_bytes).c_str(), readable_bytes(limit).c_str(),
           describe(plan).c_str());
    EXPECT_TRUE(plan.fits);
    EXPECT_LE(plan.session_bytes, limit);
    EXPECT_LE(plan.host_bytes, kHost64);
    EXPECT_EQ(plan.tiles.columns.count(), e.columns);
    EXPECT_EQ(plan.tiles.rows.count(), e.rows);
    EXPECT_TRUE(plan.cache == e.cache) << describe(plan);
    EXPECT_EQ(plan.parks_in_host, e.parks);
    EXPECT_EQ(plan.decode_latents, 2);
    const MemoryPlan again = plan_of(size, limit);
    EXPECT_EQ(describe(again) + again.refused, describe(plan) + plan.refused);
    EXPECT_EQ(again.session_bytes, plan.session_bytes);
  }
}

// The steps in their order as the limit falls, each no larger than its limit; what lies below the least is
// refused with that least.
TEST(Plan, DegradesStepByStep) {
  for (const Size& size : kSizes) {
    uint64_t limit = 100 * kGb;
    double extra = 0;
    int step = 0;
    bool is_refused = false;
    for (; limit > kGb / 10; limit -= limit / 50) {
      const MemoryPlan plan = plan_of(size, limit);
      if (!plan.fits) {
        EXPECT_GT(plan.session_bytes, limit);
        EXPECT_NE(plan.refused, "");
        is_refused = true;
        continue;
      }
      EXPECT_FALSE(is_refused) << limit;
      EXPECT_LE(plan.session_bytes, limit);
      const int here = plan.tiles.count() > 1 ? 3 : static_cast<int>(plan.cache);
      EXPECT_GE(here, step) << describe(plan);
      EXPECT_GE(plan.extra_work, extra) << describe(plan);
      step = here;
      extra = plan.extra_work;
    }
    EXPECT_EQ(step, 3);
    EXPECT_TRUE(is_refused);
  }
}

// Without host memory to page to there is nothing between the 8-bit cache and a refusal; with little of it
// the cache goes there in 8 bits.
TEST(Plan, HostMemoryCountsToo) {
  const uint64_t limit = left_on_card(8 * kGb);
  EXPECT_FALSE(plan_of(kSizes[1], limit, 4 * kGb).fits);
  const MemoryPlan small = plan_of(kSizes[1], limit, 16 * kGb);
  EXPECT_TRUE(small.fits);
  EXPECT_TRUE(small.cache == CacheStorage::kHostFp8) << describe(small);
  EXPECT_LE(small.host_bytes, 16 * kGb);
}

// A decoder alone has no cache to shrink; the CPU has no other memory to move to.
TEST(Plan, OtherModelsAndTheCpu) {
  ModelConfig student;
  student.has_transformer = false;
  student.input_scale = 4;
  student.tc_decoder.channels = {64, 48, 32, 0};
  student.tc_decoder.mem_blocks = {2, 2, 2};
  student.tc_decoder.up = {2, 1, 1};
  student.tc_decoder.grow = {2, 2, 1};
  student.tc_decoder.final_shuffle = 4;
  for (const bool is_cpu : {false, true}) {
    for (const ModelConfig& config : {student, ModelConfig()}) {
      const Geometry geometry(config, 480, 270, 4, 1);
      const auto plan = [&](uint64_t limit) {
        return plan_memory({config, geometry, 3, DecoderKind::kTc, 4, is_cpu, limit, kHost64});
      };
      const MemoryPlan whole = plan(1000 * kGb);
      EXPECT_EQ(whole.tiles.count(), 1u);
      EXPECT_TRUE(whole.cache == CacheStorage::kDevice);
      EXPECT_EQ(whole.host_bytes, 0u);
      const MemoryPlan least = plan(1);
      EXPECT_GT(least.tiles.count(), 1u);
      EXPECT_LT(least.session_bytes, whole.session_bytes);
      EXPECT_TRUE(config.has_transformer || least.cache == CacheStorage::kDevice);
      EXPECT_TRUE(!is_cpu || (least.host_bytes == 0 && !least.parks_in_host));
      printf("%s\n", describe(least).c_str());
    }
  }
}

}  // namespace
}  // namespace flashvsr
