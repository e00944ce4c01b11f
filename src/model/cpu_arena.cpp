// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/cpu_arena.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <exception>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/log.h"

namespace flashvsr {
namespace {

// Class 0 is 512 bytes; then eight to each doubling.
constexpr size_t kLeastBits = 9, kMostBits = 40, kClasses = 8 * (kMostBits - kLeastBits) + 1;
// Larger classes whose blocks serve too.
constexpr size_t kTolerated = 2;

size_t class_of(size_t bytes) {
  if (bytes <= size_t{1} << kLeastBits) return 0;
  const size_t last = bytes - 1, bits = 63 - static_cast<size_t>(__builtin_clzll(last));
  return 8 * (bits - kLeastBits) + (last >> (bits - 3)) - 7;
}

size_t bytes_of(size_t size_class) {
  if (size_class == 0) return size_t{1} << kLeastBits;
  const size_t step = size_class - 1;
  return (9 + step % 8) << (kLeastBits + step / 8 - 3);
}

// From here on a block asks for huge pages: convolutions walk through all of it.
constexpr size_t kHugeBytes = size_t{4} << 20;

void ask_for_huge_pages(void* block, size_t bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(block) + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: kernels without them refuse
}

// Runs that this thread is inside.
thread_local int runs_here = 0;

class Cache final : public c10::Allocator {
 public:
  // Outlives every tensor.
  static Cache& get() {
    static Cache* const cache = new Cache;
    return *cache;
  }

  void open() {
    std::call_once(installed_, [this] {
      before_ = c10::GetCPUAllocator();
      if (before_->raw_deleter() != nullptr) c10::SetCPUAllocator(this, /*priority=*/0);
      if (c10::GetCPUAllocator() != this) {
        log(LogLevel::kInfo, "CPU memory: this process has an allocator of its own; nothing is cached");
      }
    });
    const std::lock_guard<std::mutex> lock(mutex_);
    ++users_;
  }

  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    --users_;
    give_back(run_);
  }

  void give_back_unused() {
    const std::lock_guard<std::mutex> lock(mutex_);
    give_back(run_);
  }

  void end_run() {
    CpuArena::Held changed;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++run_;
      give_back(run_ - CpuArena::kKeptRuns - 1);
      if (held_.bytes == logged_bytes_) return;
      logged_bytes_ = held_.bytes;
      changed = held_;
    }
    log(LogLevel::kDebug, "CPU memory: ", changed.bytes, " bytes in ", changed.blocks, " blocks, ", changed.unused_bytes,
        " bytes unused");
  }

  CpuArena::Held held() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return held_;
  }

  c10::DataPtr allocate(size_t bytes) override {
    if (runs_here == 0 || bytes == 0 || bytes > size_t{1} << kMostBits) return before_->allocate(bytes);
    const size_t size_class = class_of(bytes);
    void* block = take_unused(size_class);
    if (block == nullptr) block = make_block(size_class);
    return {block, block, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { before_->copy_data(to, from, bytes); }

 private:
  struct Unused {
    void* block;
    int64_t run;  // in which it came back
  };
  struct SizeClass {
    std::vector<Unused> unused;  // the latest last: those in front are not wanted
    size_t blocks = 0;
  };

  Cache() = default;

  static void release(void* place) {
    Cache& cache = get();
    if (!cache.keep(place)) cache.before_->raw_deallocate(place);
  }

  void* take_unused(size_t size_class) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (size_t c = size_class; c < kClasses && c <= size_class + kTolerated; ++c) {
      if (classes_[c].unused.empty()) continue;
      void* const block = classes_[c].unused.back().block;
      classes_[c].unused.pop_back();
      held_.unused_bytes -= bytes_of(c);
      return block;
    }
    return nullptr;
  }

  void* make_block(size_t size_class) {
    const size_t bytes = bytes_of(size_class);
    void* block = nullptr;
    try {
      block = before_->raw_allocate(bytes);
    } catch (const std::exception&) {
      give_back_unused();
      block = before_->raw_allocate(bytes);
    }
    if (bytes >= kHugeBytes) ask_for_huge_pages(block, bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    SizeClass& made = classes_[size_class];
    try {
      made.unused.reserve(made.blocks + 1);  // so that a block can always come back
      class_of_block_.emplace(block, size_class);
    } catch (...) {
      before_->raw_deallocate(block);
      throw;
    }
    ++made.blocks;
    ++held_.blocks;
    held_.bytes += bytes;
    return block;
  }

  // False: it is the former allocator's to free.
  bool keep(void* place) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = class_of_block_.find(place);
    if (found == class_of_block_.end()) return false;
    const size_t size_class = found->second;
    if (users_ == 0) {
      forget(found);
      return false;
    }
    classes_[size_class].unused.push_back({place, run_});
    held_.unused_bytes += bytes_of(size_class);
    return true;
  }

  using BlockEntry = std::unordered_map<void*, size_t>::iterator;
  void forget(BlockEntry entry) {
    --classes_[entry->second].blocks;
    --held_.blocks;
    held_.bytes -= bytes_of(entry->second);
    class_of_block_.erase(entry);
  }

  // What is unused since `run` or longer. Under the mutex.
  void give_back(int64_t run) {
    for (size_t c = 0; c < kClasses; ++c) {
      std::vector<Unused>& unused = classes_[c].unused;
      auto end = unused.begin();
      for (; end != unused.end() && end->run <= run; ++end) {
        forget(class_of_block_.find(end->block));
        held_.unused_bytes -= bytes_of(c);
        before_->raw_deallocate(end->block);
      }
      unused.erase(unused.begin(), end);
    }
  }

  std::once_flag installed_;
  c10::Allocator* before_ = nullptr;
  std::mutex mutex_;  // all below
  int64_t users_ = 0, run_ = 0;
  std::array<SizeClass, kClasses> classes_;
  std::unordered_map<void*, size_t> class_of_block_;
  CpuArena::Held held_;
  size_t logged_bytes_ = 0;
};

}  // namespace

CpuArena::CpuArena(c10::Device device) : is_active_(device.is_cpu()) {
  if (is_active_) Cache::get().open();
}

CpuArena::~CpuArena() {
  if (is_active_) Cache::get().close();
}

CpuArena::Run::Run(const CpuArena& arena, bool is_first) : is_active_(arena.is_active_ && !is_first) {
  if (is_active_) ++runs_here;
  else if (arena.is_active_) Cache::get().give_back_unused();
}

CpuArena::Run::~Run() {
  if (is_active_ && --runs_here == 0) Cache::get().end_run();
}

CpuArena::Held CpuArena::held() { return Cache::get().held(); }

}  // namespace flashvsr
