// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Everything a stream remembers from chunk to chunk, as one value. Flush, a cut
// and a new size are `state = {}`.
//
// Without gradients what is remembered is written in place: the same memory from chunk to chunk, and copies of a
// state share it.
//
// Thread-safety: unsafe, one stream has one.
#ifndef FLASHVSR_MODEL_STATE_H_
#define FLASHVSR_MODEL_STATE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/kv_cache.h"

namespace flashvsr {

// Last two time steps before conv1 and before conv2 (v1.1 only), undefined at the start.
struct LqCache {
  at::Tensor conv1;  // [1, 3*u*u, 2, h, w]
  at::Tensor conv2;  // [1, hidden1, 2, h, w]
  int64_t clips = 0;  // clips projected since the state began
};

// Input of each MemBlock at its previous time step, in layer order; empty at the start (= zeros).
struct DecoderMemory {
  std::vector<at::Tensor> steps;  // [B, C, H', W'] each
  bool is_first() const { return steps.empty(); }
};

// Last two input steps of each causal convolution of the VAE decoder, in execution order.
struct VaeMemory {
  std::vector<at::Tensor> steps;
  int64_t latents = 0;  // latents decoded since the state began
};

struct SteadyChunk;  // model/upscaler.cpp

struct StreamState {
  KvCache kv;
  LqCache lq;
  DecoderMemory decoder;
  VaeMemory vae;
  int64_t runs = 0;           // chunks done since the state began
  int64_t latent_frames = 0;  // RoPE position of the next latent frame; no upper bound
  // A steady chunk's stages as they were recorded, with RunOptions::record_stages. Belongs to this object: a copy
  // records anew.
  std::shared_ptr<SteadyChunk> steady;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_STATE_H_
