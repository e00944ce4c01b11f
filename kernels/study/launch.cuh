// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What every rung shares: one problem (the model's steady chunk at 768x1408, random data, rows of 60
// to 180 blocks), a check of sampled rows against a plain fp32 kernel, and the timing. A rung defines
// `launch` and ends with STUDY_MAIN("name").
//
//   query, output   [q_blocks][128][heads * 128]   bf16
//   key, value      [k_blocks][128][heads * 128]   bf16
//   row_begin       [heads][q_blocks + 1], column  CSR of kept key blocks
#ifndef FLASHVSR_KERNELS_STUDY_LAUNCH_CUH_
#define FLASHVSR_KERNELS_STUDY_LAUNCH_CUH_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

using bf16 = __nv_bfloat16;

constexpr int kBlock = 128;  // tokens of a block
constexpr int kDim = 128;    // head_dim

struct Problem {
  const bf16* query;
  const bf16* key;
  const bf16* value;
  bf16* output;
  const int* row_begin;
  const int* column;
  int heads, q_blocks, k_blocks;
  float scale_log2;  // log2(e) / sqrt(kDim): softmax is computed with exp2
  int pitch() const { return heads * kDim; }
};

#define STUDY_CHECK(call)                                                                \
  do {                                                                                   \
    const cudaError_t status_ = (call);                                                  \
    if (status_ != cudaSuccess) {                                                        \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, cudaGetErrorString(status_));      \
      std::exit(2);                                                                      \
    }                                                                                    \
  } while (0)

__global__ void study_check_kernel(Problem problem, int pitch, const int2* samples, float* out) {
  extern __shared__ float score[];
  const int head = samples[blockIdx.x].x, q_block = samples[blockIdx.x].y;
  const bf16* query = problem.query + (q_block * kBlock + static_cast<int>(blockIdx.y)) * pitch + head * kDim;
  const int begin = problem.row_begin[head * (problem.q_blocks + 1) + q_block];
  const int keys = (problem.row_begin[head * (problem.q_blocks + 1) + q_block + 1] - begin) * kBlock;
  const auto token = [&](int j) {
    return static_cast<long long>(problem.column[begin + j / kBlock] * kBlock + j % kBlock) * pitch + head * kDim;
  };
  for (int j = threadIdx.x; j < keys; j += kDim) {
    float dot = 0.f;
    for (int c = 0; c < kDim; ++c) {
      dot += __bfloat162float(query[c]) * __bfloat162float(problem.key[token(j) + c]);
    }
    score[j] = dot * problem.scale_log2;
  }
  __syncthreads();
  float largest = -INFINITY, total = 0.f, sum = 0.f;
  for (int j = 0; j < keys; ++j) largest = fmaxf(largest, score[j]);
  for (int j = 0; j < keys; ++j) {
    const float p = exp2f(score[j] - largest);
    total += p;
    sum += p * __bfloat162float(problem.value[token(j) + threadIdx.x]);
  }
  out[(blockIdx.x * kBlock + blockIdx.y) * kDim + threadIdx.x] = keys > 0 ? sum / total : 0.f;
}

template <class T>
T* study_upload(const std::vector<T>& values) {
  T* pointer = nullptr;
  STUDY_CHECK(cudaMalloc(&pointer, values.size() * sizeof(T)));
  STUDY_CHECK(cudaMemcpy(pointer, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return pointer;
}

inline int study_main(const char* name, void (*launch)(const Problem&)) {
  const unsigned seed = std::random_device{}();
  std::mt19937 random(seed);
  Problem problem = {};
  problem.heads = 12;
  problem.q_blocks = 66;
  problem.k_blocks = 264;
  problem.scale_log2 = 1.4426950408889634f / std::sqrt(static_cast<float>(kDim));
  const int pitch = problem.pitch();
  const auto make = [&](int blocks) {
    std::normal_distribution<float> gauss(0.f, 1.5f);
    std::vector<bf16> values(static_cast<size_t>(blocks) * kBlock * pitch);
    // 1 in 64 drawn, the rest by a walk through a table: drawing 150 M normals takes a minute.
    std::vector<bf16> table(1 << 20);
    for (bf16& value : table) value = __float2bfloat16(gauss(random));
    for (size_t i = 0; i < values.size(); i += 64) {
      const size_t at = random() & ((1 << 20) - 64);
      std::copy_n(&table[at], 64, &values[i]);
    }
    return study_upload(values);
  };
  bf16* output = make(problem.q_blocks);
  problem.query = make(problem.q_blocks);
  problem.key = make(problem.k_blocks);
  problem.value = make(problem.k_blocks);
  problem.output = output;
  std::vector<int> row_begin, column;
  for (int head = 0; head < problem.heads; ++head) {
    for (int q = 0; q < problem.q_blocks; ++q) {
      row_begin.push_back(static_cast<int>(column.size()));
      const unsigned keep = 60 + random() % 121;  // of 264
      for (int k = 0; k < problem.k_blocks; ++k) {
        if (random() % problem.k_blocks < keep) column.push_back(k);
      }
    }
    row_begin.push_back(static_cast<int>(column.size()));
  }
  problem.row_begin = study_upload(row_begin);
  problem.column = study_upload(column);

  constexpr int kSamples = 4;
  std::vector<int2> samples;
  for (int i = 0; i < kSamples; ++i) {
    samples.push_back(make_int2(random() % problem.heads, random() % problem.q_blocks));
  }
  std::vector<float> want(kSamples * kBlock * kDim);
  float* device_want = study_upload(want);
  const int shared = problem.k_blocks * kBlock * 4;
  STUDY_CHECK(cudaFuncSetAttribute(study_check_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  study_check_kernel<<<dim3(kSamples, kBlock), kDim, shared>>>(problem, pitch, study_upload(samples), device_want);
  STUDY_CHECK(cudaMemcpy(want.data(), device_want, want.size() * 4, cudaMemcpyDeviceToHost));

  std::vector<bf16> got(static_cast<size_t>(problem.q_blocks) * kBlock * pitch);
  STUDY_CHECK(cudaMemset(output, 0xff, got.size() * 2));
  launch(problem);
  STUDY_CHECK(cudaGetLastError());
  STUDY_CHECK(cudaMemcpy(got.data(), output, got.size() * 2, cudaMemcpyDeviceToHost));
  double worst = 0;
  for (int i = 0; i < kSamples; ++i) {
    double difference = 0, norm = 0;
    for (int row = 0; row < kBlock; ++row) {
      for (int c = 0; c < kDim; ++c) {
        const double w = want[(i * kBlock + row) * kDim + c];
        const double g = __bfloat162float(
            got[(static_cast<size_t>(samples[i].y) * kBlock + row) * pitch + samples[i].x * kDim + c]);
        difference += (g - w) * (g - w);
        norm += w * w;
      }
    }
    const double error = std::sqrt(difference / norm);
    worst = !(error <= worst) ? error : worst;
  }

  cudaEvent_t begin, end;
  STUDY_CHECK(cudaEventCreate(&begin));
  STUDY_CHECK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 5; ++i) {
    STUDY_CHECK(cudaEventRecord(begin));
    launch(problem);
    STUDY_CHECK(cudaEventRecord(end));
    STUDY_CHECK(cudaEventSynchronize(end));
    times.push_back(0);
    STUDY_CHECK(cudaEventElapsedTime(&times.back(), begin, end));
  }
  std::sort(times.begin(), times.end());
  const double flop = 4.0 * kBlock * kBlock * kDim * column.size();
  std::printf("{\"rung\": \"%s\", \"ms\": %.3f, \"tflops\": %.1f, \"error\": %.2e, \"seed\": %u}\n", name,
              times[2], flop / times[2] * 1e-9, worst, seed);
  return worst <= 4e-3 ? 0 : 1;
}

#define STUDY_MAIN(name) \
  int main() { return study_main(name, launch); }

#endif  // FLASHVSR_KERNELS_STUDY_LAUNCH_CUH_
