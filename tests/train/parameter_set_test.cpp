// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/parameter_set.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace flashvsr::train {
namespace {

struct Toy {
  at::Tensor weight = at::randn({3, 2, 1, 1}), bias = at::randn({3});
  ParameterSet::Walk walk() {
    return [this](const ParameterVisitor& visit) {
      visit("weight", weight, {3, 2, 1, 1});
      visit("bias", bias, {3});
    };
  }
};

// One step against AdamW written out on plain numbers.
TEST(ParameterSet, StepIsAdamW) {
  Toy toy;
  const at::Tensor weight0 = toy.weight.clone(), bias0 = toy.bias.clone();
  const auto walk = toy.walk();
  ParameterSet set(walk, c10::kCPU, c10::kFloat);
  EXPECT_EQ(set.count(), 9);
  AdamOptions options;
  at::Tensor weight = weight0.flatten().to(at::kDouble), bias = bias0.to(at::kDouble);
  at::Tensor m = at::zeros({9}, at::kDouble), v = at::zeros({9}, at::kDouble);
  for (int64_t step = 1; step <= 3; ++step) {
    set.attach_leaves(walk);
    set.begin_iteration();
    const at::Tensor loss = (toy.weight.square().sum() * 3 + toy.bias.sum() * 2);
    loss.backward();
    const double norm = set.step(step, 0.1, options).item<double>();
    at::Tensor gradient = at::cat({weight * 6, at::full({3}, 2.0, at::kDouble)});
    EXPECT_NEAR(norm, gradient.norm().item<double>(), 1e-4);
    gradient = gradient * std::min(1.0, options.clip_norm / gradient.norm().item<double>());
    m = m * options.beta1 + gradient * (1 - options.beta1);
    v = v * options.beta2 + gradient.square() * (1 - options.beta2);
    const at::Tensor update = (m / (1 - std::pow(options.beta1, step))) /
                              ((v / (1 - std::pow(options.beta2, step))).sqrt() + options.eps);
    weight = weight * (1 - 0.1 * options.weight_decay) - update.narrow(0, 0, 6) * 0.1;
    bias = bias - update.narrow(0, 6, 3) * 0.1;
  }
  TensorMap saved;
  set.save(saved);
  EXPECT_LT((saved.at("master.weight").flatten() - weight).abs().max().item<double>(), 1e-5);
  EXPECT_LT((saved.at("master.bias") - bias).abs().max().item<double>(), 1e-5);
}

TEST(ParameterSet, AverageFollows) {
  Toy toy;
  const auto walk = toy.walk();
  ParameterSet set(walk, c10::kCPU, c10::kFloat);
  const at::Tensor start = set.ema_weights().at("bias");
  set.attach_leaves(walk);
  set.begin_iteration();
  toy.bias.sum().backward();
  set.step(1, 0.5, {});
  TensorMap saved;
  set.save(saved);
  // d = 1 / 10 at the first step.
  const at::Tensor expected = start * 0.1 + saved.at("master.bias") * 0.9;
  EXPECT_LT((set.ema_weights().at("bias") - expected).abs().max().item<double>(), 1e-6);
  EXPECT_GT((saved.at("master.bias") - start).abs().min().item<double>(), 0.4);
}

TEST(ParameterSet, SaveAndLoad) {
  Toy toy, other;
  ParameterSet set(toy.walk(), c10::kCPU, c10::kFloat), second(other.walk(), c10::kCPU, c10::kBFloat16);
  TensorMap saved, again;
  set.save(saved);
  EXPECT_EQ(saved.size(), 8u);
  second.load(saved);
  second.save(again);
  for (const auto& [key, tensor] : saved) EXPECT_TRUE(at::equal(tensor, again.at(key))) << key;
  saved.erase("adam_v.bias");
  EXPECT_THROW(second.load(saved), Error);
  saved["adam_v.bias"] = at::zeros({4});
  EXPECT_THROW(second.load(saved), Error);
}

}  // namespace
}  // namespace flashvsr::train
