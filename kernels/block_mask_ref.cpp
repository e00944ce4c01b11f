// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/block_mask.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels/bf16.h"

namespace flashvsr {

int check_block_mask(const BlockMaskParams& p) {
  if (!p.q_mean || !p.row_begin || !p.column || !p.workspace) return 1;
  if (p.heads < 1 || p.head_dim < 8 || p.head_dim % 8 || p.head_dim > 128 || p.rows < 1 || p.columns < 1 ||
      p.q_slots < 1 || p.k_slots < 1 || p.k_slots > kBlockMaskSlots || p.local_range < 1 || p.topk < 0) {
    return 1;
  }
  for (int i = 0; i < p.k_slots; ++i) {
    if (!p.k_mean[i] || reinterpret_cast<uintptr_t>(p.k_mean[i]) & 15) return 1;
  }
  if (reinterpret_cast<uintptr_t>(p.q_mean) & 15 || reinterpret_cast<uintptr_t>(p.workspace) & 15) return 1;
  const double windows = double(p.rows) * p.columns;
  if (windows * p.k_slots > 6144) return 1;
  if (windows * windows * p.k_slots * p.q_slots * p.heads >= 2147483648.0) return 1;
  return 0;
}

int block_mask_ref(const BlockMaskParams& p, float* probability, float* threshold) {
  if (check_block_mask(p)) return 1;
  const int windows = p.rows * p.columns, q_blocks = p.q_slots * windows, k_blocks = p.k_slots * windows;
  const int dim = p.heads * p.head_dim;
  const auto inside = [&](int from, int to) {
    const int offset = to - (from - p.local_range / 2);
    return offset >= 0 && offset < p.local_range;
  };
  std::vector<float> prob(size_t(windows) * k_blocks), sorted;
  for (int head = 0; head < p.heads; ++head) {
    int32_t nnz = head * q_blocks * k_blocks;
    p.row_begin[head * (q_blocks + 1)] = nnz;
    for (int slot = 0; slot < p.q_slots; ++slot) {
      for (int q = 0; q < windows; ++q) {
        const uint16_t* query = p.q_mean + int64_t{slot * windows + q} * dim + head * p.head_dim;
        float* row = prob.data() + size_t(q) * k_blocks;
        std::vector<double> score(k_blocks);
        double top = -INFINITY;
        for (int k = 0; k < k_blocks; ++k) {
          const int w = k % windows;
          if (!inside(q / p.columns, w / p.columns) || !inside(q % p.columns, w % p.columns)) {
            score[k] = -INFINITY;
            continue;
          }
          const uint16_t* key = p.k_mean[k / windows] + int64_t{w} * dim + head * p.head_dim;
          double dot = 0;
          for (int c = 0; c < p.head_dim; ++c) dot += double{bf16_to_float(query[c])} * bf16_to_float(key[c]);
          const float root = static_cast<float>(std::sqrt(static_cast<double>(p.head_dim)));
          score[k] = round_to_bf16(round_to_bf16(dot) / root);
          top = std::max(top, score[k]);
        }
        double sum = 0;
        for (int k = 0; k < k_blocks; ++k) sum += std::exp(score[k] - top);
        for (int k = 0; k < k_blocks; ++k) row[k] = static_cast<float>(std::exp(score[k] - top) / sum);
      }
      sorted = prob;
      const int64_t kept = std::min<int64_t>(int64_t(prob.size()) - 1, p.topk);
      std::nth_element(sorted.begin(), sorted.begin() + kept, sorted.end(), std::greater<float>());
      const float limit = sorted[kept];
      if (threshold) threshold[head * p.q_slots + slot] = limit;
      if (probability) {
        std::copy(prob.begin(), prob.end(), probability + (size_t(head) * q_blocks + slot * windows) * k_blocks);
      }
      for (int q = 0; q < windows; ++q) {
        for (int k = 0; k < k_blocks; ++k) {
          if (prob[size_t(q) * k_blocks + k] > limit) p.column[nnz++] = k;
        }
        p.row_begin[head * (q_blocks + 1) + slot * windows + q + 1] = nnz;
      }
    }
  }
  return 0;
}

}  // namespace flashvsr
