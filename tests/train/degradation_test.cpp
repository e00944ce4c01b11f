// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/degradation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clips.h"

namespace flashvsr::train {
namespace {

at::Tensor planes() { return wave_clip(2, 40, 48, 0.3).permute({0, 3, 1, 2}).to(at::kFloat).contiguous(); }
double rms(const at::Tensor& a, const at::Tensor& b) { return (a - b).square().mean().sqrt().item<double>(); }

TEST(Degradation, CleanIsTheReduction) {
  const at::Tensor hq = to_model_range(wave_clip(5, 64, 64));
  DegradationOptions options;
  options.clean = 1;
  options.chroma_half = 0;
  Random random(1, 1);
  const at::Tensor lq = degrade(hq, options, random);
  EXPECT_EQ(lq.sizes(), (at::IntArrayRef{1, 3, 5, 16, 16}));
  EXPECT_TRUE(at::equal(lq, reduce(hq)));
  const at::Tensor levels = (lq + 1) * 127.5;
  EXPECT_LT((levels - levels.round()).abs().max().item<double>(), 1e-3);
}

TEST(Degradation, ConstantsStayConstant) {
  const at::Tensor hq = at::full({1, 3, 5, 64, 64}, 0.2, at::kFloat);
  EXPECT_LT((reduce(hq) - 0.2).abs().max().item<double>(), 1.0 / 255 + 1e-6);
  EXPECT_LT((enlarge(reduce(hq)) - 0.2).abs().max().item<double>(), 1.0 / 255 + 1e-5);
  const at::Tensor flat = at::full({1, 3, 20, 28}, 77.0, at::kFloat);
  EXPECT_LT(rms(gaussian_blur(flat, 1.3), flat), 1e-4);
  EXPECT_LT(rms(halve_chroma(flat), flat), 1e-3);
  EXPECT_LT(rms(jpeg(flat, 50), flat), 2.0);
}

TEST(Degradation, JpegGetsWorseWithLessQuality) {
  const double high = rms(jpeg(planes(), 95), planes()), middle = rms(jpeg(planes(), 70), planes()),
               low = rms(jpeg(planes(), 30), planes());
  EXPECT_GT(high, 0.2);
  EXPECT_LT(high, middle);
  EXPECT_LT(middle, low);
}

// With all steps 1 only rounding is left: the transform and its inverse belong together.
TEST(Degradation, JpegAtFullQualityLosesChromaOnly) {
  const at::Tensor grey = planes().narrow(1, 0, 1).expand({-1, 3, -1, -1}).contiguous();
  EXPECT_LT(rms(jpeg(grey, 100), grey), 0.6);
}

TEST(Degradation, AnySizeKeepsItsSize) {
  const at::Tensor odd = at::rand({1, 3, 21, 37}) * 255;
  EXPECT_EQ(jpeg(odd, 80).sizes(), odd.sizes());
  EXPECT_EQ(halve_chroma(odd).sizes(), odd.sizes());
  EXPECT_EQ(gaussian_blur(odd, 0.7).sizes(), odd.sizes());
}

TEST(Degradation, HalvedChromaKeepsLuma) {
  const at::Tensor weights = at::tensor({0.299f, 0.587f, 0.114f}).reshape({1, 3, 1, 1});
  const at::Tensor before = (planes() * weights).sum(1), after = (halve_chroma(planes()) * weights).sum(1);
  EXPECT_LT(rms(before, after), 1e-3);
  EXPECT_GT(rms(halve_chroma(planes()), planes()), 0.5);
}

TEST(Degradation, DegradedSamplesDifferAndRepeat) {
  const at::Tensor hq = to_model_range(wave_clip(5, 64, 64)).expand({4, -1, -1, -1, -1}).contiguous();
  DegradationOptions options;
  options.clean = 0;
  options.blur = options.noise = options.jpeg = 1;
  const auto make = [&] {
    at::manual_seed(5);
    Random random(1, 1);
    return degrade(hq, options, random);
  };
  const at::Tensor lq = make();
  EXPECT_TRUE(at::equal(lq, make()));
  EXPECT_FALSE(at::equal(lq[0], lq[1]));
  EXPECT_GT(rms(lq, reduce(hq)), 0.01);
}

}  // namespace
}  // namespace flashvsr::train
