// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/metrics.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "clips.h"

namespace flashvsr::train {
namespace {

at::Tensor grey(int64_t value) { return at::full({2, 40, 40, 3}, value, at::kByte); }

TEST(Metrics, LumaIsLimitedRange) {
  EXPECT_NEAR(luma(grey(0)).max().item<double>(), 16, 1e-9);
  EXPECT_NEAR(luma(grey(255)).min().item<double>(), 235, 1e-3);
  EXPECT_EQ(luma(grey(0)).sizes(), (at::IntArrayRef{2, 1, 32, 32}));
}

TEST(Metrics, PsnrOfAKnownError) {
  const double step = (65.481 + 128.553 + 24.966) / 255.0 * 10;
  EXPECT_NEAR(psnr_y(luma(grey(100)), luma(grey(110))), 20 * std::log10(255 / step), 1e-6);
  EXPECT_EQ(psnr_y(luma(grey(100)), luma(grey(100))), 100);
}

TEST(Metrics, PerfectIsPerfect) {
  const at::Tensor frames = wave_clip(3, 48, 56);
  const Quality quality = measure(frames, frames);
  EXPECT_NEAR(quality.ssim, 1, 1e-9);
  EXPECT_NEAR(quality.gmsd, 0, 1e-9);
  EXPECT_EQ(quality.temporal_error, 0);
}

TEST(Metrics, SsimOfConstantsIsItsLuminanceTerm) {
  const double a = 16 + 219.0 * 100 / 255, b = 16 + 219.0 * 150 / 255, c1 = 6.5025;
  EXPECT_NEAR(ssim(luma(grey(100)), luma(grey(150))), (2 * a * b + c1) / (a * a + b * b + c1), 1e-5);
}

TEST(Metrics, WorseIsWorse) {
  const at::Tensor truth = wave_clip(4, 48, 56);
  at::manual_seed(1);
  const auto noisy = [&](double sigma) {
    return (truth.to(at::kDouble) + at::randn(truth.sizes(), at::kDouble) * sigma).round().clamp(0, 255).to(at::kByte);
  };
  const Quality little = measure(noisy(3), truth), much = measure(noisy(20), truth);
  EXPECT_GT(little.psnr_y, much.psnr_y);
  EXPECT_GT(little.ssim, much.ssim);
  EXPECT_LT(little.gmsd, much.gmsd);
  EXPECT_LT(little.temporal_error, much.temporal_error);
}

// Frame by frame is the same as all at once.
TEST(Metrics, MeasureIsTheMeanOverFrames) {
  const at::Tensor truth = wave_clip(4, 48, 56), frames = wave_clip(4, 48, 56, 0.85);
  const at::Tensor a = luma(frames), b = luma(truth);
  const Quality quality = measure(frames, truth);
  EXPECT_NEAR(quality.psnr_y, psnr_y(a, b), 1e-9);
  EXPECT_NEAR(quality.ssim, ssim(a, b), 1e-9);
  EXPECT_NEAR(quality.gmsd, gmsd(a, b), 1e-9);
  EXPECT_NEAR(quality.temporal_error, temporal_error(a, b), 1e-9);
}

TEST(Metrics, ConstantErrorHasNoTemporalError) {
  EXPECT_NEAR(temporal_error(luma(grey(100)), luma(grey(120))), 0, 1e-12);
}

TEST(Metrics, SizesMustAgree) { EXPECT_THROW(psnr_y(luma(grey(1)), luma(grey(1).narrow(0, 0, 1))), Error); }

TEST(Metrics, EightBitsAndBack) {
  const at::Tensor frames = wave_clip(3, 16, 24);
  EXPECT_TRUE(at::equal(to_eight_bit_frames(to_model_range(frames)), frames));
  EXPECT_EQ(to_eight_bit_frames(at::full({1, 3, 1, 8, 8}, 1.7, at::kFloat)).min().item<int>(), 255);
}

}  // namespace
}  // namespace flashvsr::train
