// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A loaded model, shared by its sessions: the upscaler with its weights on one device, and
// what is known about it.
//
// `open_model` finds the files (NULL path: the embedded student), chooses device and
// precision, loads strictly, and shares models that are alike.
//
//   embedded   FLASHVSR_NANO_PATH, else models/nano/ beside the engine's library
//   device     "auto" (cuda:0 when it works, else cpu), "cpu", "cuda", "cuda:N"
//   precision  AUTO: bf16 on CUDA; on the CPU fp32 or bf16, whichever a short timing of the
//              decoder's convolution finds faster, once a process
//
// The CUDA library is opened only after libcuda.so.1, cuInit and a device were found, and
// before ATen is asked about CUDA for the first time.
//
// Errors: kModelNotFound, kModelInvalid, kNoDevice (with the reason), kInvalidArgument.
// Thread-safety: safe; a Model is immutable.
#ifndef FLASHVSR_API_MODEL_H_
#define FLASHVSR_API_MODEL_H_

#include <flashvsr/flashvsr.h>

#include <cstdint>
#include <memory>
#include <string>

#include "model/upscaler.h"

namespace flashvsr {

struct Model {
  explicit Model(const ModelConfig& config) : upscaler(config) {}

  Upscaler upscaler;
  std::string name;
  std::string device_name;
  std::string precision_name;
  bool is_embedded = false;
  DecoderKind decoder = DecoderKind::kTc;
  uint64_t weight_bytes = 0;

  const ModelConfig& config() const { return upscaler.config(); }
  c10::Device device() const { return upscaler.device(); }
  c10::ScalarType dtype() const { return upscaler.dtype(); }
};

std::shared_ptr<const Model> open_model(const FlashVsrModelOptions& options);

}  // namespace flashvsr

#endif  // FLASHVSR_API_MODEL_H_
