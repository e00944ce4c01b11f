// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/block_mask.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace flashvsr {

int64_t block_topk(const BlockGrid& grid, double sparse_ratio, int64_t blocks_per_query) {
  const double pixels = static_cast<double>(grid.rows * 128) * static_cast<double>(grid.columns * 128);
  // 60 blocks are 768x1280 output pixels; the factors are multiplied as the reference does.
  const double budget_height = 768.0;
  const double budget_width = 1280.0 * static_cast<double>(blocks_per_query) / 60.0;
  const double topk_ratio = ((sparse_ratio * budget_height) * budget_width) / pixels;
  const double windows = static_cast<double>(grid.windows());
  return static_cast<int64_t>((windows * windows) * topk_ratio) - 1;
}

at::Tensor local_window_mask(const BlockGrid& grid, int64_t local_range, c10::Device device) {
  const auto axis = [&](int64_t count) {
    const at::Tensor index = at::arange(count, at::TensorOptions().dtype(at::kLong).device(device));
    const at::Tensor from = index.unsqueeze(1) - local_range / 2;
    const at::Tensor offset = index.unsqueeze(0) - from;
    return at::logical_and(offset >= 0, offset < local_range);
  };
  const at::Tensor rows = axis(grid.rows), columns = axis(grid.columns);
  return at::logical_and(rows.view({grid.rows, 1, grid.rows, 1}),
                         columns.view({1, grid.columns, 1, grid.columns}))
      .reshape({grid.windows(), grid.windows()});
}

at::Tensor block_mask_from_means(const at::Tensor& q_mean, const at::Tensor& k_mean, int64_t heads,
                                 const BlockGrid& grid, int64_t local_range, int64_t topk,
                                 BlockMaskTrace* trace) {
  const int64_t windows = grid.windows();
  const int64_t q_blocks = q_mean.size(0), k_blocks = k_mean.size(0);
  FLASHVSR_CHECK(windows > 0 && q_blocks % windows == 0 && k_blocks % windows == 0,
                 ErrorCode::kInternal, "block_mask: ", q_blocks, " query and ", k_blocks,
                 " key blocks are no multiples of ", windows, " windows");
  FLASHVSR_CHECK(topk >= 0, ErrorCode::kInvalidArgument,
                 "sparse-ratio keeps no block at all at this size: top-k is ", topk);
  const int64_t q_slots = q_blocks / windows, k_slots = k_blocks / windows;
  const int64_t head_dim = q_mean.size(1) / heads;
  const at::Tensor q = q_mean.view({q_blocks, heads, head_dim}).transpose(0, 1);
  const at::Tensor k = k_mean.view({k_blocks, heads, head_dim}).permute({1, 2, 0});
  at::Tensor scores = at::bmm(q, k) / std::sqrt(static_cast<double>(head_dim));

  const at::Tensor allowed = local_window_mask(grid, local_range, q.device()).repeat({q_slots, k_slots});
  scores = scores.to(at::kFloat).masked_fill(at::logical_not(allowed),
                                             -std::numeric_limits<float>::infinity());
  const at::Tensor prob = at::softmax(scores, 2);

  const at::Tensor flat = prob.view({heads, q_slots, windows * k_blocks});
  const int64_t pairs = flat.size(2);
  const int64_t kept = std::min(pairs - 1, topk);
  // The (kept+1)-th largest is the (pairs-kept)-th smallest.
  const at::Tensor threshold = std::get<0>(at::kthvalue(flat, pairs - kept, 2, /*keepdim=*/true));
  if (trace != nullptr) *trace = {scores, prob, threshold.squeeze(2)};
  return (flat > threshold).view({heads, q_blocks, k_blocks});
}

BlockPairs mask_to_pairs(const at::Tensor& mask) {
  const int64_t heads = mask.size(0), rows = mask.size(1);
  const at::Tensor counts = mask.sum(2, /*keepdim=*/false, at::kLong).view({-1});
  const at::Tensor ends = at::cumsum(counts, 0);
  at::Tensor begin = at::zeros({heads, rows + 1}, ends.options());
  begin.narrow(1, 1, rows).copy_(ends.view({heads, rows}));
  begin.select(1, 0).narrow(0, 1, heads - 1).copy_(ends.view({heads, rows}).select(1, rows - 1).narrow(0, 0, heads - 1));
  return {begin.to(at::kInt), at::nonzero(mask).select(1, 2).to(at::kInt).contiguous()};
}

at::Tensor pairs_to_mask(const BlockPairs& pairs, int64_t key_blocks) {
  const at::Tensor begin = pairs.row_begin.cpu(), column = pairs.column.cpu();
  const int64_t heads = begin.size(0), rows = begin.size(1) - 1;
  at::Tensor mask = at::zeros({heads, rows, key_blocks}, at::kBool);
  const auto b = begin.accessor<int32_t, 2>();
  const auto c = column.accessor<int32_t, 1>();
  auto m = mask.accessor<bool, 3>();
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int32_t i = b[head][row]; i < b[head][row + 1]; ++i) m[head][row][c[i]] = true;
    }
  }
  return mask;
}

}  // namespace flashvsr
