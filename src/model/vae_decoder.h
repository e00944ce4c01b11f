// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Wan2.1 VAE decoder, the alternative to the TC decoder: latents -> frames.
//
//   latents  [1, 16, f, H/8, W/8]   x0, normalised (mean and std are applied here)
//   result   [1, 3, F, H, W]        clamped to [-1, 1]; F = 4f, or 4f-3 for the first
//                                   latents of a stream
//
// Streaming: `memory` holds the last two input steps of each causal convolution, so that
// any split of the latents gives the same frames. Layers run over all latents of a chunk.
// Keys of the released file; `encoder.*` and the top-level `conv1` are not part of it.
//
// Thread-safety: immutable after loading. Source: model.md 6, 1.6.
#ifndef FLASHVSR_MODEL_VAE_DECODER_H_
#define FLASHVSR_MODEL_VAE_DECODER_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/parameters.h"
#include "model/state.h"

namespace flashvsr {

struct CausalConv3d {
  at::Tensor weight, bias;  // [out, in, 3, 3, 3] or [out, in, 3, 1, 1] or [out, in, 1, 1, 1]
  // x [1, C, T, H, W]; `past` undefined: zeros; replaced by the last two input steps.
  at::Tensor forward(const at::Tensor& x, at::Tensor& past) const;
};

struct VaeResBlock {
  at::Tensor gamma0, gamma3;
  CausalConv3d conv2, conv6;
  at::Tensor shortcut_weight, shortcut_bias;  // undefined: identity
};

struct VaeAttention {
  at::Tensor gamma, qkv_weight, qkv_bias, proj_weight, proj_bias;
};

struct VaeResample {
  at::Tensor conv_weight, conv_bias;  // 2-D 3x3, halves the channels
  CausalConv3d time_conv;             // undefined weight: no doubling in time
};

class VaeDecoder {
 public:
  explicit VaeDecoder(const VaeConfig& config);
  void visit_parameters(const std::string& prefix, const ParameterVisitor& visit);
  bool is_loaded() const { return conv_in_.weight.defined(); }

  at::Tensor forward(const at::Tensor& latents, VaeMemory& memory,
                     const std::atomic<bool>* cancel = nullptr) const;

 private:
  at::Tensor res_block(const VaeResBlock& block, const at::Tensor& x, VaeMemory& memory,
                       size_t& slot) const;
  at::Tensor attention(const at::Tensor& x) const;
  at::Tensor resample(const VaeResample& stage, const at::Tensor& x, bool is_start,
                      VaeMemory& memory, size_t& slot) const;

  VaeConfig config_;
  at::Tensor pre_weight_, pre_bias_;  // top-level conv2, 1x1x1
  CausalConv3d conv_in_;
  VaeResBlock middle0_, middle2_;
  VaeAttention middle1_;
  std::vector<VaeResBlock> blocks_;      // upsamples.{0,1,2, 4,5,6, 8,9,10, 12,13,14}
  std::vector<VaeResample> resamples_;   // upsamples.{3, 7, 11}
  at::Tensor head_gamma_;
  CausalConv3d head_conv_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_VAE_DECODER_H_
