// SPDX-License-Identifier: LGPL-2.1-or-later
//
// flashvsr-bench plans: what a card of so many GB would do, on a larger one. The session may take what is left of --card
// beside the weights and the driver's own, less the margin of 5 %; its plan is printed, frames are run, and what the
// process then has of the device is asked of the driver. One JSON line.
//
// To hold LibTorch to the same limit (else a session that takes more is only seen, not stopped), set
// PYTORCH_ALLOC_CONF=expandable_segments:True,per_process_memory_fraction:X with X = (card - driver's own) / memory.
//
// --keep FILE writes the luma of what came out, --against FILE compares with it: PSNR over all frames.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/json_line.h"
#include "tests/bench/wall_stream.h"

namespace flashvsr {
namespace {

constexpr double kGb = 1e9;
constexpr double kDriver = 0.6e9;  // a context and what the libraries load into it

// Bytes that anybody has of the device. Its context must be the calling thread's or the primary one.
class DeviceUse {
 public:
  DeviceUse() {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) return;
    info_ = reinterpret_cast<int (*)(size_t*, size_t*)>(dlsym(driver, "cuMemGetInfo_v2"));
    retain_ = reinterpret_cast<int (*)(void**, int)>(dlsym(driver, "cuDevicePrimaryCtxRetain"));
    current_ = reinterpret_cast<int (*)(void*)>(dlsym(driver, "cuCtxSetCurrent"));
  }
  void attach() const {
    void* context = nullptr;
    if (retain_ != nullptr && retain_(&context, 0) == 0) current_(context);
  }
  double used() const {
    size_t free = 0, total = 0;
    return info_ != nullptr && info_(&free, &total) == 0 ? static_cast<double>(total - free) : 0;
  }

 private:
  int (*info_)(size_t*, size_t*) = nullptr;
  int (*retain_)(void**, int) = nullptr;
  int (*current_)(void*) = nullptr;
};

void check(FlashVsrStatus status, const FlashVsrError& error) {
  if (status < 0) throw std::runtime_error(error.message);
}

double mean_square(const std::vector<uint8_t>& a, std::ifstream& file) {
  std::vector<uint8_t> b(a.size());
  double sum = 0;
  if (!file.read(reinterpret_cast<char*>(b.data()), static_cast<std::streamsize>(b.size()))) throw std::runtime_error("--against holds fewer frames");
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

int run(int argc, char** argv) {
  BenchModelOptions options;
  double card = 0;
  int chunks = 3;
  std::string keep, against;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (!value.empty() && options.take(name, value)) continue;
    if (!value.empty() && name == "--card") card = std::stod(value) * kGb;
    else if (!value.empty() && name == "--chunks") chunks = std::stoi(value);
    else if (!value.empty() && name == "--keep") keep = value;
    else if (!value.empty() && name == "--against") against = value;
    else {
      std::fprintf(stderr, "usage: %s [--card 12 (GB; 0: all)] [--chunks 3] [--keep FILE] [--against FILE]\n%s", argv[0],
                   BenchModelOptions::usage());
      return name == "--help" ? 0 : 2;
    }
  }
  const FlashVsrApi& api = bench_api();
  FlashVsrModel* model = open_bench_model(api, options);
  FlashVsrModelInfo info = {};
  info.struct_size = sizeof(info);
  api.model_info(model, &info, nullptr);
  const DeviceUse device;
  device.attach();
  const double weights = static_cast<double>(info.weight_bytes), loaded = device.used();

  FlashVsrFormat format = {};
  format.pixel_format = FLASHVSR_PIXEL_FORMAT_I420;
  format.width = options.width;
  format.height = options.height;
  format.color = {1, 0, 1, 1};
  FlashVsrSessionOptions session_options;
  api.default_session_options(&session_options);
  if (card > 0) session_options.max_vram = 0.95 * (card - kDriver - weights);
  FlashVsrPlan plan = {};
  plan.struct_size = sizeof(plan);
  FlashVsrError error;
  check(api.model_plan(model, &format, &session_options, &plan, &error), error);

  std::atomic<bool> is_over{false};
  std::atomic<double> most{loaded};
  std::thread watch([&] {
    device.attach();
    while (!is_over) {
      most = std::max(most.load(), device.used());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  std::vector<double> seconds;
  std::vector<double> errors;
  std::string failure;
  uint64_t frames = 0;
  FlashVsrStats stats = {};
  stats.struct_size = sizeof(stats);
  try {
    FlashVsrSession* session = nullptr;
    check(api.session_open(model, &format, &session_options, &session, &error), error);
    std::vector<BenchPicture> pictures = BenchPicture::loop(options.width, options.height);
    BenchPicture result(4 * options.width, 4 * options.height, 0);
    std::ofstream kept(keep, std::ios::binary);
    std::ifstream known(against, std::ios::binary);
    const uint64_t wanted = 21 + 8 * static_cast<uint64_t>(chunks);
    auto begin = std::chrono::steady_clock::now();
    for (uint64_t id = 0; frames < wanted; ++id) {
      const FlashVsrFrame in = pictures[id % pictures.size()].frame(id);
      check(api.send(session, &in, &error), error);
      const FlashVsrStatus ran = api.run(session, FLASHVSR_RUN_MODEL, &error);
      check(ran, error);
      if (ran != FLASHVSR_OK) continue;
      for (;;) {
        FlashVsrFrame out = result.frame(0);
        const FlashVsrStatus status = api.receive(session, nullptr, &out, &error);
        check(status, error);
        if (status != FLASHVSR_OK) break;
        ++frames;
        const size_t luma = result.bytes().size() * 2 / 3;
        const std::vector<uint8_t> bytes(result.bytes().begin(), result.bytes().begin() + static_cast<std::ptrdiff_t>(luma));
        if (!keep.empty()) kept.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(luma));
        if (!against.empty()) errors.push_back(mean_square(bytes, known));
      }
      const auto now = std::chrono::steady_clock::now();
      seconds.push_back(std::chrono::duration<double>(now - begin).count());
      begin = now;
    }
    api.stats(session, &stats, &error);
    api.session_close(session);
  } catch (const std::exception& e) {
    failure = e.what();
  }
  is_over = true;
  watch.join();

  JsonLine line("plans");
  line.number("card_gb", card / kGb, 0).number("height", 4 * options.height).number("width", 4 * options.width);
  line.text("plan", plan.text).number("planned_session_gb", static_cast<double>(plan.session_bytes) / kGb, 2);
  line.number("weights_gb", weights / kGb, 2).number("loaded_gb", loaded / kGb, 2).number("most_gb", most / kGb, 2);
  line.number("host_gb", static_cast<double>(stats.host_bytes) / kGb, 2).number("frames", static_cast<double>(frames));
  if (!seconds.empty()) line.number("first_chunk_s", seconds[0], 3);
  if (seconds.size() > 1) line.number("chunk_s", Spread::of(std::vector<double>(seconds.begin() + 1, seconds.end())).median, 3);
  if (!errors.empty()) {
    double mean = 0;
    for (const double e : errors) mean += e / static_cast<double>(errors.size());
    line.number("psnr_db", mean > 0 ? 10 * std::log10(255 * 255 / mean) : 99, 2);
  }
  if (!failure.empty()) line.text("failure", failure);
  line.print();
  api.model_close(model);
  return failure.empty() ? 0 : 1;
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  try {
    return flashvsr::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "flashvsr-bench: %s\n", e.what());
    return 1;
  }
}
