// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The conditioning branch: clips of 4 LQ frames -> one token row per latent frame.
//
//   lq      [1, 3, F, Hm, Wm]  model pixels in [-1,1]; F = 25 (1 + 6*4) for the first call
//                              of a stream, then 4 per clip
//   result  [1, clips * h*w, D]   6 clips, then F/4; the first frame alone gives none (0 tokens)
//
// v1.1 ("causal") carries the last two steps before each convolution from clip to
// clip; v1 ("buffer") feeds each clip its own tail and carries nothing.
//
// Thread-safety: immutable after loading.
// Source: model.md 3, 3.1.
#ifndef FLASHVSR_MODEL_LQ_PROJECTOR_H_
#define FLASHVSR_MODEL_LQ_PROJECTOR_H_

#include <ATen/core/Tensor.h>

#include <string>

#include "model/config.h"
#include "model/parameters.h"
#include "model/state.h"

namespace flashvsr {

class LqProjector {
 public:
  explicit LqProjector(const LqProjectorConfig& config);
  void visit_parameters(const std::string& prefix, const ParameterVisitor& visit);
  at::Tensor forward(const at::Tensor& lq, LqCache& cache) const;
  const LqProjectorConfig& config() const { return config_; }

 private:
  // steps [1, 3*u*u, T, h, w], channels last in memory; undefined when there are no tokens.
  at::Tensor project_causal(at::Tensor steps, LqCache& cache) const;
  at::Tensor project_buffered(const at::Tensor& steps, bool is_first) const;
  // The last two steps go to `kept`, which may be `past`.
  at::Tensor hidden_steps(at::Tensor steps, at::Tensor past, at::Tensor* kept) const;
  at::Tensor project_tokens(at::Tensor steps, at::Tensor past, at::Tensor* kept) const;

  LqProjectorConfig config_;
  at::Tensor conv1_weight_, conv1_bias_, norm1_gamma_;
  at::Tensor conv2_weight_, conv2_bias_, norm2_gamma_;
  at::Tensor linear_weight_, linear_bias_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_LQ_PROJECTOR_H_
