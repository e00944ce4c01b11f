// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Inputs that the block mask's tests share.
#ifndef FLASHVSR_TESTS_KERNELS_BLOCK_MASK_CASES_H_
#define FLASHVSR_TESTS_KERNELS_BLOCK_MASK_CASES_H_

#include <random>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/block_mask.h"

namespace flashvsr {

struct BlockMaskCase {
  int heads, head_dim, rows, columns, q_slots, k_slots, local_range;
  int64_t topk;
};

inline const std::vector<BlockMaskCase>& block_mask_cases() {
  static const std::vector<BlockMaskCase> cases = {
      {2, 64, 1, 1, 1, 4, 11, 119},        // one window: loses exactly one block
      {1, 128, 1, 1, 3, 3, 11, 119},       //
      {3, 64, 2, 3, 1, 2, 11, 0},          // topk 0 keeps nothing
      {3, 64, 3, 4, 1, 4, 3, 140},         // window cuts
      {2, 128, 4, 4, 3, 3, 2, 100000},     // even range, more wanted than there are
      {12, 128, 6, 11, 1, 4, 11, 7919},    // 768x1408, steady
      {12, 128, 6, 11, 3, 3, 9, 7919},     // 768x1408, first chunk
      {2, 128, 15, 16, 1, 4, 11, 28799},   // several blocks count one slot
      {3, 128, 17, 30, 1, 4, 11, 60000},   // 3840x2176, steady
      {1, 40, 7, 5, 2, 3, 4, 300},         // head_dim no multiple of a product's 32 channels
      {1, 8, 9, 33, 1, 9, 40, 200000},     // 8 rows of scores fit
      {1, 8, 1, 260, 1, 16, 600, 700000},  // 4 of them
  };
  return cases;
}

struct BlockMaskInput {
  std::vector<uint16_t> q_mean;
  std::vector<std::vector<uint16_t>> k_mean;
};

// Means on a coarse grid, so that dot products are exact in fp32 and many scores tie.
inline BlockMaskInput block_mask_input(const BlockMaskCase& c, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> numbers(-16, 16);
  const size_t slot = size_t(c.rows) * c.columns * c.heads * c.head_dim;
  const auto fill = [&](size_t count) {
    std::vector<uint16_t> values(count);
    for (uint16_t& value : values) value = float_to_bf16(static_cast<float>(numbers(engine)) / 16.f);
    return values;
  };
  BlockMaskInput input;
  input.q_mean = fill(slot * c.q_slots);
  for (int i = 0; i < c.k_slots; ++i) input.k_mean.push_back(fill(slot));
  return input;
}

inline BlockMaskParams block_mask_params(const BlockMaskCase& c) {
  BlockMaskParams p;
  p.heads = c.heads;
  p.head_dim = c.head_dim;
  p.rows = c.rows;
  p.columns = c.columns;
  p.q_slots = c.q_slots;
  p.k_slots = c.k_slots;
  p.local_range = c.local_range;
  p.topk = c.topk;
  return p;
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_KERNELS_BLOCK_MASK_CASES_H_
