// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way that pictures go on a GPU, on the CPU: a session that takes it gives what one that does not gives.
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "api/model.h"
#include "api/plan.h"
#include "api/session.h"

namespace flashvsr {
namespace {

std::shared_ptr<const Model> model_of(const std::string& kind) {
  const std::string path = std::string(FLASHVSR_TEST_MODELS) + "/" + kind;
  FlashVsrModelOptions options{};
  options.path = path.c_str();
  options.device = "cpu";
  options.precision = FLASHVSR_PRECISION_FP32;
  return open_model(options);
}

struct Case {
  std::string model;
  FlashVsrPixelFormat pixel_format;
  int width, height;
  FlashVsrColorFix color_fix = FLASHVSR_COLOR_FIX_NONE;
  int scale = 4;
  FlashVsrView view = {};
};

class Play {
 public:
  Play(const Case& c, bool pictures_on_device) : case_(c), model_(model_of(c.model)) {
    format_.pixel_format = c.pixel_format;
    format_.width = c.width;
    format_.height = c.height;
    format_.color = {1, 0, 1, 1};
    FlashVsrSessionOptions options{};
    options.scale_num = c.scale;
    options.scale_den = 1;
    options.color_fix = c.color_fix;
    options.seed = 5;
    const Geometry geometry(model_->config(), c.width, c.height, c.scale, 1);
    const uint64_t plenty = uint64_t{1} << 40;
    const MemoryPlan plan = plan_memory({model_->config(), geometry, model_->config().kv_chunks, model_->decoder, 4, true, plenty, plenty});
    session_ = std::make_unique<Session>(model_, format_, options, plan, pictures_on_device);
  }

  // Frames in, chunks run as soon as they are whole; the second one passes the model by when asked.
  void play(int frames, bool has_passthrough) {
    for (int i = 0; i < frames; ++i) {
      send(i);
      run(has_passthrough);
    }
    session_->drain();
    run(has_passthrough);
    receive();
  }
  // A whole clip is inside before the first chunk is run.
  void play_at_once(int frames) {
    for (int i = 0; i < frames; ++i) send(i);
    session_->drain();
    run(false);
    receive();
  }

  std::vector<std::vector<uint8_t>> received;
  FlashVsrStats stats() const {
    FlashVsrStats stats{};
    session_->stats(stats);
    return stats;
  }

 private:
  FlashVsrFrame planes(std::vector<uint8_t>& bytes, int width, int height) const {
    const auto format = static_cast<PixelFormat>(format_.pixel_format);
    size_t size = 0;
    FlashVsrFrame frame{};
    for (int p = 0; p < format_planes(format); ++p) {
      frame.stride[p] = plane_row_bytes(format, p, width) + 6;  // rows apart
      size += frame.stride[p] * static_cast<size_t>(plane_rows(format, p, height));
    }
    bytes.assign(size, 0xa5);
    uint8_t* at = bytes.data();
    for (int p = 0; p < format_planes(format); ++p) {
      frame.data[p] = at;
      at += frame.stride[p] * static_cast<size_t>(plane_rows(format, p, height));
    }
    return frame;
  }
  void send(int i) {
    std::vector<uint8_t> bytes;
    FlashVsrFrame frame = planes(bytes, format_.width, format_.height);
    const bool is_deep = format_depth(static_cast<PixelFormat>(format_.pixel_format)) > 8;
    for (size_t k = 0; k < bytes.size(); ++k) {
      bytes[k] = static_cast<uint8_t>(is_deep ? (k % 2 == 0 ? 7 * k + 40 * static_cast<size_t>(i) : k % 4) : (k / 3 + 9 * static_cast<size_t>(i) + k * k % 13) % 240);
    }
    frame.frame_id = static_cast<uint64_t>(i);
    session_->send(frame);
  }
  void run(bool has_passthrough) {
    while (session_->run(has_passthrough && chunks_ == 1 ? FLASHVSR_RUN_PASSTHROUGH : FLASHVSR_RUN_MODEL)) ++chunks_;
  }
  void receive() {
    for (;;) {
      std::vector<uint8_t> bytes;
      FlashVsrFrame frame = planes(bytes, format_.width * case_.scale, format_.height * case_.scale);
      if (!session_->receive(case_.view.struct_size != 0 ? &case_.view : nullptr, frame)) return;
      EXPECT_EQ(frame.frame_id, received.size());
      received.push_back(std::move(bytes));
    }
  }

  const Case case_;
  std::shared_ptr<const Model> model_;
  FlashVsrFormat format_{};
  std::unique_ptr<Session> session_;
  int chunks_ = 0;
};

void expect_alike(const Play& a, const Play& b, size_t frames, int largest_difference) {
  ASSERT_EQ(a.received.size(), frames);
  ASSERT_EQ(b.received.size(), frames);
  for (size_t i = 0; i < frames; ++i) {
    int difference = 0;
    for (size_t k = 0; k < a.received[i].size(); ++k) difference = std::max(difference, std::abs(a.received[i][k] - b.received[i][k]));
    EXPECT_LE(difference, largest_difference) << "frame " << i;
  }
  EXPECT_NE(a.received[0], a.received[frames - 1]);
}

// One session of each kind plays the same frames.
void expect_both_alike(const Case& c, int frames, int largest_difference) {
  Play host(c, false), device(c, true);
  host.play(frames, false);
  device.play(frames, false);
  expect_alike(host, device, static_cast<size_t>(frames), largest_difference);
}

class DeviceSession : public ::testing::Test {
 protected:
  c10::InferenceMode inference_;
};

TEST_F(DeviceSession, GivesTheSameBytesInEveryKindOfFormat) {
  for (const FlashVsrPixelFormat format :
       {FLASHVSR_PIXEL_FORMAT_I420, FLASHVSR_PIXEL_FORMAT_NV12, FLASHVSR_PIXEL_FORMAT_BGR, FLASHVSR_PIXEL_FORMAT_XRGB,
        FLASHVSR_PIXEL_FORMAT_GRAY8, FLASHVSR_PIXEL_FORMAT_Y444, FLASHVSR_PIXEL_FORMAT_P010_10LE, FLASHVSR_PIXEL_FORMAT_BGRA}) {
    SCOPED_TRACE(format);
    expect_both_alike(Case{"decoder", format, 33, 18}, 30, 0);
  }
}

TEST_F(DeviceSession, BlendsAndFadesAroundChunksThatPassTheModelBy) {
  const Case c{"decoder", FLASHVSR_PIXEL_FORMAT_I420, 32, 16};
  Play host(c, false), device(c, true);
  host.play(60, true);
  device.play(60, true);
  EXPECT_EQ(device.stats().chunks_passthrough, 1u);
  expect_alike(host, device, 60, 0);
}

TEST_F(DeviceSession, ShowsViews) {
  Case c{"decoder", FLASHVSR_PIXEL_FORMAT_RGB, 32, 16};
  c.view.struct_size = sizeof(c.view);
  c.view.compare = FLASHVSR_COMPARE_SPLIT;
  c.view.compare_position = 0.4f;
  c.view.strength = 0.5f;
  expect_both_alike(c, 26, 0);
}

TEST_F(DeviceSession, ReducesWhatTheModelMadeLarger) {
  for (const FlashVsrPixelFormat format : {FLASHVSR_PIXEL_FORMAT_I420, FLASHVSR_PIXEL_FORMAT_P010_10LE}) {
    SCOPED_TRACE(format);
    expect_both_alike(Case{"decoder", format, 33, 18, FLASHVSR_COLOR_FIX_NONE, 2}, 26, 0);
  }
}

// Statistics in another order: a level at most.
TEST_F(DeviceSession, TakesColoursFromWhatTheModelSaw) {
  for (const FlashVsrColorFix fix : {FLASHVSR_COLOR_FIX_ADAIN, FLASHVSR_COLOR_FIX_WAVELET}) {
    expect_both_alike(Case{"enlarged", FLASHVSR_PIXEL_FORMAT_RGB, 40, 24, fix}, 26, 1);
    // Here the model saw the picture as it came: the enlargement is made for its colours.
    for (const int scale : {2, 4}) expect_both_alike(Case{"decoder", FLASHVSR_PIXEL_FORMAT_RGB, 40, 24, fix, scale}, 26, 1);
  }
}

// Where the next chunk is there already, a run leaves before its own is received: many wait at once.
TEST_F(DeviceSession, RunsAheadOfWhoReceives) {
  const Case c{"decoder", FLASHVSR_PIXEL_FORMAT_NV12, 32, 16};
  Play one(c, false), all(c, true);
  one.play(70, false);
  all.play_at_once(70);
  expect_alike(one, all, 70, 0);
  EXPECT_EQ(all.stats().chunks, one.stats().chunks);
  EXPECT_GT(all.stats().decoder_ms, 0);
}

}  // namespace
}  // namespace flashvsr
