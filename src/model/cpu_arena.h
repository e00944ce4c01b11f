// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Host memory that chunks of a model use again: LibTorch takes and returns every result, and the C library gives large
// ones back to the system, so that each chunk would fault in anew what the one before had. One cache for the process,
// between LibTorch and the allocator that was there before:
//
//     const CpuArena arena(device);     // while chunks may come: a session's member
//     const CpuArena::Run run(arena, is_first_chunk);   // around one chunk, on its thread
//
// Inside a Run, what its thread allocates through LibTorch is a block of the cache, and comes back to it when the tensor
// dies: on whatever thread, during the run or later. Everybody else (a host application, LibTorch's own workers) gets
// what the allocator before gives, with that one's deleter; memory taken by pointer (raw_allocate) may be returned by
// pointer whoever gave it.
//
// Blocks are the former allocator's memory: 512 bytes, or at most an eighth longer than what they were made for. A
// request takes one that is unused and less than half again as long as wanted; else one is made.
// A block that nobody wanted in kKeptRuns runs is given back, every unused one when a CpuArena closes, and what a tensor
// still has when the last one closed, as that tensor dies. When memory runs out, unused blocks are given back and it is
// tried again. What is held is logged (debug) after a run that changed it.
//
// A stream's first chunk is the largest, and of sizes of its own: with blocks kept for each of them it would take nearly
// twice the memory. Nothing is cached in it, and nothing unused is held beside it.
//
// The first CpuArena of a CPU installs the allocator for the rest of the process (LibTorch has no lock there), with
// the lowest priority. Where a host's own has a higher one, that stays and nothing is cached. The library must not be
// unloaded then (-z nodelete).
// Thread-safety: safe.
#ifndef FLASHVSR_MODEL_CPU_ARENA_H_
#define FLASHVSR_MODEL_CPU_ARENA_H_

#include <c10/core/Device.h>

#include <cstddef>

namespace flashvsr {

class CpuArena {
 public:
  static constexpr int kKeptRuns = 8;

  // Does nothing on another device than the CPU, nor do its runs.
  explicit CpuArena(c10::Device device);
  ~CpuArena();
  CpuArena(const CpuArena&) = delete;
  CpuArena& operator=(const CpuArena&) = delete;

  class Run {
   public:
    explicit Run(const CpuArena& arena, bool is_first = false);
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

   private:
    const bool is_active_;
  };

  struct Held {
    size_t blocks = 0, bytes = 0;  // in tensors and unused
    size_t unused_bytes = 0;
  };
  static Held held();

 private:
  const bool is_active_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_CPU_ARENA_H_
