// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/encoder.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

namespace flashvsr::train {
namespace {

Encoder random_encoder() {
  Encoder encoder(16);
  at::manual_seed(3);
  encoder.visit_parameters("", [](const std::string&, at::Tensor& t, const std::vector<int64_t>& shape) {
    t = at::randn(shape) * 0.05;
  });
  encoder.visit_buffers("", [](const std::string& key, at::Tensor& t, const std::vector<int64_t>& shape) {
    t = key == "running_var" ? at::ones(shape) : at::zeros(shape);
  });
  return encoder;
}

TEST(Encoder, ShapeAndNormalisation) {
  const c10::NoGradGuard no_grad;
  Encoder encoder = random_encoder();
  const at::Tensor hq = at::rand({2, 3, 9, 32, 48}) * 2 - 1, base = at::rand({2, 3, 9, 32, 48}) * 2 - 1;
  const at::Tensor z = encoder.forward(hq, base, /*is_training=*/true);
  EXPECT_EQ(z.sizes(), (at::IntArrayRef{2, 16, 3, 4, 6}));
  const at::Tensor per_channel = z.transpose(0, 1).flatten(1);
  EXPECT_LT(per_channel.mean(1).abs().max().item<double>(), 1e-4);
  EXPECT_LT((per_channel.var(1, false) - 1).abs().max().item<double>(), 0.05);
}

TEST(Encoder, LatentsSeeThePastOnly) {
  const c10::NoGradGuard no_grad;
  Encoder encoder = random_encoder();
  const at::Tensor hq = at::rand({1, 3, 13, 32, 32}), base = at::rand({1, 3, 13, 32, 32});
  at::Tensor changed = hq.clone();
  changed.select(2, 5).add_(0.5);  // first frame of latent 2
  const at::Tensor a = encoder.forward(hq, base, false), b = encoder.forward(changed, base, false);
  const at::Tensor difference = (a - b).abs().amax(at::IntArrayRef{0, 1, 3, 4});
  EXPECT_EQ(difference[0].item<double>(), 0);
  EXPECT_EQ(difference[1].item<double>(), 0);
  EXPECT_GT(difference[2].item<double>(), 0);
  EXPECT_GT(difference[3].item<double>(), 0);  // through the memory
}

}  // namespace
}  // namespace flashvsr::train
