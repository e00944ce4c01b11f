// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Tiny conditional decoder (TC decoder): latents and LQ frames -> frames.
//
//   latents  [B, 16, f, H/8, W/8]
//   cond     [B, 3, F, Hm, Wm]   LQ frames of the same instants, model pixels, in [-1,1];
//                                F = 4f, or 4f-3 for the first chunk of a stream
//   result   [B, 3, F, H, W]     2y-1, not clamped; base + y with config.residual
//
// The first chunk is packed with 3 copies of its first frame in front and loses its
// first 3 results. Every MemBlock sees its own input of the previous time step, zeros
// at the start of a stream; `memory` carries it. Any split of a stream into chunks
// gives the same frames. Layers are run for all time steps of a chunk at once.
//
// Differentiable in weights, latents and cond: the trainer calls the same forward.
// Thread-safety: immutable after loading.
// Source: model.md 5; the student's switches (residual, skip, final_shuffle):
// nano_recipe.md 2.
#ifndef FLASHVSR_MODEL_TC_DECODER_H_
#define FLASHVSR_MODEL_TC_DECODER_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/parameters.h"
#include "model/state.h"

namespace flashvsr {

struct Conv2d {
  at::Tensor weight;  // [out, in, k, k]
  at::Tensor bias;    // [out] or undefined
  // 3x3, zero padding, on x enlarged `up` times (nearest). feeds_memory: ops::conv3x3's.
  at::Tensor operator()(const at::Tensor& x, bool relu = false, int64_t up = 1, bool feeds_memory = false) const;
};

struct MemBlock {
  Conv2d conv0, conv2, conv4;
  // x [B*T, C, H', W'] (time fastest), memory [B, C, H', W'] (previous input; undefined = zeros),
  // replaced by x's last step. The result may come in x's memory. `is_last`: no MemBlock follows.
  at::Tensor forward(const at::Tensor& x, int64_t batch, at::Tensor& memory, bool is_last) const;
  // The same for B = 1 without the replacement; x stays.
  at::Tensor apply(const at::Tensor& x, const at::Tensor& memory, bool is_last) const;
};

// How much of the layers behind the second stage, where features are largest, runs at once.
struct TailSplit {
  int64_t steps = 1;          // of the second stage
  int64_t strips = 1;         // of rows; each also computes the rows around it that it depends on
  int64_t finish_strips = 1;  // of a strip, for the layers behind the third stage; fewer where tiles fill better
};

// On a device without gradients: the largest parts whose features stay below some 720 MB, and 600 MB behind
// the third stage, there no more than in it where there are strips (fixed figures: the same split on every card).
// `pixels` of the output, `steps` of the second stage.
TailSplit tail_split(const TcDecoderConfig& config, int64_t pixels, int64_t steps, int64_t bytes_per_value);

// The most bytes of features that live at once behind the second stage with that split and our kernels, without
// frames and memories.
int64_t tail_bytes(const TcDecoderConfig& config, const TailSplit& split, int64_t pixels, int64_t steps,
                   int64_t bytes_per_value);

class TcDecoder {
 public:
  explicit TcDecoder(const TcDecoderConfig& config);

  // Keys "decoder.N.weight" ..., N by the layout rule of the released file.
  void visit_parameters(const std::string& prefix, const ParameterVisitor& visit);

  // `base` [B, 3, F, H, W]: the frames that the residual is added to; only with config.residual
  // (undefined: antialiased bicubic enlargement of cond, a = -0.5). `latents` undefined: zeros.
  at::Tensor forward(const at::Tensor& latents, const at::Tensor& cond, DecoderMemory& memory,
                     const at::Tensor& base = {}, const std::atomic<bool>* cancel = nullptr) const;

  // For tests: this split, on every device.
  void set_tail_split(const TailSplit& split) { forced_split_ = split; }

 private:
  at::Tensor split_tail(const at::Tensor& x, DecoderMemory& memory, const TailSplit& split, int64_t dropped,
                        const std::atomic<bool>* cancel) const;
  at::Tensor decode(const at::Tensor& latents, const at::Tensor& frames, int64_t missing, DecoderMemory& memory,
                    const std::atomic<bool>* cancel) const;
  at::Tensor finish(const at::Tensor& x) const;

  TcDecoderConfig config_;
  std::optional<TailSplit> forced_split_;
  Conv2d conv_in_, deepen_in_;
  std::vector<MemBlock> mem_[3];
  Conv2d grow_[3], transition_[3];
  Conv2d skip_, deepen_out_, conv_out_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_TC_DECODER_H_
