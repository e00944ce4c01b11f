// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One standard normal value per counter: Philox4x32-10 and Box-Muller in double. Every value
// depends on its own coordinates only, so that chunking, batch and device do not matter.
//
// Thread-safety: safe (pure functions).
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
#ifndef FLASHVSR_MODEL_PHILOX_H_
#define FLASHVSR_MODEL_PHILOX_H_

#include <array>
#include <cmath>
#include <cstdint>

namespace flashvsr {

inline std::array<uint32_t, 4> philox4x32_10(uint64_t seed, std::array<uint32_t, 4> counter) {
  std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

inline float philox_normal(uint64_t seed, const std::array<uint32_t, 4>& counter) {
  const auto words = philox4x32_10(seed, counter);
  // (0, 1]: the logarithm stays finite.
  const double u = (words[0] + 1.0) * 0x1p-32, v = words[1] * 0x1p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
}

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_PHILOX_H_
