// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Recorded stages (CUDA graphs) and KV rings in host memory on a card: the frames of plain runs, bit for bit. Skips whole without a card.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "model/stage_graphs.h"
#include "model/upscaler.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

class StagesGpuTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* library = std::getenv("FLASHVSR_CUDA_LIBRARY");
    static void* handle = dlopen(library ? library : FLASHVSR_CUDA_LIBRARY_DEFAULT, RTLD_NOW | RTLD_GLOBAL);
    if (handle == nullptr || !at::hasCUDA()) {
      const char* required = std::getenv("FLASHVSR_REQUIRE_GPU");
      if (required && std::string(required) == "1") FAIL() << "no GPU, and FLASHVSR_REQUIRE_GPU is 1: " << dlerror();
      GTEST_SKIP() << "no GPU";
    }
    set_log_callback([](LogLevel, const char* message, void* refused) {
      if (std::string(message).find("stages are not recorded") == std::string::npos) return;
      *static_cast<std::atomic<bool>*>(refused) = true;
      std::fprintf(stderr, "%s\n", message);
    }, &refused_);
    const c10::InferenceMode guard;
    // Head dimension 64 and sizes that the kernels take.
    make_model(random_student_config());
    const int64_t scale = model_->config().input_scale;
    lq_ = (at::rand({1, 3, 25 + 8 * 14, 256 / scale, 384 / scale}, at::TensorOptions().device(device_)) * 2 - 1).to(at::kBFloat16);
  }

  void make_model(const ModelConfig& config) {
    model_ = std::make_unique<Upscaler>(config);
    at::manual_seed(3);
    randomize(*model_, device_, at::kBFloat16, false);
  }

  void TearDown() override {
    set_log_callback(nullptr, nullptr);
    EXPECT_FALSE(refused_);
  }

  std::vector<at::Tensor> run(bool recorded, CacheStorage storage, int64_t chunks, int64_t change = 1000) {
    const c10::InferenceMode guard;
    StreamState state;
    state.kv = KvCache(storage);
    RunOptions options;
    options.record_stages = recorded;
    std::vector<at::Tensor> frames;
    for (int64_t n = 0; n < chunks; ++n) {
      if (n == change) options.sparse_ratio = 0.5;
      const int64_t first = n == 0 ? 0 : 8 * n + 13;
      frames.push_back(model_->run(lq_.narrow(2, first, Upscaler::inputs_of_run(state)), options, state).clone());
    }
    EXPECT_EQ(state.steady != nullptr, recorded && storage == CacheStorage::kDevice);
    return frames;
  }
  static void expect_same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << "chunk " << i;
  }

  const c10::Device device_{c10::kCUDA, 0};
  std::unique_ptr<Upscaler> model_;
  at::Tensor lq_;
  std::atomic<bool> refused_{false};  // something could not be recorded
};

TEST_F(StagesGpuTest, RecordedStagesGiveTheSameFrames) {
  const auto plain = run(false, CacheStorage::kDevice, 12);
  expect_same(run(true, CacheStorage::kDevice, 12), plain);
  EXPECT_FALSE(at::equal(plain[10], plain[11]));
}

// As the built-in model's: a growth that no kernel takes, whose weight must not come from the host at every use.
TEST_F(StagesGpuTest, AGrowthWithoutKernelIsRecordedToo) {
  const c10::InferenceMode guard;
  ModelConfig config = random_student_config();
  config.tc_decoder.channels[0] = 64;
  make_model(config);
  expect_same(run(true, CacheStorage::kDevice, 8), run(false, CacheStorage::kDevice, 8));
}

TEST_F(StagesGpuTest, OtherOptionsAreRecordedAnew) {
  expect_same(run(true, CacheStorage::kDevice, 12, 7), run(false, CacheStorage::kDevice, 12, 7));
}

// Recording in one thread while others allocate, wait and record.
TEST_F(StagesGpuTest, StreamsDoNotDisturbEachOther) {
  const auto plain = run(false, CacheStorage::kDevice, 8);
  std::vector<std::vector<at::Tensor>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([this, &result] { result = run(true, CacheStorage::kDevice, 8); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) expect_same(result, plain);
}

TEST_F(StagesGpuTest, RingsInHostMemoryLoseNothing) {
  const auto plain = run(false, CacheStorage::kDevice, 8);
  expect_same(run(false, CacheStorage::kHost, 8), plain);
  expect_same(run(false, CacheStorage::kHostFp8, 8), run(false, CacheStorage::kFp8, 8));
}

}  // namespace
}  // namespace flashvsr
