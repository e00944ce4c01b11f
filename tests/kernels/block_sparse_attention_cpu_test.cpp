// SPDX-License-Identifier: LGPL-2.1-or-later
// Every instruction set that this CPU has against the twin in double, on fresh random inputs: the seed is printed.
#include "kernels/cpu/block_sparse_attention_cpu.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "tests/kernels/attention_problem.h"

namespace flashvsr {
namespace {

constexpr size_t kGuard = 4096;  // elements after the output

struct Free {
  void operator()(void* pointer) const { std::free(pointer); }
};

std::unique_ptr<void, Free> make_workspace() {
  void* bytes = std::aligned_alloc(64, kCpuAttentionWorkspace);
  std::memset(bytes, 0xff, kCpuAttentionWorkspace);  // NaN in both types
  return std::unique_ptr<void, Free>(bytes);
}

double widen(float value) { return value; }
double widen(uint16_t value) { return bf16_to_float(value); }

// A problem's values in the element under test; fp32 ones are no bf16 values.
template <class Element>
class Values;

template <>
class Values<uint16_t> {
 public:
  explicit Values(const AttentionProblem& problem) : params(problem.params) {}
  BlockSparseAttentionParams params;
};

template <>
class Values<float> {
 public:
  explicit Values(const AttentionProblem& problem) : random_(7) {
    const BlockSparseAttentionParams& from = problem.params;
    params.query = wide(problem.query);
    params.key_ring = wide(problem.key_ring);
    params.value_ring = wide(problem.value_ring);
    params.key_current = wide(problem.key_current);
    params.value_current = wide(problem.value_current);
    params.slot_map = from.slot_map;
    params.row_begin = from.row_begin;
    params.column = from.column;
    params.heads = from.heads;
    params.head_dim = from.head_dim;
    params.q_blocks = from.q_blocks;
    params.windows = from.windows;
    params.ring_slots = from.ring_slots;
    params.current_slots = from.current_slots;
    params.slots = from.slots;
    params.shared_columns = from.shared_columns;
    params.softmax_scale = from.softmax_scale;
    params.raster_output = from.raster_output;
    params.frames = from.frames;
    params.height = from.height;
    params.width = from.width;
  }
  BlockSparseAttentionParamsF32 params;

 private:
  const float* wide(const std::vector<uint16_t>& values) {
    if (values.empty()) return nullptr;
    std::uniform_real_distribution<float> fraction(0.998f, 1.002f);
    kept_.emplace_back();
    for (const uint16_t value : values) kept_.back().push_back(bf16_to_float(value) * fraction(random_));
    return kept_.back().data();
  }
  std::mt19937 random_;
  std::vector<std::vector<float>> kept_;
};

template <class Element>
std::vector<Element> poisoned(size_t count) {
  std::vector<Element> values(count);
  std::memset(values.data(), 0xff, count * sizeof(Element));  // NaN
  return values;
}

// Runs all rows into poisoned memory; the guard behind the output must keep its poison.
template <class Element>
std::vector<Element> run(BlockSparseAttentionParamsOf<Element> params, CpuIsa isa, size_t count) {
  std::vector<Element> out = poisoned<Element>(count + kGuard);
  params.output = out.data();
  const auto workspace = make_workspace();
  EXPECT_EQ(block_sparse_attention_cpu(params, isa, 0, int64_t{params.heads} * params.q_blocks, workspace.get()), 0);
  const std::vector<Element> guard = poisoned<Element>(kGuard);
  EXPECT_EQ(std::memcmp(out.data() + count, guard.data(), kGuard * sizeof(Element)), 0) << "wrote behind the output";
  out.resize(count);
  return out;
}

template <class Element>
void expect_near(const std::vector<Element>& got, const std::vector<Element>& want, double largest_value,
                 bool large_scores) {
  const bool is_float = sizeof(Element) == 4;
  const double tolerance = !is_float ? 4e-3 : large_scores ? 2e-5 : 2e-6;
  const double element_tolerance = !is_float ? 2e-2 : large_scores ? 2e-4 : 2e-6;
  double difference = 0, norm = 0, worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double g = widen(got[i]), w = widen(want[i]);
    difference += (g - w) * (g - w);
    norm += w * w;
    worst = !(std::fabs(g - w) <= worst) ? std::fabs(g - w) : worst;
  }
  const double error = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  EXPECT_TRUE(error <= tolerance) << error;
  EXPECT_TRUE(worst <= element_tolerance * largest_value) << worst << " of " << largest_value;
  std::printf("    error %.2e (%.0f %% of tolerance), element %.2e (%.0f %%)\n", error, 100 * error / tolerance, worst,
              100 * worst / (element_tolerance * largest_value));
}

double largest_value(const AttentionProblem& problem) {
  double largest = 0;
  for (const auto* side : {&problem.value_ring, &problem.value_current}) {
    for (const uint16_t value : *side) largest = std::max(largest, std::fabs(widen(value)));
  }
  return largest;
}

class BlockSparseAttentionCpu : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!runs_here(GetParam())) GTEST_SKIP() << "this CPU or this build lacks " << name_of(GetParam());
  }

  template <class Element>
  void equals_twin() {
    unsigned seed = std::random_device{}();
    for (const AttentionShape& shape : awkward_attention_shapes()) {
      const AttentionProblem problem(shape, ++seed);
      SCOPED_TRACE(testing::Message() << "seed " << seed << " heads " << shape.heads << " dim " << shape.head_dim
                                      << " density " << shape.density);
      Values<Element> values(problem);
      std::vector<Element> want = poisoned<Element>(problem.query.size());
      values.params.output = want.data();
      ASSERT_EQ(block_sparse_attention_ref(values.params), 0);
      expect_near(run(values.params, GetParam(), want.size()), want, largest_value(problem),
                  shape.amplitude > 1);
      if (HasFailure()) return;
    }
  }

  template <class Element>
  void rows_are_independent() {
    const AttentionProblem problem({3, 64, 1, 3, 1, 3, 1, 0.4, 1.f, true}, std::random_device{}());
    Values<Element> values(problem);
    const std::vector<Element> whole = run(values.params, GetParam(), problem.query.size());
    std::vector<Element> parts = poisoned<Element>(whole.size());
    values.params.output = parts.data();
    for (const auto& [begin, end] : std::vector<std::pair<int, int>>{{8, 9}, {0, 3}, {3, 3}, {3, 8}}) {
      const auto workspace = make_workspace();
      ASSERT_EQ(block_sparse_attention_cpu(values.params, GetParam(), begin, end, workspace.get()), 0);
    }
    EXPECT_EQ(std::memcmp(parts.data(), whole.data(), whole.size() * sizeof(Element)), 0);
  }
};

TEST_P(BlockSparseAttentionCpu, EqualsTwinOnAwkwardShapesF32) { equals_twin<float>(); }
TEST_P(BlockSparseAttentionCpu, EqualsTwinOnAwkwardShapesBf16) { equals_twin<uint16_t>(); }

// Any split of the rows gives the same bits, whatever the workspace held.
TEST_P(BlockSparseAttentionCpu, RowsAreIndependentF32) { rows_are_independent<float>(); }
TEST_P(BlockSparseAttentionCpu, RowsAreIndependentBf16) { rows_are_independent<uint16_t>(); }

// One key block whose scores differ by hundreds from the next one's: nothing over- or underflows to NaN.
TEST_P(BlockSparseAttentionCpu, ScoresFarApartStayFinite) {
  const AttentionProblem problem({1, 64, 1, 2, 1, 1, 1, 1.0, 40.f}, std::random_device{}());
  Values<float> values(problem);
  std::vector<float> want(problem.query.size());
  values.params.output = want.data();
  ASSERT_EQ(block_sparse_attention_ref(values.params), 0);
  const std::vector<float> got = run(values.params, GetParam(), want.size());
  // Scores of a thousand carry an error of 1e-4 in fp32, and so do their exponentials.
  for (size_t i = 0; i < want.size(); ++i) ASSERT_TRUE(std::fabs(got[i] - want[i]) <= 5e-3) << got[i] << " " << want[i];
}

// A NaN among the keys is seen by the queries that attend to them, and by no others.
TEST_P(BlockSparseAttentionCpu, NanIsNotHidden) {
  AttentionProblem problem({1, 64, 1, 2, 1, 0, 1, 1.0}, 5);
  problem.key_current[70] = 0x7fc0;                 // window 0
  problem.row_begin = {0, 1, 2};
  problem.column = {0, 1};
  problem.params.row_begin = problem.row_begin.data();
  problem.params.column = problem.column.data();
  const std::vector<uint16_t> out = run(problem.params, GetParam(), problem.query.size());
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(std::isnan(widen(out[i])), i < out.size() / 2) << i;
  }
}

TEST_P(BlockSparseAttentionCpu, BadArgumentsAreRefused) {
  AttentionProblem problem({2, 64, 1, 2, 1, 0, 1, 1.0}, 5);
  const auto workspace = make_workspace();
  const auto status = [&](const BlockSparseAttentionParams& params, int64_t begin, int64_t end, void* bytes) {
    return block_sparse_attention_cpu(params, GetParam(), begin, end, bytes);
  };
  EXPECT_EQ(status(problem.params, 0, 4, workspace.get()), 0);
  EXPECT_EQ(status(problem.params, 0, 5, workspace.get()), 1);
  EXPECT_EQ(status(problem.params, -1, 4, workspace.get()), 1);
  EXPECT_EQ(status(problem.params, 3, 2, workspace.get()), 1);
  EXPECT_EQ(status(problem.params, 0, 4, nullptr), 1);
  EXPECT_EQ(status(problem.params, 0, 4, static_cast<char*>(workspace.get()) + 32), 1);
  BlockSparseAttentionParams params = problem.params;
  params.head_dim = 32;
  EXPECT_EQ(status(params, 0, 4, workspace.get()), 1);
}

INSTANTIATE_TEST_SUITE_P(Isas, BlockSparseAttentionCpu,
                         testing::Values(CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16),
                         [](const auto& info) { return name_of(info.param); });

TEST(CpuIsa, TheBestOneRunsHere) {
  EXPECT_TRUE(runs_here(best_cpu_isa()));
  EXPECT_TRUE(runs_here(CpuIsa::kPortable));
  EXPECT_FALSE(runs_here(static_cast<CpuIsa>(99)));
}

}  // namespace
}  // namespace flashvsr
