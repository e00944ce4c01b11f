// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Counts host tensors and their bytes: an allocator before LibTorch's own. It can also run out of memory.
//
//     CountingAllocator& counter = CountingAllocator::get();
//     counter.restart();  ...  EXPECT_LE(counter.peak(), ...);
//
// The peak is counted from what lived at `restart`, requests from there on too.
#ifndef FLASHVSR_TESTS_SUPPORT_COUNTING_ALLOCATOR_H_
#define FLASHVSR_TESTS_SUPPORT_COUNTING_ALLOCATOR_H_

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <new>
#include <unordered_map>
#include <utility>

namespace flashvsr {

class CountingAllocator final : public c10::Allocator {
 public:
  // Installed at the first call, for the rest of the process.
  static CountingAllocator& get() {
    static CountingAllocator* const counter = [] {
      table();  // LibTorch's own allocator is still there
      auto* const made = new CountingAllocator;
      c10::SetCPUAllocator(made, /*priority=*/0);  // as LibTorch's own: the engine's is to come before it
      return made;
    }();
    return *counter;
  }

  void restart() {
    const std::lock_guard<std::mutex> lock(table().mutex);
    table().peak = table().begin = table().live;
    table().requests = 0;
  }
  int64_t peak() const {
    const std::lock_guard<std::mutex> lock(table().mutex);
    return table().peak - table().begin;
  }

  int64_t live() const {
    const std::lock_guard<std::mutex> lock(table().mutex);
    return table().live;
  }
  int64_t requests() const {
    const std::lock_guard<std::mutex> lock(table().mutex);
    return table().requests;
  }
  // More bytes than these at once are refused.
  void set_limit(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(table().mutex);
    table().limit = bytes;
  }

  c10::DataPtr allocate(size_t bytes) override {
    {
      const std::lock_guard<std::mutex> lock(table().mutex);
      if (static_cast<int64_t>(bytes) > table().limit - table().live) throw std::bad_alloc();
    }
    c10::DataPtr data = table().base->allocate(bytes);
    void* const place = data.get();
    const c10::Device device = data.device();
    if (place == nullptr) return data;
    const std::lock_guard<std::mutex> lock(table().mutex);
    table().blocks.emplace(place, Block{std::move(data), static_cast<int64_t>(bytes)});
    table().live += static_cast<int64_t>(bytes);
    table().peak = std::max(table().peak, table().live);
    ++table().requests;
    return {place, place, &release, device};
  }
  // LibTorch's own products take memory by pointer.
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  CountingAllocator() = default;
  struct Block {
    c10::DataPtr data;
    int64_t bytes;
  };
  struct Table {
    c10::Allocator* base = c10::GetCPUAllocator();
    std::mutex mutex;
    std::unordered_map<void*, Block> blocks;
    int64_t live = 0, begin = 0, peak = 0, requests = 0, limit = std::numeric_limits<int64_t>::max();
  };
  static Table& table() {
    static Table* const table = new Table;
    return *table;
  }
  static void release(void* place) {
    c10::DataPtr data;  // freed after the lock
    const std::lock_guard<std::mutex> lock(table().mutex);
    const auto found = table().blocks.find(place);
    if (found == table().blocks.end()) return table().base->raw_deallocate(place);  // older than the counter
    table().live -= found->second.bytes;
    data = std::move(found->second.data);
    table().blocks.erase(found);
  }
};

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_SUPPORT_COUNTING_ALLOCATOR_H_
