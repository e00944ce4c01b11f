// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/lq_projector.h"

#include <ATen/ATen.h>

#include "base/error.h"
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

// clip [1, 3*u*u, 4, h, w] -> [1, h*w, D]; undefined for the first clip of a stream.
at::Tensor LqProjector::project_clip(const at::Tensor& clip, LqCache& cache) const {
  const bool is_first = cache.clips == 0;
  ++cache.clips;
  const bool is_causal = config_.version == Version::kV1_1;
  if (!is_causal && is_first) return {};

  const at::Tensor tail = clip.narrow(2, 2, 2);
  const at::Tensor past1 = is_causal ? cache.conv1 : tail;
  // Without a past the first step stands for it.
  const at::Tensor front = past1.defined() ? past1 : clip.narrow(2, 0, 1).expand({-1, -1, 2, -1, -1});
  if (is_causal) cache.conv1 = tail.clone();
  at::Tensor x = ops::projector_conv(at::cat({front, clip}, 2), conv1_weight_, conv1_bias_);
  x = ops::channel_rms_norm_silu(x, norm1_gamma_);

  const at::Tensor past2 = is_causal ? cache.conv2 : x;
  const at::Tensor current = x;
  if (is_causal) cache.conv2 = current;
  if (is_first) return {};
  x = ops::projector_conv(at::cat({past2, current}, 2), conv2_weight_, conv2_bias_);
  x = ops::channel_rms_norm_silu(x, norm2_gamma_);
  return at::linear(x.flatten(2).transpose(1, 2), linear_weight_, linear_bias_);
}

at::Tensor LqProjector::forward(const at::Tensor& lq, LqCache& cache) const {
  const int64_t u = config_.unshuffle;
  FLASHVSR_CHECK(lq.dim() == 5 && lq.size(0) == 1 && lq.size(1) == 3 && lq.size(3) % u == 0 &&
                     lq.size(4) % u == 0,
                 ErrorCode::kInternal, "lq_projector: input is ", lq.sizes(),
                 ", expected [1, 3, F, multiple of ", u, ", multiple of ", u, "]");
  at::Tensor frames = lq;
  if (cache.clips == 0) frames = at::cat({lq.narrow(2, 0, 1).expand({-1, -1, 3, -1, -1}), lq}, 2);
  FLASHVSR_CHECK(frames.size(2) % 4 == 0, ErrorCode::kInternal, "lq_projector: ", lq.size(2),
                 " frames, expected clips of 4 (and one frame before the first clip of a stream)");

  const int64_t h = lq.size(3) / u, w = lq.size(4) / u;
  // channel (c*u + dy)*u + dx
  const at::Tensor unshuffled = frames.reshape({1, 3, frames.size(2), h, u, w, u})
                                    .permute({0, 1, 4, 6, 2, 3, 5})
                                    .reshape({1, 3 * u * u, frames.size(2), h, w});
  std::vector<at::Tensor> tokens;
  for (int64_t begin = 0; begin < frames.size(2); begin += 4) {
    at::Tensor clip_tokens = project_clip(unshuffled.narrow(2, begin, 4), cache);
    if (clip_tokens.defined()) tokens.push_back(clip_tokens);
  }
  FLASHVSR_CHECK(!tokens.empty(), ErrorCode::kInternal,
                 "lq_projector: the first frame of a stream alone gives no tokens");
  return at::cat(tokens, 1);
}

}  // namespace flashvsr
