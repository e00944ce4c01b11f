// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/plan.h"

#include <algorithm>
#include <cstdio>

#include "stream/chunk_schedule.h"

namespace flashvsr {

namespace {

constexpr uint64_t kLatentFrames = 6;  // of the first run
// Beyond this the CPU's decoder takes one latent at a time.
constexpr uint64_t kCpuDecoderBytes = 1500000000;

uint64_t tc_decoder_peak(const TcDecoderConfig& tc, uint64_t pixels, uint64_t latents, uint64_t value, bool is_cpu) {
  const uint64_t copies = is_cpu ? 3 : 2;
  // the CPU's convolutions work on blocks of 16 channels
  const auto width = [&](int64_t channels) { return static_cast<uint64_t>(is_cpu ? (channels + 15) / 16 * 16 : channels); };
  uint64_t peak = 0;
  uint64_t cells = pixels / 64;  // of the latent grid
  uint64_t steps = latents;
  for (size_t stage = 0; stage < 3; ++stage) {
    const uint64_t channels = width(tc.channels[stage]);
    // a MemBlock: x, x beside its past, and what is between its convolutions
    peak = std::max(peak, steps * cells * channels * 5 * value);
    cells *= static_cast<uint64_t>(tc.up[stage] * tc.up[stage]);
    // grown in time, then the transition with its enlargement
    const uint64_t grown = steps * static_cast<uint64_t>(tc.grow[stage]);
    const uint64_t next = width(tc.channels[stage + 1]);
    peak = std::max(peak, (steps * channels + grown * (channels + copies * next)) * cells * value);
    steps = grown;
  }
  // the frames: shuffled, cut, scaled or added to the enlargement
  return std::max(peak, steps * 3 * pixels * 5 * value);
}

}  // namespace

MemoryPlan plan_memory(const ModelConfig& config, const Geometry& geometry, int64_t kv_chunks, DecoderKind decoder,
                       size_t bytes_per_value, bool is_cpu) {
  const uint64_t value = bytes_per_value;
  const uint64_t height = static_cast<uint64_t>(geometry.padded_decoded.height);
  const uint64_t width = static_cast<uint64_t>(geometry.padded_decoded.width);
  const uint64_t pixels = height * width;
  const uint64_t model_pixels =
      static_cast<uint64_t>(geometry.padded_model.height) * static_cast<uint64_t>(geometry.padded_model.width);
  const uint64_t tokens = pixels / 256;  // of one latent frame
  MemoryPlan plan;

  if (config.has_transformer) {
    const uint64_t dim = static_cast<uint64_t>(config.dit.dim);
    const uint64_t held = static_cast<uint64_t>(std::max<int64_t>(kv_chunks, 2));
    // key and value of the ring's slots and of the three slots of the first chunk
    plan.state_bytes += static_cast<uint64_t>(config.dit.layers) * held * 2 * tokens * dim * 2 * value;
    plan.state_bytes += 3 * 2 * tokens * dim * 2 * value;
    const uint64_t unshuffled = 3 * static_cast<uint64_t>(config.lq_projector.unshuffle * config.lq_projector.unshuffle);
    plan.state_bytes += 2 * tokens * (unshuffled + static_cast<uint64_t>(config.lq_projector.hidden1)) * value;
    const uint64_t hidden = std::max<uint64_t>(static_cast<uint64_t>(config.dit.ffn_dim), 3 * dim);
    const uint64_t transformer = kLatentFrames * tokens * (2 * hidden + 6 * dim) * value;
    // a clip of four frames through both convolutions
    const uint64_t projector = tokens * 4 * static_cast<uint64_t>(config.lq_projector.hidden1 + config.lq_projector.hidden2) * 3 * value;
    plan.activation_bytes = std::max(transformer, projector);
  }

  uint64_t decoder_peak = 0;
  if (decoder == DecoderKind::kVae) {
    // One latent at a time; the last stage works at full size with its base width, and each
    // causal convolution keeps two steps.
    const uint64_t base = static_cast<uint64_t>(config.vae.dim);
    decoder_peak = 4 * base * pixels * 4 * value;
    plan.state_bytes += 2 * (base * 14 + 3) * pixels * value;
  } else {
    const TcDecoderConfig& tc = config.tc_decoder;
    uint64_t cells = pixels / 64;
    for (size_t stage = 0; stage < 3; ++stage) {
      plan.state_bytes += static_cast<uint64_t>(tc.mem_blocks[stage] * tc.channels[stage]) * cells * value;
      cells *= static_cast<uint64_t>(tc.up[stage] * tc.up[stage]);
    }
    decoder_peak = tc_decoder_peak(tc, pixels, kLatentFrames, value, is_cpu);
    if (!is_cpu || decoder_peak > kCpuDecoderBytes) {
      plan.decode_latents = 1;
      // and the frames so far, while they are joined
      decoder_peak = tc_decoder_peak(tc, pixels, 1, value, is_cpu) +
                     3 * static_cast<uint64_t>(ChunkSchedule::kFirstRunOutputs) * pixels * value;
    }
  }
  plan.activation_bytes = std::max(plan.activation_bytes, decoder_peak);

  plan.frame_bytes = 3 * value *
                     (static_cast<uint64_t>(ChunkSchedule::kFirstRunInputs) * model_pixels +
                      static_cast<uint64_t>(ChunkSchedule::kFirstRunOutputs + 3) * pixels);
  plan.session_bytes = plan.state_bytes + plan.frame_bytes + plan.activation_bytes;
  plan.session_bytes += plan.session_bytes / (is_cpu ? 4 : 16);
  return plan;
}

std::string readable_bytes(uint64_t bytes) {
  char text[32];
  if (bytes >= 1000000000) std::snprintf(text, sizeof(text), "%.1f GB", static_cast<double>(bytes) / 1e9);
  else std::snprintf(text, sizeof(text), "%.0f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

}  // namespace flashvsr
