// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Standard normal noise whose values depend on their place alone: Philox4x32-10 of key `seed` and counter
// (first_frame + frame, channel, row, column), Box-Muller of the first two words in double.
//
//   output   [channels][frames][height][width]   fp32, dense
//
// Deterministic; chunking and device do not matter (device and host libm differ in the last bit of a few values).
// Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said. Thread-safety: safe.
// Tolerance against the twin: 1e-6 relative to 1.
#ifndef FLASHVSR_KERNELS_PHILOX_NOISE_H_
#define FLASHVSR_KERNELS_PHILOX_NOISE_H_

#include <cstdint>

namespace flashvsr {

struct PhiloxNoiseParams {
  float* output = nullptr;
  uint64_t seed = 0;
  int64_t first_frame = 0;
  int32_t channels = 0, frames = 0, height = 0, width = 0;
};

int launch_philox_noise(const PhiloxNoiseParams& params, void* stream);
int philox_noise_ref(const PhiloxNoiseParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_PHILOX_NOISE_H_
