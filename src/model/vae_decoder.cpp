// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/vae_decoder.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "model/cancel.h"
#include "model/layers.h"

namespace flashvsr {
namespace {

// Statistics of the Wan2.1 latent space, per channel.
constexpr double kMean[16] = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,
                              -0.1517, 1.5508,  0.4134,  -0.0715, 0.5517,  -0.3632,
                              -0.1922, -0.9497, 0.2503,  -0.2921};
constexpr double kStd[16] = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                             3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};

at::Tensor per_channel(const double (&values)[16], const at::Tensor& like) {
  at::Tensor out = at::empty({1, 16, 1, 1, 1}, at::kFloat);
  for (int64_t c = 0; c < 16; ++c) out[0][c][0][0][0] = static_cast<float>(values[c]);
  return out.to(like.device());
}

void visit_conv3d(const std::string& key, CausalConv3d& conv, int64_t out, int64_t in,
                  std::vector<int64_t> kernel, const ParameterVisitor& visit) {
  std::vector<int64_t> shape = {out, in};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  visit(key + ".weight", conv.weight, shape);
  visit(key + ".bias", conv.bias, {out});
}

void visit_res_block(const std::string& key, VaeResBlock& block, int64_t in, int64_t out,
                     const ParameterVisitor& visit) {
  visit(key + ".residual.0.gamma", block.gamma0, {in, 1, 1, 1});
  visit_conv3d(key + ".residual.2", block.conv2, out, in, {3, 3, 3}, visit);
  visit(key + ".residual.3.gamma", block.gamma3, {out, 1, 1, 1});
  visit_conv3d(key + ".residual.6", block.conv6, out, out, {3, 3, 3}, visit);
  if (in != out) {
    visit(key + ".shortcut.weight", block.shortcut_weight, {out, in, 1, 1, 1});
    visit(key + ".shortcut.bias", block.shortcut_bias, {out});
  }
}

}  // namespace

at::Tensor CausalConv3d::forward(const at::Tensor& x, at::Tensor& past) const {
  const int64_t side = weight.size(3) / 2;
  const at::Tensor history =
      past.defined() ? past : at::zeros_like(x.narrow(2, 0, 1)).expand({-1, -1, 2, -1, -1});
  const at::Tensor input = at::cat({history, x}, 2);
  past = input.narrow(2, input.size(2) - 2, 2).clone();
  return at::conv3d(input, weight, bias, {1, 1, 1}, {0, side, side});
}

VaeDecoder::VaeDecoder(const VaeConfig& config) : config_(config), blocks_(12), resamples_(3) {}

void VaeDecoder::visit_parameters(const std::string& prefix, const ParameterVisitor& visit) {
  const int64_t base = config_.dim, wide = 4 * base, half = 2 * base, z = config_.latent_channels;
  visit(prefix + "conv2.weight", pre_weight_, {z, z, 1, 1, 1});
  visit(prefix + "conv2.bias", pre_bias_, {z});
  visit_conv3d(prefix + "decoder.conv1", conv_in_, wide, z, {3, 3, 3}, visit);
  visit_res_block(prefix + "decoder.middle.0", middle0_, wide, wide, visit);
  const std::string attention = prefix + "decoder.middle.1.";
  visit(attention + "norm.gamma", middle1_.gamma, {wide, 1, 1});
  visit(attention + "to_qkv.weight", middle1_.qkv_weight, {3 * wide, wide, 1, 1});
  visit(attention + "to_qkv.bias", middle1_.qkv_bias, {3 * wide});
  visit(attention + "proj.weight", middle1_.proj_weight, {wide, wide, 1, 1});
  visit(attention + "proj.bias", middle1_.proj_bias, {wide});
  visit_res_block(prefix + "decoder.middle.2", middle2_, wide, wide, visit);

  const int64_t in[12] = {wide, wide, wide, half, wide, wide, half, half, half, base, base, base};
  const int64_t out[12] = {wide, wide, wide, wide, wide, wide, half, half, half, base, base, base};
  const int64_t sampled[3] = {wide, wide, half};
  for (int64_t stage = 0; stage < 4; ++stage) {
    for (int64_t i = 0; i < 3; ++i) {
      const int64_t n = stage * 3 + i;
      visit_res_block(prefix + "decoder.upsamples." + std::to_string(stage * 4 + i), blocks_[n],
                      in[n], out[n], visit);
    }
    if (stage == 3) break;
    const std::string key = prefix + "decoder.upsamples." + std::to_string(stage * 4 + 3);
    const int64_t c = sampled[stage];
    visit(key + ".resample.1.weight", resamples_[stage].conv_weight, {c / 2, c, 3, 3});
    visit(key + ".resample.1.bias", resamples_[stage].conv_bias, {c / 2});
    if (stage < 2) visit_conv3d(key + ".time_conv", resamples_[stage].time_conv, 2 * c, c, {3, 1, 1}, visit);
  }
  visit(prefix + "decoder.head.0.gamma", head_gamma_, {base, 1, 1, 1});
  visit_conv3d(prefix + "decoder.head.2", head_conv_, 3, base, {3, 3, 3}, visit);
}

at::Tensor VaeDecoder::res_block(const VaeResBlock& block, const at::Tensor& x, VaeMemory& memory,
                                 size_t& slot) const {
  const at::Tensor skip = block.shortcut_weight.defined()
                              ? at::conv3d(x, block.shortcut_weight, block.shortcut_bias)
                              : x;
  at::Tensor y = block.conv2.forward(at::silu(channel_rms_norm(x, block.gamma0)), memory.steps[slot++]);
  y = block.conv6.forward(at::silu(channel_rms_norm(y, block.gamma3)), memory.steps[slot++]);
  return y + skip;
}

at::Tensor VaeDecoder::attention(const at::Tensor& x) const {
  const int64_t channels = x.size(1), steps = x.size(2), height = x.size(3), width = x.size(4);
  const at::Tensor frames = x.squeeze(0).transpose(0, 1);  // [T, C, H, W]
  const at::Tensor qkv =
      at::conv2d(channel_rms_norm(frames, middle1_.gamma), middle1_.qkv_weight, middle1_.qkv_bias)
          .flatten(2)
          .transpose(1, 2)
          .unsqueeze(1);  // [T, 1, HW, 3C]
  const auto parts = qkv.chunk(3, 3);
  const at::Tensor attended =
      at::scaled_dot_product_attention(parts[0].contiguous(), parts[1].contiguous(), parts[2].contiguous())
          .squeeze(1)
          .transpose(1, 2)
          .reshape({steps, channels, height, width});
  const at::Tensor y = at::conv2d(attended, middle1_.proj_weight, middle1_.proj_bias);
  return x + y.transpose(0, 1).unsqueeze(0);
}

// `is_start`: x begins with the step of the stream's first latent, which is not doubled and is no
// part of the time convolution's history.
at::Tensor VaeDecoder::resample(const VaeResample& stage, const at::Tensor& x, bool is_start,
                                VaeMemory& memory, size_t& slot) const {
  at::Tensor y = x;
  if (stage.time_conv.weight.defined()) {
    at::Tensor& past = memory.steps[slot++];
    const int64_t bypass = is_start ? 1 : 0;
    if (x.size(2) > bypass) {
      const at::Tensor later = x.narrow(2, bypass, x.size(2) - bypass);
      // First C channels: even frame, second C: odd frame.
      const at::Tensor grown = stage.time_conv.forward(later, past);
      const at::Tensor doubled = at::stack(grown.chunk(2, 1), 3).flatten(2, 3);
      y = bypass != 0 ? at::cat({x.narrow(2, 0, 1), doubled}, 2) : doubled;
    }
  }
  const at::Tensor frames = y.squeeze(0).transpose(0, 1);
  const at::Tensor enlarged =
      at::upsample_nearest2d(frames, {frames.size(2) * 2, frames.size(3) * 2});
  return at::conv2d(enlarged, stage.conv_weight, stage.conv_bias, 1, {1, 1}).transpose(0, 1).unsqueeze(0);
}

at::Tensor VaeDecoder::forward(const at::Tensor& latents, VaeMemory& memory,
                               const std::atomic<bool>* cancel) const {
  FLASHVSR_CHECK(latents.dim() == 5 && latents.size(1) == 16, ErrorCode::kInternal,
                 "vae_decoder: latents are ", latents.sizes(), ", expected [1, 16, f, h, w]");
  // conv1, middle 2 x 2, twelve blocks x 2, two time convolutions, head.
  constexpr size_t kSlots = 1 + 4 + 24 + 2 + 1;
  const bool is_start = memory.latents == 0;
  if (is_start) memory.steps.assign(kSlots, at::Tensor());
  memory.latents += latents.size(2);

  const auto dtype = latents.scalar_type();
  const at::Tensor inverse_std = (1.0 / per_channel(kStd, latents)).to(dtype);
  const at::Tensor mean = per_channel(kMean, latents).to(dtype);
  at::Tensor x = at::conv3d(latents / inverse_std + mean, pre_weight_, pre_bias_);

  size_t slot = 0;
  x = conv_in_.forward(x, memory.steps[slot++]);
  x = res_block(middle0_, x, memory, slot);
  x = attention(x);
  x = res_block(middle2_, x, memory, slot);
  for (size_t stage = 0; stage < 4; ++stage) {
    for (size_t i = 0; i < 3; ++i) {
      throw_if_cancelled(cancel);
      x = res_block(blocks_[stage * 3 + i], x, memory, slot);
    }
    if (stage < 3) x = resample(resamples_[stage], x, is_start, memory, slot);
  }
  throw_if_cancelled(cancel);
  x = head_conv_.forward(at::silu(channel_rms_norm(x, head_gamma_)), memory.steps[slot++]);
  return at::clamp(x, -1, 1);
}

}  // namespace flashvsr
