// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/plan.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/error.h"
#include "stream/chunk_schedule.h"

namespace flashvsr {

namespace {

constexpr uint64_t kLatentFrames = 6;  // of the first run
// Beyond this the CPU's decoder takes one latent at a time.
constexpr uint64_t kCpuDecoderBytes = 1500000000;
// From pinned memory over sixteen lanes of PCIe 4, for the predicted cost.
constexpr double kBusBytesPerSecond = 2e10;

uint64_t tc_decoder_peak(const TcDecoderConfig& tc, uint64_t pixels, uint64_t latents, uint64_t value, bool is_cpu) {
  const uint64_t copies = is_cpu ? 3 : 2;
  // the CPU's convolutions work on blocks of 16 channels
  const auto width = [&](int64_t channels) { return static_cast<uint64_t>(is_cpu ? (channels + 15) / 16 * 16 : channels); };
  const bool is_split = !is_cpu && tc.channels[3] > 0 && !tc.skip;  // TcDecoder's own rule
  uint64_t peak = 0;
  uint64_t cells = pixels / 64;  // of the latent grid
  uint64_t steps = latents;
  for (size_t stage = 0; stage < 3; ++stage) {
    const uint64_t channels = width(tc.channels[stage]);
    // a MemBlock: x, x beside its past, and what is between its convolutions
    peak = std::max(peak, steps * cells * channels * 5 * value);
    cells *= static_cast<uint64_t>(tc.up[stage] * tc.up[stage]);
    const uint64_t grown = steps * static_cast<uint64_t>(tc.grow[stage]);
    if (stage == 1 && is_split) {
      const auto of = [](uint64_t number) { return static_cast<int64_t>(number); };
      const TailSplit split = tail_split(tc, of(pixels), of(steps), of(value));
      peak = std::max(peak, static_cast<uint64_t>(tail_bytes(tc, split, of(pixels), of(steps), of(value))));
      steps = grown * static_cast<uint64_t>(tc.grow[2]);
      break;
    }
    // grown in time, then the transition with its enlargement
    const uint64_t next = width(tc.channels[stage + 1]);
    peak = std::max(peak, (steps * channels + grown * (channels + copies * next)) * cells * value);
    steps = grown;
  }
  // the frames: beside the features where these go by parts; shuffled, cut, scaled or added to the enlargement
  if (is_split) peak += steps * 3 * pixels * value;
  return std::max(peak, steps * 3 * pixels * 5 * value);
}

// Bytes of one state of `pixels` without its KV cache.
uint64_t memory_bytes(const PlanRequest& r, uint64_t pixels) {
  const uint64_t value = r.bytes_per_value;
  uint64_t bytes = 0;
  if (r.config.has_transformer) {
    const uint64_t unshuffled = 3 * static_cast<uint64_t>(r.config.lq_projector.unshuffle * r.config.lq_projector.unshuffle);
    bytes += 2 * (pixels / 256) * (unshuffled + static_cast<uint64_t>(r.config.lq_projector.hidden1)) * value;
  }
  if (r.decoder == DecoderKind::kVae) {
    // each causal convolution keeps two steps
    return bytes + 2 * (static_cast<uint64_t>(r.config.vae.dim) * 14 + 3) * pixels * value;
  }
  const TcDecoderConfig& tc = r.config.tc_decoder;
  uint64_t cells = pixels / 64;
  for (size_t stage = 0; stage < 3; ++stage) {
    bytes += static_cast<uint64_t>(tc.mem_blocks[stage] * tc.channels[stage]) * cells * value;
    cells *= static_cast<uint64_t>(tc.up[stage] * tc.up[stage]);
  }
  return bytes;
}

// The convolution kernels' own copies of their weights, made as they are first used. Small ones are left out.
uint64_t packed_weight_bytes(const PlanRequest& r) {
  if (r.is_cpu || r.bytes_per_value != 2) return 0;  // fp32 has no kernels
  int64_t values = 0;
  const LqProjectorConfig& lq = r.config.lq_projector;
  if (r.config.has_transformer) values += 36 * lq.hidden1 * (3 * lq.unshuffle * lq.unshuffle + lq.hidden2);
  const TcDecoderConfig& tc = r.config.tc_decoder;
  for (size_t stage = 0; stage < 3; ++stage) {
    // a MemBlock's three convolutions, the first of two steps; an enlargement's four phases of four taps
    values += tc.channels[stage] * (36 * tc.mem_blocks[stage] * tc.channels[stage] + 16 * tc.channels[stage + 1]);
  }
  return static_cast<uint64_t>(values) * r.bytes_per_value;
}

uint64_t decoder_bytes(const PlanRequest& r, uint64_t pixels, int64_t latents) {
  const uint64_t value = r.bytes_per_value;
  // One latent at a time; the last stage works at full size with its base width.
  if (r.decoder == DecoderKind::kVae) return 4 * static_cast<uint64_t>(r.config.vae.dim) * pixels * 4 * value;
  const uint64_t peak = tc_decoder_peak(r.config.tc_decoder, pixels, static_cast<uint64_t>(latents), value, r.is_cpu);
  // and the frames so far, while they are joined
  return static_cast<uint64_t>(latents) >= kLatentFrames ? peak : peak + 3 * static_cast<uint64_t>(ChunkSchedule::kFirstRunOutputs) * pixels * value;
}

uint64_t activation_bytes(const PlanRequest& r, uint64_t pixels, int64_t latents) {
  const uint64_t value = r.bytes_per_value, tokens = pixels / 256;  // of one latent frame
  uint64_t bytes = decoder_bytes(r, pixels, latents);
  if (!r.config.has_transformer) return bytes;
  const uint64_t dim = static_cast<uint64_t>(r.config.dit.dim);
  const uint64_t hidden = std::max<uint64_t>(static_cast<uint64_t>(r.config.dit.ffn_dim), 3 * dim);
  // In rows of dim: the sum and its norm, qkv and its three windowed parts (the chunk's own slots); or around the FFN's hidden rows.
  const uint64_t rows = kLatentFrames * tokens, ffn_rows = std::min<uint64_t>(rows, static_cast<uint64_t>(kFfnRows));
  const uint64_t transformer = std::max(rows * 8 * dim, rows * 4 * dim + ffn_rows * 2 * hidden) * value;
  // a clip of four frames through both convolutions
  const uint64_t projector =
      tokens * 4 * static_cast<uint64_t>(r.config.lq_projector.hidden1 + r.config.lq_projector.hidden2) * 3 * value;
  return std::max({bytes, transformer, projector});
}

// Fills the predictions of a plan whose way is set.
void predict(const PlanRequest& r, MemoryPlan& plan) {
  const uint64_t value = r.bytes_per_value;
  const uint64_t pixels = static_cast<uint64_t>(r.geometry.padded_decoded.height) *
                          static_cast<uint64_t>(r.geometry.padded_decoded.width);
  const uint64_t model_pixels =
      static_cast<uint64_t>(r.geometry.padded_model.height) * static_cast<uint64_t>(r.geometry.padded_model.width);
  const uint64_t tiles = plan.tiles.count(), tile_pixels = static_cast<uint64_t>(plan.tiles.tile_pixels());
  const bool is_tiled = tiles > 1;
  plan.extra_work = static_cast<double>(plan.tiles.pixels()) / static_cast<double>(pixels) - 1;

  if (r.config.has_transformer) {
    const uint64_t dim = static_cast<uint64_t>(r.config.dit.dim), layers = static_cast<uint64_t>(r.config.dit.layers);
    const uint64_t held = static_cast<uint64_t>(std::max<int64_t>(r.kv_chunks, 2));
    const uint64_t slot = 2 * (tile_pixels / 256) * dim * 2;  // values of one layer's key and value
    const uint64_t ring = held * slot * value;                 // of one layer
    plan.state_bytes += tiles * layers * ring / 256;           // means of keys
    const uint64_t kept = is_in_8_bits(plan.cache) ? slot + slot * value / 64 : slot * value;  // of a slot
    const uint64_t rings = tiles * layers * held * kept;
    if (is_in_8_bits(plan.cache)) plan.state_bytes += ring;          // of the layer at work
    if (is_in_host(plan.cache)) plan.state_bytes += 2 * held * kept;  // its copy and the next one's
    if (is_in_8_bits(plan.cache)) plan.decoded_bytes += rings;
    if (is_in_host(plan.cache)) {
      plan.host_bytes += rings;
      plan.bus_bytes += rings + rings / held;
    } else {
      plan.state_bytes += rings;
    }
  }
  plan.state_bytes += packed_weight_bytes(r);
  const uint64_t memory = memory_bytes(r, tile_pixels);
  plan.state_bytes += plan.parks_in_host ? memory : tiles * memory;

  const uint64_t inputs = static_cast<uint64_t>(ChunkSchedule::kFirstRunInputs);
  const uint64_t outputs = static_cast<uint64_t>(ChunkSchedule::kFirstRunOutputs + 3);
  const uint64_t frames = 3 * value * (inputs * model_pixels + outputs * pixels);
  // A tile's own copy of both, and the noise of the whole picture, in fp32 and in the model's type.
  if (is_tiled) {
    plan.frame_bytes = frames * tile_pixels / pixels;
    if (r.config.has_transformer) {
      plan.frame_bytes += static_cast<uint64_t>(r.config.dit.latent_channels) * kLatentFrames * (pixels / 64) * (4 + value);
    }
  }
  if (plan.parks_in_host) {
    plan.host_bytes += frames + tiles * memory;
    plan.bus_bytes += 2 * tiles * memory;
  } else {
    plan.frame_bytes += frames;
  }
  plan.activation_bytes = activation_bytes(r, tile_pixels, plan.decode_latents);
  plan.session_bytes = plan.state_bytes + plan.frame_bytes + plan.activation_bytes;
  plan.session_bytes += plan.session_bytes / (!r.is_cpu ? 16 : is_tiled ? 2 : 4);
  // A chunk's stages hold their memory then, and its frames for each position of the ring.
  constexpr uint64_t kRecordedPixels = 1 << 19;
  if (!r.is_cpu && !is_tiled && plan.cache == CacheStorage::kDevice && r.decoder == DecoderKind::kTc && pixels <= kRecordedPixels) {
    const uint64_t phases = r.config.has_transformer ? static_cast<uint64_t>(std::max<int64_t>(r.kv_chunks, 2)) : 1;
    const uint64_t recorded = plan.activation_bytes + phases * static_cast<uint64_t>(ChunkSchedule::kLaterRunOutputs) * 3 * pixels * 4;
    plan.records_stages = plan.session_bytes + recorded <= r.device_limit;
    if (plan.records_stages) plan.session_bytes += recorded;
  }
  plan.fits = plan.session_bytes <= r.device_limit && (r.is_cpu || plan.host_bytes <= r.host_limit);
}

std::string name_of(CacheStorage cache) {
  return concat("KV cache", is_in_8_bits(cache) ? " in 8 bits" : "", is_in_host(cache) ? " in host memory" : "");
}

std::string name_of(const MemoryPlan& plan) {
  if (plan.tiles.count() > 1) return concat(plan.tiles.columns.count(), "x", plan.tiles.rows.count(), " tiles");
  if (plan.cache != CacheStorage::kDevice) return name_of(plan.cache);
  return plan.decode_latents == 1 ? "whole, decoded latent by latent" : "whole";
}

// The ways of plan.h in their order, without predictions.
std::vector<MemoryPlan> ways(const PlanRequest& r) {
  const std::vector<TileGrid> grids = tile_grids(r.geometry.padded_decoded.height, r.geometry.padded_decoded.width,
                                                 kTileOverlap, r.config.size_multiple());
  std::vector<MemoryPlan> result;
  MemoryPlan way;
  way.tiles = grids[0];
  if (r.is_cpu && r.decoder == DecoderKind::kTc &&
      decoder_bytes(r, static_cast<uint64_t>(way.tiles.pixels()), kLatentFrames) <= kCpuDecoderBytes) {
    result.push_back(way);
  }
  // A device's convolutions take two steps at a time.
  way.decode_latents = r.is_cpu ? 1 : 2;
  result.push_back(way);
  const auto push = [&](CacheStorage cache, bool parks) {
    way.cache = cache;
    way.parks_in_host = parks;
    result.push_back(way);
  };
  const bool has_cache = r.config.has_transformer;
  if (has_cache) push(CacheStorage::kFp8, false);
  if (has_cache && !r.is_cpu) {
    push(CacheStorage::kHost, false);
    push(CacheStorage::kHostFp8, false);
  }
  for (size_t i = 1; i < grids.size(); ++i) {
    way.tiles = grids[i];
    if (!has_cache) {
      push(CacheStorage::kDevice, false);
      if (!r.is_cpu) push(CacheStorage::kDevice, true);
    } else if (r.is_cpu) {
      push(CacheStorage::kFp8, false);
    } else {
      push(CacheStorage::kHost, false);
      push(CacheStorage::kHost, true);
      push(CacheStorage::kHostFp8, true);
    }
  }
  return result;
}

}  // namespace

MemoryPlan plan_memory(const PlanRequest& request) {
  std::string refused;
  MemoryPlan least;
  for (MemoryPlan& plan : ways(request)) {
    predict(request, plan);
    if (plan.fits) {
      plan.refused = refused;
      return plan;
    }
    if (plan.tiles.count() == 1) {
      refused += concat(refused.empty() ? "" : ", ", name_of(plan), " ", readable_bytes(plan.session_bytes));
    }
    if (least.session_bytes == 0 || plan.session_bytes < least.session_bytes) least = plan;
  }
  least.refused = refused;
  return least;
}

std::string describe(const MemoryPlan& plan) {
  std::string text = name_of(plan);
  if (plan.tiles.count() > 1) {
    char percent[32];
    std::snprintf(percent, sizeof(percent), "%.0f", 100 * plan.extra_work);
    text += concat(" of ", plan.tiles.columns.size, "x", plan.tiles.rows.size, ", ", percent, " % more to compute");
    if (plan.cache != CacheStorage::kDevice) text += ", " + name_of(plan.cache);
    if (plan.parks_in_host) text += ", pictures and waiting tiles in host memory";
  }
  if (plan.decoded_bytes > 0) text += concat(", ", readable_bytes(plan.decoded_bytes), " of cache made anew for 8 frames");
  if (plan.host_bytes > 0) {
    char seconds[32];
    std::snprintf(seconds, sizeof(seconds), "%.1f", static_cast<double>(plan.bus_bytes) / kBusBytesPerSecond);
    text += concat(", ", readable_bytes(plan.host_bytes), " of host memory, ", readable_bytes(plan.bus_bytes),
                   " copied for 8 frames (about ", seconds, " s)");
  }
  return text;
}

std::string readable_bytes(uint64_t bytes) {
  char text[32];
  if (bytes >= 1000000000) std::snprintf(text, sizeof(text), "%.1f GB", static_cast<double>(bytes) / 1e9);
  else std::snprintf(text, sizeof(text), "%.0f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

}  // namespace flashvsr
