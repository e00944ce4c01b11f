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
// hq, lq and base (the enlarged lq) are [B, 3, F, ...] in [-1, 1] with F = 4f-3.
//
// Thread-safety: unsafe.
// Source: nano_recipe.md 6, stages "fallback" and A.
#ifndef FLASHVSR_TRAIN_STAGES_H_
#define FLASHVSR_TRAIN_STAGES_H_

#include <ATen/core/Tensor.h>

#include <string>

#include "model/config.h"
#include "model/parameters.h"
#include "model/tc_decoder.h"
#include "train/encoder.h"
#include "train/random.h"

namespace flashvsr::train {

enum class StageKind { kDecoder, kAutoencoder };

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
  Stage(StageKind kind, const TcDecoderConfig& config, uint64_t seed, c10::Device device);

  void visit_parameters(const ParameterVisitor& visit);  // trained: "tc_decoder." and "encoder."
  void visit_buffers(const ParameterVisitor& visit);     // saved, not trained

  // Progress runs from 0 to 1. Modules compute in their tensors' dtype.
  at::Tensor loss(const Batch& batch, double progress, Random& random);

  // The stage's view of a clip, no gradient: latents zero, or those of the truth.
  at::Tensor restore(const Batch& batch, bool true_latents);

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
  at::ScalarType dtype();
};

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_STAGES_H_
