// SPDX-License-Identifier: LGPL-2.1-or-later
//
// For debugging kernels on a card, a CPU or a driver that nobody has tried: each chunk is run a second time with the reference
// operations, from a past of their own, and how far the frames are from theirs is logged.
//
//     FLASHVSR_COMPARE=1   every session without tiles does so; the log has a line for each chunk, INFO from 40 dB on, below
//                          WARNING. More than twice as slow, and the memory of a second stream of plain operations.
//
// PSNR of values in -1 .. 1 over all frames of the chunk. Two bf16 runs of the released size differ by some 48 dB; masks that differ
// in a few blocks because of a last bit are part of that.
//
// Errors: as Upscaler::run.
// Thread-safety: unsafe.
#ifndef FLASHVSR_MODEL_REFERENCE_CHECK_H_
#define FLASHVSR_MODEL_REFERENCE_CHECK_H_

#include <ATen/core/Tensor.h>

#include <atomic>

#include "model/state.h"
#include "model/upscaler.h"

namespace flashvsr {

class ReferenceCheck {
 public:
  static bool is_wanted();  // FLASHVSR_COMPARE

  // `upscaler` outlives it.
  explicit ReferenceCheck(const Upscaler& upscaler) : upscaler_(upscaler) {}
  void reset() { state_ = {}; }

  // The next chunk's input and what the upscaler made of it. Waits for the device. Logs and returns the PSNR.
  // Not a number, when the frames are not. Frames of the current stream only.
  double compare(const at::Tensor& lq, const RunOptions& options, const at::Tensor& frames,
                 const std::atomic<bool>* cancel = nullptr);

 private:
  const Upscaler& upscaler_;
  StreamState state_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_REFERENCE_CHECK_H_
