// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/block_mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/kernels/block_mask_cases.h"

namespace flashvsr {
namespace {

TEST(BlockMask, KeepsWhatLiesAboveTheThreshold) {
  uint32_t seed = 1;
  for (const BlockMaskCase& c : block_mask_cases()) {
    SCOPED_TRACE(::testing::Message() << c.heads << " heads, " << c.rows << "x" << c.columns << ", topk " << c.topk);
    const BlockMaskInput input = block_mask_input(c, seed++);
    BlockMaskParams p = block_mask_params(c);
    const int windows = c.rows * c.columns, q_blocks = c.q_slots * windows, k_blocks = c.k_slots * windows;
    std::vector<int32_t> row_begin(size_t(c.heads) * (q_blocks + 1)), column(size_t(c.heads) * q_blocks * k_blocks);
    std::vector<float> probability(column.size()), threshold(size_t(c.heads) * c.q_slots), nothing(4);
    p.q_mean = input.q_mean.data();
    for (int i = 0; i < c.k_slots; ++i) p.k_mean[i] = input.k_mean[i].data();
    p.row_begin = row_begin.data();
    p.column = column.data();
    p.workspace = nothing.data();
    ASSERT_EQ(block_mask_ref(p, probability.data(), threshold.data()), 0);
    for (int head = 0; head < c.heads; ++head) {
      for (int slot = 0; slot < c.q_slots; ++slot) {
        const size_t from = (size_t(head) * q_blocks + slot * windows) * k_blocks, flat = size_t(windows) * k_blocks;
        std::vector<float> values(probability.begin() + from, probability.begin() + from + flat);
        std::sort(values.begin(), values.end(), std::greater<float>());
        const size_t topk = std::min<size_t>(flat - 1, c.topk);
        ASSERT_EQ(threshold[head * c.q_slots + slot], values[topk]);
        const size_t above = std::count_if(values.begin(), values.end(), [&](float v) { return v > values[topk]; });
        const size_t row = size_t(head) * (q_blocks + 1) + slot * windows;
        EXPECT_EQ(size_t(row_begin[row + windows] - row_begin[row]), above);
        EXPECT_LE(above, topk);
        if (windows == 1) {
          EXPECT_LE(above, size_t(k_blocks - 1));
        }
        for (int q = 0; q < windows; ++q) {
          const float* p_row = values.data();
          p_row = probability.data() + from + size_t(q) * k_blocks;
          double sum = 0;
          for (int k = 0; k < k_blocks; ++k) sum += p_row[k];
          EXPECT_NEAR(sum, 1.0, 1e-5);
          // The window: a key block too far away has probability 0.
          for (int k = 0; k < k_blocks; ++k) {
            const int dy = k % windows / c.columns - q / c.columns, dx = k % windows % c.columns - q % c.columns;
            const int low = -(c.local_range / 2), high = low + c.local_range - 1;
            if (dy < low || dy > high || dx < low || dx > high) {
              EXPECT_EQ(p_row[k], 0.f);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace flashvsr
