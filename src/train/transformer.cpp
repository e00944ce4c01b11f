// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/transformer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/block_mask.h"
#include "model/layers.h"
#include "model/rope3d.h"
#include "model/state.h"
#include "model/window.h"

namespace flashvsr::train {
namespace {

constexpr double kTimestep = 1000.0;
constexpr int64_t kFirstSlots = 3;

// Tokens [B, f*h*w, C] of raster order to window order, and back.
at::Tensor to_windows(const at::Tensor& x, const TokenGrid& g) {
  return x.reshape({x.size(0), g.f / 2, 2, g.h / 8, 8, g.w / 8, 8, x.size(2)})
      .permute({0, 1, 3, 5, 2, 4, 6, 7})
      .reshape(x.sizes());
}
at::Tensor to_raster(const at::Tensor& x, const TokenGrid& g) {
  return x.reshape({x.size(0), g.f / 2, g.h / 8, g.w / 8, 2, 8, 8, x.size(2)})
      .permute({0, 1, 4, 2, 5, 3, 6, 7})
      .reshape(x.sizes());
}

// x [B, T, D], cos and sin [T, head_dim / 2] fp32: pairs of neighbouring channels are turned.
at::Tensor rotated(const at::Tensor& x, int64_t heads, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor pairs = x.to(at::kFloat).view({x.size(0), x.size(1), heads, -1, 2});
  const at::Tensor a = pairs.select(4, 0), b = pairs.select(4, 1);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  return at::stack({a * c - b * s, a * s + b * c}, 4).view(x.sizes()).to(x.scalar_type());
}

}  // namespace

Transformer::Transformer(const ModelConfig& config)
    : config_(config), dit_(config.dit), lq_projector_(config.lq_projector) {
  FLASHVSR_CHECK(!config.dit.has_text && config.noise_scale == 0, ErrorCode::kInvalidArgument,
                 "training knows students without prompt and noise only");
}

void Transformer::visit_parameters(const ParameterVisitor& visit) {
  dit_.visit_parameters("dit.", visit);
  lq_projector_.visit_parameters("lq_proj_in.", visit);
}

std::pair<int64_t, int64_t> Transformer::visible_slots_of(int64_t slot, int64_t kv_chunks) {
  if (slot < kFirstSlots) return {0, kFirstSlots};
  return {std::max<int64_t>(0, slot - kv_chunks), slot + 1};
}

at::Tensor Transformer::token_mask(const at::Tensor& q_mean, const at::Tensor& k_mean, const BlockGrid& grid) const {
  const c10::NoGradGuard no_grad;
  const int64_t windows = grid.windows(), blocks = q_mean.size(1), slots = blocks / windows;
  const int64_t topk = block_topk(grid, config_.sparse_ratio, config_.blocks_per_query);
  at::Tensor mask = at::zeros({q_mean.size(0), config_.dit.heads, blocks, blocks},
                              at::TensorOptions().dtype(at::kBool).device(q_mean.device()));
  for (int64_t sample = 0; sample < q_mean.size(0); ++sample) {
    for (int64_t slot = 0; slot < slots; ++slot) {
      const auto [begin, end] = visible_slots_of(slot, config_.kv_chunks);
      const at::Tensor kept = block_mask_from_means(
          q_mean[sample].narrow(0, slot * windows, windows), k_mean[sample].narrow(0, begin * windows, (end - begin) * windows),
          config_.dit.heads, grid, config_.local_range, topk);
      mask[sample].narrow(1, slot * windows, windows).narrow(2, begin * windows, (end - begin) * windows).copy_(kept);
    }
  }
  return mask.repeat_interleave(kWindowTokens, 2).repeat_interleave(kWindowTokens, 3);
}

at::Tensor Transformer::forward(const at::Tensor& lq) {
  const DitConfig& dit = config_.dit;
  const int64_t batch = lq.size(0), heads = dit.heads, dim = dit.dim;
  const TokenGrid grid{(lq.size(2) - 1) / 4, lq.size(3) / 4, lq.size(4) / 4};
  FLASHVSR_CHECK(lq.size(2) >= 25 && lq.size(2) % 8 == 1 && grid.h % 8 == 0 && grid.w % 8 == 0, ErrorCode::kInvalidArgument,
                 "student: the clip is ", lq.sizes(), ", expected 25 + 8n frames whose sides are multiples of 32");
  std::map<std::string, at::Tensor> weights;
  dit_.visit_parameters("", [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    weights[key] = tensor;
  });
  const auto w = [&](const std::string& key) -> const at::Tensor& { return weights.at(key); };
  const auto linear = [&](const at::Tensor& x, const std::string& key) {
    return at::linear(x, w(key + ".weight"), w(key + ".bias"));
  };
  const at::ScalarType type = w("head.head.weight").scalar_type();

  std::vector<at::Tensor> projected;
  for (int64_t i = 0; i < batch; ++i) {
    LqCache cache;
    projected.push_back(lq_projector_.forward(lq.narrow(0, i, 1).to(type), cache));
  }
  // The latents before the first step are zero: their patches embed to the bias.
  at::Tensor x = to_windows(at::cat(projected, 0) + w("patch_embedding.bias"), grid);

  const at::Tensor time =
      linear(at::silu(linear(sinusoidal_embedding(kTimestep, dit.freq_dim, type, lq.device()), "time_embedding.0")),
             "time_embedding.2");
  const at::Tensor time_modulation = linear(at::silu(time), "time_projection.1").view({1, 6, dim});
  const auto modulated = [&](const at::Tensor& v, const at::Tensor& shift, const at::Tensor& scale) {
    return at::layer_norm(v, {dim}, {}, {}, dit.eps) * (scale + 1) + shift;
  };
  auto [cos, sin] = rope3d_table(dit.head_dim(), 0, grid.f, grid.h, grid.w, lq.device());
  cos = to_windows(cos.unsqueeze(0), grid)[0].to(at::kFloat);
  sin = to_windows(sin.unsqueeze(0), grid)[0].to(at::kFloat);

  const int64_t tokens = x.size(1);
  const auto by_head = [&](const at::Tensor& v) {
    return v.view({batch, tokens, heads, dit.head_dim()}).transpose(1, 2);
  };
  const auto window_means = [&](const at::Tensor& v) { return v.detach().view({batch, -1, kWindowTokens, dim}).mean(2); };
  for (int64_t n = 0; n < dit.layers; ++n) {
    const std::string key = "blocks." + std::to_string(n) + ".", attention = key + "self_attn.";
    const at::Tensor m = w(key + "modulation") + time_modulation;
    const at::Tensor a = modulated(x, m.select(1, 0), m.select(1, 1));
    const at::Tensor q = rotated(rms_norm(linear(a, attention + "q"), w(attention + "norm_q.weight"), dit.eps), heads, cos, sin);
    const at::Tensor k = rotated(rms_norm(linear(a, attention + "k"), w(attention + "norm_k.weight"), dit.eps), heads, cos, sin);
    const at::Tensor mask = token_mask(window_means(q), window_means(k), grid.blocks());
    // A query block may be left with no key at all: its result is zero, never NaN.
    const at::Tensor has_key = mask.any(3, /*keepdim=*/true);
    at::Tensor attended = at::scaled_dot_product_attention(by_head(q), by_head(k), by_head(linear(a, attention + "v")),
                                                           at::logical_or(mask, at::logical_not(has_key)));
    attended = (attended * has_key.to(type)).transpose(1, 2).reshape({batch, tokens, dim});
    x = x + linear(attended, attention + "o") * m.select(1, 2);
    const at::Tensor b = modulated(x, m.select(1, 3), m.select(1, 4));
    x = x + linear(at::gelu(linear(b, key + "ffn.0"), "tanh"), key + "ffn.2") * m.select(1, 5);
  }
  const at::Tensor head = w("head.modulation") + time.unsqueeze(1);
  const at::Tensor values = to_raster(linear(modulated(x, head.select(1, 0), head.select(1, 1)), "head.head"), grid);
  const int64_t c = dit.latent_channels;
  const at::Tensor velocity = values.view({batch, grid.f, grid.h, grid.w, 2, 2, c})
                                  .permute({0, 6, 1, 2, 4, 3, 5})
                                  .reshape({batch, c, grid.f, grid.h * 2, grid.w * 2});
  return -velocity;
}

}  // namespace flashvsr::train
