// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A block-sparse attention problem in host memory, drawn from a seed, with everything the contract
// allows: a turned ring, gaps in `column`, rows without keys, rows with all of them.
#ifndef FLASHVSR_TESTS_KERNELS_ATTENTION_PROBLEM_H_
#define FLASHVSR_TESTS_KERNELS_ATTENTION_PROBLEM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/block_sparse_attention.h"

namespace flashvsr {

inline float bf16_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

inline uint16_t float_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

struct AttentionShape {
  int heads, head_dim;
  int windows_down, windows_across;
  int query_slots;
  int ring_slots, current_slots;
  double density;        // of kept pairs; 0: every row empty, 1: every row full
  float amplitude = 1.f; // of q and k
  bool raster = false;
  bool shared = false;   // every row lists the same blocks, and row_begin is null
};

struct AttentionProblem {
  std::vector<uint16_t> query, key_ring, value_ring, key_current, value_current, output;
  std::vector<int32_t> slot_map, row_begin, column;
  std::vector<std::vector<char>> kept;  // [head * q_blocks + q][logical key block]
  BlockSparseAttentionParams params;    // host pointers

  AttentionProblem(const AttentionShape& shape, unsigned seed) {
    std::mt19937 random(seed);
    const int windows = shape.windows_down * shape.windows_across;
    const int pitch = shape.heads * shape.head_dim;
    const int q_blocks = shape.query_slots * windows;
    const int slots = shape.ring_slots + shape.current_slots;
    const int k_blocks = slots * windows;
    const auto fill = [&](std::vector<uint16_t>& values, int blocks, float amplitude) {
      std::normal_distribution<float> gauss(0.f, amplitude);
      values.resize(static_cast<size_t>(blocks) * kAttentionBlock * pitch);
      for (uint16_t& value : values) {
        value = float_to_bf16(gauss(random));
      }
    };
    fill(query, q_blocks, shape.amplitude);
    fill(key_ring, shape.ring_slots * windows, shape.amplitude);
    fill(value_ring, shape.ring_slots * windows, 1.f);
    fill(key_current, shape.current_slots * windows, shape.amplitude);
    fill(value_current, shape.current_slots * windows, 1.f);
    output.assign(query.size(), 0xffff);

    for (int s = 0; s < shape.ring_slots; ++s) {
      slot_map.push_back(s);
    }
    std::shuffle(slot_map.begin(), slot_map.end(), random);
    for (int s = 0; s < shape.current_slots; ++s) {
      slot_map.push_back(-1 - s);
    }

    std::uniform_real_distribution<double> uniform;
    for (int head = 0; head < shape.heads; ++head) {
      for (int q = 0; q < q_blocks; ++q) {
        row_begin.push_back(static_cast<int32_t>(column.size()));
        // Rows differ much in length, as in the model; some are empty.
        const double row_density =
            shape.density <= 0 || shape.density >= 1
                ? shape.density
                : (uniform(random) < 0.15 ? 0 : shape.density * 2 * uniform(random));
        std::vector<char> row(k_blocks, 0);
        if (shape.shared && !kept.empty()) {
          kept.push_back(kept.front());
          continue;
        }
        for (int k = 0; k < k_blocks; ++k) {
          if (uniform(random) < row_density) {
            row[k] = 1;
            column.push_back(k);
          }
        }
        kept.push_back(row);
      }
      row_begin.push_back(static_cast<int32_t>(column.size()));
      for (int gap = 0; gap < head % 3; ++gap) {
        column.push_back(-1);
      }
    }
    column.push_back(-1);

    params.query = query.data();
    params.key_ring = shape.ring_slots > 0 ? key_ring.data() : nullptr;
    params.value_ring = shape.ring_slots > 0 ? value_ring.data() : nullptr;
    params.key_current = shape.current_slots > 0 ? key_current.data() : nullptr;
    params.value_current = shape.current_slots > 0 ? value_current.data() : nullptr;
    params.slot_map = slot_map.data();
    params.row_begin = shape.shared ? nullptr : row_begin.data();
    params.shared_columns = shape.shared ? row_begin[1] : 0;
    params.column = column.data();
    params.output = output.data();
    params.heads = shape.heads;
    params.head_dim = shape.head_dim;
    params.q_blocks = q_blocks;
    params.windows = windows;
    params.ring_slots = shape.ring_slots;
    params.current_slots = shape.current_slots;
    params.slots = slots;
    params.softmax_scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim));
    params.raster_output = shape.raster;
    params.frames = shape.query_slots * 2;
    params.height = shape.windows_down * 8;
    params.width = shape.windows_across * 8;
  }
};

// Shapes that have broken such kernels before: one block, one head, odd counts, one slot only on
// either side, empty and full rows, scores that saturate the softmax (amplitude 8: they deviate by
// 64, so a quarter of the later blocks exceed the first one's range and the reference is raised).
inline const std::vector<AttentionShape>& awkward_attention_shapes() {
  static const std::vector<AttentionShape> shapes = {
      {1, 128, 1, 1, 1, 0, 1, 1.0},          {1, 64, 1, 1, 1, 0, 1, 1.0},
      {2, 128, 1, 1, 1, 1, 0, 1.0},          {2, 128, 1, 2, 1, 1, 1, 0.0},
      {3, 64, 1, 3, 1, 3, 1, 0.4},           {3, 128, 1, 3, 1, 3, 1, 0.4},
      {1, 128, 2, 2, 1, 3, 1, 1.0},          {2, 64, 1, 2, 3, 0, 3, 0.6},
      {5, 128, 1, 2, 3, 0, 3, 0.5, 1.f, true}, {3, 64, 2, 3, 1, 1, 1, 0.3, 1.f, true},
      {2, 128, 1, 2, 1, 2, 1, 0.5, 8.f},     {2, 64, 1, 2, 1, 2, 1, 0.5, 0.01f},
      {2, 128, 3, 1, 1, 3, 1, 0.08},         {2, 128, 1, 4, 5, 0, 1, 1.0, 1.f, false, true},
      {3, 64, 1, 3, 2, 1, 1, 1.0, 1.f, false, true}, {1, 128, 1, 1, 3, 0, 1, 1.0, 1.f, true, true},
  };
  return shapes;
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_KERNELS_ATTENTION_PROBLEM_H_
