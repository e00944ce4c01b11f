// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The loop over tiles by itself, on small random models. What a plan moves to host memory stays where it is on
// a CPU; that the ways there lose nothing can be shown all the same.
#include "api/tile_runner.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/near.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

// A student with its transformer, with noise as the released models have it.
const Upscaler& model() {
  static const Upscaler* instance = [] {
    ModelConfig config = random_student_config();
    config.tc_decoder.channels[3] = config.tc_decoder.channels[2];
    config.noise_scale = 1;
    auto* result = new Upscaler(config);
    at::manual_seed(20261128);
    randomize(*result, at::kCPU, at::kFloat, false);
    return result;
  }();
  return *instance;
}

constexpr int64_t kHeight = 128, kWidth = 640;  // decoded

MemoryPlan way(int64_t rows, int64_t columns, CacheStorage cache, bool parks) {
  MemoryPlan plan;
  plan.tiles = {*cut_axis(kHeight, rows, 128, 128), *cut_axis(kWidth, columns, 128, 128)};
  plan.cache = cache;
  plan.parks_in_host = parks;
  plan.decode_latents = 1;
  return plan;
}

// Frames of a run of 25 and two of 12, as a session cuts them.
at::Tensor play(TileRunner& runner, const RunOptions& options) {
  at::manual_seed(7);
  const at::Tensor lq = at::rand({1, 3, 41, kHeight / 4, kWidth / 4}) * 2 - 1;
  StageClock clock(at::kCPU);
  std::vector<at::Tensor> frames = {runner.run(lq.narrow(2, 0, 25), options, nullptr, clock)};
  for (int64_t begin : {21, 29}) frames.push_back(runner.run(lq.narrow(2, begin, 12), options, nullptr, clock));
  const StageTimes times = clock.times();
  EXPECT_GT(times.transformer_ms, 0);
  EXPECT_GT(times.decoder_ms, 0);
  return at::cat(frames, 2);
}

RunOptions run_options() {
  RunOptions options;
  options.seed = 3;
  options.decode_latents = 1;
  return options;
}

at::Tensor play(const MemoryPlan& plan) {
  TileRunner runner(model(), plan);
  return play(runner, run_options());
}

TEST(TileRunner, OneTileIsTheModelItself) {
  at::manual_seed(7);
  const at::Tensor lq = at::rand({1, 3, 41, kHeight / 4, kWidth / 4}) * 2 - 1;
  StreamState state;
  std::vector<at::Tensor> frames = {model().run(lq.narrow(2, 0, 25), run_options(), state)};
  for (int64_t begin : {21, 29}) frames.push_back(model().run(lq.narrow(2, begin, 12), run_options(), state));
  expect_equal("frames", play(way(1, 1, CacheStorage::kDevice, false)), at::cat(frames, 2));
}

TEST(TileRunner, WhatIsParkedComesBackWhole) {
  const at::Tensor resident = play(way(1, 4, CacheStorage::kDevice, false));
  expect_equal("cache in host memory", play(way(1, 4, CacheStorage::kHost, false)), resident);
  expect_equal("all in host memory", play(way(1, 4, CacheStorage::kHost, true)), resident);
  const at::Tensor small = play(way(1, 4, CacheStorage::kFp8, false));
  expect_equal("8 bits in host memory", play(way(1, 4, CacheStorage::kHostFp8, true)), small);
  EXPECT_FALSE(small.equal(resident));
}

// Far from what is shared a tile's result is its own; where it is shared the sum of both, weighted.
TEST(TileRunner, JoinsTilesByTheirWeights) {
  const MemoryPlan plan = way(1, 2, CacheStorage::kDevice, false);
  const int64_t size = plan.tiles.columns.size, begin = plan.tiles.columns.begin[1];
  ASSERT_EQ(size, 384);
  ASSERT_EQ(begin, 256);
  TileRunner runner(model(), plan);
  at::manual_seed(8);
  const at::Tensor lq = at::rand({1, 3, 25, kHeight / 4, kWidth / 4}) * 2 - 1;
  StageClock clock(at::kCPU);
  const at::Tensor joined = runner.run(lq, run_options(), nullptr, clock);
  // Each tile by hand, with its part of the picture's noise.
  const at::Tensor noise = model().make_noise(3, 0, 6, kHeight / 8, kWidth / 8);
  at::Tensor expected = at::zeros_like(joined);
  for (const int64_t at : {int64_t{0}, begin}) {
    StreamState state;
    const at::Tensor frames = model().run(lq.narrow(4, at / 4, size / 4), run_options(), state, noise.narrow(4, at / 8, size / 8));
    const at::Tensor weights = at::tensor(plan.tiles.columns.weights(at == 0 ? 0 : 1), at::kFloat);
    expected.narrow(4, at, size).add_(frames * weights);
    const int64_t own = at == 0 ? 0 : size;
    expect_equal("alone", joined.narrow(4, own, begin), frames.narrow(4, own - at, begin));
  }
  expect_equal("joined", joined, expected);
}

TEST(TileRunner, CountsAndForgets) {
  TileRunner whole(model(), way(1, 1, CacheStorage::kDevice, false)), tiled(model(), way(1, 2, CacheStorage::kDevice, false));
  EXPECT_EQ(tiled.bytes(), 0u);
  const at::Tensor first = play(tiled, run_options());
  play(whole, run_options());
  // two tiles of 384 of 640
  EXPECT_EQ(tiled.bytes(), whole.bytes() * 768 / 640);
  EXPECT_EQ(tiled.device_bytes(), tiled.bytes());
  tiled.reset();
  EXPECT_EQ(tiled.bytes(), 0u);
  expect_equal("again", play(tiled, run_options()), first);
}

}  // namespace
}  // namespace flashvsr
