// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/devices.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace flashvsr {
namespace {

struct CudaState {
  int devices = 0;
  std::string reason;  // why there is none
  std::vector<std::string> names;
  std::vector<int> capabilities;  // 90 for 9.0
};

CudaState find_cuda() {
  CudaState state;
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) {
    state.reason = "there is no NVIDIA driver (libcuda.so.1)";
    return state;
  }
  using Init = int (*)(unsigned);
  using Count = int (*)(int*);
  using Get = int (*)(int*, int);
  using Name = int (*)(char*, int, int);
  using Attribute = int (*)(int*, int, int);
  const auto init = reinterpret_cast<Init>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<Count>(dlsym(driver, "cuDeviceGetCount"));
  const auto get = reinterpret_cast<Get>(dlsym(driver, "cuDeviceGet"));
  const auto name = reinterpret_cast<Name>(dlsym(driver, "cuDeviceGetName"));
  const auto attribute = reinterpret_cast<Attribute>(dlsym(driver, "cuDeviceGetAttribute"));
  if (attribute == nullptr || init == nullptr || count == nullptr || get == nullptr || name == nullptr) {
    state.reason = "libcuda.so.1 is not an NVIDIA driver";
    return state;
  }
  int status = init(0);
  int devices = 0;
  if (status == 0) status = count(&devices);
  if (status != 0 || devices == 0) {
    state.reason = concat("the NVIDIA driver reports no device (code ", status, ")");
    return state;
  }
  std::string loader_errors;
  bool is_loaded = false;
  for (const char* file : {"libflashvsr_cuda.so", "cuda/libflashvsr_cuda.so"}) {
    if (dlopen((engine_folder() + file).c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) {
      is_loaded = true;
      break;
    }
    const char* error = dlerror();
    if (!loader_errors.empty()) loader_errors += "; ";
    loader_errors += error != nullptr ? error : "unknown error";
  }
  if (!is_loaded) {
    state.reason = concat("the engine's CUDA library could not be loaded: ", loader_errors);
    return state;
  }
  if (!at::globalContext().hasCUDA()) {
    state.reason = "LibTorch was built without CUDA, or cannot use this driver";
    return state;
  }
  state.devices = devices;
  for (int i = 0; i < devices; ++i) {
    int device = 0;
    char text[128] = "CUDA device";
    if (get(&device, i) == 0) name(text, sizeof(text), device);
    text[sizeof(text) - 1] = '\0';
    state.names.emplace_back(text);
    int major = 0, minor = 0;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
    attribute(&major, 75, device);
    attribute(&minor, 76, device);
    state.capabilities.push_back(major * 10 + minor);
  }
  return state;
}

const CudaState& cuda() {
  static const CudaState state = find_cuda();
  return state;
}

double time_convolution(c10::ScalarType dtype) {
  const auto options = at::TensorOptions().dtype(dtype);
  const at::Tensor x = at::ones({4, 32, 96, 160}, options).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor weight = at::ones({32, 32, 3, 3}, options).contiguous(at::MemoryFormat::ChannelsLast);
  double best = 1e9;
  for (int i = 0; i < 4; ++i) {  // the first one warms up
    const auto begin = std::chrono::steady_clock::now();
    at::conv2d(x, weight, {}, 1, at::IntArrayRef{1});
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    if (i > 0) best = std::min(best, ms);
  }
  return best;
}

c10::ScalarType faster_cpu_precision() {
  static const c10::ScalarType dtype = [] {
    const double fp32 = time_convolution(c10::kFloat), bf16 = time_convolution(c10::kBFloat16);
    log(LogLevel::kInfo, "precision: a convolution takes ", fp32, " ms in fp32, ", bf16, " ms in bf16");
    return bf16 < 0.9 * fp32 ? c10::kBFloat16 : c10::kFloat;
  }();
  return dtype;
}

}  // namespace

std::string engine_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&engine_folder), &info) == 0 || info.dli_fname == nullptr) return "./";
  const std::string file = info.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "./" : file.substr(0, slash + 1);
}

c10::Device parse_device(const std::string& name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name == "auto" || name.empty()) {
    if (cuda().devices > 0) return c10::Device(c10::kCUDA, 0);
    log(LogLevel::kInfo, "device=auto: running on the CPU, since ", cuda().reason);
    return c10::Device(c10::kCPU);
  }
  int index = 0;
  if (name != "cuda") {
    char* end = nullptr;
    const bool has_prefix = name.rfind("cuda:", 0) == 0;
    const long number = has_prefix ? std::strtol(name.c_str() + 5, &end, 10) : -1;
    FLASHVSR_CHECK(has_prefix && end != name.c_str() + 5 && *end == '\0' && number >= 0 && number < 128,
                   ErrorCode::kInvalidArgument, "device '", name, "' is not auto, cpu, cuda or cuda:N");
    index = static_cast<int>(number);
  }
  FLASHVSR_CHECK(cuda().devices > 0, ErrorCode::kNoDevice, "device=", name, ": ", cuda().reason);
  FLASHVSR_CHECK(index < cuda().devices, ErrorCode::kNoDevice, "device=", name, ": this machine has ", cuda().devices,
                 " CUDA device(s)");
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

std::string device_name(c10::Device device) {
  if (device.is_cpu()) return concat("CPU (", at::get_num_threads(), " threads)");
  return concat(cuda().names.at(static_cast<size_t>(device.index())), " (cuda:", static_cast<int>(device.index()), ")");
}

c10::ScalarType choose_precision(FlashVsrPrecision precision, c10::Device device) {
  switch (precision) {
    case FLASHVSR_PRECISION_AUTO: return device.is_cpu() ? faster_cpu_precision() : c10::kBFloat16;
    case FLASHVSR_PRECISION_FP32:
      if (device.is_cuda()) {
        at::globalContext().setAllowTF32CuBLAS(false);
        at::globalContext().setAllowTF32CuDNN(false);
      }
      return c10::kFloat;
    case FLASHVSR_PRECISION_BF16: return c10::kBFloat16;
    case FLASHVSR_PRECISION_FP16:
      FLASHVSR_CHECK(device.is_cuda(), ErrorCode::kInvalidArgument, "precision=fp16 needs CUDA");
      return c10::kHalf;
    case FLASHVSR_PRECISION_FP8:
      FLASHVSR_CHECK(device.is_cuda(), ErrorCode::kInvalidArgument, "precision=fp8 needs CUDA");
      // The scaled products need a Hopper card or newer.
      FLASHVSR_CHECK(cuda().capabilities.at(static_cast<size_t>(device.index())) >= 90, ErrorCode::kInvalidArgument,
                     "precision=fp8 needs compute capability 9.0 or newer");
      return c10::kFloat8_e4m3fn;
  }
  throw Error(ErrorCode::kInvalidArgument, concat("precision ", static_cast<int>(precision), " is not known"));
}

std::string precision_name(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kFloat: return "fp32";
    case c10::kBFloat16: return "bf16";
    case c10::kHalf: return "fp16";
    case c10::kFloat8_e4m3fn: return "fp8";
    default: return c10::toString(dtype);
  }
}

DeviceMemory device_memory(c10::Device device) {
  DeviceMemory memory;
  if (device.is_cuda()) {
    const auto [free, total] = at::accelerator::getMemoryInfo(device.index());
    memory.free = free;
    memory.total = total;
    return memory;
  }
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  uint64_t value = 0;
  while (file >> key >> value >> unit) {
    if (key == "MemTotal:") memory.total = value * 1024;
    if (key == "MemAvailable:") memory.free = value * 1024;
  }
  return memory;
}

std::shared_ptr<Turns> device_turns(c10::Device device) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<Turns>> turns;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Turns>& entry = turns[device.str()];
  if (!entry) entry = std::make_shared<Turns>();
  return entry;
}

}  // namespace flashvsr
