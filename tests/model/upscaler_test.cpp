// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/upscaler.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>

#include "base/error.h"
#include "model/stage_graphs.h"
#include "tests/support/near.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

class UpscalerTest : public testing::Test {
 protected:
  UpscalerTest() : model(random_student_config()) {
    at::manual_seed(1);
    randomize(model, at::kCPU, at::kFloat, false);
    lq = at::rand({1, 3, 49, 32, 64}) * 2 - 1;
  }

  at::Tensor run_chunks(int64_t chunks, const RunOptions& options) {
    const c10::InferenceMode guard;
    StreamState state;
    std::vector<at::Tensor> frames;
    for (int64_t n = 0; n < chunks; ++n) {
      const int64_t first = n == 0 ? 0 : 8 * n + 13;
      frames.push_back(model.run(lq.narrow(2, first, Upscaler::inputs_of_run(state)), options, state));
    }
    return at::cat(frames, 2);
  }

  Upscaler model;
  at::Tensor lq;
};

TEST_F(UpscalerTest, GivesOneFrameForEachInputOfTheSchedule) {
  const at::Tensor frames = run_chunks(4, {});
  EXPECT_EQ(frames.sizes(), (at::IntArrayRef{1, 3, 45, 128, 256}));
  EXPECT_TRUE(frames.isfinite().all().item<bool>());
}

// The decoder is causal: taking its latents one by one gives the same frames.
TEST_F(UpscalerTest, DecodingInPartsGivesTheSameFrames) {
  RunOptions whole, parts;
  whole.decode_latents = 6;
  for (const int64_t step : {1, 2, 4}) {
    parts.decode_latents = step;
    expect_near("decode by " + std::to_string(step), run_chunks(3, parts), run_chunks(3, whole), {1e-5});
  }
}

TEST_F(UpscalerTest, IsTheSameFromRunToRun) {
  expect_equal("repeat", run_chunks(3, {}), run_chunks(3, {}));
}

// The transformer's cache is used: a later chunk that forgot it differs.
TEST_F(UpscalerTest, ThePastMatters) {
  const c10::InferenceMode guard;
  StreamState state, forgetful;
  model.run(lq.narrow(2, 0, 25), {}, state);
  model.run(lq.narrow(2, 0, 25), {}, forgetful);
  forgetful.kv = {};
  const at::Tensor with = model.run(lq.narrow(2, 21, 12), {}, state);
  const at::Tensor without = model.run(lq.narrow(2, 21, 12), {}, forgetful);
  EXPECT_GT((with - without).abs().max().item<double>(), 1e-4);
}

TEST_F(UpscalerTest, RefusesALaterChunkWithoutDecoderMemory) {
  const c10::InferenceMode guard;
  StreamState state;
  model.run(lq.narrow(2, 0, 25), {}, state);
  state.decoder = {};
  EXPECT_THROW(model.run(lq.narrow(2, 21, 12), {}, state), Error);
}

// Stands in for CUDA graphs: does the recorded body again, with the host values of its recording, and undoes what that
// changed on the host.
class FakeGraphs : public StageGraphs {
 public:
  static StreamState* state;
  static int recorded, replayed, refuse_from;
  static bool refuse_late;

  bool run(int64_t key, const std::function<void()>& body) override {
    const auto found = bodies_.find(key);
    if (found == bodies_.end()) {
      if (recorded >= refuse_from) {
        if (refuse_late) run_in_vain(body);
        throw Error(ErrorCode::kInternal, "cannot be recorded");
      }
      ++recorded;
      bodies_.emplace(key, body);
      body();
      return true;
    }
    ++replayed;
    const KvCache kv = state->kv;
    const int64_t clips = state->lq.clips;
    found->second();
    state->kv = kv;
    state->lq.clips = clips;
    return false;
  }
  static std::unique_ptr<StageGraphs> make(c10::Device, c10::ScalarType) { return std::make_unique<FakeGraphs>(); }

 private:
  // A recording that fails at its end: the body ran, the device did nothing.
  static void run_in_vain(const std::function<void()>& body) {
    const KvCache kv = state->kv.clone();
    std::vector<at::Tensor> values;
    const auto memories = [] {
      std::vector<at::Tensor> list{state->lq.conv1, state->lq.conv2};
      list.insert(list.end(), state->decoder.steps.begin(), state->decoder.steps.end());
      return list;
    };
    for (const at::Tensor& tensor : memories()) values.push_back(tensor.clone());
    body();
    const KvCache::Position position = state->kv.position();
    state->kv = kv;
    state->kv.rewind(position);
    const std::vector<at::Tensor> targets = memories();
    for (size_t i = 0; i < targets.size(); ++i) targets[i].copy_(values[i]);
  }

  std::map<int64_t, std::function<void()>> bodies_;
};
bool FakeGraphs::refuse_late = false;
StreamState* FakeGraphs::state = nullptr;
int FakeGraphs::recorded = 0;
int FakeGraphs::replayed = 0;
int FakeGraphs::refuse_from = 0;

class RecordedStages : public UpscalerTest {
 protected:
  RecordedStages() : before_(set_stage_graphs_maker(FakeGraphs::make)) {
    FakeGraphs::recorded = FakeGraphs::replayed = 0;
    FakeGraphs::refuse_from = 1000;
    lq = at::rand({1, 3, 25 + 8 * 14, 32, 64}) * 2 - 1;
  }
  ~RecordedStages() override { set_stage_graphs_maker(before_); }

  // Chunk `change` and those behind it have another sparse ratio.
  at::Tensor run(bool recorded, int64_t chunks, int64_t change = 1000) {
    const c10::InferenceMode guard;
    StreamState state;
    FakeGraphs::state = &state;
    RunOptions options;
    options.record_stages = recorded;
    std::vector<at::Tensor> frames;
    for (int64_t n = 0; n < chunks; ++n) {
      if (n == change) options.sparse_ratio = 0.5;
      const int64_t first = n == 0 ? 0 : 8 * n + 13;
      frames.push_back(model.run(lq.narrow(2, first, Upscaler::inputs_of_run(state)), options, state).clone());
    }
    EXPECT_EQ(state.latent_frames, 6 + 2 * (chunks - 1));
    EXPECT_EQ(state.lq.clips, 7 + 2 * (chunks - 1));
    return at::cat(frames, 2);
  }

 private:
  StageGraphsMaker before_;
};

TEST_F(RecordedStages, GiveTheSameFrames) {
  expect_equal("recorded", run(true, 12), run(false, 12));
  EXPECT_EQ(FakeGraphs::recorded, 9);       // three stages for each position of the ring
  EXPECT_EQ(FakeGraphs::replayed, 3 * 7);   // of chunks 5 to 11
}

TEST_F(RecordedStages, AreRecordedAnewForOtherOptions) {
  expect_equal("changed", run(true, 12, 7), run(false, 12, 7));
  EXPECT_EQ(FakeGraphs::recorded, 18);
}

TEST_F(RecordedStages, RunPlainlyWhereTheyCannotBeRecorded) {
  for (const bool late : {false, true}) {
    for (const int refuse_from : {0, 1, 2, 4, 5}) {
      FakeGraphs::recorded = 0;
      FakeGraphs::refuse_from = refuse_from;
      FakeGraphs::refuse_late = late;
      expect_equal("refused from " + std::to_string(refuse_from) + (late ? ", late" : ""), run(true, 9), run(false, 9));
      EXPECT_EQ(FakeGraphs::recorded, refuse_from);
    }
  }
  FakeGraphs::refuse_late = false;
}

TEST_F(UpscalerTest, CancelStopsBetweenBlocks) {
  const c10::InferenceMode guard;
  std::atomic<bool> cancel{true};
  StreamState state;
  try {
    model.run(lq.narrow(2, 0, 25), {}, state, {}, &cancel);
    FAIL() << "not interrupted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInterrupted);
  }
}

TEST_F(UpscalerTest, RefusesSizesThatAreNoMultipleOfTheBlock) {
  const c10::InferenceMode guard;
  StreamState state;
  EXPECT_THROW(model.run(at::zeros({1, 3, 25, 32, 60}), {}, state), Error);
  EXPECT_THROW(model.run(at::zeros({1, 3, 24, 32, 64}), {}, state), Error);
}

// No table ends: the model runs at any temporal position.
TEST_F(UpscalerTest, RunsFarBeyondTheReferencesTable) {
  const c10::InferenceMode guard;
  StreamState state;
  model.run(lq.narrow(2, 0, 25), {}, state);
  state.latent_frames = 1 << 20;
  EXPECT_TRUE(model.run(lq.narrow(2, 21, 12), {}, state).isfinite().all().item<bool>());
}

TEST(BlockTopk, FollowsTheReferencesDoubles) {
  EXPECT_EQ(block_topk({6, 11}, 2.0, 60), 7919);
  EXPECT_EQ(block_topk({8, 15}, 1.5, 60), 10799);
  EXPECT_EQ(block_topk({17, 30}, 2.0, 60), 61199);
  // One unit in the last place low, as in the reference: 3509 - 1.
  EXPECT_EQ(block_topk({3, 13}, 1.5, 60), 3508);
  // The student keeps 6 x 2 blocks per query.
  EXPECT_EQ(block_topk({3, 5}, 2.0, 6), 15 * 12 - 1);
}

}  // namespace
}  // namespace flashvsr
