// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/lq_projector.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/error.h"
#include "model/layers.h"
#include "model/ops.h"

namespace flashvsr {
LqProjector::LqProjector(const LqProjectorConfig& config) : config_(config) {}

void LqProjector::visit_parameters(const std::string& prefix, const ParameterVisitor& visit) {
  const int64_t in = 3 * config_.unshuffle * config_.unshuffle;
  const int64_t hidden1 = config_.hidden1, hidden2 = config_.hidden2;
  visit(prefix + "conv1.weight", conv1_weight_, {hidden1, in, 4, 3, 3});
  visit(prefix + "conv1.bias", conv1_bias_, {hidden1});
  visit(prefix + "norm1.gamma", norm1_gamma_, {hidden1, 1, 1, 1});
  visit(prefix + "conv2.weight", conv2_weight_, {hidden2, hidden1, 4, 3, 3});
  visit(prefix + "conv2.bias", conv2_bias_, {hidden2});
  visit(prefix + "norm2.gamma", norm2_gamma_, {hidden2, 1, 1, 1});
  visit(prefix + "linear_layers.0.weight", linear_weight_, {config_.out_dim, hidden2});
  visit(prefix + "linear_layers.0.bias", linear_bias_, {config_.out_dim});
}

// Convolution 2, norm and linear of steps behind their past. Here and below steps are given away and dropped once
// read: at full size each of these tensors is a good part of a GB.
at::Tensor LqProjector::project_tokens(at::Tensor steps, at::Tensor past, at::Tensor* kept) const {
  at::Tensor x = ops::projector_conv(steps, past, conv2_weight_, conv2_bias_);
  past.reset();
  if (kept) keep(*kept, steps.narrow(2, steps.size(2) - 2, 2));
  steps.reset();
  x = ops::channel_rms_norm_silu(x, norm2_gamma_);
  // [1, C, clips, h, w] -> [1, clips*h*w, C]
  return at::linear(x.permute({0, 2, 3, 4, 1}).flatten(1, 3), linear_weight_, linear_bias_);
}

at::Tensor LqProjector::hidden_steps(at::Tensor steps, at::Tensor past, at::Tensor* kept) const {
  const at::Tensor x = ops::projector_conv(steps, past, conv1_weight_, conv1_bias_);
  past.reset();
  if (kept) keep(*kept, steps.narrow(2, steps.size(2) - 2, 2));
  steps.reset();
  return ops::channel_rms_norm_silu(x, norm1_gamma_);
}

// All clips of a call at once: with the two past steps in front the convolutions slide over them
// exactly as clip by clip.
at::Tensor LqProjector::project_causal(at::Tensor steps, LqCache& cache) const {
  const bool is_first = !cache.conv1.defined();
  // Without a past the first step stands for it.
  at::Tensor front = is_first ? steps.narrow(2, 0, 1).expand({-1, -1, 2, -1, -1}) : cache.conv1;
  at::Tensor hidden = hidden_steps(std::move(steps), std::move(front), &cache.conv1);
  // The first clip's hidden steps are the past of the second: it has no tokens of its own.
  if (is_first && hidden.size(2) < 4) {
    keep(cache.conv2, hidden);
    return {};
  }
  return project_tokens(std::move(hidden), is_first ? at::Tensor() : cache.conv2, &cache.conv2);
}

// Each clip is fed its own tail; the first frame of a stream has no tokens.
at::Tensor LqProjector::project_buffered(const at::Tensor& steps, bool is_first) const {
  std::vector<at::Tensor> tokens;
  for (int64_t begin = is_first ? 4 : 0; begin < steps.size(2); begin += 4) {
    const at::Tensor clip = steps.narrow(2, begin, 4);
    const at::Tensor hidden = hidden_steps(clip, clip.narrow(2, 2, 2), nullptr);
    tokens.push_back(project_tokens(hidden, hidden, nullptr));
  }
  return tokens.empty() ? at::Tensor() : at::cat(tokens, 1);
}

at::Tensor LqProjector::forward(const at::Tensor& lq, LqCache& cache) const {
  const int64_t u = config_.unshuffle;
  FLASHVSR_CHECK(lq.dim() == 5 && lq.size(0) == 1 && lq.size(1) == 3 && lq.size(3) % u == 0 &&
                     lq.size(4) % u == 0,
                 ErrorCode::kInternal, "lq_projector: input is ", lq.sizes(),
                 ", expected [1, 3, F, multiple of ", u, ", multiple of ", u, "]");
  const bool is_first = cache.clips == 0;
  const int64_t missing = is_first ? 3 : 0, frames = missing + lq.size(2);
  FLASHVSR_CHECK(frames % 4 == 0, ErrorCode::kInternal, "lq_projector: ", lq.size(2),
                 " frames, expected clips of 4 (and one frame before the first clip of a stream)");
  cache.clips += frames / 4;

  at::Tensor steps = ops::projector_input(lq, missing, u);
  at::Tensor tokens = config_.version == Version::kV1_1 ? project_causal(std::move(steps), cache)
                                                        : project_buffered(steps, is_first);
  return tokens.defined() ? tokens : at::empty({1, 0, config_.out_dim}, lq.options());
}

}  // namespace flashvsr
