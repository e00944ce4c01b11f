// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The loop: sample, degrade, forward, backward, AdamW, average; logs, validates and
// writes checkpoints and the exported student.
//
// In `out`: log.jsonl (one line per report), checkpoint.safetensors, and the exported
// model (config.json, model.safetensors with the averaged weights in bf16).
//
// Learning rate: linear warm-up, then cosine to 1 %. Precision: fp32 master weights;
// modules compute in `compute_dtype`.
//
// Errors: throws Error; kInternal when the loss stops being finite.
// Thread-safety: unsafe.
#ifndef FLASHVSR_TRAIN_TRAINER_H_
#define FLASHVSR_TRAIN_TRAINER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/dataset.h"
#include "train/degradation.h"
#include "train/metrics.h"
#include "train/parameter_set.h"
#include "train/stages.h"

namespace flashvsr::train {

// The embedded student's decoder: nano_recipe.md 2.
TcDecoderConfig nano_decoder_config();
ModelConfig exported_config(const TcDecoderConfig& decoder);

struct TrainerOptions {
  StageKind stage = StageKind::kDecoder;
  ModelConfig model = exported_config(nano_decoder_config());  // has_transformer is set by the stage
  std::string out;  // directory; empty: nothing is written
  // iterations > 0: exactly so many. Else `minutes`: the number is set from the speed seen
  // after the first hundred, and is part of the checkpoint from then on.
  int64_t iterations = 0;
  double minutes = 0;
  double learning_rate = 1e-3;
  int64_t warm_up = 50;
  double mse_share = 0.3;  // Stage::mse_share
  AdamOptions adam;
  SampleOptions samples;
  DegradationOptions degradation;
  uint64_t seed = 1;
  c10::Device device{c10::kCPU};
  c10::ScalarType compute_dtype = c10::kFloat;
  int64_t log_every = 100;
  int64_t validate_every = 1000;  // also writes the checkpoint and the export
  int64_t validation_frames = 29;
};

struct ClipResult {
  std::string name;
  Quality bicubic;
  Quality zero_latents;
  std::optional<Quality> true_latents;  // stages with an encoder
  std::optional<Quality> student;       // student stage: the transformer's latents
};

class Trainer {
 public:
  Trainer(const TrainerOptions& options, Dataset training, Dataset validation);

  // Continues from a checkpoint of the same stage, seed and model.
  void resume(const std::string& path);
  // Takes what it finds in another run's exported model or checkpoint as the start; the student
  // stage needs the checkpoint of an autoencoder run, with its decoder and encoder.
  void initialise_from(const std::string& path);

  // To the end, or `at_most` iterations from here (< 0: no limit).
  void run(int64_t at_most = -1);

  // Of each held-out clip, reduced cleanly; with psnr_only the other measures stay zero.
  std::vector<ClipResult> validate(bool psnr_only = false);
  void save_checkpoint(const std::string& path);
  void save_export(const std::string& directory);

  int64_t iteration() const { return iteration_; }
  double last_loss() const { return last_loss_; }
  TensorMap ema_weights() const { return parameters_->ema_weights(); }

 private:
  double learning_rate() const;
  void report_validation(bool is_final);
  void log(const std::string& line) const;

  TrainerOptions options_;
  Dataset training_, validation_;
  Stage stage_;
  std::optional<ParameterSet> parameters_;
  bool has_frozen_ = false;  // student stage: decoder and encoder are there
  int64_t iteration_ = 0;   // done
  int64_t iterations_ = 0;  // in all; 0: not known yet
  double seconds_ = 0;      // of training, all pieces together
  double last_loss_ = 0;
};

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_TRAINER_H_
