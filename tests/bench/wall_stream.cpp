// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/bench/wall_stream.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace flashvsr {

BenchPicture::BenchPicture(int width, int height, int time) : width_(width), height_(height) {
  const auto plane = [&](int w, int h, double phase) {
    for (int y = 0; y < h; ++y) {
      for (int x = 0; x < w; ++x) {
        const double wave = std::sin(0.21 * (x + time) + phase) * std::cos(0.17 * y - 0.1 * time);
        bytes_.push_back(static_cast<uint8_t>(128 + 90 * wave));
      }
    }
  };
  plane(width, height, 0);
  plane((width + 1) / 2, (height + 1) / 2, 0.4);
  plane((width + 1) / 2, (height + 1) / 2, 0.8);
}

std::vector<BenchPicture> BenchPicture::loop(int width, int height) {
  std::vector<BenchPicture> pictures;
  for (int i = 0; i < 14; ++i) pictures.emplace_back(width, height, i < 8 ? i : 14 - i);
  return pictures;
}

FlashVsrFrame BenchPicture::frame(uint64_t id) {
  const size_t w = static_cast<size_t>(width_), h = static_cast<size_t>(height_), half_w = (w + 1) / 2, half_h = (h + 1) / 2;
  FlashVsrFrame frame = {};
  frame.data[0] = bytes_.data();
  frame.data[1] = bytes_.data() + w * h;
  frame.data[2] = bytes_.data() + w * h + half_w * half_h;
  frame.stride[0] = w;
  frame.stride[1] = frame.stride[2] = half_w;
  frame.frame_id = id;
  return frame;
}

bool BenchModelOptions::take(const std::string& name, const std::string& value) {
  if (name == "--model") model = value;
  else if (name == "--device") device = value;
  else if (name == "--precision") precision = value;
  else if (name == "--width") width = std::stoi(value);
  else if (name == "--height") height = std::stoi(value);
  else return false;
  return true;
}

const char* BenchModelOptions::usage() {
  return "  --model PATH       the released files; default: the built-in small model\n"
         "  --device cpu       auto, cpu, cuda, cuda:N\n"
         "  --precision auto   auto, fp32, bf16, fp16, fp8\n"
         "  --width 160 --height 90   of what is sent; four times as much comes out\n";
}

const FlashVsrApi& bench_api() {
  const FlashVsrApi* api = flashvsr_get_api(FLASHVSR_ABI_VERSION);
  if (api == nullptr) throw std::runtime_error("the engine speaks another ABI version");
  return *api;
}

FlashVsrModel* open_bench_model(const FlashVsrApi& api, const BenchModelOptions& o) {
  FlashVsrModelOptions options;
  api.default_model_options(&options);
  options.path = o.model.empty() ? nullptr : o.model.c_str();
  options.device = o.device.c_str();
  if (!o.model.empty()) options.version = FLASHVSR_VERSION_V1_1;
  const char* names[] = {"auto", "fp32", "bf16", "fp16", "fp8"};  // in the order of FlashVsrPrecision
  const auto* found = std::find(std::begin(names), std::end(names), o.precision);
  if (found == std::end(names)) throw std::runtime_error("precision " + o.precision + " is not known");
  options.precision = static_cast<FlashVsrPrecision>(found - names);
  FlashVsrModel* model = nullptr;
  FlashVsrError error;
  if (api.model_open(&options, &model, &error) != FLASHVSR_OK) throw std::runtime_error(error.message);
  return model;
}

WallStream::WallStream(const FlashVsrApi& api, FlashVsrModel* model, int width, int height)
    : api_(api), result_(width * kScale, height * kScale, 0), sent_at_(kInside) {
  pictures_ = BenchPicture::loop(width, height);
  FlashVsrFormat format = {};
  format.pixel_format = FLASHVSR_PIXEL_FORMAT_I420;
  format.width = width;
  format.height = height;
  format.color = {1, 0, 1, 1};
  FlashVsrSessionOptions options;
  api_.default_session_options(&options);
  FlashVsrError error;
  if (api_.session_open(model, &format, &options, &session_, &error) != FLASHVSR_OK) throw std::runtime_error(error.message);
  threads_.emplace_back([this] { send_frames(); });
  threads_.emplace_back([this] { run_chunks(); });
  threads_.emplace_back([this] { receive_frames(); });
}

WallStream::~WallStream() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_all();
  api_.interrupt(session_);
  for (std::thread& thread : threads_) thread.join();
  api_.session_close(session_);
}

bool WallStream::check(FlashVsrStatus status, const FlashVsrError& error) {
  if (status >= 0) return true;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_stopping_ && failure_.empty()) failure_ = error.message;
  is_stopping_ = true;
  changed_.notify_all();
  return false;
}

void WallStream::send_frames() {
  for (uint64_t id = 0;; ++id) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return is_stopping_ || sent_ - received_ < kInside; });
      if (is_stopping_) return;
      sent_at_[id % kInside] = Clock::now();
    }
    FlashVsrError error;
    const FlashVsrFrame frame = pictures_[id % pictures_.size()].frame(id);
    if (!check(api_.send(session_, &frame, &error), error)) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    ++sent_;
    changed_.notify_all();
  }
}

void WallStream::run_chunks() {
  for (;;) {
    uint64_t seen;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seen = sent_;
    }
    FlashVsrError error;
    const FlashVsrStatus status = api_.run(session_, FLASHVSR_RUN_MODEL, &error);
    if (!check(status, error)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    if (status == FLASHVSR_OK) {
      ++runs_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return is_stopping_ || sent_ != seen; });
    }
    if (is_stopping_) return;
  }
}

void WallStream::receive_frames() {
  for (;;) {
    uint64_t seen;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seen = runs_;
    }
    FlashVsrError error;
    FlashVsrFrame frame = result_.frame(0);
    const FlashVsrStatus status = api_.receive(session_, nullptr, &frame, &error);
    if (!check(status, error)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    if (status == FLASHVSR_OK) {
      const double ms = std::chrono::duration<double, std::milli>(Clock::now() - sent_at_[frame.frame_id % kInside]).count();
      measured_.worst_ms = std::max(measured_.worst_ms, ms);
      ++measured_.frames;
      ++received_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return is_stopping_ || runs_ != seen; });
    }
    if (is_stopping_) return;
  }
}

void WallStream::check_failure() {
  if (!failure_.empty()) throw std::runtime_error(failure_);
}

void WallStream::wait_for(uint64_t frames) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return is_stopping_ || received_ >= frames; });
  check_failure();
}

void WallStream::begin() {
  const std::lock_guard<std::mutex> lock(mutex_);
  measured_ = {};
  begin_ = Clock::now();
}

WallStream::Result WallStream::end() {
  const std::lock_guard<std::mutex> lock(mutex_);
  check_failure();
  Result result = measured_;
  result.seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  return result;
}

}  // namespace flashvsr
