// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/losses.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace flashvsr::train {
namespace {

at::Tensor clip(double value) { return at::full({1, 3, 4, 8, 8}, value, at::kFloat); }

TEST(Losses, KnownValues) {
  EXPECT_NEAR(mse(clip(0.5), clip(0.2)).item<double>(), 0.09, 1e-6);
  EXPECT_NEAR(charbonnier(clip(0.5), clip(0.2)).item<double>(), std::sqrt(0.09 + 4e-6), 1e-6);
  EXPECT_NEAR(charbonnier(clip(0.2), clip(0.2), 0.01).item<double>(), 0.01, 1e-7);
}

TEST(Losses, TemporalDifferenceIgnoresAConstantError) {
  const at::Tensor truth = at::rand({2, 3, 5, 8, 8});
  EXPECT_NEAR(temporal_difference(truth + 0.3, truth).item<double>(), 2e-3, 1e-5);
  at::Tensor flickering = truth.clone();
  flickering.select(2, 2).add_(0.4);
  // Two of four steps are off by 0.4.
  EXPECT_NEAR(temporal_difference(flickering, truth).item<double>(), (2 * 0.4 + 2 * 2e-3) / 4, 1e-4);
  EXPECT_EQ(temporal_difference(clip(1).narrow(2, 0, 1), clip(0).narrow(2, 0, 1)).item<double>(), 0);
}

TEST(Losses, GradientsAreFiniteAtZeroError) {
  const at::Tensor truth = at::rand({1, 3, 3, 4, 4});
  for (const auto& loss : {&mse, +[](const at::Tensor& a, const at::Tensor& b) { return charbonnier(a, b); },
                           +[](const at::Tensor& a, const at::Tensor& b) { return temporal_difference(a, b); }}) {
    at::Tensor out = truth.clone().requires_grad_(true);
    loss(out, truth).backward();
    EXPECT_TRUE(at::isfinite(out.grad()).all().item<bool>());
    EXPECT_EQ(out.grad().abs().max().item<double>(), 0);
  }
}

}  // namespace
}  // namespace flashvsr::train
