// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/kv_cache.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <deque>

#include "model/ops.h"
#include "tests/support/near.h"

namespace flashvsr {
namespace {

constexpr int64_t kWindows = 3, kDim = 4;

// Against a naive list of slots, for every kv_chunks and a first chunk of three slots.
TEST(KvCache, SeesWhatANaiveListSees) {
  for (int64_t kv_chunks = 1; kv_chunks <= 8; ++kv_chunks) {
    KvCache cache;
    std::deque<at::Tensor> list;
    for (int64_t chunk = 0; chunk < 15; ++chunk) {
      const int64_t slots = chunk == 0 ? 3 : 1;
      const at::Tensor key = at::randn({slots * kWindows, 128, kDim}), value = at::randn_like(key);
      const at::Tensor mean = key.mean(1);
      const std::vector<int32_t> map = cache.slot_map(slots);
      for (int64_t i = 0; i < slots; ++i) list.push_back(key.narrow(0, i * kWindows, kWindows));
      const at::Tensor seen = visible_slots(cache.layer(1).key, key.view({slots, kWindows, 128, kDim}), map);
      std::vector<at::Tensor> expected(list.begin(), list.end());
      expect_equal("visible keys", seen, at::cat(expected, 0));
      for (const int64_t layer : {0, 1}) cache.store(layer, key, value, mean, slots, kv_chunks);
      cache.advance(slots, kv_chunks);
      if (static_cast<int64_t>(list.size()) > kv_chunks) list.pop_front();
      ASSERT_EQ(cache.held(), static_cast<int64_t>(list.size()));
      expect_equal("held means", visible_slots(cache.layer(0).key_mean, {}, cache.slot_map(0)),
                   at::cat(std::vector<at::Tensor>(list.begin(), list.end()), 0).mean(1));
    }
  }
}

TEST(KvCache, MemoryStaysConstant) {
  KvCache cache;
  int64_t bytes = 0;
  for (int64_t chunk = 0; chunk < 50; ++chunk) {
    const int64_t slots = chunk == 0 ? 3 : 1;
    const at::Tensor key = at::randn({slots * kWindows, 128, kDim});
    cache.store(0, key, key, key.mean(1), slots, 3);
    cache.advance(slots, 3);
    if (chunk == 0) bytes = cache.bytes();
    ASSERT_EQ(cache.bytes(), bytes);
  }
  EXPECT_EQ(bytes, 3 * kWindows * kDim * 4 * (2 * 128 + 1));
}

}  // namespace
}  // namespace flashvsr
