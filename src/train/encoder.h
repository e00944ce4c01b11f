// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The training-only encoder: what the decoder's latents mean. It codes what the LQ
// frames lack and is thrown away after the autoencoder stage.
//
//   hq, base   [B, 3, F, H, W] in [-1, 1]; base is the enlarged LQ clip; F = 4f-3
//   result     [B, 16, f, H/8, W/8], zero mean and unit variance per channel
//
// Causal: the first frame is repeated 3 times in front, latent t sees frames up to 4t.
// In training the normalisation uses the batch's statistics and updates the running
// ones; otherwise it uses the running ones.
//
// Thread-safety: unsafe in training (running statistics).
// Source: nano_recipe.md 2, last lines of the table.
#ifndef FLASHVSR_TRAIN_ENCODER_H_
#define FLASHVSR_TRAIN_ENCODER_H_

#include <ATen/core/Tensor.h>

#include <string>

#include "model/parameters.h"
#include "model/tc_decoder.h"

namespace flashvsr::train {

class Encoder {
 public:
  explicit Encoder(int64_t latent_channels) : latent_channels_(latent_channels) {}

  void visit_parameters(const std::string& prefix, const ParameterVisitor& visit);
  // Running mean and variance: saved, not trained.
  void visit_buffers(const std::string& prefix, const ParameterVisitor& visit);

  at::Tensor forward(const at::Tensor& hq, const at::Tensor& base, bool is_training);

 private:
  int64_t latent_channels_;
  Conv2d conv_in_, conv_stride_, conv_merge_, conv_out_;
  MemBlock mem_;
  at::Tensor running_mean_, running_var_;
};

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_ENCODER_H_
