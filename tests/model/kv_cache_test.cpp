// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/kv_cache.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <deque>

#include "model/ops.h"
#include "tests/support/near.h"

namespace flashvsr {
namespace {

constexpr int64_t kWindows = 3, kDim = 4;

// Against a naive list of slots, for every kv_chunks and a first chunk of three slots.
class KvCacheStorage : public testing::TestWithParam<CacheStorage> {};

// What goes through any storage without loss: a multiple of a power of two, few digits.
at::Tensor short_numbers(at::IntArrayRef shape) { return at::randint(-8, 9, shape, at::kFloat) / 4; }

TEST_P(KvCacheStorage, SeesWhatANaiveListSees) {
  for (int64_t kv_chunks = 1; kv_chunks <= 8; ++kv_chunks) {
    KvCache cache(GetParam());
    std::deque<at::Tensor> list;
    for (int64_t chunk = 0; chunk < 15; ++chunk) {
      const int64_t slots = chunk == 0 ? 3 : 1;
      const at::Tensor key = short_numbers({slots * kWindows, 128, kDim}), value = short_numbers(key.sizes());
      const at::Tensor mean = key.mean(1);
      const std::vector<int32_t> map = cache.slot_map(slots);
      for (int64_t i = 0; i < slots; ++i) list.push_back(key.narrow(0, i * kWindows, kWindows));
      const at::Tensor seen = visible_slots(cache.layer(1).key, key.view({slots, kWindows, 128, kDim}), map);
      std::vector<at::Tensor> expected(list.begin(), list.end());
      expect_equal("visible keys", seen, at::cat(expected, 0));
      EXPECT_EQ(seen.scalar_type(), at::kFloat);
      for (const int64_t layer : {0, 1}) cache.store(layer, key, value, mean, slots, kv_chunks);
      cache.advance(slots, kv_chunks);
      if (static_cast<int64_t>(list.size()) > kv_chunks) list.pop_front();
      ASSERT_EQ(cache.held(), static_cast<int64_t>(list.size()));
      expect_equal("held means", visible_slots(cache.layer(0).key_mean, {}, cache.slot_map(0)),
                   at::cat(std::vector<at::Tensor>(list.begin(), list.end()), 0).mean(1));
    }
  }
}

// A first chunk that fills the ring is written where it will stay; nothing else is.
TEST_P(KvCacheStorage, FirstChunkHasItsPlace) {
  const c10::InferenceMode guard;
  KvCache plain(GetParam()), cache(GetParam());
  EXPECT_FALSE(cache.place(0, 3).key.defined());  // no memory yet
  cache.reserve(2, kWindows, kDim, 3, at::TensorOptions().dtype(at::kFloat));
  EXPECT_FALSE(cache.place(0, 1).key.defined());
  for (const int64_t slots : {3, 1, 1}) {
    for (const int64_t layer : {0, 1}) {
      at::Tensor key = short_numbers({slots * kWindows, 128, kDim}), value = -key;
      const at::Tensor mean = key.mean(1);
      plain.store(layer, key, value, mean, slots, 3);
      const KvPlace place = cache.place(layer, slots);
      ASSERT_EQ(place.key.defined(), slots == 3 && GetParam() == CacheStorage::kDevice);
      if (place.key.defined()) {
        key = place.key.copy_(key);
        value = place.value.copy_(value);
      }
      cache.store(layer, key, value, mean, slots, 3);
    }
    plain.advance(slots, 3);
    cache.advance(slots, 3);
    for (const int64_t layer : {0, 1}) {
      expect_equal("key", cache.layer(layer).key, plain.layer(layer).key);
      expect_equal("value", cache.layer(layer).value, plain.layer(layer).value);
      expect_equal("means", cache.layer(layer).key_mean, plain.layer(layer).key_mean);
    }
  }
}

// Memory taken ahead is that of the first store, holds nothing yet and changes no value.
TEST_P(KvCacheStorage, ReservedMemoryIsThatOfTheFirstStore) {
  KvCache plain(GetParam()), reserved(GetParam());
  reserved.reserve(2, kWindows, kDim, 3, at::TensorOptions().dtype(at::kFloat));
  const int64_t taken = reserved.bytes();
  EXPECT_FALSE(reserved.layer(0).key.defined());
  for (const int64_t slots : {3, 1}) {
    for (const int64_t layer : {0, 1}) {
      const at::Tensor key = short_numbers({slots * kWindows, 128, kDim});
      for (KvCache* cache : {&plain, &reserved}) cache->store(layer, key, -key, key.mean(1), slots, 3);
    }
    plain.advance(slots, 3);
    reserved.advance(slots, 3);
    for (const int64_t layer : {0, 1}) {
      const KvRing a = plain.layer(layer), b = reserved.layer(layer);
      expect_equal("keys", a.key, b.key);
      expect_equal("values", a.value, b.value);
      expect_equal("means", a.key_mean, b.key_mean);
    }
  }
  EXPECT_EQ(plain.bytes(), taken);
  EXPECT_EQ(reserved.bytes(), taken);
}

INSTANTIATE_TEST_SUITE_P(All, KvCacheStorage,
                         testing::Values(CacheStorage::kDevice, CacheStorage::kFp8, CacheStorage::kHost,
                                         CacheStorage::kHostFp8));

// 8 bits: each value to a sixteenth of itself, or where it is far smaller than its group's largest to a
// thousandth of that largest's step; about half of bf16's memory; groups of any size, also of zeros.
TEST(KvCache, EightBitsKeepThreeBinaryDigits) {
  for (const CacheStorage storage : {CacheStorage::kFp8, CacheStorage::kHostFp8}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      KvCache cache(storage);
      const auto random = [&] {
        const at::Tensor sizes = at::exp2(at::randint(-12, 13, {2, 128, 2, 1}, at::kFloat));
        return (at::randn({2, 128, 2, 64}) * sizes).flatten(2).to(dtype);
      };
      const at::Tensor key = random(), value = random();
      key[0][0].zero_();
      cache.store(0, key, value, key.mean(1), 1, 3);
      cache.advance(1, 3);
      const KvRing ring = cache.layer(0);
      for (const auto& [exact, seen] : {std::pair(key, ring.key[0]), std::pair(value, ring.value[0])}) {
        EXPECT_EQ(seen.scalar_type(), dtype);
        const at::Tensor groups = exact.to(at::kDouble).unflatten(2, {2, 64}), largest = groups.abs().amax(-1, true);
        const at::Tensor error = (seen.to(at::kDouble).unflatten(2, {2, 64}) - groups).abs();
        EXPECT_TRUE((error <= at::maximum(groups.abs() / 16, largest / 448 * 0x1p-9 + 0x1p-24)).all().item<bool>()) << dtype;
      }
      EXPECT_TRUE((ring.key[0][0][0] == 0).all().item<bool>());
      EXPECT_EQ(cache.bytes(), 3 * 2 * 128 * 2 * (128 + 2 * key.element_size()) + 3 * 2 * 128 * key.element_size());
      EXPECT_TRUE(cache.clone().layer(0).key[0].equal(ring.key[0]));
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
