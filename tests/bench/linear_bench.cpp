// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The transformer's linears: kernels/linear beside cuBLASLt's first suggestion, in turns: single calls with a rest before
// each (alone), bursts of 5 calls, and back to back for .15 s, where the card is at its power limit (sustained). One JSON
// line a case.
//
//   linear_bench [filter]            a filter is part of a case's name: "bf16 ffn0 8448"
//   linear_bench --search [filter]   cuBLASLt alone: every algorithm, tile and cluster that it accepts; the best with their
//                                    configuration, and whether their bits are those of the first suggestion
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/linear.h"
#include "tests/bench/json_line.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

void check_lt(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: cuBLAS status %d\n", what, static_cast<int>(status));
  std::exit(1);
}

struct Case {
  const char* layer;
  int64_t rows, out, in;
  bool gelu, fp8;
  std::string name() const { return std::string(fp8 ? "fp8 " : "bf16 ") + layer + " " + std::to_string(rows); }
};

struct Config {
  int id = 0, tile = 0, stages = 0, split = 0, reduction = 0, swizzle = 0, custom = 0, inner = 0, cluster = 0;
  bool operator<(const Config& o) const {
    return std::tie(id, tile, stages, split, reduction, swizzle, custom, inner, cluster) <
           std::tie(o.id, o.tile, o.stages, o.split, o.reduction, o.swizzle, o.custom, o.inner, o.cluster);
  }
  std::string text() const {
    char line[160];
    std::snprintf(line, sizeof(line), "id %d tile %d stages %d split %d reduction %d swizzle %d custom %d inner %d cluster %d", id, tile,
                  stages, split, reduction, swizzle, custom, inner, cluster);
    return line;
  }
};

template <typename T>
int get(const cublasLtMatmulAlgo_t& algo, cublasLtMatmulAlgoConfigAttributes_t which) {
  T value{};
  size_t written = 0;
  if (cublasLtMatmulAlgoConfigGetAttribute(&algo, which, &value, sizeof(value), &written) != CUBLAS_STATUS_SUCCESS) return -1;
  return static_cast<int>(value);
}

Config config_of(const cublasLtMatmulAlgo_t& algo) {
  Config c;
  c.id = get<int32_t>(algo, CUBLASLT_ALGO_CONFIG_ID);
  c.tile = get<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_TILE_ID);
  c.stages = get<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_STAGES_ID);
  c.split = get<int32_t>(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
  c.reduction = get<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  c.swizzle = get<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING);
  c.custom = get<uint32_t>(algo, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION);
  c.inner = get<uint16_t>(algo, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID);
  c.cluster = get<uint16_t>(algo, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID);
  return c;
}

template <typename T>
void set(cublasLtMatmulAlgo_t& algo, cublasLtMatmulAlgoConfigAttributes_t which, T value) {
  cublasLtMatmulAlgoConfigSetAttribute(&algo, which, &value, sizeof(value));
}

struct Candidate {
  cublasLtMatmulAlgo_t algo;
  Config config;
  int rank;  // of the suggestions; -1: found by trying
  double burst = 0, sustained = 0;
  bool same = false;
};

class Timer {
 public:
  Timer() {
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
  }
  template <typename Run>
  double ms(const Run& run, int calls) {
    cudaEventRecord(begin_);
    for (int i = 0; i < calls; ++i) run();
    cudaEventRecord(end_);
    device::check(cudaEventSynchronize(end_), "event");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin_, end_);
    return ms / calls;
  }

 private:
  cudaEvent_t begin_, end_;
};

void bench(cublasLtHandle_t lt, const Case& c, bool search) {
  const int64_t m = c.rows, n = c.out, k = c.in;
  const cudaDataType_t in_type = c.fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  const size_t bytes = c.fp8 ? 1 : 2;
  Buffer<uint8_t> x(m * k * bytes), w(n * k * bytes), workspace(32 << 20);
  Buffer<uint16_t> out(m * n), bias(device::random_bf16(n, 3));
  std::vector<uint16_t> noise = device::random_bf16(4 << 20, 7);
  std::vector<uint8_t> noise_bytes(noise.size() * bytes);
  if (c.fp8) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (uint8_t& byte : noise_bytes) {  // e4m3 of a normal value, near enough
      const float v = normal(random);
      int exponent = 0;
      const float fraction = std::frexp(std::fabs(v) * 60.f + 1e-3f, &exponent);
      const int e = std::clamp(exponent + 6, 0, 15), f = static_cast<int>(fraction * 16.f) & 7;
      byte = static_cast<uint8_t>((v < 0 ? 0x80 : 0) | (e << 3) | (e == 15 && f == 7 ? 6 : f));
    }
  } else {
    std::memcpy(noise_bytes.data(), noise.data(), noise_bytes.size());
  }
  x.fill(noise_bytes);
  w.fill(noise_bytes);
  const std::vector<float> ones(std::max(m, n), 1e-2f);
  Buffer<float> x_scale(ones), w_scale(ones);

  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t a, b, d;
  check_lt(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "operation");
  const auto describe = [&](cublasLtMatmulDescAttributes_t which, auto value) {
    check_lt(cublasLtMatmulDescSetAttribute(operation, which, &value, sizeof(value)), "attribute");
  };
  describe(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  describe(CUBLASLT_MATMUL_DESC_EPILOGUE, c.gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS);
  describe(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(bias.get()));
  describe(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
  if (c.fp8) {
    describe(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<const void*>(w_scale.get()));
    describe(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<const void*>(x_scale.get()));
    describe(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    describe(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    describe(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(1));
  }
  check_lt(cublasLtMatrixLayoutCreate(&a, in_type, k, n, k), "weight");
  check_lt(cublasLtMatrixLayoutCreate(&b, in_type, k, m, k), "input");
  check_lt(cublasLtMatrixLayoutCreate(&d, CUDA_R_16BF, n, m, n), "output");
  cublasLtMatmulPreference_t preference;
  check_lt(cublasLtMatmulPreferenceCreate(&preference), "preference");
  const uint64_t most = 32 << 20;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof(most));

  std::vector<cublasLtMatmulHeuristicResult_t> found(256);
  int count = 0;
  const cublasStatus_t suggested = cublasLtMatmulAlgoGetHeuristic(lt, operation, a, b, d, d, preference, 256, found.data(), &count);
  if (suggested != CUBLAS_STATUS_SUCCESS || count == 0) {
    std::printf("{\"bench\": \"linear\", \"case\": \"%s\", \"refused\": %d}\n", c.name().c_str(), static_cast<int>(suggested));
    return;
  }
  std::vector<Candidate> candidates;
  std::set<Config> seen;
  for (int i = 0; i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
    candidates.push_back({found[i].algo, config_of(found[i].algo), i});
    seen.insert(candidates.back().config);
  }
  const float alpha = 1, beta = 0;
  const auto run = [&](const Candidate& s) {
    return cublasLtMatmul(lt, operation, &alpha, w.get(), a, x.get(), b, &beta, out.get(), d, out.get(), d, &s.algo, workspace.get(),
                          32 << 20, nullptr);
  };
  Timer timer;
  const double flop = 2.0 * m * n * k;
  if (!search) {
    LinearParams p;
    p.x = reinterpret_cast<const uint16_t*>(x.get());
    p.weight = reinterpret_cast<const uint16_t*>(w.get());
    p.bias = bias.get();
    p.output = out.get();
    p.rows = m;
    p.in = static_cast<int32_t>(k);
    p.out = static_cast<int32_t>(n);
    p.gelu = c.gelu;
    const bool has_own = !c.fp8 && has_linear_kernel();
    const auto own = [&] { device::check(launch_linear(p, nullptr), "launch_linear"); };
    const auto lt_first = [&] { check_lt(run(candidates[0]), "cublasLtMatmul"); };
    std::vector<double> alone[2], burst[2], sustained[2];
    const auto measure = [&](int which, const auto& call) {
      timer.ms(call, 2);
      for (int i = 0; i < 5; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(15));
        timer.ms([&] { device::check(cudaMemsetAsync(workspace.get(), 0, 32 << 20), "memset"); }, 1);
        alone[which].push_back(timer.ms(call, 1));
      }
      for (int i = 0; i < 7; ++i) burst[which].push_back(timer.ms(call, 5));
      const int calls = std::max(5, static_cast<int>(150 / burst[which].back()));
      timer.ms(call, calls / 2);
      sustained[which].push_back(timer.ms(call, calls));
    };
    for (int round = 0; round < 3; ++round) {
      measure(0, lt_first);
      if (has_own) measure(1, own);
    }
    JsonLine line("linear");
    line.text("case", c.name());
    for (int which = 0; which <= (has_own ? 1 : 0); ++which) {
      const double quick = Spread::of(burst[which]).median, steady = Spread::of(sustained[which]).median;
      const std::string name = which == 0 ? "cublaslt" : "own";
      line.number(name + "_alone_us", Spread::of(alone[which]).median * 1e3, 1).number(name + "_us", quick * 1e3, 1).number(name + "_tflops", flop / quick * 1e-9, 0)
          .number(name + "_sustained_us", steady * 1e3, 1).number(name + "_sustained_tflops", flop / steady * 1e-9, 0);
    }
    line.print();
    return;
  }

  // Around the suggestions: every tile, cluster and stage count of their algorithms that the library accepts.
  std::set<int> ids;
  std::set<int> customs;
  for (const Candidate& s : candidates) {
    ids.insert(s.config.id);
    customs.insert(s.config.custom);
  }
  const size_t suggestions = candidates.size();
  for (const int id : ids) {
    cublasLtMatmulAlgo_t algo;
    if (cublasLtMatmulAlgoInit(lt, CUBLAS_COMPUTE_32F, CUDA_R_32F, in_type, in_type, CUDA_R_16BF, CUDA_R_16BF, id, &algo) !=
        CUBLAS_STATUS_SUCCESS) {
      continue;
    }
    const auto list = [&](cublasLtMatmulAlgoCapAttributes_t which) {
      size_t size = 0;
      cublasLtMatmulAlgoCapGetAttribute(&algo, which, nullptr, 0, &size);
      std::vector<uint32_t> values(size / sizeof(uint32_t));
      if (size) cublasLtMatmulAlgoCapGetAttribute(&algo, which, values.data(), size, &size);
      if (values.empty()) values.push_back(0);
      return values;
    };
    const auto tiles = list(CUBLASLT_ALGO_CAP_TILE_IDS), stages = list(CUBLASLT_ALGO_CAP_STAGES_IDS);
    for (const uint32_t tile : tiles) {
      for (const uint32_t stage : stages) {
        for (uint16_t cluster = 0; cluster <= 8; ++cluster) {
          for (const int custom : customs) {
            for (uint32_t swizzle = 0; swizzle <= 1; ++swizzle) {
              set(algo, CUBLASLT_ALGO_CONFIG_TILE_ID, tile);
              set(algo, CUBLASLT_ALGO_CONFIG_STAGES_ID, stage);
              set(algo, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, cluster);
              set(algo, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, static_cast<uint32_t>(custom));
              set(algo, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, swizzle);
              cublasLtMatmulHeuristicResult_t result{};
              if (cublasLtMatmulAlgoCheck(lt, operation, a, b, d, d, &algo, &result) != CUBLAS_STATUS_SUCCESS ||
                  result.workspaceSize > most || !seen.insert(config_of(algo)).second) {
                continue;
              }
              candidates.push_back({algo, config_of(algo), -1});
            }
          }
        }
      }
    }
  }

  std::vector<uint16_t> first;
  const int64_t sample = std::min<int64_t>(m * n, 1 << 21);
  std::vector<Candidate> alive;
  for (Candidate& s : candidates) {
    if (run(s) != CUBLAS_STATUS_SUCCESS || cudaDeviceSynchronize() != cudaSuccess) continue;
    const std::vector<uint16_t> got = out.download(m * n - sample, sample);
    if (first.empty()) first = got;
    s.same = got == first;
    s.burst = timer.ms([&] { run(s); }, 2);
    alive.push_back(s);
  }
  // The first suggestion and the quickest, again, in turns.
  std::stable_sort(alive.begin() + 1, alive.end(), [](const Candidate& l, const Candidate& r) { return l.burst < r.burst; });
  if (alive.size() > 13) alive.resize(13);
  std::map<Config, std::vector<double>> bursts;
  for (int round = 0; round < 5; ++round) {
    for (const Candidate& s : alive) bursts[s.config].push_back(timer.ms([&] { run(s); }, 5));
  }
  for (Candidate& s : alive) s.burst = Spread::of(bursts[s.config]).median;
  std::stable_sort(alive.begin() + 1, alive.end(), [](const Candidate& l, const Candidate& r) { return l.burst < r.burst; });
  if (alive.size() > 5) alive.resize(5);
  std::map<Config, std::vector<double>> long_runs;
  for (int round = 0; round < 2; ++round) {
    for (const Candidate& s : alive) {
      const int calls = std::max(5, static_cast<int>(120 / s.burst));
      timer.ms([&] { run(s); }, calls / 2);
      long_runs[s.config].push_back(timer.ms([&] { run(s); }, calls));
    }
  }
  for (Candidate& s : alive) {
    s.sustained = Spread::of(long_runs[s.config]).min;
    JsonLine("linear").text("case", c.name()).number("rank", s.rank).number("us", s.burst * 1e3, 1).number("tflops", flop / s.burst * 1e-9, 0)
        .number("sustained_us", s.sustained * 1e3, 1).number("sustained_tflops", flop / s.sustained * 1e-9, 0).flag("same_bits", s.same)
        .text("config", s.config.text()).number("tried", candidates.size()).number("suggestions", suggestions).print();
  }
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  using namespace flashvsr;
  const bool search = argc > 1 && std::string(argv[1]) == "--search";
  const int at = search ? 2 : 1;
  const std::string filter = argc > at ? argv[at] : "";
  cublasLtHandle_t lt;
  check_lt(cublasLtCreate(&lt), "cublasLtCreate");
  std::vector<Case> cases;
  for (const bool fp8 : {false, true}) {
    for (const int64_t rows : {1920, 8448, 25344, 32256}) {
      cases.push_back({"ffn0", rows, 8960, 1536, !fp8, fp8});
      cases.push_back({"qkv", rows, 4608, 1536, false, fp8});
      cases.push_back({"ffn2", rows, 1536, 8960, false, fp8});
      cases.push_back({"o", rows, 1536, 1536, false, fp8});
    }
  }
  for (const Case& c : cases) {
    if (c.name().find(filter) != std::string::npos) bench(lt, c, search);
  }
}
