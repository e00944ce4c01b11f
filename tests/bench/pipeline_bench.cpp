// SPDX-License-Identifier: LGPL-2.1-or-later
//
// flashvsr-bench pipeline: the whole model with random weights of the released size,
// GPU-resident input and output, decode and colour correction included. One JSON line a size.
//
// Random weights give unrealistic block masks (rows of 0 to 192 blocks), so each layer uses a
// fixed mask of realistic spread: pooled scores of standard deviation 1.5, mask by the model's
// own rule. The model's own mask is computed all the same.
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <dlfcn.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "image/postprocess.h"
#include "io/json.h"
#include "io/model_config.h"
#include "model/cpu_arena.h"
#include "model/upscaler.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

struct BenchOptions {
  std::string device = "cuda", precision = "bf16", config = "full";
  int64_t height = 768, width = 1408, chunks = 20, decode_latents = 0;
  double sparse_ratio = 2.0;
  bool fixed_mask = true, as_shipped = false;
  std::string profile;  // first, steady: which chunk ncu is to see
  std::string timeline;  // a folder for traces of a first and of a steady chunk
  std::string commit = "unknown";
};

double least(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::min_element(values.begin(), values.end());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

void synchronize(c10::Device device) {
  if (device.is_cuda()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(0);
}

// Tells a profiler that waits for it (ncu --profile-from-start off) to begin or end; libcudart comes with the CUDA library.
void profiler(const char* call) {
  const auto function = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, call));
  FLASHVSR_CHECK(function != nullptr && function() == 0, ErrorCode::kInternal, call, " failed");
}

// Bytes in tensors and bytes taken from the device: the latter is what other programs miss.
struct DevicePeak {
  size_t allocated = 0, reserved = 0;
};

// Peaks of the first chunk and of those behind it, of passes that begin with an empty cache: what an
// earlier pass or the making of weights left cached does not count.
class PeakMeter {
 public:
  explicit PeakMeter(c10::Device device)
      : allocator_(device.is_cuda() ? c10::getDeviceAllocator(device.type()) : nullptr) {}

  void begin_pass() {
    if (allocator_ == nullptr) return;
    allocator_->emptyCache();
    allocator_->resetPeakStats(0);
    passes_.emplace_back();
  }
  // What the first chunk left cached still counts for those behind it.
  void end_first() {
    if (allocator_ == nullptr) return;
    passes_.back()[0] = now();
    allocator_->resetPeakStats(0);
  }
  void end_pass() {
    if (allocator_ != nullptr) passes_.back()[1] = now();
  }

  // Of the first chunks (0) or the steady ones (1), the largest of the passes.
  DevicePeak largest(size_t part) const {
    DevicePeak peak;
    for (const auto& pass : passes_) {
      peak.allocated = std::max(peak.allocated, pass[part].allocated);
      peak.reserved = std::max(peak.reserved, pass[part].reserved);
    }
    return peak;
  }
  // [first allocated, first reserved, steady allocated, steady reserved] in GiB of every pass, as JSON.
  std::string passes() const {
    std::string text;
    for (const auto& pass : passes_) {
      char values[128];
      std::snprintf(values, sizeof(values), "%s[%.2f,%.2f,%.2f,%.2f]", text.empty() ? "" : ",", gib(pass[0].allocated),
                    gib(pass[0].reserved), gib(pass[1].allocated), gib(pass[1].reserved));
      text += values;
    }
    return "[" + text + "]";
  }
  static double gib(size_t bytes) { return static_cast<double>(bytes) / 1073741824.0; }

 private:
  DevicePeak now() const {
    const auto stats = allocator_->getDeviceStats(0);
    return {static_cast<size_t>(stats.allocated_bytes[0].peak), static_cast<size_t>(stats.reserved_bytes[0].peak)};
  }

  c10::DeviceAllocator* allocator_;
  std::vector<std::array<DevicePeak, 2>> passes_;
};

// Same choice of masks for every layer group; made once, before the clock runs.
class FixedMasks {
 public:
  FixedMasks(const ModelConfig& config, const RunOptions& options, const BlockGrid& grid, c10::Device device)
      : config_(config), options_(options), grid_(grid), device_(device) {}

  const BlockPairs& get(int64_t layer, int64_t query_slots, int64_t key_blocks) {
    const auto key = std::make_pair(key_blocks + 100000 * query_slots, layer % kVariants);
    auto it = masks_.find(key);
    if (it != masks_.end()) return it->second;
    const auto float_options = at::TensorOptions().device(device_).dtype(at::kFloat);
    const double sigma = std::sqrt(1.5);
    const at::Tensor q = at::randn({query_slots * grid_.windows(), config_.dit.dim}, float_options) * sigma;
    const at::Tensor k = at::randn({key_blocks, config_.dit.dim}, float_options) * sigma;
    const at::Tensor mask = block_mask_from_means(
        q.to(at::kBFloat16), k.to(at::kBFloat16), config_.dit.heads, grid_, options_.local_range,
        block_topk(grid_, options_.sparse_ratio, config_.blocks_per_query));
    density_ = mask.to(at::kFloat).mean().item<double>();
    return masks_.emplace(key, mask_to_pairs(mask)).first->second;
  }
  double density() const { return density_; }

  // Those of the first chunk and of a steady one, lest their making counts as the model's memory.
  void make_all(int64_t kv_chunks) {
    for (int64_t layer = 0; layer < kVariants; ++layer) {
      get(layer, 3, 3 * grid_.windows());
      get(layer, 1, (std::max<int64_t>(kv_chunks, 2) + 1) * grid_.windows());
    }
  }

 private:
  static constexpr int64_t kVariants = 4;
  ModelConfig config_;
  RunOptions options_;
  BlockGrid grid_;
  c10::Device device_;
  std::map<std::pair<int64_t, int64_t>, BlockPairs> masks_;
  double density_ = 0;
};

// "full", "student", or the path of a config.json, whose transformer is switched on unless as shipped.
ModelConfig config_of(const std::string& name, bool as_shipped) {
  if (name == "full") return ModelConfig();
  if (name == "student") return random_student_config();
  std::ifstream file(name);
  FLASHVSR_CHECK(file.good(), ErrorCode::kInvalidArgument, name, ": neither full, student nor a file");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  ModelConfig config = config_from_json(parse_json(text, name), name);
  if (!as_shipped) config.has_transformer = true;
  return config;
}

// Colour correction and quantisation, as a session has them.
at::Tensor finish(const at::Tensor& frames, const at::Tensor& lq, bool has_color) {
  PostprocessOptions options;
  options.color_fix = has_color ? ColorFix::kAdain : ColorFix::kNone;
  return finish_frames(frames, has_color ? lq.narrow(2, 0, frames.size(2)) : at::Tensor(), frames.size(3), frames.size(4), 255,
                       options);
}

// Inputs of a stream's n-th chunk, from anywhere in the video.
at::Tensor chunk_of(const at::Tensor& video, int64_t n) {
  return n == 0 ? video.narrow(2, 0, 25) : video.narrow(2, n % 8, 12);
}

struct BackToBack {
  double chunk_ms = 0;     // as long as a chunk takes when the next is asked for before it is done
  double enqueue_ms = 0;   // as long as asking takes the host (median)
  double peak_gib = 0;     // reserved
  std::vector<int64_t> sums;  // of each chunk's samples
};

// Steady chunks as a session asks for them: the next as soon as this one's decoder has begun.
BackToBack back_to_back(const Upscaler& model, RunOptions options, const at::Tensor& video, StreamState& state,
                        int64_t chunks, c10::Device device, bool side_stream, bool record_stages) {
  options.record_stages = record_stages;
  if (side_stream) options.decode_stream = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, false);
  state = {};
  synchronize(device);
  PeakMeter meter(device);
  meter.begin_pass();
  const bool has_color = model.config().input_scale == 1;
  BackToBack result;
  std::vector<double> enqueue;
  std::vector<at::Tensor> sums;
  std::chrono::steady_clock::time_point begin;
  const CpuArena arena(device);  // as a session has it
  const int64_t warm = 6;  // the ring is full, and every position of it recorded
  for (int64_t n = 0; n < warm + chunks; ++n) {
    if (n == warm) {
      synchronize(device);
      begin = std::chrono::steady_clock::now();
    }
    const at::Tensor lq = chunk_of(video, n);
    const auto asked = std::chrono::steady_clock::now();
    const CpuArena::Run reusing_memory(arena, n == 0);
    StageClock clock(device);
    const at::Tensor frames = model.run(lq, options, state, {}, nullptr, &clock);
    const c10::OptionalStreamGuard beside(options.decode_stream);
    sums.push_back(finish(frames, lq, has_color).sum());
    enqueue.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - asked).count());
    if (n >= warm) clock.wait_until_begun(&StageTimes::decoder_ms);
  }
  synchronize(device);
  result.chunk_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count() / static_cast<double>(chunks);
  meter.end_pass();
  result.peak_gib = PeakMeter::gib(std::max(meter.largest(0).reserved, meter.largest(1).reserved));
  result.enqueue_ms = median(enqueue);
  for (const at::Tensor& sum : sums) result.sums.push_back(sum.item<int64_t>());
  return result;
}

// First chunks of streams that begin anew, each after two steady chunks of the one before: what the allocator has mapped
// by then stays mapped, while the passes that measure memory begin with nothing.
std::vector<double> first_chunks(const Upscaler& model, const RunOptions& options, const at::Tensor& video, StreamState& state,
                                 c10::Device device) {
  constexpr int kStreams = 7;
  std::vector<double> ms;
  const CpuArena arena(device);
  for (int stream = 0; stream < kStreams; ++stream) {
    state = {};
    for (int64_t n = 0; n < 3; ++n) {
      const at::Tensor lq = chunk_of(video, n);
      synchronize(device);
      const auto begin = std::chrono::steady_clock::now();
      const CpuArena::Run reusing_memory(arena, n == 0);
      const at::Tensor samples = finish(model.run(lq, options, state), lq, model.config().input_scale == 1);
      synchronize(device);
      if (n == 0) ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    }
  }
  return ms;
}

// Writes FOLDER/first.json and FOLDER/steady.json: every kernel of one first and of one steady chunk with its begin and
// end, in the form of chrome://tracing. Chunks follow each other as in back_to_back, so clocks are as in a long run.
void write_timelines(const Upscaler& model, const RunOptions& options, const at::Tensor& video, StreamState& state,
                     c10::Device device, const std::string& folder) {
  namespace profiler = torch::autograd::profiler;
  namespace impl = torch::profiler::impl;
  const impl::ProfilerConfig config(impl::ProfilerState::KINETO);
  const std::set<impl::ActivityType> activities{impl::ActivityType::CPU, impl::ActivityType::CUDA};
  const bool has_color = model.config().input_scale == 1;
  constexpr int64_t kSteady = 12;
  state = {};
  for (int64_t n = 0; n <= kSteady; ++n) {
    const bool is_traced = n == 0 || n == kSteady;
    const at::Tensor lq = chunk_of(video, n);
    if (is_traced) {
      synchronize(device);
      profiler::prepareProfiler(config, activities);
      profiler::enableProfiler(config, activities);
    }
    const at::Tensor samples = finish(model.run(lq, options, state), lq, has_color);
    if (!is_traced) continue;
    synchronize(device);
    profiler::disableProfiler()->save(folder + (n == 0 ? "/first.json" : "/steady.json"));
  }
}

int run(const BenchOptions& o) {
  const c10::InferenceMode guard;
  if (o.device != "cpu") {
    const char* library = std::getenv("FLASHVSR_CUDA_LIBRARY");
    FLASHVSR_CHECK(dlopen(library != nullptr ? library : "libflashvsr_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr,
                   ErrorCode::kNoDevice, "the CUDA library cannot be opened: ", dlerror());
  }
  const c10::Device device(o.device == "cpu" ? "cpu" : "cuda:0");
  const c10::ScalarType dtype = o.precision == "fp32" ? at::kFloat : o.precision == "fp8" ? at::kFloat8_e4m3fn : o.precision == "fp16" ? at::kHalf : at::kBFloat16;
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);

  const ModelConfig config = config_of(o.config, o.as_shipped);
  Upscaler model(config);
  randomize(model, device, dtype, false);
  RunOptions options;
  options.sparse_ratio = o.sparse_ratio;
  options.local_range = config.local_range;
  options.decode_latents = o.decode_latents;
  const BlockGrid grid{o.height / 128, o.width / 128};
  FixedMasks masks(config, options, grid, device);
  StreamState state;
  if (o.fixed_mask && config.has_transformer) {
    masks.make_all(options.kv_chunks);
    model.dit().set_mask_hook([&](int64_t layer, const BlockPairs&, int64_t key_blocks) -> const BlockPairs& {
      return masks.get(layer, state.runs == 0 ? 3 : 1, key_blocks);
    });
  }
  const int64_t scale = config.input_scale;
  const at::Tensor video =
      at::rand({1, 3, 25, o.height / scale, o.width / scale}, at::TensorOptions().device(device).dtype(model.dtype()))
          .mul_(2)
          .sub_(1);

  std::vector<double> chunk, projector, transformer, decoder, color;
  double first_ms = 0, first_warm_ms = 0;
  PeakMeter meter(device);
  // Pass 0 warms up and is reported as the cold first chunk; pass 1 is measured whole chunks, pass 2 stages.
  for (int pass = 0; pass < 3; ++pass) {
    const CpuArena arena(device);
    state = {};
    synchronize(device);
    meter.begin_pass();
    const int64_t runs = 1 + (pass == 0 ? 4 : o.chunks + 4);
    for (int64_t n = 0; n < runs; ++n) {
      const at::Tensor lq = chunk_of(video, n);
      synchronize(device);
      const bool is_profiled = pass == 1 && ((o.profile == "steady" && n == runs - 1) || (o.profile == "first" && n == 0));
      if (is_profiled) profiler("cudaProfilerStart");
      const auto begin = std::chrono::steady_clock::now();
      const CpuArena::Run reusing_memory(arena, n == 0);
      StageClock clock(device);
      at::Tensor frames = model.run(lq, options, state, {}, nullptr, pass == 2 ? &clock : nullptr);
      const DeviceMark before_color(device);
      const at::Tensor samples = finish(frames, lq, scale == 1);
      const DeviceMark after_color(device);
      synchronize(device);
      const auto end = std::chrono::steady_clock::now();
      if (is_profiled) profiler("cudaProfilerStop");
      const double ms = std::chrono::duration<double, std::milli>(end - begin).count();
      if (n == 0) (pass == 0 ? first_ms : first_warm_ms) = ms;
      if (n == 0) meter.end_first();
      if (n < 5) continue;  // cache fills, allocator settles
      if (pass == 1) chunk.push_back(ms);
      if (pass == 2) {
        const StageTimes times = clock.times();
        projector.push_back(times.projector_ms);
        transformer.push_back(times.transformer_ms);
        decoder.push_back(times.decoder_ms);
        color.push_back(before_color.ms_until(after_color));
      }
      FLASHVSR_CHECK(frames.isfinite().all().item<bool>(), ErrorCode::kInternal, "the result is not finite");
    }
    meter.end_pass();
  }
  const std::vector<double> firsts = first_chunks(model, options, video, state, device);
  const DevicePeak first = meter.largest(0), steady = meter.largest(1);
  const BackToBack queued = back_to_back(model, options, video, state, o.chunks, device, false, false);
  const BackToBack beside = device.is_cuda() ? back_to_back(model, options, video, state, o.chunks, device, true, false) : queued;
  FLASHVSR_CHECK(queued.sums == beside.sums, ErrorCode::kInternal, "decoding on its own stream changed the pictures");
  const BackToBack graphs = device.is_cuda() ? back_to_back(model, options, video, state, o.chunks, device, false, true) : queued;
  FLASHVSR_CHECK(queued.sums == graphs.sums, ErrorCode::kInternal, "recorded stages changed the pictures");
  state = {};
  if (!o.timeline.empty()) write_timelines(model, options, video, state, device, o.timeline);
  const double ms = median(chunk);
  std::printf(
      "{\"bench\":\"pipeline\",\"config\":\"%s\",\"height\":%ld,\"width\":%ld,\"precision\":\"%s\",\"device\":\"%s\","
      "\"sparse_ratio\":%.2f,\"density\":%.4f,\"chunks\":%zu,\"chunk_ms\":%.2f,\"fps\":%.2f,\"chunk_ms_min\":%.2f,"
      "\"projector_ms\":%.2f,\"transformer_ms\":%.2f,\"decoder_ms\":%.2f,\"color_ms\":%.2f,\"least_ms\":[%.2f,%.2f,%.2f],"
      "\"first_cold_ms\":%.1f,"
      "\"first_warm_ms\":%.1f,\"first_again_ms\":%.1f,\"first_again_ms_min\":%.1f,\"peak_gib\":%.2f,\"allocated_peak_gib\":%.2f,"
      "\"first_peak_gib\":[%.2f,%.2f],\"steady_peak_gib\":[%.2f,%.2f],\"pass_peaks_gib\":%s,\"decode_latents\":%ld,"
      "\"queued_chunk_ms\":%.2f,\"enqueue_ms\":%.2f,\"side_stream_chunk_ms\":%.2f,\"side_stream_peak_gib\":%.2f,"
      "\"graph_chunk_ms\":%.2f,\"graph_enqueue_ms\":%.2f,\"graph_peak_gib\":%.2f,"
      "\"reference\":%s,\"commit\":\"%s\"}\n",
      o.config.c_str(), o.height, o.width, o.precision.c_str(), o.device.c_str(), o.sparse_ratio, masks.density(),
      chunk.size(), ms, 8000 / ms, least(chunk), median(projector), median(transformer), median(decoder),
      median(color), least(projector), least(transformer), least(decoder), first_ms, first_warm_ms, median(firsts), least(firsts),
      PeakMeter::gib(std::max(first.reserved, steady.reserved)), PeakMeter::gib(std::max(first.allocated, steady.allocated)),
      PeakMeter::gib(first.allocated), PeakMeter::gib(first.reserved), PeakMeter::gib(steady.allocated),
      PeakMeter::gib(steady.reserved), meter.passes().c_str(), o.decode_latents,
      queued.chunk_ms, queued.enqueue_ms, beside.chunk_ms, beside.peak_gib,
      graphs.chunk_ms, graphs.enqueue_ms, graphs.peak_gib,
      std::getenv("FLASHVSR_REFERENCE") != nullptr ? "true" : "false", o.commit.c_str());
  return 0;
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  flashvsr::BenchOptions o;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&]() -> std::string { return i + 1 < argc ? argv[++i] : ""; };
    if (arg == "--device") o.device = value();
    else if (arg == "--precision") o.precision = value();
    else if (arg == "--config") o.config = value();
    else if (arg == "--height") o.height = std::stol(value());
    else if (arg == "--width") o.width = std::stol(value());
    else if (arg == "--chunks") o.chunks = std::stol(value());
    else if (arg == "--sparse-ratio") o.sparse_ratio = std::stod(value());
    else if (arg == "--decode-latents") o.decode_latents = std::stol(value());
    else if (arg == "--model-mask") o.fixed_mask = false;
    else if (arg == "--as-shipped") o.as_shipped = true;
    else if (arg == "--profile") o.profile = value();
    else if (arg == "--timeline") o.timeline = value();
    else if (arg == "--commit") o.commit = value();
    else {
      std::fprintf(stderr,
                   "usage: %s [--device cpu|cuda] [--precision bf16|fp16|fp32|fp8] [--config full|student|FILE.json]\n"
                   "  [--height 768] [--width 1408] [--chunks 20] [--sparse-ratio 2.0] [--model-mask] [--as-shipped]\n"
                   "  [--decode-latents 2] [--profile first|steady] [--timeline FOLDER] [--commit HASH]\n",
                   argv[0]);
      return 2;
    }
  }
  flashvsr::set_log_callback([](flashvsr::LogLevel, const char* message, void*) { std::fprintf(stderr, "%s\n", message); }, nullptr);
  try {
    return flashvsr::run(o);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "flashvsr-bench: %s\n", e.what());
    return 1;
  }
}
