// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one-step diffusion transformer: noise and LQ tokens -> velocity.
//
//   latents    [1, 16, f, H/8, W/8]   f = 6 in the first run, then 2
//   lq_tokens  [1, f*h*w, D]          added once, before block 0
//   result     [1, 16, f, H/8, W/8]   velocity v; x0 = noise - v is the caller's
//
// Prompt and timestep (1000) never change, so cross-attention's keys and values and all
// modulation vectors are constants, folded once by `fold_constants`.
//
// Thread-safety: forward is const; fold_constants and loading are not.
// Source: model.md 4.
#ifndef FLASHVSR_MODEL_DIT_H_
#define FLASHVSR_MODEL_DIT_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "model/config.h"
#include "model/kv_cache.h"
#include "model/ops.h"
#include "model/parameters.h"

namespace flashvsr {

// Rows of a layer's input: in the model's dtype, or e4m3 with a scale per row.
struct Activation {
  at::Tensor value, scale;
  Activation(at::Tensor rows) : value(std::move(rows)) {}
  Activation(at::Tensor rows, at::Tensor row_scale) : value(std::move(rows)), scale(std::move(row_scale)) {}
};

struct Linear {
  at::Tensor weight;  // [out, in]; undefined once quantized
  at::Tensor bias;    // [out]
  at::Tensor weight8, scale8;  // e4m3 [out, in] and fp32 [out], made by quantize
  bool is_quantized() const { return weight8.defined(); }
  void quantize();
  at::Tensor operator()(const Activation& x) const;
};

// More tokens than this, and the FFN makes its hidden rows, which are six times as wide as all else, in groups: the first
// chunk of 1536x2688 has more, a steady one just not.
constexpr int64_t kFfnRows = 32768;

// ffn2(gelu(ffn0(x))) for at most `rows` rows at a time.
at::Tensor feed_forward(const Linear& ffn0, const Linear& ffn2, const Activation& x, int64_t rows = kFfnRows);

struct AttentionOptions {
  int64_t topk = 0;         // block_topk
  int64_t local_range = 11;
  int64_t kv_chunks = 3;
};

// For tests and benchmarks only: sees each layer's block mask and says which to use.
using MaskHook =
    std::function<const BlockPairs&(int64_t layer, const BlockPairs& pairs, int64_t key_blocks)>;

struct AttentionContext {
  AttentionOptions options;
  TokenGrid grid;
  at::Tensor cos, sin;  // rope3d_table on the model's device
  std::vector<int32_t> slot_map;  // KvCache::slot_map
  at::Tensor slot_map_on_device;  // int32
  MaskHook replace_mask;
};

struct SelfAttention {
  Linear q, k, v, o;
  at::Tensor norm_q, norm_k;  // [D]
  Linear qkv;                 // q, k, v side by side, made by fold_constants

  // x [S, D], modulated. Reads the layer's part of the cache and stores the new slots in it. What `o` is to project.
  // Takes x over: given away, its memory is free before attention begins.
  at::Tensor attend(Activation x, int64_t layer, const AttentionContext& context,
                     int64_t heads, double eps, KvCache& cache) const;
};

struct CrossAttention {
  Linear q, k, v, o;
  at::Tensor norm_q, norm_k;
  at::Tensor key, value;  // [prompt, D], made by fold_constants

  // What `o` is to project; takes x over.
  at::Tensor attend(Activation x, int64_t heads, double eps) const;
};

// A sum not yet made: x + gate * y, x + y without gate, x without y. The next norm makes it, so
// that the sum is written and read once.
struct Residual {
  at::Tensor x, y, gate;
};

struct DitBlock {
  SelfAttention self_attn;
  CrossAttention cross_attn;
  at::Tensor norm3_weight, norm3_bias;
  Linear ffn0, ffn2;
  at::Tensor modulation;  // [1, 6, D]: shift, scale, gate of self-attention, then of the FFN
  // modulation + t_mod, folded: shift, 1 + scale, gate twice; [D] each.
  std::array<at::Tensor, 6> folded;

  // Takes `in` over: given away, its memory is free once the first sum is made.
  Residual forward(Residual in, int64_t layer, const AttentionContext& context,
                   const DitConfig& config, KvCache& cache) const;
  at::Tensor forward(const at::Tensor& x, int64_t layer, const AttentionContext& context,
                     const DitConfig& config, KvCache& cache) const;
};

class Dit {
 public:
  explicit Dit(const DitConfig& config);

  void visit_parameters(const std::string& prefix, const ParameterVisitor& visit);

  // `prompt` [1, n, text_dim] in the weights' dtype, undefined without a text branch. Once: on a device the weights
  // that it alone needs go.
  void fold_constants(const at::Tensor& prompt);

  // The blocks' linears to e4m3 with a scale per output channel; inputs are then quantized per row.
  // After fold_constants; the weights in the model's dtype go.
  void quantize_linears();

  // `position`: RoPE time position of the first latent frame. Takes lq_tokens over: given away, their
  // memory is free after the first block's sum.
  at::Tensor forward(const at::Tensor& latents, at::Tensor lq_tokens, int64_t position,
                     const AttentionOptions& options, KvCache& cache,
                     const std::atomic<bool>* cancel = nullptr) const;

  // The same with a context made before; its mask hook is what counts.
  at::Tensor forward(const at::Tensor& latents, at::Tensor lq_tokens, const AttentionContext& context, KvCache& cache,
                     const std::atomic<bool>* cancel = nullptr) const;

  // Parts, for tests. tokens [S, D].
  at::Tensor patchify(const at::Tensor& latents) const;
  at::Tensor head(const at::Tensor& tokens) const;                                  // [S, 64]
  at::Tensor unpatchify(const at::Tensor& values, const TokenGrid& grid) const;
  AttentionContext make_context(const TokenGrid& grid, int64_t position,
                                const AttentionOptions& options, const KvCache& cache) const;
  const std::vector<DitBlock>& blocks() const { return blocks_; }
  const at::Tensor& timestep() const { return timestep_; }          // t [1, D]
  const at::Tensor& timestep_modulation() const { return t_mod_; }  // [1, 6, D]
  const at::Tensor& timestep_embedding() const { return embedding_; }
  const at::Tensor& prompt_context() const { return context_; }     // [1, n, D]
  void set_mask_hook(MaskHook hook) { replace_mask_ = std::move(hook); }

 private:
  DitConfig config_;
  Linear patch_embedding_;  // weight [D, 16, 1, 2, 2]
  Linear text_embedding0_, text_embedding2_;
  Linear time_embedding0_, time_embedding2_, time_projection_;
  Linear head_;
  at::Tensor head_modulation_;  // [1, 2, D]
  std::vector<DitBlock> blocks_;

  at::Tensor embedding_, timestep_, t_mod_, context_;
  at::Tensor head_shift_, head_scale1_;
  MaskHook replace_mask_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_DIT_H_
