// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which device and which arithmetic a model runs with.
//
//   parse_device("auto" | "cpu" | "cuda" | "cuda:N")
//   choose_precision(AUTO): bf16 on CUDA; on the CPU the faster of fp32 and bf16, by timing a
//                           convolution for some tens of ms, once a process
//
// CUDA is looked for once a process: libcuda.so.1, cuInit, a device, then the engine's CUDA
// library (cuda/libflashvsr_cuda.so or libflashvsr_cuda.so beside the engine), and only then
// ATen is asked, which remembers its first answer.
//
// Errors: kNoDevice with the reason; kInvalidArgument for names and arithmetic that do not exist.
// Thread-safety: safe.
#ifndef FLASHVSR_API_DEVICES_H_
#define FLASHVSR_API_DEVICES_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <flashvsr/flashvsr.h>

#include <cstdint>
#include <memory>
#include <string>

#include "stream/turns.h"

namespace flashvsr {

c10::Device parse_device(const std::string& name);

// "CPU (2 threads)", "NVIDIA H200 (cuda:0)".
std::string device_name(c10::Device device);

c10::ScalarType choose_precision(FlashVsrPrecision precision, c10::Device device);
std::string precision_name(c10::ScalarType dtype);

// Bytes that may still be taken on `device`, of those that it has.
struct DeviceMemory {
  uint64_t free = 0;
  uint64_t total = 0;
};
DeviceMemory device_memory(c10::Device device);

// Whose chunk runs on `device` now: one object for each device, shared by all models and sessions of
// the process.
std::shared_ptr<Turns> device_turns(c10::Device device);

// The folder of the library that this code is in, with a slash at the end.
std::string engine_folder();

}  // namespace flashvsr

#endif  // FLASHVSR_API_DEVICES_H_
