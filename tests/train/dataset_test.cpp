// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/dataset.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "train/checkpoint.h"
#include "clips.h"

namespace flashvsr::train {
namespace {

SampleOptions small() {
  SampleOptions options;
  options.batch = 4;
  options.frames = 9;
  options.size = 64;
  return options;
}

TEST(Dataset, IndicesAreMirrored) {
  EXPECT_EQ(mirrored_indices(3, 0, 1, 8), (std::vector<int64_t>{0, 1, 2, 1, 0, 1, 2, 1}));
  EXPECT_EQ(mirrored_indices(4, 2, 2, 4), (std::vector<int64_t>{2, 2, 0, 2}));
  EXPECT_EQ(mirrored_indices(1, 0, 1, 3), (std::vector<int64_t>{0, 0, 0}));
}

TEST(Dataset, SamplesHaveShapeRangeAndVariety) {
  const Dataset dataset = wave_dataset();
  EXPECT_EQ(dataset.videos().size(), 2u);
  EXPECT_EQ(dataset.stills().size(), 1u);
  Random random(7, 0);
  const at::Tensor a = dataset.sample(small(), random).hq, b = dataset.sample(small(), random).hq;
  EXPECT_EQ(a.sizes(), (at::IntArrayRef{4, 3, 9, 64, 64}));
  EXPECT_LE(a.abs().max().item<double>(), 1.0);
  EXPECT_FALSE(at::equal(a, b));
}

TEST(Dataset, SamplesAreAFunctionOfTheRandomNumbers) {
  const Dataset dataset = wave_dataset();
  Random first(7, 3), again(7, 3), other(8, 3);
  const at::Tensor a = dataset.sample(small(), first).hq;
  EXPECT_TRUE(at::equal(a, dataset.sample(small(), again).hq));
  EXPECT_FALSE(at::equal(a, dataset.sample(small(), other).hq));
}

// Every pixel names its place, so each frame of a pan can be looked up in the still.
TEST(Dataset, StillsMoveSteadilyInsideThePicture) {
  const int64_t side = 96;
  const at::Tensor y = at::arange(side).reshape({-1, 1}).expand({side, side});
  const at::Tensor x = at::arange(side).reshape({1, -1}).expand({side, side});
  const Dataset dataset({{"still", at::stack({y, x, at::zeros_like(x)}, 2).unsqueeze(0).to(at::kByte), {}}});
  SampleOptions options = small();
  options.batch = 1;
  options.size = 64;
  bool has_moved = false;
  for (uint64_t i = 0; i < 60; ++i) {
    Random random(1, i);
    const at::Tensor sample = ((dataset.sample(options, random).hq[0] + 1) * 127.5).round();
    EXPECT_LT(sample.max().item<double>(), side);
    const at::Tensor corner = sample.select(3, 0).select(2, 0).narrow(0, 0, 2);  // [2, F]
    const at::Tensor steps = corner.narrow(1, 1, 8) - corner.narrow(1, 0, 8);
    if (steps.abs().max().item<double>() > 0) has_moved = true;
    // Constant speed: every step like the first, one grey level of rounding where it was reduced.
    EXPECT_LE((steps - steps.narrow(1, 0, 1)).abs().max().item<double>(), 2.0) << "sample " << i;
  }
  EXPECT_TRUE(has_moved);
}

// Both sides of a pair show the same place at the same time: the LQ side names every fourth pixel.
TEST(Dataset, PairsStayAligned) {
  at::manual_seed(2);
  const at::Tensor hq = (at::rand({12, 90, 100, 3}) * 255).to(at::kByte);
  const at::Tensor lq = hq.slice(1, 1, 88, 4).slice(2, 1, 96, 4).contiguous();
  ASSERT_EQ(lq.sizes(), (at::IntArrayRef{12, 22, 24, 3}));
  const Dataset dataset({{"clip", hq, lq}});
  int64_t pairs = 0;
  for (uint64_t i = 0; i < 30; ++i) {
    Random random(3, i);
    const Samples samples = dataset.sample(small(), random);
    for (int64_t b = 0; b < 4; ++b) {
      if (!samples.lq[b].defined()) continue;
      ++pairs;
      // Mirrored samples begin on the other side of the block of four.
      const at::Tensor plain = samples.hq[b].slice(2, 1, 64, 4).slice(3, 1, 64, 4);
      const at::Tensor mirrored = samples.hq[b].slice(2, 1, 64, 4).slice(3, 2, 64, 4);
      EXPECT_TRUE(at::equal(samples.lq[b], plain) || at::equal(samples.lq[b], mirrored)) << i;
    }
  }
  EXPECT_GT(pairs, 40);
  EXPECT_LT(pairs, 110);
  EXPECT_THROW(Dataset({{"clip", hq, lq.narrow(0, 0, 11)}}), Error);
  EXPECT_THROW(Dataset({{"clip", hq, lq.narrow(1, 0, 20)}}), Error);
}

TEST(Dataset, WrongTensorsAreRefused) {
  EXPECT_THROW(Dataset({{"floats", at::zeros({2, 8, 8, 3}), {}}}), Error);
  EXPECT_THROW(Dataset({{"planes", at::zeros({2, 3, 8, 8}, at::kByte), {}}}), Error);
  Random random(1, 1);
  EXPECT_THROW(Dataset(std::vector<Clip>{}).sample(small(), random), Error);
  EXPECT_THROW(Dataset({{"tiny", wave_clip(9, 32, 32), {}}}).sample(small(), random), Error);
}

TEST(Dataset, ShardsAreRead) {
  const std::string path = testing::TempDir() + "/dataset_test.safetensors";
  TensorFile file;
  file.tensors["clip"] = wave_clip(9, 64, 80);
  write_file(path, file);
  const Dataset dataset = Dataset::load({path}, c10::kCPU);
  ASSERT_EQ(dataset.videos().size(), 1u);
  EXPECT_EQ(dataset.videos()[0].name, "clip");
  EXPECT_TRUE(at::equal(dataset.videos()[0].frames, file.tensors["clip"]));
  EXPECT_THROW(Dataset::load({path + ".absent"}, c10::kCPU), Error);
}

}  // namespace
}  // namespace flashvsr::train
