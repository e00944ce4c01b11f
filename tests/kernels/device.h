// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the GPU tests and benches share: device memory that starts poisoned (every bf16 a NaN) with guard bytes
// behind it, random bf16 values, norm-relative error, and the skip rule: no GPU skips, FLASHVSR_REQUIRE_GPU=1
// turns that into a failure. Thread-safety: none needed.
#ifndef FLASHVSR_TESTS_KERNELS_DEVICE_H_
#define FLASHVSR_TESTS_KERNELS_DEVICE_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <memory>
#include <vector>

#include "kernels/bf16.h"

namespace flashvsr::device {

inline bool have_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}
inline bool gpu_required() {
  const char* value = std::getenv("FLASHVSR_REQUIRE_GPU");
  return value && std::strcmp(value, "1") == 0;
}
inline int compute_capability() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major * 10 + minor;
}
inline void check(int error, const char* what) {
  if (error != 0) {
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(static_cast<cudaError_t>(error)));
    std::abort();
  }
}

template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    check(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T) + kGuard), "cudaMalloc");
    poison();
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { upload(values); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void poison() { check(cudaMemset(data_, 0xff, count_ * sizeof(T) + kGuard), "cudaMemset"); }
  void upload(const std::vector<T>& values) {
    check(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  // Repeats `values` over the whole buffer.
  void fill(const std::vector<T>& values) {
    for (size_t at = 0; at < count_; at += values.size()) {
      const size_t n = std::min(values.size(), count_ - at);
      check(cudaMemcpy(data_ + at, values.data(), n * sizeof(T), cudaMemcpyHostToDevice), "fill");
    }
  }
  std::vector<T> download() const { return download(0, count_); }
  std::vector<T> download(size_t begin, size_t count) const {
    std::vector<T> values(count);
    check(cudaMemcpy(values.data(), data_ + begin, count * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return values;
  }
  bool guard_is_intact() const {
    std::vector<uint8_t> guard(kGuard);
    check(cudaMemcpy(guard.data(), data_ + count_, kGuard, cudaMemcpyDeviceToHost), "guard");
    for (const uint8_t byte : guard) {
      if (byte != 0xff) return false;
    }
    return true;
  }
  T* get() const { return data_; }
  size_t size() const { return count_; }

 private:
  static constexpr size_t kGuard = 4096;
  T* data_ = nullptr;
  size_t count_ = 0;
};

inline std::vector<uint16_t> random_bf16(size_t count, uint32_t seed, float scale = 1.f, float mean = 0.f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(mean, scale);
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = float_to_bf16(normal(engine));
  return values;
}
inline std::vector<float> random_float(size_t count, uint32_t seed, float scale = 1.f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

struct Difference {
  double relative = 0;  // |a - b| / |b|, infinite when a value is not finite
  double largest = 0;
  size_t unequal = 0;
};
inline Difference compare(const std::vector<uint16_t>& actual, const std::vector<uint16_t>& expected) {
  Difference result;
  double error = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double a = bf16_to_float(actual[i]), b = bf16_to_float(expected[i]);
    result.unequal += actual[i] != expected[i];
    if (!std::isfinite(a) || !std::isfinite(b)) {
      result.relative = result.largest = INFINITY;
      return result;
    }
    error += (a - b) * (a - b);
    norm += b * b;
    result.largest = std::max(result.largest, std::fabs(a - b));
  }
  result.relative = norm > 0 ? std::sqrt(error / norm) : (error > 0 ? INFINITY : 0);
  return result;
}

}  // namespace flashvsr::device

#define FLASHVSR_NEEDS_GPU()                                                                     \
  do {                                                                                           \
    if (!::flashvsr::device::have_gpu()) {                                                       \
      if (::flashvsr::device::gpu_required()) FAIL() << "no GPU, and FLASHVSR_REQUIRE_GPU is 1"; \
      GTEST_SKIP() << "no GPU";                                                                  \
    }                                                                                            \
  } while (false)

#endif  // FLASHVSR_TESTS_KERNELS_DEVICE_H_
