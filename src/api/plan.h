// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a session will run within the memory that it may take, decided from the model's numbers
// before anything is taken. What is counted, on the model's device:
//
//   state        KV ring, projector and decoder memories
//   frames       LQ input of a run and the frames it returns, in the model's dtype
//   activations  of the widest stage: three tensors of the transformer's hidden layer, or
//                of the decoder at its largest (input, result, and one in between)
//
// The first run of a stream (6 latent frames) is what counts. Allocator slack is added: a
// sixteenth on CUDA; a quarter on the CPU, whose convolutions also keep a copy of their input in a
// layout of their own, and half with tiles there, whose many sizes leave holes in malloc's heap.
// On an H200 the formula gave 1.03 to 1.6 of what the forms took (docs/performance.md); on the CPU it gives
// 1.0 .. 1.8 of what small random models take, tiled or not (tests/api/api_test.cpp, tiled_session_test.cpp).
//
// The first of these that fits is taken:
//
//   1. the whole picture; on the CPU the decoder takes all latents at once, which is quicker,
//      unless that asks for more than 1.5 GB
//   2. the decoder takes its latents one at a time (always on CUDA)
//   3. the KV cache in 8 bits (model/kv_cache.h)
//   4. the KV cache in host memory, as it is, then in 8 bits (not on the CPU)
//   5. tiles that overlap by 128 pixels (api/tiles.h), fewest computed pixels first, each with a
//      state of its own; the KV cache in 8 bits on the CPU, elsewhere in host memory, and for each
//      grid of tiles: alone; with all but the running tile's memories and pictures there; both, and
//      the cache in 8 bits
//
// The same numbers always give the same plan. What fits in none is refused, with the least of them.
//
// Thread-safety: safe.
#ifndef FLASHVSR_API_PLAN_H_
#define FLASHVSR_API_PLAN_H_

#include <cstdint>
#include <string>

#include "api/geometry.h"
#include "api/tiles.h"
#include "model/upscaler.h"

namespace flashvsr {

struct PlanRequest {
  const ModelConfig& config;
  const Geometry& geometry;
  int64_t kv_chunks = 3;
  DecoderKind decoder = DecoderKind::kTc;
  size_t bytes_per_value = 2;
  bool is_cpu = false;
  uint64_t device_limit = 0;  // bytes that the session may take on the device
  uint64_t host_limit = 0;    // and beside a device in host memory
};

struct MemoryPlan {
  // The way to run.
  int64_t decode_latents = 6;  // that the decoder takes at a time
  CacheStorage cache = CacheStorage::kDevice;
  TileGrid tiles;               // of the padded decoded picture
  bool records_stages = false;  // RunOptions::record_stages: small pictures, where the limit allows
  bool parks_in_host = false;   // pictures and the states of waiting tiles are in host memory

  // Predictions.
  uint64_t state_bytes = 0;
  uint64_t frame_bytes = 0;
  uint64_t activation_bytes = 0;
  uint64_t session_bytes = 0;  // all of it on the device, with slack
  uint64_t host_bytes = 0;     // what other plans have on the device
  uint64_t bus_bytes = 0;      // copied between host and device for each 8 frames, beside the frames
  uint64_t decoded_bytes = 0;  // of 8-bit cache made anew for each 8 frames
  double extra_work = 0;       // pixels computed twice, per pixel of the picture

  bool fits = false;
  // Names and bytes of the forms that did not fit: "whole 26.3 GB, KV cache in 8 bits 17.1 GB".
  std::string refused;
};

MemoryPlan plan_memory(const PlanRequest& request);

// The way and its predicted cost in words, without what was refused.
std::string describe(const MemoryPlan& plan);

// "1.2 GB", "340 MB".
std::string readable_bytes(uint64_t bytes);

}  // namespace flashvsr

#endif  // FLASHVSR_API_PLAN_H_
