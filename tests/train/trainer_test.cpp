// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "train/checkpoint.h"
#include "clips.h"

namespace flashvsr::train {
namespace {

TrainerOptions tiny(StageKind stage) {
  TrainerOptions options;
  options.stage = stage;
  options.decoder = nano_decoder_config();
  options.decoder.channels = {24, 16, 16, 0};
  options.decoder.mem_blocks = {1, 1, 1};
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
  options.decoder.channels[0] = 32;
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
