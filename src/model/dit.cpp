// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/dit.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "model/cancel.h"
#include "model/layers.h"
#include "model/rope3d.h"

namespace flashvsr {
namespace {

constexpr double kTimestep = 1000.0;

void visit_linear(const std::string& key, Linear& linear, int64_t out, int64_t in,
                  const ParameterVisitor& visit) {
  visit(key + ".weight", linear.weight, {out, in});
  visit(key + ".bias", linear.bias, {out});
}

}  // namespace

void Linear::quantize() {
  std::tie(weight8, scale8) = ops::quantize_rows(weight.contiguous(), /*gelu=*/false);
  weight.reset();
}

at::Tensor Linear::operator()(const Activation& x) const {
  if (!is_quantized()) return at::linear(x.value, weight, bias);
  if (x.scale.defined()) return ops::scaled_linear(x.value, x.scale, weight8, scale8, bias);
  const auto [value, scale] = ops::quantize_rows(x.value, /*gelu=*/false);
  return ops::scaled_linear(value, scale, weight8, scale8, bias);
}

at::Tensor SelfAttention::attend(Activation x, int64_t layer, const AttentionContext& context, int64_t heads, double eps,
                                 KvCache& cache) const {
  const TokenGrid& grid = context.grid;
  const KvPlace place = cache.place(layer, grid.f / 2);
  WindowedQkv now;
  if (qkv.is_quantized()) {
    at::Tensor rows = qkv(x);
    x = Activation(at::Tensor());
    now = ops::norm_rope_window(rows, norm_q, norm_k, eps, heads, grid, context.cos, context.sin, place);
  } else {
    now = ops::qkv_window(x.value, qkv.weight, qkv.bias, norm_q, norm_k, eps, heads, grid, context.cos, context.sin, place);
    x = Activation(at::Tensor());
  }
  const KvRing& past = cache.layer(layer);
  const int64_t windows = grid.blocks().windows();
  const int64_t slots = static_cast<int64_t>(context.slot_map.size());
  const BlockPairs pairs = ops::block_mask(
      now.q_mean, visible_slots(past.key_mean, now.k_mean.view({-1, windows, now.k_mean.size(1)}), context.slot_map),
      heads, grid.blocks(), context.options.local_range, context.options.topk);
  const BlockPairs& used =
      context.replace_mask ? context.replace_mask(layer, pairs, slots * windows) : pairs;
  const at::Tensor attended = ops::block_sparse_attention(
      now.q, {past.key, past.value, now.k, now.v}, context.slot_map_on_device, used, heads, grid);
  cache.store(layer, now.k, now.v, now.k_mean, grid.f / 2, context.options.kv_chunks);
  return attended;
}

at::Tensor CrossAttention::attend(Activation x, int64_t heads, double eps) const {
  at::Tensor query = q(x);
  x = Activation(at::Tensor());
  query = ops::rms_norm_rows(query, norm_q, eps);
  return ops::cross_attention(query, key, value, heads);
}

// Makes the open sum and its norm, in the form that `next` takes.
static std::pair<at::Tensor, Activation> close(const Residual& in, const at::Tensor& scale, const at::Tensor& shift,
                                               double eps, bool affine, const Linear& next) {
  if (next.is_quantized()) {
    auto [x, value, row_scale] = ops::residual_norm8(in.x, in.y, in.gate, scale, shift, eps, affine);
    return {x, {value, row_scale}};
  }
  if (in.y.defined()) {
    auto [x, normed] = ops::residual_norm(in.x, in.y, in.gate, scale, shift, eps, affine);
    return {x, normed};
  }
  return {in.x, affine ? ops::layer_norm_affine(in.x, scale, shift, eps)
                       : ops::layer_norm_modulate(in.x, scale, shift, eps)};
}

// The same of x and of what `last` makes of `input`.
static std::pair<at::Tensor, Activation> close(const Linear& last, at::Tensor input, at::Tensor x, const at::Tensor& gate,
                                               const at::Tensor& scale, const at::Tensor& shift, double eps, bool affine,
                                               const Linear& next) {
  if (last.is_quantized() || next.is_quantized()) {
    Residual open{std::move(x), last(input), gate};
    input.reset();
    return close(open, scale, shift, eps, affine, next);
  }
  auto [sum, normed] = ops::linear_residual_norm(input, last.weight, last.bias, x, gate, scale, shift, eps, affine);
  return {sum, normed};
}

// gelu(ffn0(x)), in the form that ffn2 takes.
static Activation hidden_rows(const Linear& ffn0, const Activation& x) {
  if (!ffn0.is_quantized()) return ops::linear_gelu(x.value, ffn0.weight, ffn0.bias);
  const auto [hidden, scale] = ops::quantize_rows(ffn0(x), /*gelu=*/true);
  return {hidden, scale};
}

at::Tensor feed_forward(const Linear& ffn0, const Linear& ffn2, const Activation& x, int64_t most) {
  const int64_t tokens = x.value.size(0);
  if (tokens <= most || at::GradMode::is_enabled()) return ffn2(hidden_rows(ffn0, x));
  // As even as whole tiles of the matrix products allow.
  const int64_t groups = (tokens + most - 1) / most;
  const int64_t rows = std::min(most, ((tokens + groups - 1) / groups + 127) / 128 * 128);
  const at::Tensor result = at::empty({tokens, ffn2.bias.size(0)}, ffn2.bias.options());
  for (int64_t begin = 0; begin < tokens; begin += rows) {
    const int64_t count = std::min(rows, tokens - begin);
    Activation part(x.value.narrow(0, begin, count));
    if (x.scale.defined()) part.scale = x.scale.narrow(0, begin, count);
    const Activation hidden = hidden_rows(ffn0, part);
    at::Tensor place = result.narrow(0, begin, count);
    if (ffn2.is_quantized()) {
      place.copy_(ffn2(hidden));
    } else {
      at::addmm_out(place, ffn2.bias, hidden.value, ffn2.weight.t());
    }
  }
  return result;
}

Residual DitBlock::forward(Residual in, int64_t layer, const AttentionContext& context,
                           const DitConfig& config, KvCache& cache) const {
  const auto& [shift_sa, scale1_sa, gate_sa, shift_mlp, scale1_mlp, gate_mlp] = folded;
  // Each sum and norm is the last to read what it is made of; nothing is held longer.
  auto [x, normed] = close(in, scale1_sa, shift_sa, config.eps, false, self_attn.qkv);
  in = {};
  at::Tensor attended = self_attn.attend(std::move(normed), layer, context, config.heads, config.eps, cache);
  const Linear* last = &self_attn.o;
  at::Tensor gate = gate_sa;
  if (config.has_text) {
    std::tie(x, normed) = close(*last, std::move(attended), std::move(x), gate, norm3_weight, norm3_bias, config.eps, true, cross_attn.q);
    attended = cross_attn.attend(std::move(normed), config.heads, config.eps);
    last = &cross_attn.o;
    gate.reset();
  }
  std::tie(x, normed) = close(*last, std::move(attended), std::move(x), gate, scale1_mlp, shift_mlp, config.eps, false, ffn0);
  return {x, feed_forward(ffn0, ffn2, normed), gate_mlp};
}

at::Tensor DitBlock::forward(const at::Tensor& x, int64_t layer, const AttentionContext& context,
                             const DitConfig& config, KvCache& cache) const {
  const Residual out = forward(Residual{x, {}, {}}, layer, context, config, cache);
  return ops::gated_residual(out.x, out.y, out.gate);
}

Dit::Dit(const DitConfig& config) : config_(config), blocks_(config.layers) {
  FLASHVSR_CHECK(config.heads > 0 && config.dim % config.heads == 0 && config.head_dim() % 2 == 0,
                 ErrorCode::kModelInvalid, "dit: dim ", config.dim, " does not split into ",
                 config.heads, " heads");
}

void Dit::visit_parameters(const std::string& prefix, const ParameterVisitor& visit) {
  const int64_t dim = config_.dim, channels = config_.latent_channels;
  visit(prefix + "patch_embedding.weight", patch_embedding_.weight, {dim, channels, 1, 2, 2});
  visit(prefix + "patch_embedding.bias", patch_embedding_.bias, {dim});
  if (config_.has_text) {
    visit_linear(prefix + "text_embedding.0", text_embedding0_, dim, config_.text_dim, visit);
    visit_linear(prefix + "text_embedding.2", text_embedding2_, dim, dim, visit);
  }
  visit_linear(prefix + "time_embedding.0", time_embedding0_, dim, config_.freq_dim, visit);
  visit_linear(prefix + "time_embedding.2", time_embedding2_, dim, dim, visit);
  visit_linear(prefix + "time_projection.1", time_projection_, 6 * dim, dim, visit);
  visit_linear(prefix + "head.head", head_, 4 * channels, dim, visit);
  visit(prefix + "head.modulation", head_modulation_, {1, 2, dim});
  for (size_t n = 0; n < blocks_.size(); ++n) {
    DitBlock& block = blocks_[n];
    const std::string key = prefix + "blocks." + std::to_string(n) + ".";
    const auto visit_attention = [&](const std::string& name, auto& attention) {
      visit_linear(key + name + ".q", attention.q, dim, dim, visit);
      visit_linear(key + name + ".k", attention.k, dim, dim, visit);
      visit_linear(key + name + ".v", attention.v, dim, dim, visit);
      visit_linear(key + name + ".o", attention.o, dim, dim, visit);
      visit(key + name + ".norm_q.weight", attention.norm_q, {dim});
      visit(key + name + ".norm_k.weight", attention.norm_k, {dim});
    };
    visit_attention("self_attn", block.self_attn);
    if (config_.has_text) {
      visit_attention("cross_attn", block.cross_attn);
      visit(key + "norm3.weight", block.norm3_weight, {dim});
      visit(key + "norm3.bias", block.norm3_bias, {dim});
    }
    visit_linear(key + "ffn.0", block.ffn0, config_.ffn_dim, dim, visit);
    visit_linear(key + "ffn.2", block.ffn2, dim, config_.ffn_dim, visit);
    visit(key + "modulation", block.modulation, {1, 6, dim});
  }
}

void Dit::fold_constants(const at::Tensor& prompt) {
  const auto dtype = head_.weight.scalar_type();
  const auto device = head_.weight.device();
  const int64_t dim = config_.dim;
  embedding_ = sinusoidal_embedding(kTimestep, config_.freq_dim, dtype, device);
  timestep_ = time_embedding2_(at::silu(time_embedding0_(embedding_)));
  t_mod_ = time_projection_(at::silu(timestep_)).view({1, 6, dim});

  const at::Tensor head = head_modulation_ + timestep_.unsqueeze(1);  // [1, 2, D]
  head_shift_ = head.select(1, 0).squeeze(0).contiguous();
  head_scale1_ = (head.select(1, 1).squeeze(0) + 1).contiguous();

  if (config_.has_text) {
    FLASHVSR_CHECK(prompt.defined() && prompt.dim() == 3 && prompt.size(2) == config_.text_dim,
                   ErrorCode::kModelInvalid, "dit: the prompt is missing or not [1, n, ",
                   config_.text_dim, "]");
    context_ = text_embedding2_(at::gelu(text_embedding0_(prompt.to(device, dtype)), "tanh"));
  }
  for (DitBlock& block : blocks_) {
    const at::Tensor m = block.modulation + t_mod_;
    for (int64_t i = 0; i < 6; ++i) block.folded[i] = m.select(1, i).squeeze(0).contiguous();
    block.folded[1] = block.folded[1] + 1;
    block.folded[4] = block.folded[4] + 1;
    SelfAttention& self = block.self_attn;
    self.qkv.weight = at::cat({self.q.weight, self.k.weight, self.v.weight}, 0);
    self.qkv.bias = at::cat({self.q.bias, self.k.bias, self.v.bias}, 0);
    // Views: the three are not kept twice.
    self.q.weight = self.qkv.weight.narrow(0, 0, dim);
    self.k.weight = self.qkv.weight.narrow(0, dim, dim);
    self.v.weight = self.qkv.weight.narrow(0, 2 * dim, dim);
    if (!config_.has_text) continue;
    CrossAttention& cross = block.cross_attn;
    cross.key = rms_norm(cross.k(context_), cross.norm_k, config_.eps).squeeze(0).contiguous();
    cross.value = cross.v(context_).squeeze(0).contiguous();
    // Never used again: 283 MB of the released model in bf16.
    if (device.is_cuda()) {
      cross.k.weight.reset();
      cross.v.weight.reset();
    }
  }
  // 51 MB more.
  if (device.is_cuda()) {
    for (Linear* linear : {&text_embedding0_, &text_embedding2_, &time_embedding0_, &time_embedding2_, &time_projection_}) {
      linear->weight.reset();
    }
  }
}

void Dit::quantize_linears() {
  for (DitBlock& block : blocks_) {
    for (Linear* linear : {&block.self_attn.qkv, &block.self_attn.o, &block.ffn0, &block.ffn2}) linear->quantize();
    if (config_.has_text) {
      block.cross_attn.q.quantize();
      block.cross_attn.o.quantize();
    }
    for (Linear* linear : {&block.self_attn.q, &block.self_attn.k, &block.self_attn.v}) linear->weight.reset();
  }
}

at::Tensor Dit::patchify(const at::Tensor& latents) const {
  const int64_t c = latents.size(1), f = latents.size(2), h = latents.size(3) / 2,
                w = latents.size(4) / 2;
  // K index c*4 + dy*2 + dx
  const at::Tensor patches = latents.reshape({c, f, h, 2, w, 2})
                                 .permute({1, 2, 4, 0, 3, 5})
                                 .reshape({f * h * w, c * 4});
  return at::linear(patches, patch_embedding_.weight.view({config_.dim, c * 4}),
                    patch_embedding_.bias);
}

at::Tensor Dit::head(const at::Tensor& tokens) const {
  return head_(ops::layer_norm_modulate(tokens, head_scale1_, head_shift_, config_.eps));
}

at::Tensor Dit::unpatchify(const at::Tensor& values, const TokenGrid& grid) const {
  const int64_t c = config_.latent_channels;
  // value index (dy*2 + dx)*16 + c
  return values.view({grid.f, grid.h, grid.w, 2, 2, c})
      .permute({5, 0, 1, 3, 2, 4})
      .reshape({1, c, grid.f, grid.h * 2, grid.w * 2});
}

AttentionContext Dit::make_context(const TokenGrid& grid, int64_t position,
                                   const AttentionOptions& options, const KvCache& cache) const {
  AttentionContext context;
  context.options = options;
  context.grid = grid;
  const auto device = head_.weight.device();
  std::tie(context.cos, context.sin) =
      rope3d_table(config_.head_dim(), position, grid.f, grid.h, grid.w, device);
  context.slot_map = cache.slot_map(grid.f / 2);
  context.slot_map_on_device = to_device(at::tensor(context.slot_map, at::kInt), device);
  context.replace_mask = replace_mask_;
  return context;
}

at::Tensor Dit::forward(const at::Tensor& latents, at::Tensor lq_tokens, int64_t position,
                        const AttentionOptions& options, KvCache& cache,
                        const std::atomic<bool>* cancel) const {
  const TokenGrid grid{latents.size(2), latents.size(3) / 2, latents.size(4) / 2};
  return forward(latents, std::move(lq_tokens), make_context(grid, position, options, cache), cache, cancel);
}

at::Tensor Dit::forward(const at::Tensor& latents, at::Tensor lq_tokens, const AttentionContext& context, KvCache& cache,
                        const std::atomic<bool>* cancel) const {
  const TokenGrid& grid = context.grid;
  const AttentionOptions& options = context.options;
  at::Tensor x = patchify(latents);
  FLASHVSR_CHECK(lq_tokens.dim() == 3 && lq_tokens.size(1) == x.size(0) && lq_tokens.size(2) == x.size(1),
                 ErrorCode::kInternal, "dit: LQ tokens are ", lq_tokens.sizes(), " for ", x.sizes(),
                 " latent tokens");
  // Before anything that comes and goes, lest it lies between that for good.
  if (!at::GradMode::is_enabled()) {
    cache.reserve(config_.layers, grid.blocks().windows(), config_.dim, options.kv_chunks, x.options());
  }
  Residual open{std::move(x), lq_tokens.squeeze(0), {}};
  lq_tokens.reset();
  for (size_t n = 0; n < blocks_.size(); ++n) {
    throw_if_cancelled(cancel);
    open = blocks_[n].forward(std::move(open), static_cast<int64_t>(n), context, config_, cache);
  }
  x = open.gate.defined() ? ops::gated_residual(open.x, open.y, open.gate) : open.x + open.y;
  open = {};
  cache.advance(grid.f / 2, options.kv_chunks);
  return unpatchify(head(x), grid);
}

}  // namespace flashvsr
