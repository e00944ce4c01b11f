// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a session will take on the model's device, computed from the model's numbers before
// anything is taken:
//
//   state        KV ring and the chunk's own slots, projector and decoder memories
//   frames       LQ input of a run and the frames it returns, in the model's dtype
//   activations  of the widest stage: three tensors of the transformer's hidden layer, or
//                of the decoder at its largest (input, result, and one in between)
//
// The first run of a stream (6 latent frames) is what counts. The decoder takes its latents one at
// a time on CUDA; on the CPU all at once, which is quicker, unless that asks for more than 1.5 GB.
// Allocator slack is added: a sixteenth on CUDA, a quarter on the CPU, whose convolutions also keep
// a copy of their input in a layout of their own. With all latents at once the formula gave 1.03 and
// 1.08 of what an H200 took at 768x1408 and 1536x2688; on the CPU it gives 1.1 .. 1.8 of what small
// random models take (tests/api/api_test.cpp).
//
// Thread-safety: safe.
#ifndef FLASHVSR_API_PLAN_H_
#define FLASHVSR_API_PLAN_H_

#include <cstdint>
#include <string>

#include "api/geometry.h"
#include "model/upscaler.h"

namespace flashvsr {

struct MemoryPlan {
  uint64_t state_bytes = 0;
  uint64_t frame_bytes = 0;
  uint64_t activation_bytes = 0;
  uint64_t session_bytes = 0;  // all of it, with slack
  int64_t decode_latents = 6;  // that the decoder takes at a time
};

MemoryPlan plan_memory(const ModelConfig& config, const Geometry& geometry, int64_t kv_chunks,
                       DecoderKind decoder, size_t bytes_per_value, bool is_cpu);

// "1.2 GB", "340 MB".
std::string readable_bytes(uint64_t bytes);

}  // namespace flashvsr

#endif  // FLASHVSR_API_PLAN_H_
