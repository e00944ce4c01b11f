// SPDX-License-Identifier: LGPL-2.1-or-later
// The plain twin against a dense evaluation that shares nothing with it: keys and values are first
// put into logical order, then all scores are computed and masked.
#include "kernels/block_sparse_attention.h"

#include <gtest/gtest.h>

#include "tests/kernels/attention_problem.h"

namespace flashvsr {
namespace {

// [tokens][pitch] in the order of logical slots.
std::vector<float> in_logical_order(const AttentionProblem& problem,
                                    const std::vector<uint16_t>& ring,
                                    const std::vector<uint16_t>& current) {
  const size_t slot = static_cast<size_t>(problem.params.windows) * kAttentionBlock *
                      problem.params.heads * problem.params.head_dim;
  std::vector<float> values;
  for (const int32_t place : problem.slot_map) {
    const std::vector<uint16_t>& side = place >= 0 ? ring : current;
    const size_t first = slot * (place >= 0 ? place : -1 - place);
    for (size_t i = 0; i < slot; ++i) {
      values.push_back(bf16_to_float(side.at(first + i)));
    }
  }
  return values;
}

// Dense: every score, masked to -infinity, softmax in long double.
std::vector<double> dense(const AttentionProblem& problem) {
  const BlockSparseAttentionParams& params = problem.params;
  const std::vector<float> key = in_logical_order(problem, problem.key_ring, problem.key_current);
  const std::vector<float> value =
      in_logical_order(problem, problem.value_ring, problem.value_current);
  const size_t pitch = params.heads * params.head_dim;
  const size_t keys = key.size() / pitch;
  std::vector<double> result(problem.query.size(), 0.0);
  std::vector<long double> weight(keys);
  for (int token = 0; token < params.q_blocks * kAttentionBlock; ++token) {
    for (int head = 0; head < params.heads; ++head) {
      const std::vector<char>& kept = problem.kept[head * params.q_blocks + token / kAttentionBlock];
      const size_t column = static_cast<size_t>(head) * params.head_dim;
      long double largest = -1e30L;
      for (size_t k = 0; k < keys; ++k) {
        long double dot = 0;
        for (int c = 0; c < params.head_dim; ++c) {
          dot += static_cast<long double>(bf16_to_float(problem.query[token * pitch + column + c])) *
                 key[k * pitch + column + c];
        }
        weight[k] = kept[k / kAttentionBlock] ? dot * params.softmax_scale : -1e30L;
        largest = std::max(largest, weight[k]);
      }
      if (largest == -1e30L) {
        continue;
      }
      long double total = 0;
      for (long double& w : weight) {
        w = w == -1e30L ? 0 : std::exp(w - largest);
        total += w;
      }
      for (int c = 0; c < params.head_dim; ++c) {
        long double sum = 0;
        for (size_t k = 0; k < keys; ++k) {
          sum += weight[k] * value[k * pitch + column + c];
        }
        result[token * pitch + column + c] = static_cast<double>(sum / total);
      }
    }
  }
  return result;
}

// Raster index of each token in window order, by walking the picture.
std::vector<int> raster_of_window_order(int frames, int height, int width) {
  std::vector<int> raster(static_cast<size_t>(frames) * height * width, -1);
  int index = 0;
  for (int t = 0; t < frames; ++t) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x, ++index) {
        const int window = ((t / 2) * (height / 8) + y / 8) * (width / 8) + x / 8;
        const int inside = ((t % 2) * 8 + y % 8) * 8 + x % 8;
        raster[window * kAttentionBlock + inside] = index;
      }
    }
  }
  return raster;
}

TEST(BlockSparseAttention, TwinEqualsDenseEvaluationWithinOneRounding) {
  unsigned seed = 20261123;
  for (const AttentionShape& shape : awkward_attention_shapes()) {
    AttentionProblem problem(shape, ++seed);
    SCOPED_TRACE(testing::Message() << "seed " << seed << " heads " << shape.heads << " dim "
                                    << shape.head_dim << " density " << shape.density);
    ASSERT_EQ(block_sparse_attention_ref(problem.params), 0);
    const std::vector<double> expected = dense(problem);
    const size_t pitch = shape.heads * shape.head_dim;
    std::vector<int> raster;
    if (shape.raster) {
      raster = raster_of_window_order(problem.params.frames, problem.params.height,
                                      problem.params.width);
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      const size_t token = shape.raster ? raster.at(i / pitch) : i / pitch;
      const double got = bf16_to_float(problem.output[token * pitch + i % pitch]);
      // Half a bf16 ulp of the value.
      ASSERT_TRUE(std::fabs(got - expected[i]) <= std::fabs(expected[i]) * 0x1p-8 * 1.001)
          << "element " << i << ": " << got << " instead of " << expected[i];
    }
  }
}

TEST(BlockSparseAttention, RowsWithoutKeysAreZero) {
  AttentionProblem problem({2, 64, 1, 3, 1, 1, 1, 0.0}, 7);
  ASSERT_EQ(block_sparse_attention_ref(problem.params), 0);
  for (const uint16_t value : problem.output) {
    ASSERT_EQ(value, 0);
  }
}

TEST(BlockSparseAttention, TurningTheRingChangesNoBit) {
  const AttentionShape shape{2, 64, 1, 2, 1, 3, 1, 0.7};
  AttentionProblem problem(shape, 11);
  ASSERT_EQ(block_sparse_attention_ref(problem.params), 0);
  const std::vector<uint16_t> before = problem.output;
  const size_t slot = problem.key_ring.size() / 3;
  for (auto* ring : {&problem.key_ring, &problem.value_ring}) {
    std::rotate(ring->begin(), ring->begin() + slot, ring->end());
  }
  for (int s = 0; s < 3; ++s) {
    problem.slot_map[s] = (problem.slot_map[s] + 2) % 3;
  }
  ASSERT_EQ(block_sparse_attention_ref(problem.params), 0);
  EXPECT_EQ(before, problem.output);
}

TEST(BlockSparseAttention, BadArgumentsAreRefused) {
  const AttentionProblem problem({2, 64, 1, 2, 1, 1, 1, 0.5, 1.f, true}, 3);
  ASSERT_EQ(check_block_sparse_attention(problem.params), 0);
  const auto refused = [&](auto change) {
    BlockSparseAttentionParams params = problem.params;
    change(params);
    return check_block_sparse_attention(params) == 1;
  };
  using P = BlockSparseAttentionParams;
  EXPECT_TRUE(refused([](P& p) { p.heads = 0; }));
  EXPECT_TRUE(refused([](P& p) { p.head_dim = 96; }));
  EXPECT_TRUE(refused([](P& p) { p.q_blocks = 0; }));
  EXPECT_TRUE(refused([](P& p) { p.windows = -1; }));
  EXPECT_TRUE(refused([](P& p) { p.slots = 0; }));
  EXPECT_TRUE(refused([](P& p) { p.ring_slots = p.current_slots = 0; }));
  EXPECT_TRUE(refused([](P& p) { p.query = nullptr; }));
  EXPECT_TRUE(refused([](P& p) { p.output = nullptr; }));
  EXPECT_TRUE(refused([](P& p) { p.slot_map = nullptr; }));
  EXPECT_TRUE(refused([](P& p) { p.row_begin = nullptr; }));
  EXPECT_TRUE(refused([](P& p) { p.column = nullptr; }));
  EXPECT_TRUE(refused([](P& p) { p.value_ring = nullptr; }));
  EXPECT_TRUE(refused([](P& p) { p.key_current = nullptr; }));
  EXPECT_TRUE(refused([](P& p) { p.query += 1; }));
  EXPECT_TRUE(refused([](P& p) { p.softmax_scale = NAN; }));
  EXPECT_TRUE(refused([](P& p) { p.frames = 4; }));
  EXPECT_TRUE(refused([](P& p) { p.width = 12; }));
  EXPECT_TRUE(refused([](P& p) { p.windows = 1 << 24, p.slots = 2; }));
  EXPECT_TRUE(refused([](P& p) { p.row_begin = nullptr, p.shared_columns = p.slots * p.windows + 1; }));
  EXPECT_FALSE(refused([](P& p) { p.row_begin = nullptr, p.shared_columns = 1; }));
  // A side without slots needs no pointer.
  EXPECT_FALSE(refused([](P& p) { p.ring_slots = 0, p.key_ring = p.value_ring = nullptr; }));
}

}  // namespace
}  // namespace flashvsr
