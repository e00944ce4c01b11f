// SPDX-License-Identifier: LGPL-2.1-or-later
// Both kernels against the plain twin in double, on fresh random inputs: the seed is printed.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "kernels/block_sparse_attention.h"
#include "tests/kernels/attention_problem.h"

namespace flashvsr {
namespace {

constexpr double kTolerance = 4e-3;           // ||got - want|| / ||want||
constexpr double kElementTolerance = 2e-2;    // |got - want| / max |v|
constexpr size_t kGuard = 4096;               // elements after the output

class DeviceProblem {
 public:
  DeviceProblem(const AttentionProblem& problem, AttentionKernel kernel) : params(problem.params) {
    params.kernel = kernel;
    params.query = copy(problem.query);
    params.key_ring = copy(problem.key_ring);
    params.value_ring = copy(problem.value_ring);
    params.key_current = copy(problem.key_current);
    params.value_current = copy(problem.value_current);
    params.slot_map = copy(problem.slot_map);
    params.row_begin = problem.params.row_begin != nullptr ? copy(problem.row_begin) : nullptr;
    params.column = copy(problem.column);
    elements_ = problem.output.size();
    params.output = copy(std::vector<uint16_t>(elements_ + kGuard, 0xffff));
    params.workspace = const_cast<uint8_t*>(copy(std::vector<uint8_t>(
        block_sparse_attention_workspace_bytes(params.heads, params.q_blocks), 0xa5)));
  }
  ~DeviceProblem() {
    for (void* pointer : owned_) {
      cudaFree(pointer);
    }
  }

  // Poisons the output, runs, checks that every element and nothing else was written.
  std::vector<uint16_t> run() {
    std::vector<uint16_t> out(elements_ + kGuard, 0xffff);
    EXPECT_EQ(cudaMemset(params.output, 0xff, out.size() * 2), cudaSuccess);
    EXPECT_EQ(launch_block_sparse_attention(params, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(out.data(), params.output, out.size() * 2, cudaMemcpyDeviceToHost),
              cudaSuccess);
    size_t unwritten = 0;
    for (size_t i = 0; i < elements_; ++i) {
      unwritten += out[i] == 0xffff;
    }
    EXPECT_EQ(unwritten, 0u);
    for (size_t i = elements_; i < out.size(); ++i) {
      if (out[i] != 0xffff) {
        ADD_FAILURE() << "wrote " << i - elements_ << " elements past the output";
        break;
      }
    }
    out.resize(elements_);
    return out;
  }

  BlockSparseAttentionParams params;

 private:
  template <class T>
  T* copy(const std::vector<T>& values) {
    if (values.empty()) {
      return nullptr;
    }
    T* pointer = nullptr;
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&pointer), values.size() * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(pointer, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
    owned_.push_back(pointer);
    return pointer;
  }

  std::vector<void*> owned_;
  size_t elements_ = 0;
};

class BlockSparseAttentionGpu : public testing::TestWithParam<AttentionKernel> {
 protected:
  void SetUp() override {
    int devices = 0;
    const bool required = std::getenv("FLASHVSR_REQUIRE_GPU") != nullptr &&
                          std::getenv("FLASHVSR_REQUIRE_GPU") == std::string("1");
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      if (required) {
        FAIL() << "FLASHVSR_REQUIRE_GPU=1 and no GPU";
      }
      GTEST_SKIP() << "no GPU";
    }
    AttentionKernel best = AttentionKernel::kSm80;
    ASSERT_EQ(choose_attention_kernel(&best), cudaSuccess);
    if (GetParam() == AttentionKernel::kSm90 && best != AttentionKernel::kSm90) {
      GTEST_SKIP() << "not a Hopper card, or built without sm_90a";
    }
  }
};

void expect_near(const AttentionProblem& problem, const std::vector<uint16_t>& got,
                 const std::vector<uint16_t>& want) {
  double difference = 0, norm = 0, worst = 0, largest = 0;
  for (const auto* side : {&problem.value_ring, &problem.value_current}) {
    for (const uint16_t value : *side) {
      largest = std::max(largest, std::fabs(static_cast<double>(bf16_to_float(value))));
    }
  }
  for (size_t i = 0; i < want.size(); ++i) {
    const double g = bf16_to_float(got[i]), w = bf16_to_float(want[i]);
    difference += (g - w) * (g - w);
    norm += w * w;
    worst = !(std::fabs(g - w) <= worst) ? std::fabs(g - w) : worst;
  }
  const double error = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  EXPECT_TRUE(error <= kTolerance) << error;
  EXPECT_TRUE(worst <= kElementTolerance * largest) << worst << " of " << largest;
  std::printf("    error %.2e (%.0f %% of tolerance), element %.2e (%.0f %%)\n", error,
              100 * error / kTolerance, worst, 100 * worst / (kElementTolerance * largest));
}

TEST_P(BlockSparseAttentionGpu, EqualsTwinOnAwkwardShapes) {
  unsigned seed = std::random_device{}();
  for (const AttentionShape& shape : awkward_attention_shapes()) {
    AttentionProblem problem(shape, ++seed);
    SCOPED_TRACE(testing::Message() << "seed " << seed << " heads " << shape.heads << " dim "
                                    << shape.head_dim << " density " << shape.density);
    ASSERT_EQ(block_sparse_attention_ref(problem.params), 0);
    DeviceProblem device(problem, GetParam());
    expect_near(problem, device.run(), problem.output);
    if (HasFailure()) {
      return;
    }
  }
}

// More rows than SMs: CTAs take several, of all lengths, and the ring of stages turns many times.
TEST_P(BlockSparseAttentionGpu, ManyRowsAreBitEqualFromRunToRun) {
  for (const int head_dim : {64, 128}) {
    AttentionProblem problem({12, head_dim, 3, 5, 1, 3, 1, 0.06, 1.f, true},
                             std::random_device{}());
    DeviceProblem device(problem, GetParam());
    const std::vector<uint16_t> first = device.run();
    for (int i = 0; i < 5; ++i) {
      ASSERT_EQ(device.run(), first);
    }
    ASSERT_EQ(block_sparse_attention_ref(problem.params), 0);
    expect_near(problem, first, problem.output);
  }
}

// The same graph, another ring position: what the streaming engine does.
TEST_P(BlockSparseAttentionGpu, OneGraphServesATurnedRing) {
  AttentionProblem problem({4, 128, 1, 3, 1, 3, 1, 0.5}, std::random_device{}());
  DeviceProblem device(problem, GetParam());
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(launch_block_sparse_attention(device.params, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<int32_t>& map = problem.slot_map;
    std::rotate(map.begin(), map.begin() + 1, map.begin() + 3);
    ASSERT_EQ(cudaMemcpy(const_cast<int32_t*>(device.params.slot_map), map.data(), map.size() * 4,
                         cudaMemcpyHostToDevice), cudaSuccess);
    ASSERT_EQ(cudaMemset(device.params.output, 0xff, problem.output.size() * 2), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    std::vector<uint16_t> got(problem.output.size());
    ASSERT_EQ(cudaMemcpy(got.data(), device.params.output, got.size() * 2, cudaMemcpyDeviceToHost),
              cudaSuccess);
    ASSERT_EQ(block_sparse_attention_ref(problem.params), 0);
    expect_near(problem, got, problem.output);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST_P(BlockSparseAttentionGpu, BadArgumentsAreRefusedBeforeAnyLaunch) {
  AttentionProblem problem({1, 64, 1, 1, 1, 0, 1, 1.0}, 5);
  DeviceProblem device(problem, GetParam());
  BlockSparseAttentionParams params = device.params;
  params.workspace = nullptr;
  EXPECT_EQ(launch_block_sparse_attention(params, nullptr), cudaErrorInvalidValue);
  params = device.params;
  params.head_dim = 32;
  EXPECT_EQ(launch_block_sparse_attention(params, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

INSTANTIATE_TEST_SUITE_P(Kernels, BlockSparseAttentionGpu,
                         testing::Values(AttentionKernel::kSm80, AttentionKernel::kSm90),
                         [](const auto& info) {
                           return info.param == AttentionKernel::kSm80 ? "sm80" : "sm90";
                         });

}  // namespace
}  // namespace flashvsr
