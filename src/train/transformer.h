// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The student's projector and transformer as training needs them: a batch of whole
// clips at once, differentiable, and the same function as the engine's streaming run.
//
//   lq       [B, 3, F, H/4, W/4] in [-1, 1]; F = 25 + 8n (n later runs of the engine)
//   result   [B, 16, 6 + 2n, H/8, W/8]   x0 = -v: no noise (noise_scale 0), timestep 1000
//
// H and W are multiples of 128. Every query slot attends to the slots that the engine's
// cache would show it: the first run's three see each other, later ones themselves and the
// `kv_chunks` slots before them; blocks are chosen by the model's own rule, without gradient.
// So a clip trained at once is the stream that the engine runs: no roll-out is needed.
//
// Attention is dense with a mask of blocks: memory grows with the square of the tokens.
// Weights are those of the engine's Dit and LqProjector, under their own keys.
//
// Thread-safety: unsafe while weights change.
// Source: model.md 3, 4; training.md 1.2 ("parallel training").
// Tolerance against Upscaler::run: 2e-4 in fp32, see tests/train/transformer_test.cpp.
#ifndef FLASHVSR_TRAIN_TRANSFORMER_H_
#define FLASHVSR_TRAIN_TRANSFORMER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "model/config.h"
#include "model/dit.h"
#include "model/lq_projector.h"
#include "model/parameters.h"

namespace flashvsr::train {

class Transformer {
 public:
  explicit Transformer(const ModelConfig& config);

  // Keys "dit." and "lq_proj_in.".
  void visit_parameters(const ParameterVisitor& visit);

  at::Tensor forward(const at::Tensor& lq);

  // [B, heads, T, T] bool in window order from the query and key means of the windows
  // [B, slots * L, D]; rows without any block are false throughout.
  at::Tensor token_mask(const at::Tensor& q_mean, const at::Tensor& k_mean, const BlockGrid& grid) const;

  // Slots [begin, end) that a slot sees.
  static std::pair<int64_t, int64_t> visible_slots_of(int64_t slot, int64_t kv_chunks);

 private:
  ModelConfig config_;
  Dit dit_;
  LqProjector lq_projector_;
};

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_TRANSFORMER_H_
