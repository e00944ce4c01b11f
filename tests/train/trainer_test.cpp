// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "io/weights.h"
#include "model/upscaler.h"
#include "train/checkpoint.h"
#include "clips.h"

namespace flashvsr::train {
namespace {

TrainerOptions tiny(StageKind stage) {
  TrainerOptions options;
  options.stage = stage;
  options.model = exported_config(nano_decoder_config());
  options.model.tc_decoder.channels = {24, 16, 16, 0};
  options.model.tc_decoder.mem_blocks = {1, 1, 1};
  options.samples.batch = 2;
  options.samples.frames = 5;
  options.samples.size = 32;
  options.iterations = 12;
  options.log_every = 4;
  options.warm_up = 3;
  return options;
}

TensorMap all_of(Trainer& trainer, const std::string& name) {
  const std::string path = testing::TempDir() + "/" + name;
  trainer.save_checkpoint(path);
  return read_file(path).tensors;
}

TEST(Trainer, ResumedIsBitEqualToUnbroken) {
  for (const StageKind stage : {StageKind::kDecoder, StageKind::kAutoencoder}) {
    const TrainerOptions options = tiny(stage);
    Trainer whole(options, wave_dataset(), Dataset(std::vector<Clip>{}));
    whole.run();
    ASSERT_EQ(whole.iteration(), 12);

    const std::string path = testing::TempDir() + "/resume.safetensors";
    {
      Trainer first(options, wave_dataset(), Dataset(std::vector<Clip>{}));
      first.run(5);
      first.save_checkpoint(path);
    }
    Trainer second(options, wave_dataset(), Dataset(std::vector<Clip>{}));
    second.resume(path);
    EXPECT_EQ(second.iteration(), 5);
    second.run();
    ASSERT_EQ(second.iteration(), 12);

    const TensorMap a = all_of(whole, "whole.safetensors"), b = all_of(second, "second.safetensors");
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [key, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(key))) << name_of(stage) << " " << key;
  }
}

TEST(Trainer, ACheckpointOfAnotherRunIsRefused) {
  const std::string path = testing::TempDir() + "/other.safetensors";
  TrainerOptions options = tiny(StageKind::kDecoder);
  Trainer(options, wave_dataset(), Dataset(std::vector<Clip>{})).save_checkpoint(path);
  options.seed = 2;
  EXPECT_THROW(Trainer(options, wave_dataset(), Dataset(std::vector<Clip>{})).resume(path), Error);
  options.seed = 1;
  options.model.tc_decoder.channels[0] = 32;
  EXPECT_THROW(Trainer(options, wave_dataset(), Dataset(std::vector<Clip>{})).resume(path), Error);
}

TEST(Trainer, OverfitsOneClip) {
  TrainerOptions options = tiny(StageKind::kDecoder);
  options.iterations = 160;
  options.log_every = 40;
  options.samples.batch = 4;
  options.learning_rate = 4e-3;
  options.degradation.clean = 1;
  options.degradation.chroma_half = 0;
  options.adam.ema_decay = 0.9;
  const std::vector<Clip> clips = {{"a", wave_clip(9, 48, 48, 0.62), {}}};
  Trainer trainer(options, Dataset(clips), Dataset(clips));
  trainer.run();
  const ClipResult result = trainer.validate().at(0);
  EXPECT_GT(result.zero_latents.psnr_y, result.bicubic.psnr_y + 3);
  EXPECT_LT(result.zero_latents.temporal_error, result.bicubic.temporal_error);
}

TEST(Trainer, RunsInBfloat16WithMastersInFp32) {
  TrainerOptions options = tiny(StageKind::kAutoencoder);
  options.compute_dtype = c10::kBFloat16;
  options.iterations = 4;
  Trainer trainer(options, wave_dataset(), Dataset(std::vector<Clip>{}));
  trainer.run();
  EXPECT_TRUE(trainer.last_loss() > 0 && trainer.last_loss() < 20);
  for (const auto& [key, tensor] : all_of(trainer, "bf16.safetensors")) EXPECT_EQ(tensor.scalar_type(), at::kFloat) << key;
}

TEST(Trainer, WritesWhatTheEngineOpensAndStartsFromIt) {
  TrainerOptions options = tiny(StageKind::kDecoder);
  options.iterations = 3;
  options.out = testing::TempDir() + "/trainer_out";
  std::filesystem::remove_all(options.out);
  Trainer trainer(options, wave_dataset(), Dataset(std::vector<Clip>{}));
  trainer.run();
  for (const char* file : {"log.jsonl", "checkpoint.safetensors", "config.json", "model.safetensors"}) {
    EXPECT_TRUE(std::filesystem::exists(options.out + "/" + file)) << file;
  }
  options.out.clear();
  options.stage = StageKind::kAutoencoder;
  Trainer next(options, wave_dataset(), Dataset(std::vector<Clip>{}));
  next.initialise_from(testing::TempDir() + "/trainer_out/model.safetensors");
  const TensorMap before = trainer.ema_weights(), after = next.ema_weights();
  for (const auto& [key, tensor] : before) {
    EXPECT_TRUE(at::equal(after.at(key), tensor.to(at::kBFloat16).to(at::kFloat))) << key;
  }
}

// Autoencoder, then the transformer through its frozen decoder, then the engine opens the result.
TEST(Trainer, StudentGoesThroughTheFrozenDecoder) {
  const std::vector<Clip> clips = {{"a", wave_clip(30, 136, 136), {}}};
  TrainerOptions options = tiny(StageKind::kAutoencoder);
  options.iterations = 6;
  const std::string start = testing::TempDir() + "/autoencoder.safetensors";
  {
    Trainer trainer(options, Dataset(clips), Dataset(std::vector<Clip>{}));
    trainer.run();
    trainer.save_checkpoint(start);
  }
  options.stage = StageKind::kStudent;
  options.samples.batch = 1;
  options.samples.frames = 25;
  EXPECT_THROW(Trainer(options, Dataset(clips), Dataset(std::vector<Clip>{})), Error);  // the crop
  options.samples.size = 128;
  options.model.dit.dim = 64;
  options.model.dit.heads = 1;
  options.model.dit.layers = 1;
  options.model.dit.ffn_dim = 64;
  options.model.dit.freq_dim = 32;
  options.model.lq_projector.hidden1 = 8;
  options.model.lq_projector.hidden2 = 12;
  options.model.lq_projector.out_dim = 64;
  options.out = testing::TempDir() + "/student_out";
  options.log_every = 1;
  EXPECT_THROW(Trainer(options, Dataset(clips), Dataset(clips)).run(), Error);  // nothing to go through

  Trainer whole(options, Dataset(clips), Dataset(clips));
  whole.initialise_from(start);
  whole.run();
  const ClipResult result = whole.validate().at(0);
  EXPECT_TRUE(result.student.has_value() && result.true_latents.has_value());
  Trainer first(options, Dataset(clips), Dataset(std::vector<Clip>{}));
  first.initialise_from(start);
  first.run(2);
  const std::string path = testing::TempDir() + "/student.safetensors";
  first.save_checkpoint(path);
  Trainer second(options, Dataset(clips), Dataset(std::vector<Clip>{}));
  second.resume(path);
  second.run();
  const TensorMap a = all_of(whole, "whole_student.safetensors"), b = all_of(second, "second_student.safetensors");
  ASSERT_EQ(a.size(), b.size());
  const TensorMap before = read_file(start).tensors;
  int64_t frozen = 0;
  for (const auto& [key, tensor] : a) {
    EXPECT_TRUE(at::equal(tensor, b.at(key))) << key;
    if (key.rfind("buffer.tc_decoder.", 0) != 0) continue;
    ++frozen;
    EXPECT_TRUE(at::equal(tensor, before.at("ema." + key.substr(7)))) << key;
  }
  EXPECT_GT(frozen, 20);

  Checkpoint opened = open_checkpoint(options.out, std::nullopt, false);
  EXPECT_TRUE(opened.config.has_transformer);
  Upscaler engine(opened.config);
  assign_checkpoint([&](const ParameterVisitor& visit) { engine.visit_parameters(visit, false); }, opened);
  engine.prepare(c10::kCPU, c10::kFloat, {}, false);
  StreamState state;
  const at::Tensor frames = engine.run(at::rand({1, 3, 25, 32, 32}) * 2 - 1, {}, state);
  EXPECT_TRUE(at::isfinite(frames).all().item<bool>());
}

TEST(Trainer, BadOptionsAreRefused) {
  TrainerOptions options = tiny(StageKind::kDecoder);
  options.samples.frames = 8;
  EXPECT_THROW(Trainer(options, wave_dataset(), wave_dataset()), Error);
  options = tiny(StageKind::kDecoder);
  options.iterations = 0;
  EXPECT_THROW(Trainer(options, wave_dataset(), wave_dataset()), Error);
}

}  // namespace
}  // namespace flashvsr::train
