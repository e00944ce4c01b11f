// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way that pictures go on a GPU, on the CPU: a session that takes it gives what one that does not gives.
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "api/model.h"
#include "api/plan.h"
#include "api/session.h"
#include "base/error.h"

namespace flashvsr {
namespace {

std::shared_ptr<const Model> model_of(const std::string& kind, FlashVsrPrecision precision) {
  const std::string path = std::string(FLASHVSR_TEST_MODELS) + "/" + kind;
  FlashVsrModelOptions options{};
  options.path = path.c_str();
  options.device = "cpu";
  options.precision = precision;
  return open_model(options);
}

struct Case {
  std::string model;
  FlashVsrPixelFormat pixel_format;
  int width, height;
  FlashVsrColorFix color_fix = FLASHVSR_COLOR_FIX_NONE;
  int scale = 4;
  FlashVsrView view = {};
  FlashVsrMemory memory = FLASHVSR_MEMORY_HOST;
  FlashVsrPrecision precision = FLASHVSR_PRECISION_FP32;
};

class Play {
 public:
  Play(const Case& c, bool pictures_on_device) : case_(c), model_(model_of(c.model, c.precision)) {
    format_.pixel_format = c.pixel_format;
    format_.width = c.width;
    format_.height = c.height;
    format_.color = {1, 0, 1, 1};
    format_.input_memory = format_.output_memory = c.memory;
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

  void send(int i) {
    std::vector<uint8_t> bytes;
    FlashVsrFrame frame = planes_in(bytes, 6);
    const bool is_deep = format_depth(static_cast<PixelFormat>(format_.pixel_format)) > 8;
    for (size_t k = 0; k < bytes.size(); ++k) {
      bytes[k] = static_cast<uint8_t>(is_deep ? (k % 2 == 0 ? 7 * k + 40 * static_cast<size_t>(i) : k % 4) : (k / 3 + 9 * static_cast<size_t>(i) + k * k % 13) % 240);
    }
    frame.frame_id = static_cast<uint64_t>(i);
    session_->send(frame);
  }
  // Only in; one chunk run after the other.
  void send_and_run(int frames) {
    for (int i = 0; i < frames; ++i) send(i);
    run(false);
  }
  void receive() {
    while (receive_one()) {
    }
  }
  // The planes of the next frame in and out, their rows `apart` bytes more than a row's.
  FlashVsrFrame planes_in(std::vector<uint8_t>& bytes, size_t apart) const {
    return planes(bytes, format_.width, format_.height, apart);
  }
  FlashVsrFrame planes_out(std::vector<uint8_t>& bytes, size_t apart) const {
    return planes(bytes, format_.width * case_.scale, format_.height * case_.scale, apart);
  }
  Session& session() { return *session_; }

  std::vector<std::vector<uint8_t>> received;
  FlashVsrStats stats() const {
    FlashVsrStats stats{};
    session_->stats(stats);
    return stats;
  }

 private:
  FlashVsrFrame planes(std::vector<uint8_t>& bytes, int width, int height, size_t apart) const {
    const auto format = static_cast<PixelFormat>(format_.pixel_format);
    size_t size = 0;
    FlashVsrFrame frame{};
    for (int p = 0; p < format_planes(format); ++p) {
      frame.stride[p] = plane_row_bytes(format, p, width) + apart;
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
  void run(bool has_passthrough) {
    while (session_->run(has_passthrough && chunks_ == 1 ? FLASHVSR_RUN_PASSTHROUGH : FLASHVSR_RUN_MODEL)) ++chunks_;
  }
  bool receive_one() {
    std::vector<uint8_t> bytes;
    FlashVsrFrame frame = planes_out(bytes, 6);
    if (!session_->receive(case_.view.struct_size != 0 ? &case_.view : nullptr, frame)) return false;
    EXPECT_EQ(frame.frame_id, received.size());
    received.push_back(std::move(bytes));
    return true;
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

// Frames that callers lend where the model is: the device's memory is the host's here.
TEST_F(DeviceSession, LentMemoryGivesTheSameBytes) {
  for (const FlashVsrPixelFormat format : {FLASHVSR_PIXEL_FORMAT_NV12, FLASHVSR_PIXEL_FORMAT_P010_10LE}) {
    Case c{"decoder", format, 33, 18};
    Play host(c, false);
    c.memory = FLASHVSR_MEMORY_CUDA;
    Play device(c, true);
    host.play(60, true);
    device.play(60, true);
    expect_alike(host, device, 60, 0);
  }
}

// The status of a call that must fail, and its words.
template <typename Call>
std::string failure_of(ErrorCode code, Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  } catch (const std::exception& other) {
    ADD_FAILURE() << other.what();
  }
  return "nothing was thrown";
}

void refuse_samples_to_planes(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t, int64_t, bool) {
  throw Error(ErrorCode::kInternal, "the device has failed");
}

TEST_F(DeviceSession, AFrameWhoseReceiveFailsIsKept) {
  Case c{"decoder", FLASHVSR_PIXEL_FORMAT_NV12, 32, 16};
  c.memory = FLASHVSR_MEMORY_CUDA;
  Play whole(c, true), failing(c, true);
  whole.send_and_run(25);
  whole.receive();
  failing.send_and_run(25);
  {
    torch::Library broken(torch::Library::IMPL, "flashvsr", c10::DispatchKey::CPU, __FILE__, __LINE__);
    broken.impl("samples_to_planes", refuse_samples_to_planes);
    EXPECT_EQ(failure_of(ErrorCode::kInternal, [&] { failing.receive(); }), "the device has failed");
  }
  EXPECT_EQ(failing.stats().frames_out, 0u);
  failing.receive();
  expect_alike(whole, failing, 21, 0);
  EXPECT_EQ(failing.stats().frames_out, 21u);
}

TEST_F(DeviceSession, RefusesRowsAtHalfSamplesInDeviceMemory) {
  Case c{"decoder", FLASHVSR_PIXEL_FORMAT_P010_10LE, 32, 16};
  c.memory = FLASHVSR_MEMORY_CUDA;
  Play play(c, true);
  std::vector<uint8_t> bytes;
  const FlashVsrFrame apart = play.planes_in(bytes, 1);
  EXPECT_EQ(failure_of(ErrorCode::kInvalidArgument, [&] { play.session().send(apart); }),
            "stride of plane 0 is 65; in CUDA memory, where samples have 2 bytes, it must be a multiple of 2");
  FlashVsrFrame shifted = play.planes_in(bytes, 2);
  shifted.data[1] = static_cast<uint8_t*>(shifted.data[1]) + 1;
  EXPECT_NE(failure_of(ErrorCode::kInvalidArgument, [&] { play.session().send(shifted); }).find("plane 1 begins at the odd address"),
            std::string::npos);
  FlashVsrFrame narrow = play.planes_in(bytes, 0);
  narrow.stride[1] = 62;
  EXPECT_EQ(failure_of(ErrorCode::kInvalidArgument, [&] { play.session().send(narrow); }),
            "stride of plane 1 is 62, shorter than a row of 64 bytes");
  play.send_and_run(25);
  FlashVsrFrame out = play.planes_out(bytes, 3);
  EXPECT_EQ(failure_of(ErrorCode::kInvalidArgument, [&] { play.session().receive(nullptr, out); }),
            "stride of plane 0 is 259; in CUDA memory, where samples have 2 bytes, it must be a multiple of 2");
  play.receive();
  EXPECT_EQ(play.received.size(), 21u);

  c.memory = FLASHVSR_MEMORY_HOST;  // where bytes are copied
  Play host(c, true);
  host.session().send(apart);
  EXPECT_EQ(host.stats().frames_in, 1u);
}

TEST_F(DeviceSession, CountsThePicturesThatWaitOnTheHost) {
  const Case c{"decoder", FLASHVSR_PIXEL_FORMAT_NV12, 32, 16};
  Play play(c, true);
  play.send_and_run(33);
  const uint64_t waiting = play.stats().host_bytes;
  play.receive();
  ASSERT_EQ(play.received.size(), 29u);
  // The newest chunk stays, for a switch to the enlargement. The first one's pictures, planar and as NV12:
  EXPECT_EQ(waiting - play.stats().host_bytes, 21u * 128 * 64 * 3 + 21u * 128 * 64 * 3 / 2);
  play.session().flush();
  EXPECT_EQ(waiting - play.stats().host_bytes, 29u * 128 * 64 * 3 + 29u * 128 * 64 * 3 / 2);
}

// A device of which only events exist, that it never reaches until `is_open`.
struct StuckDevice final : c10::impl::DeviceGuardImplInterface {
  static std::atomic<bool> is_open;
  static std::atomic<int> queries;
  static c10::Device device() { return {c10::kPrivateUse1, 0}; }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, device()); }

  c10::DeviceType type() const override { return c10::kPrivateUse1; }
  c10::Device exchangeDevice(c10::Device) const override { return device(); }
  c10::Device getDevice() const override { return device(); }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryEvent(void*) const override {
    ++queries;
    return is_open;
  }
};
std::atomic<bool> StuckDevice::is_open{false};
std::atomic<int> StuckDevice::queries{0};
C10_REGISTER_GUARD_IMPL(PrivateUse1, StuckDevice)

at::Tensor finish_on_stuck_device(const at::Tensor& frames, const std::optional<at::Tensor>&, int64_t height, int64_t width,
                                  int64_t, bool) {
  static std::vector<uint8_t> memory(size_t(21) * 3 * 64 * 128);
  return at::for_blob(memory.data(), {frames.size(2), 3, height, width})
      .options(at::TensorOptions().dtype(at::kByte).device(StuckDevice::device()))
      .target_device(StuckDevice::device())
      .make_tensor();
}

// What passes the model by begins with the last picture of the chunk before, which the device may not have finished.
TEST_F(DeviceSession, AnInterruptReachesAChunkThatPassesTheModelByAndWaits) {
  Case c{"enlarged", FLASHVSR_PIXEL_FORMAT_NV12, 32, 16};
  c.memory = FLASHVSR_MEMORY_CUDA;
  c.precision = FLASHVSR_PRECISION_BF16;
  torch::Library stuck(torch::Library::IMPL, "flashvsr", c10::DispatchKey::CPU, __FILE__, __LINE__);
  stuck.impl("finish_frames", finish_on_stuck_device);
  Play play(c, true);
  play.send_and_run(25);
  for (int i = 25; i < 33; ++i) play.send(i);
  ASSERT_EQ(StuckDevice::queries, 0);
  std::thread other([&] {
    while (StuckDevice::queries == 0 && !StuckDevice::is_open) std::this_thread::yield();
    play.session().interrupt();
    // Who does not hear it goes on a thousand looks later.
    const int then = StuckDevice::queries;
    while (StuckDevice::queries < then + 1000 && !StuckDevice::is_open) std::this_thread::yield();
    StuckDevice::is_open = true;
  });
  EXPECT_EQ(failure_of(ErrorCode::kInterrupted, [&] { play.session().run(FLASHVSR_RUN_PASSTHROUGH); }), "interrupted");
  StuckDevice::is_open = true;
  other.join();
  play.session().flush();
}

}  // namespace
}  // namespace flashvsr
