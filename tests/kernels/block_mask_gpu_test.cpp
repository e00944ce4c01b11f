// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "tests/kernels/block_mask_cases.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

TEST(BlockMaskGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  uint32_t seed = 1;
  for (BlockMaskCase c : block_mask_cases()) {
#ifdef FLASHVSR_EMULATED
    if (c.heads > 2) c.heads = 1;  // fibers are slow
#endif
    SCOPED_TRACE(::testing::Message() << c.heads << " heads, " << c.rows << "x" << c.columns << ", slots " << c.q_slots
                                      << "/" << c.k_slots << ", topk " << c.topk);
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

    Buffer<uint16_t> d_q(input.q_mean);
    std::vector<std::unique_ptr<Buffer<uint16_t>>> d_k;
    for (int i = 0; i < c.k_slots; ++i) {
      d_k.push_back(std::make_unique<Buffer<uint16_t>>(input.k_mean[i]));
      p.k_mean[i] = d_k.back()->get();
    }
    Buffer<int32_t> d_begin(row_begin.size()), d_column(column.size());
    Buffer<uint8_t> workspace(block_mask_workspace_bytes(p));
    p.q_mean = d_q.get();
    p.row_begin = d_begin.get();
    p.column = d_column.get();
    p.workspace = workspace.get();
    ASSERT_EQ(launch_block_mask(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const auto begin = d_begin.download(), columns = d_column.download();
    // Once more over what is poisoned again: the same bits.
    d_begin.poison();
    d_column.poison();
    workspace.poison();
    ASSERT_EQ(launch_block_mask(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(d_begin.download(), begin);
    ASSERT_EQ(d_column.download(), columns);
    size_t strayed = 0, kept = 0, near = 0;
    for (int head = 0; head < c.heads; ++head) {
      ASSERT_EQ(begin[size_t(head) * (q_blocks + 1)], head * q_blocks * k_blocks);
      for (int q = 0; q < q_blocks; ++q) {
        const size_t row = size_t(head) * (q_blocks + 1) + q;
        ASSERT_LE(begin[row], begin[row + 1]);
        ASSERT_LE(begin[row + 1], (head + 1) * q_blocks * k_blocks);
        std::vector<bool> mine(k_blocks), twin(k_blocks);
        for (int i = begin[row]; i < begin[row + 1]; ++i) {
          ASSERT_TRUE(columns[i] >= 0 && columns[i] < k_blocks && (i == begin[row] || columns[i] > columns[i - 1]));
          mine[columns[i]] = true;
        }
        for (int i = row_begin[row]; i < row_begin[row + 1]; ++i) twin[column[i]] = true;
        const double limit = threshold[head * c.q_slots + q / windows];
        for (int k = 0; k < k_blocks; ++k) {
          kept += twin[k];
          if (mine[k] == twin[k]) continue;
          const double value = probability[(size_t(head) * q_blocks + q) * k_blocks + k];
          ++(std::fabs(value - limit) <= 2e-6 * limit ? near : strayed);
        }
      }
    }
    EXPECT_EQ(strayed, 0u) << near << " near the threshold, " << kept << " kept";
    if (c.topk == 0) {
      EXPECT_EQ(kept, 0u);
    }
    EXPECT_TRUE(d_begin.guard_is_intact() && d_column.guard_is_intact() && workspace.guard_is_intact());
  }
}

}  // namespace
}  // namespace flashvsr
