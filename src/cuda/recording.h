// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Held while a stage is recorded, and by whoever waits for the whole device: that would end the recording, with an
// error for both.
//
// Thread-safety: safe.
#ifndef FLASHVSR_CUDA_RECORDING_H_
#define FLASHVSR_CUDA_RECORDING_H_

#include <mutex>

namespace flashvsr {

std::mutex& recording_mutex();

}  // namespace flashvsr

#endif  // FLASHVSR_CUDA_RECORDING_H_
