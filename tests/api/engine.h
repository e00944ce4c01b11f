// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The C table for tests: models and sessions that close themselves, frames that own memory.
#ifndef FLASHVSR_TESTS_API_ENGINE_H_
#define FLASHVSR_TESTS_API_ENGINE_H_

#include <flashvsr/flashvsr.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace flashvsr {

inline const FlashVsrApi& api() {
  static const FlashVsrApi* table = flashvsr_get_api(FLASHVSR_ABI_VERSION);
  return *table;
}

inline std::string model_folder(const std::string& kind) { return std::string(FLASHVSR_TEST_MODELS) + "/" + kind; }

struct ModelDeleter {
  void operator()(FlashVsrModel* model) const { api().model_close(model); }
};
struct SessionDeleter {
  void operator()(FlashVsrSession* session) const { api().session_close(session); }
};
using ModelPtr = std::unique_ptr<FlashVsrModel, ModelDeleter>;
using SessionPtr = std::unique_ptr<FlashVsrSession, SessionDeleter>;

// Without a kind: the embedded one.
inline ModelPtr open_model(const std::string& kind, FlashVsrPrecision precision = FLASHVSR_PRECISION_FP32) {
  FlashVsrModelOptions options;
  api().default_model_options(&options);
  const std::string path = model_folder(kind);
  options.path = kind.empty() ? nullptr : path.c_str();
  options.device = "cpu";
  options.precision = precision;
  FlashVsrModel* model = nullptr;
  FlashVsrError error;
  if (api().model_open(&options, &model, &error) != FLASHVSR_OK) throw std::runtime_error(error.message);
  return ModelPtr(model);
}

inline FlashVsrFormat make_format(FlashVsrPixelFormat pixel_format, int width, int height) {
  FlashVsrFormat format{};
  format.pixel_format = pixel_format;
  format.width = width;
  format.height = height;
  format.color = {1, 0, 2, 2};
  return format;
}

inline FlashVsrSessionOptions make_options(int num = 4, int den = 1) {
  FlashVsrSessionOptions options;
  api().default_session_options(&options);
  options.scale_num = num;
  options.scale_den = den;
  return options;
}

inline SessionPtr open_session(FlashVsrModel* model, const FlashVsrFormat& format,
                               const FlashVsrSessionOptions& options) {
  FlashVsrSession* session = nullptr;
  FlashVsrError error;
  if (api().session_open(model, &format, &options, &session, &error) != FLASHVSR_OK) {
    throw std::runtime_error(error.message);
  }
  return SessionPtr(session);
}

inline int scaled(int side, const FlashVsrSessionOptions& o) {
  return (side * o.scale_num + o.scale_den / 2) / o.scale_den;
}

// One frame with memory of its own; rows are a few bytes longer than needed.
struct Picture {
  FlashVsrPixelFormat format;
  int width, height;
  std::vector<uint8_t> memory[3];
  FlashVsrFrame frame{};

  static int planes(FlashVsrPixelFormat f) {
    switch (f) {
      case FLASHVSR_PIXEL_FORMAT_I420:
      case FLASHVSR_PIXEL_FORMAT_GBR:
      case FLASHVSR_PIXEL_FORMAT_Y42B:
      case FLASHVSR_PIXEL_FORMAT_Y444:
      case FLASHVSR_PIXEL_FORMAT_I420_10LE: return 3;
      case FLASHVSR_PIXEL_FORMAT_NV12:
      case FLASHVSR_PIXEL_FORMAT_P010_10LE: return 2;
      default: return 1;
    }
  }
  static int row_bytes(FlashVsrPixelFormat f, int plane, int width) {
    const int half = (width + 1) / 2;
    switch (f) {
      case FLASHVSR_PIXEL_FORMAT_I420:
      case FLASHVSR_PIXEL_FORMAT_Y42B: return plane == 0 ? width : half;
      case FLASHVSR_PIXEL_FORMAT_NV12: return plane == 0 ? width : 2 * half;
      case FLASHVSR_PIXEL_FORMAT_I420_10LE: return 2 * (plane == 0 ? width : half);
      case FLASHVSR_PIXEL_FORMAT_P010_10LE: return 2 * (plane == 0 ? width : 2 * half);
      case FLASHVSR_PIXEL_FORMAT_RGB:
      case FLASHVSR_PIXEL_FORMAT_BGR: return 3 * width;
      case FLASHVSR_PIXEL_FORMAT_GBR:
      case FLASHVSR_PIXEL_FORMAT_Y444:
      case FLASHVSR_PIXEL_FORMAT_GRAY8: return width;
      default: return 4 * width;
    }
  }
  static int rows(FlashVsrPixelFormat f, int plane, int height) {
    const bool halved = f == FLASHVSR_PIXEL_FORMAT_I420 || f == FLASHVSR_PIXEL_FORMAT_NV12 ||
                        f == FLASHVSR_PIXEL_FORMAT_I420_10LE || f == FLASHVSR_PIXEL_FORMAT_P010_10LE;
    return plane > 0 && halved ? (height + 1) / 2 : height;
  }

  Picture(FlashVsrPixelFormat f, int w, int h) : format(f), width(w), height(h) {
    for (int p = 0; p < planes(f); ++p) {
      frame.stride[p] = static_cast<size_t>(row_bytes(f, p, w)) + 6;
      memory[p].assign(frame.stride[p] * static_cast<size_t>(rows(f, p, h)), 0x5A);
    }
    bind();
  }
  Picture(const Picture& other) : format(other.format), width(other.width), height(other.height), frame(other.frame) {
    for (int p = 0; p < 3; ++p) memory[p] = other.memory[p];
    bind();
  }
  Picture& operator=(const Picture&) = delete;
  void bind() {
    for (int p = 0; p < planes(format); ++p) frame.data[p] = memory[p].data();
  }

  // A drifting pattern that depends on `time`; 10-bit samples stay below 1024.
  void draw(int time) {
    const bool is_10bit = format == FLASHVSR_PIXEL_FORMAT_I420_10LE || format == FLASHVSR_PIXEL_FORMAT_P010_10LE;
    for (int p = 0; p < planes(format); ++p) {
      const int samples = row_bytes(format, p, width) / (is_10bit ? 2 : 1);
      for (int y = 0; y < rows(format, p, height); ++y) {
        uint8_t* row = memory[p].data() + frame.stride[p] * static_cast<size_t>(y);
        for (int x = 0; x < samples; ++x) {
          const double wave = std::sin(0.21 * (x + time) + 0.4 * p) * std::cos(0.17 * y - 0.1 * time);
          const int value = static_cast<int>(128 + 90 * wave);
          if (!is_10bit) {
            row[x] = static_cast<uint8_t>(value);
          } else {
            const int wide = value * 4 + (x & 3);
            const int stored = format == FLASHVSR_PIXEL_FORMAT_P010_10LE ? wide << 6 : wide;
            row[2 * x] = static_cast<uint8_t>(stored & 255);
            row[2 * x + 1] = static_cast<uint8_t>(stored >> 8);
          }
        }
      }
    }
  }

  // The bytes of the picture, without padding.
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> result;
    for (int p = 0; p < planes(format); ++p) {
      for (int y = 0; y < rows(format, p, height); ++y) {
        const uint8_t* row = memory[p].data() + frame.stride[p] * static_cast<size_t>(y);
        result.insert(result.end(), row, row + row_bytes(format, p, width));
      }
    }
    return result;
  }
  bool padding_is_whole() const {
    for (int p = 0; p < planes(format); ++p) {
      for (int y = 0; y < rows(format, p, height); ++y) {
        for (size_t x = static_cast<size_t>(row_bytes(format, p, width)); x < frame.stride[p]; ++x) {
          if (memory[p][frame.stride[p] * static_cast<size_t>(y) + x] != 0x5A) return false;
        }
      }
    }
    return true;
  }
};

struct Received {
  uint64_t id;
  std::vector<uint8_t> bytes;
};

// What a single thread would do: sends, runs and receives.
struct Player {
  FlashVsrSession* session = nullptr;
  FlashVsrFormat format;
  FlashVsrSessionOptions options;
  std::vector<Received> received{};
  const FlashVsrView* view = nullptr;
  FlashVsrError error{};

  void send(int time) {
    Picture in(format.pixel_format, format.width, format.height);
    in.draw(time);
    in.frame.frame_id = static_cast<uint64_t>(time);
    ASSERT_EQ(api().send(session, &in.frame, &error), FLASHVSR_OK) << error.message;
  }
  // Number of chunks.
  int run(FlashVsrRunMode mode = FLASHVSR_RUN_MODEL) {
    int chunks = 0;
    FlashVsrStatus status;
    while ((status = api().run(session, mode, &error)) == FLASHVSR_OK) ++chunks;
    EXPECT_EQ(status, FLASHVSR_AGAIN) << error.message;
    return chunks;
  }
  int receive() {
    Picture out(format.pixel_format, scaled(format.width, options), scaled(format.height, options));
    int frames = 0;
    FlashVsrStatus status;
    while ((status = api().receive(session, view, &out.frame, &error)) == FLASHVSR_OK) {
      EXPECT_TRUE(out.padding_is_whole());
      received.push_back({out.frame.frame_id, out.bytes()});
      ++frames;
    }
    EXPECT_EQ(status, FLASHVSR_AGAIN) << error.message;
    return frames;
  }
  void drain() {
    ASSERT_EQ(api().drain(session, &error), FLASHVSR_OK) << error.message;
    run();
    receive();
  }
  // Frames begin .. end-1 as a stream of their own.
  void play(int begin, int end) {
    for (int time = begin; time < end; ++time) {
      send(time);
      run();
      receive();
    }
    drain();
  }
};

// One run with an interrupt `after` its begin, from another thread. True: it was interrupted.
inline bool run_and_interrupt(FlashVsrSession* session, std::chrono::milliseconds after) {
  std::thread canceller([&] {
    std::this_thread::sleep_for(after);
    api().interrupt(session);
  });
  const FlashVsrStatus status = api().run(session, FLASHVSR_RUN_MODEL, nullptr);
  canceller.join();
  EXPECT_TRUE(status == FLASHVSR_OK || status == FLASHVSR_ERROR_INTERRUPTED);
  return status == FLASHVSR_ERROR_INTERRUPTED;
}

// Of /proc/self/status, in bytes.
inline uint64_t status_bytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  std::string key;
  uint64_t kilobytes = 0;
  while (file >> key) {
    if (key == field + ":" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_API_ENGINE_H_
