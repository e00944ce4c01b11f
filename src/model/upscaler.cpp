// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/upscaler.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "model/cancel.h"
#include "model/device_cache.h"
#include "model/ops.h"
#include "model/stage_graphs.h"

namespace flashvsr {
namespace {

// Large convolutions that the CUDA kernels read in an order of their own, made once at their first use. What no kernel
// takes would go to the device at every use, waiting for it, and could not be recorded: in doubt a weight stays there.
bool is_packed_later(const std::string& key, const at::Tensor& weight) {
  if (key == "lq_proj_in.conv1.weight" || key == "lq_proj_in.conv2.weight") return true;
  constexpr int64_t kLarge = 1 << 17;
  return key.compare(0, 11, "tc_decoder.") == 0 && weight.dim() == 4 && weight.numel() >= kLarge && weight.size(1) % 8 == 0 &&
         weight.size(0) % (weight.size(2) == 3 ? 128 : 256) == 0;  // a growth of two takes whole pairs of tiles
}

// From here on (1024x1536 and more) a stage's largest tensors are hundreds of megabytes, and what one stage leaves cached is
// in the way of the next: 0.9 GiB at 1536x2688.
constexpr int64_t kTidyPixels = int64_t{3} << 19;

// `next` begins when the current stream has come here, and may read `tensors`.
void hand_over(const c10::Stream& next, std::initializer_list<at::Tensor> tensors) {
  const c10::impl::VirtualGuardImpl device(next.device_type());
  c10::Event reached(next.device_type());
  reached.record(device.getStream(next.device()));
  reached.block(next);
  for (const at::Tensor& tensor : tensors) {
    // The allocator is not to give its memory away before `next` has read it.
    if (tensor.defined()) device.recordDataPtrOnStream(tensor.storage().data_ptr(), next);
  }
}

}  // namespace

// What run_recorded needs from chunk to chunk. Bodies refer to it and to the state it belongs to.
struct SteadyChunk {
  struct Phase {
    at::Tensor tokens, x0, frames;
  };
  const StreamState* owner = nullptr;
  std::unique_ptr<StageGraphs> graphs;  // outlives the tensors below, which lie in its memory
  AttentionOptions attention;
  RunOptions options;
  at::Tensor lq, noise;
  AttentionContext context;
  std::map<int64_t, Phase> phases;  // by the ring's
  std::set<int64_t> recorded;

  bool is_of(const AttentionOptions& a, const RunOptions& o, const at::Tensor& input) const {
    return a.topk == attention.topk && a.local_range == attention.local_range && a.kv_chunks == attention.kv_chunks &&
           o.decode_latents == options.decode_latents && input.sizes() == lq.sizes() && input.scalar_type() == lq.scalar_type();
  }

  // True when `body` ran. What cannot be recorded runs as it is, then and from then on: bodies leave what they read, for
  // a recording can fail behind its end, and change nothing of the host's but what `state` counts.
  bool run(int64_t key, StreamState& state, const std::function<void()>& body) {
    if (graphs) {
      const KvCache::Position position = state.kv.position();
      try {
        const bool ran = graphs->run(key, body);
        recorded.insert(key);
        return ran;
      } catch (const std::exception& e) {
        if (recorded.count(key) > 0) throw;  // not a recording: the device has failed
        state.kv.rewind(position);
        FLASHVSR_CHECK(!ops::is_strict(), ErrorCode::kInternal, "a stage cannot be recorded, and FLASHVSR_STRICT is set: ", e.what());
        log(LogLevel::kWarning, "stages are not recorded: ", e.what());
        graphs.reset();
      }
    }
    body();
    return true;
  }
};

Upscaler::Upscaler(const ModelConfig& config)
    : config_(config),
      dit_(config.dit),
      lq_projector_(config.lq_projector),
      tc_decoder_(config.tc_decoder),
      vae_decoder_(config.vae) {}

void Upscaler::visit_parameters(const ParameterVisitor& visit, bool with_vae) {
  if (config_.has_transformer) {
    dit_.visit_parameters("dit.", visit);
    lq_projector_.visit_parameters("lq_proj_in.", visit);
  }
  tc_decoder_.visit_parameters("tc_decoder.", visit);
  if (with_vae) vae_decoder_.visit_parameters("vae.", visit);
}

void Upscaler::prepare(c10::Device device, c10::ScalarType dtype, const at::Tensor& prompt,
                       bool with_vae) {
  const bool quantize = dtype == c10::kFloat8_e4m3fn;
  if (quantize) dtype = c10::kBFloat16;
  device_ = device;
  dtype_ = dtype;
  visit_parameters(
      [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
        FLASHVSR_CHECK(tensor.defined(), ErrorCode::kInternal, "upscaler: ", key, " was not loaded");
        // On the device they would take 650 MB for nothing.
        const bool stays = device.is_cuda() && dtype == c10::kBFloat16 && !ops::wants_reference() && is_packed_later(key, tensor);
        tensor = tensor.to(stays ? c10::Device(c10::kCPU) : device, dtype);
        tensor = tensor.dim() == 4 ? tensor.contiguous(at::MemoryFormat::ChannelsLast) : tensor.contiguous();
      },
      with_vae);
  if (config_.has_transformer) {
    dit_.fold_constants(prompt.defined() ? prompt.to(device, dtype) : prompt);
    if (quantize) dit_.quantize_linears();
  }
}

at::Tensor Upscaler::decode(const at::Tensor& latents, const at::Tensor& cond, const RunOptions& options,
                            StreamState& state, const std::atomic<bool>* cancel) const {
  if (options.decoder == DecoderKind::kVae) {
    FLASHVSR_CHECK(vae_decoder_.is_loaded() && latents.defined(), ErrorCode::kInvalidArgument,
                   "decoder=vae: this model has no VAE decoder");
    return vae_decoder_.forward(latents, state.vae, cancel);
  }
  const int64_t count = (cond.size(2) + 3) / 4;
  const int64_t step = options.decode_latents > 0 ? options.decode_latents : device_.is_cuda() ? 2 : count;
  if (step >= count) return tc_decoder_.forward(latents, cond, state.decoder, {}, cancel);
  std::vector<at::Tensor> frames;
  int64_t begin = 0;
  for (int64_t latent = 0; latent < count; latent += step) {
    const int64_t group = std::min(step, count - latent);
    // The first latent of a stream stands for one frame.
    const int64_t inputs = 4 * group - (state.decoder.is_first() ? 3 : 0);
    frames.push_back(tc_decoder_.forward(latents.defined() ? latents.narrow(2, latent, group) : latents,
                                         cond.narrow(2, begin, inputs), state.decoder, {}, cancel));
    begin += inputs;
  }
  return at::cat(frames, 2);
}

at::Tensor Upscaler::make_noise(uint64_t seed, int64_t first_frame, int64_t frames, int64_t height, int64_t width) const {
  if (!config_.has_transformer || config_.noise_scale == 0) return {};
  at::Tensor values = at::empty({config_.dit.latent_channels, frames, height, width},
                                at::TensorOptions().device(device_).dtype(at::kFloat));
  ops::philox_noise(values, seed, first_frame);
  return values.unsqueeze(0).mul_(config_.noise_scale).to(dtype_);
}

at::Tensor Upscaler::noise_of(const at::Tensor& lq, const RunOptions& options, const StreamState& state,
                              const at::Tensor& given) const {
  const int64_t frames = latents_of_run(state), scale = config_.input_scale;
  const int64_t height = lq.size(3) * scale / 8, width = lq.size(4) * scale / 8;
  if (config_.noise_scale == 0) return at::zeros({1, config_.dit.latent_channels, frames, height, width}, lq.options());
  const at::Tensor noise = given.defined() ? given : make_noise(options.seed, state.latent_frames, frames, height, width);
  return noise.to(lq.device(), lq.scalar_type());
}

AttentionOptions Upscaler::attention_options(const RunOptions& options, const at::Tensor& lq) const {
  const BlockGrid grid{lq.size(3) * config_.input_scale / 128, lq.size(4) * config_.input_scale / 128};
  AttentionOptions attention;
  attention.topk = options.topk >= 0 ? options.topk : block_topk(grid, options.sparse_ratio, config_.blocks_per_query);
  attention.local_range = options.local_range;
  attention.kv_chunks = options.kv_chunks;
  return attention;
}

// Makes state.steady ready for this chunk, or undefined where it is not to be recorded. The first steady chunk is not: what
// is made at first use is made by then.
void Upscaler::prepare_to_record(const at::Tensor& lq, const RunOptions& options, StreamState& state) const {
  const bool may_record =
      options.record_stages && state.runs >= 2 && options.decoder == DecoderKind::kTc && !options.decode_stream &&
      (!config_.has_transformer ||
       (state.kv.storage() == CacheStorage::kDevice && state.kv.is_full(latents_of_run(state) / 2, options.kv_chunks)));
  if (!may_record) {
    state.steady.reset();
    return;
  }
  const AttentionOptions attention = config_.has_transformer ? attention_options(options, lq) : AttentionOptions();
  if (state.steady && (state.steady->owner != &state || !state.steady->is_of(attention, options, lq))) state.steady.reset();
  if (state.steady) return;
  std::unique_ptr<StageGraphs> graphs = make_stage_graphs(device_, dtype_);
  if (!graphs) return;
  state.steady = std::make_shared<SteadyChunk>();
  state.steady->graphs = std::move(graphs);
  state.steady->owner = &state;
  state.steady->attention = attention;
  state.steady->options = options;
  state.steady->lq = at::empty_like(lq, at::MemoryFormat::Contiguous);
}

// A chunk's inputs go to where those of the recorded one lay. Each position of the ring has its own recordings, for the
// slots that are read and written are part of them.
at::Tensor Upscaler::run_recorded(const at::Tensor& lq, const RunOptions& options, StreamState& state, const at::Tensor& given_noise,
                                  const std::atomic<bool>* cancel, StageClock* clock) const {
  SteadyChunk& steady = *state.steady;
  const int64_t phase = config_.has_transformer ? state.kv.phase() : 0;
  SteadyChunk::Phase& now = steady.phases[phase];
  steady.lq.copy_(lq);
  if (clock != nullptr) clock->begin();
  if (config_.has_transformer) {
    const int64_t clips = state.lq.clips;
    steady.run(3 * phase, state, [this, &steady, &now, &state, clips] {
      state.lq.clips = clips;
      now.tokens = lq_projector_.forward(steady.lq.narrow(2, 4, 8), state.lq);
    });
    state.lq.clips = clips + 2;
    if (clock != nullptr) clock->end_stage(&StageTimes::projector_ms);
    throw_if_cancelled(cancel);

    const at::Tensor noise = noise_of(lq, options, state, given_noise);
    const TokenGrid grid{noise.size(2), noise.size(3) / 2, noise.size(4) / 2};
    AttentionContext context = dit_.make_context(grid, state.latent_frames, steady.attention, state.kv);
    if (!steady.noise.defined()) {
      steady.noise = noise.clone();
      steady.context = context;
    } else {
      steady.noise.copy_(noise);
      steady.context.cos.copy_(context.cos);
      steady.context.sin.copy_(context.sin);
      steady.context.slot_map_on_device.copy_(context.slot_map_on_device);
      steady.context.slot_map = context.slot_map;
    }
    if (!steady.run(3 * phase + 1, state, [this, &steady, &now, &state] {
          now.x0 = steady.noise - dit_.forward(steady.noise, now.tokens, steady.context, state.kv);
        })) {
      state.kv.advance(grid.f / 2, options.kv_chunks);
    }
    now.tokens.reset();
    state.latent_frames += grid.f;
    if (clock != nullptr) clock->end_stage(&StageTimes::transformer_ms);
    throw_if_cancelled(cancel);
  }
  steady.run(3 * phase + 2, state, [this, &steady, &now, &state] {
    now.frames = decode(now.x0, steady.lq.narrow(2, 0, outputs_of_run(state)), steady.options, state, nullptr);
  });
  now.x0.reset();
  if (clock != nullptr) clock->end_stage(&StageTimes::decoder_ms);
  ++state.runs;
  return now.frames;
}

at::Tensor Upscaler::run(const at::Tensor& lq, const RunOptions& options, StreamState& state,
                         const at::Tensor& given_noise, const std::atomic<bool>* cancel,
                         StageClock* clock) const {
  const int64_t inputs = inputs_of_run(state), outputs = outputs_of_run(state);
  const int64_t height = lq.size(3) * config_.input_scale, width = lq.size(4) * config_.input_scale;
  const int64_t multiple = config_.size_multiple();
  FLASHVSR_CHECK(lq.dim() == 5 && lq.size(2) == inputs && height % multiple == 0 && width % multiple == 0,
                 ErrorCode::kInternal, "upscaler: input is ", lq.sizes(), ", expected ", inputs,
                 " frames whose enlarged sides are multiples of ", multiple);
  const bool is_first = state.runs == 0;
  const at::Tensor cond = lq.narrow(2, 0, outputs);
  prepare_to_record(lq, options, state);
  if (state.steady) return run_recorded(lq, options, state, given_noise, cancel, clock);
  if (clock != nullptr) clock->begin();

  at::Tensor x0;
  if (config_.has_transformer) {
    state.kv.fetch_first();
    const at::Tensor clips = is_first ? lq : lq.narrow(2, 4, 8);
    at::Tensor tokens = lq_projector_.forward(clips, state.lq);
    if (clock != nullptr) clock->end_stage(&StageTimes::projector_ms);

    const int64_t f = latents_of_run(state);
    const at::Tensor noise = noise_of(lq, options, state, given_noise);
    x0 = noise - dit_.forward(noise, std::move(tokens), state.latent_frames, attention_options(options, lq), state.kv, cancel);
    state.latent_frames += f;
    if (clock != nullptr) clock->end_stage(&StageTimes::transformer_ms);
  }

  // Once a stream: the first decoder's memory is its peak, and what follows finds its places.
  if (is_first && height * width >= kTidyPixels && !options.decode_stream) release_cached(device_);
  // The frames are the decode stream's: whoever uses them elsewhere has to wait for it.
  if (options.decode_stream) hand_over(*options.decode_stream, {x0, lq});
  const c10::OptionalStreamGuard beside(options.decode_stream);
  at::Tensor frames = decode(x0, cond, options, state, cancel);
  if (clock != nullptr) clock->end_stage(&StageTimes::decoder_ms);
  ++state.runs;
  return frames;
}

}  // namespace flashvsr
