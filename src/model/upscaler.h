// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One run of the model: a chunk of LQ frames in, enlarged frames out. Owns the
// order of the stages and the weights; the stream's past is an argument.
//
//   first run   lq [1, 3, 25, Hm, Wm] -> frames [1, 3, 21, H, W]   LQ 0 .. 24, frames 0 .. 20
//   later runs  lq [1, 3, 12, Hm, Wm] -> frames [1, 3,  8, H, W]
//
// Run n >= 1 takes the LQ frames [8n+13, 8n+25): the 4 oldest were part of the run
// before (now the decoder's condition, [8n+13, 8n+21)); the 8 newest are the projector's
// clips. Its output is the frames [8n+13, 8n+21). Pixel values are x/255*2-1 in model
// pixels (see model/config.h): Hm = H / input_scale. H and W are multiples of
// config.size_multiple().
//
// Output is the decoder's, 2y-1, not clamped and not colour-corrected; cond (the
// matching LQ frames) is what colour correction compares with.
//
// Noise: Philox4x32-10 of (seed, latent frame, channel, row, column), so that the
// values do not depend on chunking or device; a caller may pass its own instead.
//
// Errors: throws Error; kInterrupted when `cancel` becomes true (polled per
// transformer block and decoder stage); the state is then to be dropped.
// Thread-safety: run is const; one state per stream.
// Source: model.md 2.4, 9.
#ifndef FLASHVSR_MODEL_UPSCALER_H_
#define FLASHVSR_MODEL_UPSCALER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "model/config.h"
#include "model/dit.h"
#include "model/lq_projector.h"
#include "model/parameters.h"
#include "model/stage_clock.h"
#include "model/state.h"
#include "model/tc_decoder.h"
#include "model/vae_decoder.h"

namespace flashvsr {

enum class DecoderKind { kTc, kVae };

struct RunOptions {
  double sparse_ratio = 2.0;
  int64_t kv_chunks = 3;
  int64_t local_range = 11;
  uint64_t seed = 0;
  DecoderKind decoder = DecoderKind::kTc;
  // Latents that the TC decoder takes at a time (the frames are the same): fewer need less memory.
  // 0: two at a time on CUDA (the convolutions' tiles span
  // two steps), all at once on the CPU.
  int64_t decode_latents = 0;
  // Where the decoder and what the caller does with its frames run, beside the next run's transformer; one and the
  // same for all of a stream's life. None: on the current stream like everything else. Costs memory: what the two hold
  // no longer takes turns.
  std::optional<c10::Stream> decode_stream;
  // Where the device can: steady chunks' stages are recorded once (model/stage_graphs.h) and asked for in one call
  // each. For the TC decoder on the current stream and a cache on the device. Frames that `run` returned are
  // then valid until the next run of their state. Costs the memory of a steady chunk's stages.
  bool record_stages = false;
  // Overrides the formula trunc(L^2 * topk_ratio) - 1 when >= 0 (fixtures name it).
  int64_t topk = -1;
};

class Upscaler {
 public:
  // Weights are undefined until loaded through visit_parameters.
  explicit Upscaler(const ModelConfig& config);

  const ModelConfig& config() const { return config_; }

  // Keys are those of the released files, with the prefixes "dit.", "lq_proj_in.",
  // "tc_decoder." (and "vae." when a VAE decoder is wanted).
  void visit_parameters(const ParameterVisitor& visit, bool with_vae);

  // Moves every weight to `device` and `dtype`, folds the constants (prompt keys
  // and values, time modulation) and makes the model ready to run. `prompt` is
  // [1, n, text_dim] or undefined when the config has no text branch.
  // kFloat8_e4m3fn: the transformer's linears in 8 bits, everything else (and dtype()) bf16.
  void prepare(c10::Device device, c10::ScalarType dtype, const at::Tensor& prompt, bool with_vae);

  c10::Device device() const { return device_; }
  c10::ScalarType dtype() const { return dtype_; }

  // The noise that a run makes for itself: [1, 16, frames, height, width] of the latent grid, from
  // latent frame `first_frame` on. Undefined for a model without noise.
  at::Tensor make_noise(uint64_t seed, int64_t first_frame, int64_t frames, int64_t height, int64_t width) const;

  // Runs the next chunk; on a GPU it has been asked for, not done, when this returns. `noise` [1, 16, f, H/8, W/8] (f = 6, then 2) or undefined.
  at::Tensor run(const at::Tensor& lq, const RunOptions& options, StreamState& state,
                 const at::Tensor& noise = {}, const std::atomic<bool>* cancel = nullptr,
                 StageClock* clock = nullptr) const;

  // Frames the next run takes and gives: {25, 21}, then {12, 8}.
  static int64_t inputs_of_run(const StreamState& state) { return state.runs == 0 ? 25 : 12; }
  static int64_t outputs_of_run(const StreamState& state) { return state.runs == 0 ? 21 : 8; }
  static int64_t latents_of_run(const StreamState& state) { return state.runs == 0 ? 6 : 2; }

  // Parts, for tests and the trainer.
  Dit& dit() { return dit_; }
  LqProjector& lq_projector() { return lq_projector_; }
  TcDecoder& tc_decoder() { return tc_decoder_; }
  VaeDecoder& vae_decoder() { return vae_decoder_; }

 private:
  void prepare_to_record(const at::Tensor& lq, const RunOptions& options, StreamState& state) const;
  at::Tensor run_recorded(const at::Tensor& lq, const RunOptions& options, StreamState& state, const at::Tensor& noise,
                          const std::atomic<bool>* cancel, StageClock* clock) const;
  at::Tensor noise_of(const at::Tensor& lq, const RunOptions& options, const StreamState& state, const at::Tensor& given) const;
  AttentionOptions attention_options(const RunOptions& options, const at::Tensor& lq) const;
  at::Tensor decode(const at::Tensor& latents, const at::Tensor& cond, const RunOptions& options,
                    StreamState& state, const std::atomic<bool>* cancel) const;

  ModelConfig config_;
  Dit dit_;
  LqProjector lq_projector_;
  TcDecoder tc_decoder_;
  VaeDecoder vae_decoder_;
  c10::Device device_{c10::kCPU};
  c10::ScalarType dtype_ = c10::kFloat;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_UPSCALER_H_
