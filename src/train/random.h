// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A small stream of random numbers that is a function of (seed, position):
//
//     Random random(seed, iteration);
//
// gives iteration `iteration` the same numbers whether the run came there in one
// piece or was resumed, so a checkpoint needs no generator state beyond the two
// numbers, and the same on every machine (no std:: distribution is used).
//
// Thread-safety: unsafe.
// Source: splitmix64 (Steele, Lea, Flood 2014).
#ifndef FLASHVSR_TRAIN_RANDOM_H_
#define FLASHVSR_TRAIN_RANDOM_H_

#include <cstdint>

namespace flashvsr::train {

class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : state_(mix(mix(seed) ^ (stream * 0x9e3779b97f4a7c15u))) {}

  uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15u); }
  // [0, 1)
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  // 0 .. n-1; n > 0
  int64_t below(int64_t n) { return static_cast<int64_t>(uniform() * static_cast<double>(n)); }
  bool chance(double probability) { return uniform() < probability; }

 private:
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  uint64_t state_;
};

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_RANDOM_H_
