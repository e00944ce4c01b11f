// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What each stage of training trains and minimises.
//
//   decoder       the TC decoder alone, latents zero:
//                 first 30 %: 10 mse; then Charbonnier + .5 temporal difference
//   autoencoder   a tiny causal encoder and the TC decoder: 10 mse + .2 Charbonnier;
//                 latents z*s + sigma*n, s U(.4,1), sigma U(0,.4); per sample either
//                 the latents are zero (p .2), so that the decoder alone stays a full
//                 upscaler, or the LQ condition is dropped (p .6 of the rest)
//
//   student       projector and transformer in one step, through the frozen decoder of an
//                 autoencoder run (whose encoder gives the true latents z*), so that the
//                 decoder cannot unlearn its latents: first 70 %: 10 mse + .2 Charbonnier +
//                 .05 mse(z, z*), LQ condition dropped with p .5; then Charbonnier +
//                 .5 temporal difference + .02 mse(z, z*), dropped with p .2.
//                 F = 25 + 8n, as the engine runs; results are the first F-4 frames
//
// hq, lq and base (the enlarged lq) are [B, 3, F, ...] in [-1, 1] with F = 4f-3.
//
// Thread-safety: unsafe.
// Source: nano_recipe.md 6, stages "fallback", A, D and E.
#ifndef FLASHVSR_TRAIN_STAGES_H_
#define FLASHVSR_TRAIN_STAGES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "model/config.h"
#include "model/parameters.h"
#include "model/tc_decoder.h"
#include "train/encoder.h"
#include "train/random.h"
#include "train/transformer.h"

namespace flashvsr::train {

enum class StageKind { kDecoder, kAutoencoder, kStudent };

// What the decoder is given: nothing, the encoder's latents of the truth, the transformer's.
enum class Latents { kZero, kTrue, kStudent };

StageKind stage_named(const std::string& name);  // throws Error for another name
const char* name_of(StageKind kind);

struct Batch {
  at::Tensor hq;
  at::Tensor lq;
  at::Tensor base;
};

class Stage {
 public:
  // Fresh weights from `seed`: He initialisation, the last convolution zero, so that the
  // untrained decoder is exactly the bicubic enlargement.
  Stage(StageKind kind, const ModelConfig& config, uint64_t seed, c10::Device device);

  // Trained: "tc_decoder." and "encoder.", or "dit." and "lq_proj_in.".
  void visit_parameters(const ParameterVisitor& visit);
  // Saved, not trained: the encoder's statistics; in the student stage all of encoder and decoder.
  void visit_buffers(const ParameterVisitor& visit);

  // Progress runs from 0 to 1. Modules compute in their tensors' dtype.
  at::Tensor loss(const Batch& batch, double progress, Random& random);

  // The stage's view of a clip, no gradient. kTrue needs an encoder, kStudent the student stage.
  at::Tensor restore(const Batch& batch, Latents latents);

  // Frames that a clip of so many gives: the transformer looks 4 frames ahead.
  int64_t outputs_of(int64_t frames) const { return kind_ == StageKind::kStudent ? frames - 4 : frames; }

  // Decoder stage: the part of the run that minimises the squared error. Needed by untrained weights,
  // which a Charbonnier loss does not move away from a zero residual.
  double mse_share = 0.3;

  StageKind kind() const { return kind_; }
  TcDecoder& decoder() { return decoder_; }

 private:
  StageKind kind_;
  TcDecoderConfig config_;
  TcDecoder decoder_;
  Encoder encoder_;
  std::optional<Transformer> transformer_;
  at::ScalarType dtype();
  Batch outputs(const Batch& batch) const;
  at::Tensor student_loss(const Batch& batch, double progress, Random& random);
};

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_STAGES_H_
