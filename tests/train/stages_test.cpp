// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/stages.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "clips.h"
#include "train/degradation.h"
#include "train/trainer.h"

namespace flashvsr::train {
namespace {

Batch wave_batch(int64_t frames) {
  Batch batch;
  batch.hq = to_model_range(wave_clip(frames, 64, 96));
  batch.lq = reduce(batch.hq);
  batch.base = enlarge(batch.lq);
  return batch;
}

// Weights of an untrained stage, but none zero, so that every layer is seen in the result.
void fill(Stage& stage) {
  at::manual_seed(11);
  const auto fill_one = [](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    if (key.find("running_") != std::string::npos) return;
    double inputs = shape.size() == 1 ? 100.0 : 1.0;
    for (size_t i = 1; i < shape.size(); ++i) inputs *= static_cast<double>(shape[i]);
    tensor = at::randn(shape) * (1.2 / std::sqrt(inputs));
  };
  stage.visit_parameters(fill_one);
  stage.visit_buffers(fill_one);
}

ModelConfig tiny_student() {
  ModelConfig config = exported_config(nano_decoder_config());
  config.dit.dim = 64;
  config.dit.heads = 1;
  config.dit.layers = 2;
  config.dit.ffn_dim = 96;
  config.dit.freq_dim = 32;
  config.lq_projector.hidden1 = 12;
  config.lq_projector.hidden2 = 16;
  config.lq_projector.out_dim = 64;
  return config;
}

Batch square_batch(int64_t frames) {
  Batch batch;
  batch.hq = to_model_range(wave_clip(frames, 128, 128));
  batch.lq = reduce(batch.hq);
  batch.base = enlarge(batch.lq);
  return batch;
}

TEST(Stages, NamesAreKnown) {
  EXPECT_EQ(stage_named("decoder"), StageKind::kDecoder);
  EXPECT_EQ(stage_named(name_of(StageKind::kAutoencoder)), StageKind::kAutoencoder);
  EXPECT_EQ(stage_named(name_of(StageKind::kStudent)), StageKind::kStudent);
  EXPECT_THROW(stage_named("teacher"), Error);
}

TEST(Stages, UntrainedIsTheBicubicEnlargement) {
  for (const StageKind kind : {StageKind::kDecoder, StageKind::kAutoencoder}) {
    Stage stage(kind, exported_config(nano_decoder_config()), 1, c10::kCPU);
    const Batch batch = wave_batch(5);
    EXPECT_TRUE(at::equal(stage.restore(batch, Latents::kZero), batch.base));
  }
}

// The trainer sees a clip at once, the engine in chunks: both must be the same function.
TEST(Stages, ChunkedIsWhole) {
  const c10::NoGradGuard no_grad;
  Stage stage(StageKind::kDecoder, exported_config(nano_decoder_config()), 1, c10::kCPU);
  fill(stage);
  const Batch batch = wave_batch(29);
  const at::Tensor whole = stage.restore(batch, Latents::kZero);
  EXPECT_GT((whole - batch.base).abs().max().item<double>(), 0.01);
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{21, 8}, {5, 4, 12, 8}, {1, 28}}) {
    DecoderMemory memory;
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (const int64_t size : sizes) {
      parts.push_back(stage.decoder().forward({}, batch.lq.narrow(2, begin, size), memory,
                                              batch.base.narrow(2, begin, size)));
      begin += size;
    }
    const double difference = (at::cat(parts, 2) - whole).abs().max().item<double>();
    EXPECT_TRUE(difference <= 1e-5) << difference << " in " << sizes.size() << " chunks";
  }
}

TEST(Stages, BatchedIsOneByOne) {
  const c10::NoGradGuard no_grad;
  Stage stage(StageKind::kDecoder, exported_config(nano_decoder_config()), 1, c10::kCPU);
  fill(stage);
  const Batch one = wave_batch(9);
  Batch two = one;
  two.hq = at::cat({one.hq.flip(4), one.hq}, 0);
  two.lq = at::cat({one.lq.flip(4), one.lq}, 0);
  two.base = at::cat({one.base.flip(4), one.base}, 0);
  const at::Tensor both = stage.restore(two, Latents::kZero), single = stage.restore(one, Latents::kZero);
  EXPECT_TRUE((both.narrow(0, 1, 1) - single).abs().max().item<double>() <= 2e-5);
}

TEST(Stages, EveryTrainedTensorGetsAGradient) {
  for (const StageKind kind : {StageKind::kDecoder, StageKind::kAutoencoder}) {
    Stage stage(kind, exported_config(nano_decoder_config()), 1, c10::kCPU);
    fill(stage);
    stage.visit_parameters([](const std::string&, at::Tensor& tensor, const std::vector<int64_t>&) {
      tensor.requires_grad_(true);
    });
    Batch batch = wave_batch(9);
    batch.hq = batch.hq.repeat({6, 1, 1, 1, 1});
    batch.lq = batch.lq.repeat({6, 1, 1, 1, 1});
    batch.base = batch.base.repeat({6, 1, 1, 1, 1});
    Random random(1, 1);
    for (const double progress : {0.1, 0.9}) stage.loss(batch, progress, random).backward();
    stage.visit_parameters([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
      ASSERT_TRUE(tensor.grad().defined()) << key;
      EXPECT_TRUE(at::isfinite(tensor.grad()).all().item<bool>()) << key;
      // Batch normalisation takes away what the last bias of the encoder adds.
      if (key == "encoder.conv_out.bias") return;
      EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << key;
    });
  }
}

TEST(Stages, StudentTrainsTheTransformerOnly) {
  Stage stage(StageKind::kStudent, tiny_student(), 1, c10::kCPU);
  fill(stage);
  stage.visit_parameters([](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    EXPECT_TRUE(key.rfind("dit.", 0) == 0 || key.rfind("lq_proj_in.", 0) == 0) << key;
    tensor.requires_grad_(true);
  });
  const Batch batch = square_batch(25);
  for (const double progress : {0.1, 0.9}) {
    Random random(1, 1);
    stage.loss(batch, progress, random).backward();
  }
  stage.visit_parameters([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    // Its input is zero: the model starts from no noise.
    if (key == "dit.patch_embedding.weight") return;
    ASSERT_TRUE(tensor.grad().defined()) << key;
    EXPECT_TRUE(at::isfinite(tensor.grad()).all().item<bool>()) << key;
    EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << key;
  });
  stage.visit_buffers([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    EXPECT_FALSE(tensor.requires_grad()) << key;
  });
}

TEST(Stages, StudentGivesWhatTheEngineWould) {
  Stage stage(StageKind::kStudent, tiny_student(), 1, c10::kCPU);
  fill(stage);
  const Batch batch = square_batch(33);
  EXPECT_EQ(stage.outputs_of(33), 29);
  const at::Tensor student = stage.restore(batch, Latents::kStudent);
  EXPECT_EQ(student.sizes(), (at::IntArrayRef{1, 3, 29, 128, 128}));
  EXPECT_FALSE(at::equal(student, stage.restore(batch, Latents::kZero)));
  EXPECT_FALSE(at::equal(student, stage.restore(batch, Latents::kTrue)));
}

TEST(Stages, TrueLatentsNeedTheEncoder) {
  Stage decoder(StageKind::kDecoder, exported_config(nano_decoder_config()), 1, c10::kCPU);
  EXPECT_THROW(decoder.restore(wave_batch(5), Latents::kTrue), Error);
  Stage both(StageKind::kAutoencoder, exported_config(nano_decoder_config()), 1, c10::kCPU);
  fill(both);
  const Batch batch = wave_batch(5);
  EXPECT_FALSE(at::equal(both.restore(batch, Latents::kTrue), both.restore(batch, Latents::kZero)));
}

}  // namespace
}  // namespace flashvsr::train
