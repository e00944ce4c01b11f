// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Vectors of the instruction set that a file *_isa.cpp is compiled for, in the compiler's own terms.
//
// No std:: and no inline function of other headers in such files: the linker would keep one copy of
// the function for the whole library, perhaps this file's, which other CPUs cannot run. What stands
// here is inlined always.
#ifndef FLASHVSR_KERNELS_CPU_LANES_H_
#define FLASHVSR_KERNELS_CPU_LANES_H_

#include <cstdint>

#define FLASHVSR_INLINE inline __attribute__((always_inline))

namespace flashvsr {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t WordVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * 2)));

template <class V>
FLASHVSR_INLINE V load(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class V>
FLASHVSR_INLINE void store(void* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}

FLASHVSR_INLINE Vec splat(float value) { return value - Vec{}; }

// lanes of words from floats or bf16
FLASHVSR_INLINE WordVec load_floats(const float* from) { return load<WordVec>(from); }
FLASHVSR_INLINE WordVec load_floats(const uint16_t* from) {
  return __builtin_convertvector(load<HalfVec>(from), WordVec) << 16;
}

// To bf16 and back, to nearest even.
FLASHVSR_INLINE Vec rounded_to_bf16(Vec value) {
  const WordVec bits = (WordVec)value;
  const Vec rounded = (Vec)((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
  return value == value ? rounded : value;
}

FLASHVSR_INLINE void store_floats(float* to, Vec value) { store(to, value); }
// To nearest even.
FLASHVSR_INLINE void store_floats(uint16_t* to, Vec value) {
  const WordVec bits = (WordVec)value;
  const WordVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  store(to, __builtin_convertvector(value == value ? rounded : rounded * 0 + 0x7fffu, HalfVec));
}

// 2^x for x <= 127; below -126 as -126; NaN stays NaN.
FLASHVSR_INLINE Vec power_of_two(Vec x) {
  const Vec lowest = splat(-126.f);
  x = lowest > x ? lowest : x;
  const Vec shifter = splat(0x1.8p23f);  // the sum's last bits are round(x)
  const Vec shifted = x + shifter;
  const Vec f = x - (shifted - shifter);  // [-0.5, 0.5]
  // Least relative error of degree 6, exact at 0: 2.6e-9.
  Vec y = splat(1.55946778e-4f);
  y = y * f + 1.34066434e-3f;
  y = y * f + 9.61769279e-3f;
  y = y * f + 5.55031039e-2f;
  y = y * f + 2.40226522e-1f;
  y = y * f + 6.93147242e-1f;
  y = y * f + 1.f;
  return y * (Vec)(((WordVec)shifted - (0x4b400000u - 127u)) << 23);
}

FLASHVSR_INLINE float sum_of_lanes(Vec value) {
  float lane[kLanes];
  store(lane, value);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

}  // namespace
}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_CPU_LANES_H_
