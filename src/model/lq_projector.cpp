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

// x [1, hidden2, clips, h, w] -> [1, clips * h*w, D]
at::Tensor LqProjector::to_tokens(const at::Tensor& x) const {
  return at::linear(ops::channel_rms_norm_silu(x, norm2_gamma_).flatten(2).transpose(1, 2), linear_weight_,
                    linear_bias_);
}

// v1.1: a causal convolution over the stream, so all clips of a call go through each layer at once.
// steps [1, 3*u*u, 4 * clips, h, w]
at::Tensor LqProjector::project_causal(const at::Tensor& steps, LqCache& cache) const {
  const bool is_first = cache.clips == 0;
  // Without a past the first step stands for it.
  const at::Tensor past1 = is_first ? steps.narrow(2, 0, 1).expand({-1, -1, 2, -1, -1}) : cache.conv1;
  cache.conv1 = steps.narrow(2, steps.size(2) - 2, 2).clone(at::MemoryFormat::Preserve);
  at::Tensor x = ops::projector_conv(at::cat({past1, steps}, 2), conv1_weight_, conv1_bias_);
  x = ops::channel_rms_norm_silu(x, norm1_gamma_);
  const at::Tensor past2 = cache.conv2;
  cache.conv2 = x.narrow(2, x.size(2) - 2, 2).clone(at::MemoryFormat::Preserve);
  // The first clip gives no tokens: it is the past of the second.
  if (!is_first) x = at::cat({past2, x}, 2);
  if (x.size(2) < 4) return {};
  return to_tokens(ops::projector_conv(x, conv2_weight_, conv2_bias_));
}

// v1: each clip is preceded by its own tail. clip [1, 3*u*u, 4, h, w]
at::Tensor LqProjector::project_alone(const at::Tensor& clip) const {
  at::Tensor x = ops::projector_conv(at::cat({clip.narrow(2, 2, 2), clip}, 2), conv1_weight_, conv1_bias_);
  x = ops::channel_rms_norm_silu(x, norm1_gamma_);
  return to_tokens(ops::projector_conv(at::cat({x, x}, 2), conv2_weight_, conv2_bias_));
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
  // channel (c*u + dy)*u + dx, channels last in memory
  const int64_t clips = frames.size(2) / 4;
  const at::Tensor unshuffled = frames.reshape({1, 3, frames.size(2), h, u, w, u})
                                    .permute({0, 2, 3, 5, 1, 4, 6})
                                    .reshape({1, frames.size(2), h, w, 3 * u * u})
                                    .permute({0, 4, 1, 2, 3});
  at::Tensor tokens;
  if (config_.version == Version::kV1_1) {
    tokens = project_causal(unshuffled, cache);
  } else {
    std::vector<at::Tensor> parts;
    for (int64_t clip = cache.clips == 0 ? 1 : 0; clip < clips; ++clip) {
      parts.push_back(project_alone(unshuffled.narrow(2, 4 * clip, 4)));
    }
    if (!parts.empty()) tokens = at::cat(parts, 1);
  }
  cache.clips += clips;
  FLASHVSR_CHECK(tokens.defined(), ErrorCode::kInternal,
                 "lq_projector: the first frame of a stream alone gives no tokens");
  return tokens;
}

}  // namespace flashvsr
