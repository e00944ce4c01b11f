// SPDX-License-Identifier: LGPL-2.1-or-later
//
// bf16 on the host, stored as its 16 bits: conversion to float is exact, back rounds to nearest even.
// For plain twins and tests. Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_BF16_H_
#define FLASHVSR_KERNELS_BF16_H_

#include <cmath>
#include <cstdint>
#include <cstring>

namespace flashvsr {

inline float bf16_to_float(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

inline uint16_t float_to_bf16(float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  if (value != value) return static_cast<uint16_t>((wide >> 16) | 0x40u);
  return static_cast<uint16_t>((wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16);
}

// Through float, rounding to odd first so that the second rounding is exact.
inline float round_to_bf16(double value) {
  float narrow = static_cast<float>(value);
  if (std::isfinite(value) && static_cast<double>(narrow) != value) {
    uint32_t bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    const bool away = std::fabs(static_cast<double>(narrow)) > std::fabs(value);
    if (away) --bits;  // towards zero
    bits |= 1u;
    std::memcpy(&narrow, &bits, sizeof narrow);
  }
  return bf16_to_float(float_to_bf16(narrow));
}

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_BF16_H_
