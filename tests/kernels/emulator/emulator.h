// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Runs plain CUDA kernels on the CPU, so that their logic is tested where there is no card: the threads of a block are
// fibers of one thread that take turns at barriers and warp exchanges. translate.py rewrites the launches of a .cu
// file; this header is put in front of it. Kernels with inline assembly are out of reach.
//
// A warp exchange with the full mask that a thread of the warp never reaches, and a block barrier that some threads
// left for good, abort: on a card they would be undefined.
#ifndef FLASHVSR_TESTS_KERNELS_EMULATOR_H_
#define FLASHVSR_TESTS_KERNELS_EMULATOR_H_

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace emulator {

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state = State::kReady;
  uint3 index;
  uint64_t deposit[2] = {};
  unsigned turn = 0;
};

struct Machine {
  std::vector<Thread> threads;
  ucontext_t scheduler;
  Thread* current = nullptr;
  std::function<void()> body;
  std::vector<char> shared;
  dim3 grid, block;
  uint3 block_index;
};

inline Machine& machine() {
  static Machine instance;
  return instance;
}

inline void enter() {
  Machine& m = machine();
  m.body();
  m.current->state = State::kDone;
  swapcontext(&m.current->context, &m.scheduler);
}
inline void wait(State state) {
  Machine& m = machine();
  Thread* me = m.current;
  me->state = state;
  swapcontext(&me->context, &m.scheduler);
}

inline void run_block() {
  Machine& m = machine();
  const size_t count = size_t(m.block.x) * m.block.y * m.block.z;
  if (m.threads.size() < count) m.threads.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Thread& thread = m.threads[i];
    if (!thread.stack) thread.stack.reset(new char[64 << 10]);
    thread.state = State::kReady;
    thread.turn = 0;
    thread.index = make_uint3(unsigned(i % m.block.x), unsigned(i / m.block.x % m.block.y),
                              unsigned(i / m.block.x / m.block.y));
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = 64 << 10;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter, 0);
  }
  for (;;) {
    size_t done = 0, at_block = 0;
    bool moved = false;
    for (size_t i = 0; i < count; ++i) {
      Thread& thread = m.threads[i];
      if (thread.state == State::kReady) {
        m.current = &thread;
        swapcontext(&m.scheduler, &thread.context);
        moved = true;
      }
    }
    for (size_t warp = 0; warp < count; warp += 32) {
      size_t at_warp = 0, size = std::min<size_t>(32, count - warp);
      for (size_t i = warp; i < warp + size; ++i) at_warp += m.threads[i].state == State::kAtWarp;
      if (at_warp == size) {
        for (size_t i = warp; i < warp + size; ++i) m.threads[i].state = State::kReady;
        moved = true;
      }
    }
    for (size_t i = 0; i < count; ++i) {
      done += m.threads[i].state == State::kDone;
      at_block += m.threads[i].state == State::kAtBlock;
    }
    if (done == count) return;
    if (at_block == count) {
      for (size_t i = 0; i < count; ++i) m.threads[i].state = State::kReady;
    } else if (!moved) {
      std::fprintf(stderr, "emulator: threads wait for ever: %zu done, %zu at the block's barrier of %zu\n", done,
                   at_block, count);
      std::abort();
    }
  }
}

template <typename Body>
void launch(dim3 grid, dim3 block, size_t shared, Body body) {
  Machine& m = machine();
  m.grid = grid;
  m.block = block;
  m.body = body;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        m.shared.assign(shared + 16, char(0xff));  // what nobody wrote is a NaN
        m.block_index = make_uint3(x, y, z);
        run_block();
      }
    }
  }
}

template <typename T>
T* dynamic_shared() {
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(machine().shared.data()) + 15) & ~uintptr_t{15});
}

// Deposits, waits for the warp, and says where the others' values are.
template <typename T>
struct Exchange {
  explicit Exchange(T value) {
    Machine& m = machine();
    Thread* me = m.current;
    side = me->turn++ & 1;
    std::memcpy(&me->deposit[side], &value, sizeof value);
    lane = (me - m.threads.data()) & 31;
    first = me - lane;
    wait(State::kAtWarp);
  }
  T of(unsigned other) const {
    T value;
    std::memcpy(&value, &first[other & 31].deposit[side], sizeof value);
    return value;
  }
  unsigned side, lane;
  Thread* first;
};

// kernels/mma.cuh's, in double.
inline void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  // Of four lanes, each before the next exchange takes its place.
  const auto row = [](uint32_t low, uint32_t high, uint64_t (&parts)[4]) {
    const Exchange<uint64_t> e(uint64_t{low} | uint64_t{high} << 32);
    for (unsigned part = 0; part < 4; ++part) parts[part] = e.of((e.lane & ~3u) + part);
  };
  uint64_t rows[2][4];
  row(a0, a2, rows[0]);
  row(a1, a3, rows[1]);
  const Exchange<uint64_t> columns(uint64_t{b0} | uint64_t{b1} << 32);
  const auto value = [](uint64_t four, int i) {
    const uint32_t wide = uint32_t(four >> (16 * i)) << 16;
    float f;
    std::memcpy(&f, &wide, sizeof f);
    return double{f};
  };
  for (unsigned e = 0; e < 4; ++e) {
    double sum = d[e];
    for (unsigned part = 0; part < 4; ++part) {
      const uint64_t column = columns.of((columns.lane % 4 * 2 + e % 2) * 4 + part);
      for (int i = 0; i < 4; ++i) sum += value(rows[e / 2][part], i) * value(column, i);
    }
    d[e] = static_cast<float>(sum);
  }
}

inline cudaError_t no_error() { return cudaSuccess; }

}  // namespace emulator

#define threadIdx (emulator::machine().current->index)
#define blockIdx (emulator::machine().block_index)
#define blockDim (emulator::machine().block)
#define gridDim (emulator::machine().grid)
#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline
#define cudaGetLastError() emulator::no_error()
#define cudaFuncSetAttribute(...) emulator::no_error()

inline void __syncthreads() { emulator::wait(emulator::State::kAtBlock); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  const emulator::Exchange<T> e(value);
  return e.of(e.lane ^ mask);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  const emulator::Exchange<T> e(value);
  return e.lane < delta ? value : e.of(e.lane - delta);
}
template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  const emulator::Exchange<T> e(value);
  return e.of(from);
}
template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
  const emulator::Exchange<T> e(value);
  return e.lane + delta > 31 ? value : e.of(e.lane + delta);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  const emulator::Exchange<int> e(predicate != 0);
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; ++i) votes |= unsigned(e.of(i)) << i;
  return votes;
}
inline int __reduce_add_sync(unsigned, int value) {
  const emulator::Exchange<int> e(value);
  int sum = 0;
  for (unsigned i = 0; i < 32; ++i) sum += e.of(i);
  return sum;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float rsqrtf(float value) { return 1.f / std::sqrt(value); }
inline float __expf(float value) { return std::exp(value); }
using std::sqrt;
using std::log;
using std::max;
using std::min;
using std::cos;

#endif  // FLASHVSR_TESTS_KERNELS_EMULATOR_H_
