// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The protocol of flashvsr.h on small random models.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>

#include "engine.h"

namespace flashvsr {
namespace {

constexpr FlashVsrPixelFormat kRgb = FLASHVSR_PIXEL_FORMAT_RGB;

Player play(FlashVsrModel* model, const FlashVsrFormat& format, const FlashVsrSessionOptions& options, int frames) {
  SessionPtr session = open_session(model, format, options);
  Player player{session.get(), format, options};
  player.play(0, frames);
  player.session = nullptr;
  return player;
}

void expect_ids(const std::vector<Received>& received, int begin, int end) {
  ASSERT_EQ(static_cast<int>(received.size()), end - begin);
  for (size_t i = 0; i < received.size(); ++i) EXPECT_EQ(received[i].id, static_cast<uint64_t>(begin) + i);
}

TEST(Session, EveryFrameComesOutOnceInOrder) {
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(kRgb, 16, 16);
  for (int startup : {FLASHVSR_STARTUP_FULL, FLASHVSR_STARTUP_PRIMED}) {
    FlashVsrSessionOptions options = make_options(1);
    options.startup = static_cast<FlashVsrStartup>(startup);
    for (int frames = 0; frames <= 60; ++frames) expect_ids(play(model.get(), format, options, frames).received, 0, frames);
  }
}

// Before the end: 21 after 25 frames, then 8 for 8; primed 8 after 12.
TEST(Session, ResultsLeaveAsSoonAsTheScheduleSays) {
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(kRgb, 16, 16);
  for (bool is_primed : {false, true}) {
    FlashVsrSessionOptions options = make_options(1);
    options.startup = is_primed ? FLASHVSR_STARTUP_PRIMED : FLASHVSR_STARTUP_FULL;
    SessionPtr session = open_session(model.get(), format, options);
    EXPECT_EQ(api().max_delay(session.get()), is_primed ? 11 : 24);
    Player player{session.get(), format, options};
    for (int sent = 1; sent <= 60; ++sent) {
      player.send(sent - 1);
      player.run();
      player.receive();
      const int expected = is_primed ? (sent < 12 ? 0 : (sent - 4) / 8 * 8) : (sent < 25 ? 0 : 21 + (sent - 25) / 8 * 8);
      ASSERT_EQ(static_cast<int>(player.received.size()), expected) << sent;
    }
  }
}

// Whatever the pace of sending, running and receiving: the same bytes.
TEST(Session, PaceDoesNotChangeTheResult) {
  for (const char* kind : {"decoder", "student"}) {
    const ModelPtr model = open_model(kind);
    const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_I420, 40, 24);
    const FlashVsrSessionOptions options = make_options(4);
    const Player eager = play(model.get(), format, options, 50);
    SessionPtr session = open_session(model.get(), format, options);
    Player late{session.get(), format, options};
    for (int i = 0; i < 50; ++i) late.send(i);
    late.drain();
    ASSERT_EQ(eager.received.size(), late.received.size());
    for (size_t i = 0; i < eager.received.size(); ++i) ASSERT_EQ(eager.received[i].bytes, late.received[i].bytes) << kind << i;
  }
}

// The first frames of a long stream equal those of a stream that is cut behind their look-ahead.
TEST(Session, TheFutureDoesNotReachBack) {
  const ModelPtr model = open_model("student");
  const FlashVsrFormat format = make_format(kRgb, 32, 32);
  const Player whole = play(model.get(), format, make_options(4), 45);
  const Player cut = play(model.get(), format, make_options(4), 33);
  for (size_t i = 0; i < 29; ++i) ASSERT_EQ(whole.received[i].bytes, cut.received[i].bytes) << i;
  EXPECT_NE(whole.received[32].bytes, cut.received[32].bytes);
}

TEST(Session, OddAndSmallSizesAllScales) {
  for (const char* kind : {"decoder", "student", "enlarged"}) {
    const ModelPtr model = open_model(kind);
    for (const auto& size : {std::pair<int, int>{16, 16}, {17, 31}, {33, 16}, {65, 19}}) {
      for (const auto& scale : {std::pair<int, int>{3, 2}, {2, 1}, {3, 1}, {4, 1}, {1, 1}, {7, 3}}) {
        const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_I420, size.first, size.second);
        const Player player = play(model.get(), format, make_options(scale.first, scale.second), 2);
        expect_ids(player.received, 0, 2);
        EXPECT_NE(player.received[0].bytes, player.received[1].bytes);
      }
    }
  }
}

TEST(Session, EveryPixelFormat) {
  for (const char* kind : {"decoder", "enlarged"}) {
    const ModelPtr model = open_model(kind);
    for (int f = 0; f < FLASHVSR_PIXEL_FORMAT_COUNT; ++f) {
      const FlashVsrFormat format = make_format(static_cast<FlashVsrPixelFormat>(f), 33, 17);
      expect_ids(play(model.get(), format, make_options(2), 3).received, 0, 3);
    }
  }
}

// The student adds a detail to the enlargement: a flat grey picture stays near its grey, alpha is
// scaled apart from the model.
TEST(Session, AlphaIsScaledByBicubic) {
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_RGBA, 24, 20);
  for (const auto& scale : {std::pair<int, int>{4, 1}, {2, 1}}) {
    const FlashVsrSessionOptions options = make_options(scale.first, scale.second);
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    Picture in(FLASHVSR_PIXEL_FORMAT_RGBA, 24, 20);
    in.draw(3);
    for (int y = 0; y < 20; ++y) {
      for (int x = 0; x < 24; ++x) in.memory[0][in.frame.stride[0] * static_cast<size_t>(y) + static_cast<size_t>(4 * x + 3)] = x < 12 ? 200 : 40;
    }
    FlashVsrError error;
    ASSERT_EQ(api().send(session.get(), &in.frame, &error), FLASHVSR_OK);
    player.drain();
    ASSERT_EQ(player.received.size(), 1u);
    const int width = scaled(24, options);
    const auto alpha = [&](int x) { return player.received[0].bytes[static_cast<size_t>(4 * (5 * width + x) + 3)]; };
    EXPECT_EQ(alpha(1), 200);
    EXPECT_EQ(alpha(width - 2), 40);
  }
}

// 10 bits go through without a detour over 8: some results are no multiple of 4.
TEST(Session, TenBitsStayTen) {
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_I420_10LE, 32, 32);
  const Player player = play(model.get(), format, make_options(4), 2);
  int counts[4] = {};
  for (size_t i = 0; i + 1 < 128 * 128 * 2; i += 2) ++counts[player.received[0].bytes[i] & 3];
  for (int count : counts) EXPECT_GT(count, 128 * 128 / 16);
}

TEST(Session, DrainTwiceAndEmptyDrain) {
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(kRgb, 16, 16);
  const FlashVsrSessionOptions options = make_options(2);
  SessionPtr session = open_session(model.get(), format, options);
  Player player{session.get(), format, options};
  player.drain();
  for (int i = 0; i < 7; ++i) player.send(i);
  player.drain();
  player.drain();
  expect_ids(player.received, 0, 7);
  EXPECT_EQ(player.run(), 0);
}

// A drained session starts anew: the second stream equals that of a fresh session.
TEST(Session, AfterADrainANewStreamBegins) {
  for (const char* kind : {"decoder", "student"}) {
    const ModelPtr model = open_model(kind);
    const FlashVsrFormat format = make_format(kRgb, 32, 32);
    const FlashVsrSessionOptions options = make_options(4);
    const Player fresh = play(model.get(), format, options, 30);
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    player.play(100, 127);
    player.received.clear();
    player.play(0, 30);
    for (size_t i = 0; i < 30; ++i) ASSERT_EQ(player.received[i].bytes, fresh.received[i].bytes) << kind << i;
    // also when the second is sent before the first was run
    player.received.clear();
    for (int i = 100; i < 127; ++i) player.send(i);
    ASSERT_EQ(api().drain(session.get(), nullptr), FLASHVSR_OK);
    for (int i = 0; i < 30; ++i) player.send(i);
    player.drain();
    ASSERT_EQ(player.received.size(), 57u);
    for (size_t i = 0; i < 30; ++i) ASSERT_EQ(player.received[27 + i].bytes, fresh.received[i].bytes) << kind << i;
  }
}

TEST(Session, FlushForgetsEverything) {
  const ModelPtr model = open_model("student");
  const FlashVsrFormat format = make_format(kRgb, 32, 32);
  const FlashVsrSessionOptions options = make_options(4);
  const Player fresh = play(model.get(), format, options, 26);
  SessionPtr session = open_session(model.get(), format, options);
  Player player{session.get(), format, options};
  for (int i = 50; i < 85; ++i) player.send(i);
  player.run();
  api().flush(session.get());
  EXPECT_EQ(player.receive(), 0);
  player.play(0, 26);
  expect_ids(player.received, 0, 26);
  for (size_t i = 0; i < 26; ++i) ASSERT_EQ(player.received[i].bytes, fresh.received[i].bytes) << i;
}

TEST(Session, InterruptStopsRunUntilFlush) {
  const ModelPtr model = open_model("student");
  const FlashVsrFormat format = make_format(kRgb, 32, 32);
  const FlashVsrSessionOptions options = make_options(4);
  SessionPtr session = open_session(model.get(), format, options);
  Player player{session.get(), format, options};
  for (int i = 0; i < 25; ++i) player.send(i);
  api().interrupt(session.get());
  FlashVsrError error;
  EXPECT_EQ(api().run(session.get(), FLASHVSR_RUN_MODEL, &error), FLASHVSR_ERROR_INTERRUPTED);
  EXPECT_EQ(error.status, FLASHVSR_ERROR_INTERRUPTED);
  EXPECT_NE(std::strlen(error.message), 0u);
  EXPECT_EQ(api().run(session.get(), FLASHVSR_RUN_MODEL, nullptr), FLASHVSR_ERROR_INTERRUPTED);
  api().flush(session.get());
  player.play(0, 10);
  expect_ids(player.received, 0, 10);
}

// From another thread, in the middle of a run.
TEST(Session, InterruptReachesARunningChunk) {
  const ModelPtr model = open_model("student");
  const FlashVsrFormat format = make_format(kRgb, 96, 96);
  const FlashVsrSessionOptions options = make_options(4);
  int interrupted = 0;
  for (int round = 0; round < 6; ++round) {
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    for (int i = 0; i < 25; ++i) player.send(i);
    interrupted += run_and_interrupt(session.get(), std::chrono::milliseconds(2 + 8 * round));
    api().flush(session.get());
    player.play(0, 3);
    expect_ids(player.received, 0, 3);
  }
  EXPECT_GT(interrupted, 0);
}

// Passthrough: every frame still once; far from the switch the enlargement itself, and the model
// afterwards as if it had never been away.
TEST(Session, PassthroughLeavesAndComesBack) {
  for (const char* kind : {"decoder", "student", "enlarged"}) {
    const ModelPtr model = open_model(kind);
    const FlashVsrFormat format = make_format(kRgb, 32, 32);
    const FlashVsrSessionOptions options = make_options(4);
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    const auto chunk = [&](FlashVsrRunMode mode) {
      FlashVsrStatus status = api().run(session.get(), mode, &player.error);
      return status == FLASHVSR_OK;
    };
    int sent = 0;
    for (FlashVsrRunMode mode : {FLASHVSR_RUN_MODEL, FLASHVSR_RUN_PASSTHROUGH, FLASHVSR_RUN_PASSTHROUGH,
                                 FLASHVSR_RUN_MODEL, FLASHVSR_RUN_MODEL}) {
      while (!chunk(mode)) player.send(sent++);
      player.receive();
    }
    player.drain();
    expect_ids(player.received, 0, sent);
    // frames 21 .. 36 went past the model; 25 .. 36 are beyond the fade
    FlashVsrView bicubic{sizeof(FlashVsrView), 0.0f, FLASHVSR_COMPARE_OFF, 0.0f};
    SessionPtr reference = open_session(model.get(), format, options);
    Player enlarged{reference.get(), format, options};
    enlarged.view = &bicubic;
    enlarged.play(0, sent);
    for (size_t i = 25; i < 37; ++i) ASSERT_EQ(player.received[i].bytes, enlarged.received[i].bytes) << kind << i;
    EXPECT_NE(player.received[20].bytes, enlarged.received[20].bytes);
    EXPECT_NE(player.received[41].bytes, enlarged.received[41].bytes);
    FlashVsrStats stats{};
    stats.struct_size = sizeof(stats);
    ASSERT_EQ(api().stats(session.get(), &stats, nullptr), FLASHVSR_OK);
    EXPECT_EQ(stats.frames_passthrough, 16u);
    EXPECT_EQ(stats.chunks_passthrough, 2u);
    EXPECT_EQ(stats.resets, 2u);
    EXPECT_EQ(stats.frames_out, static_cast<uint64_t>(sent));
  }
}

// Mean absolute difference of neighbouring frames at the switches stays near that elsewhere.
TEST(Session, SwitchesDoNotFlash) {
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(kRgb, 32, 32);
  const FlashVsrSessionOptions options = make_options(4);
  const auto still = [&](bool with_passthrough) {
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    Picture in(kRgb, 32, 32);
    in.draw(0);
    int chunks = 0;
    for (int i = 0; i < 90; ++i) {
      in.frame.frame_id = static_cast<uint64_t>(i);
      EXPECT_EQ(api().send(session.get(), &in.frame, nullptr), FLASHVSR_OK);
      const bool past = with_passthrough && chunks >= 2 && chunks < 4;
      if (api().run(session.get(), past ? FLASHVSR_RUN_PASSTHROUGH : FLASHVSR_RUN_MODEL, nullptr) == FLASHVSR_OK) ++chunks;
      player.receive();
    }
    player.session = nullptr;
    return player.received;
  };
  const std::vector<Received> frames = still(true);
  const auto difference = [](const Received& a, const Received& b) {
    double sum = 0;
    for (size_t i = 0; i < a.bytes.size(); ++i) sum += std::abs(static_cast<int>(a.bytes[i]) - b.bytes[i]);
    return sum / static_cast<double>(a.bytes.size());
  };
  // 0..28 model, 29..44 passthrough, 45.. model
  const double whole_step = difference(frames[28], frames[44]);
  ASSERT_GT(whole_step, 1.0);
  double worst = 0;
  for (size_t i = 28; i < 52; ++i) worst = std::max(worst, difference(frames[i], frames[i + 1]));
  EXPECT_LT(worst, 0.4 * whole_step);
}

TEST(Session, ViewsShowTheEnlargement) {
  for (const char* kind : {"decoder", "enlarged"}) {
    const ModelPtr model = open_model(kind);
    const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_GRAY8, 32, 24);
    const FlashVsrSessionOptions options = make_options(2);
    const auto with_view = [&](const FlashVsrView* view) {
      SessionPtr session = open_session(model.get(), format, options);
      Player player{session.get(), format, options};
      player.view = view;
      player.play(0, 3);
      player.session = nullptr;
      return player.received[1].bytes;
    };
    const std::vector<uint8_t> ours = with_view(nullptr);
    const FlashVsrView plain{sizeof(FlashVsrView), 1.0f, FLASHVSR_COMPARE_OFF, 0.5f};
    const FlashVsrView bicubic{sizeof(FlashVsrView), 0.0f, FLASHVSR_COMPARE_OFF, 0.5f};
    const FlashVsrView split{sizeof(FlashVsrView), 1.0f, FLASHVSR_COMPARE_SPLIT, 0.5f};
    const FlashVsrView both{sizeof(FlashVsrView), 1.0f, FLASHVSR_COMPARE_SIDE_BY_SIDE, 0.5f};
    EXPECT_EQ(with_view(&plain), ours);
    const std::vector<uint8_t> base = with_view(&bicubic);
    EXPECT_NE(base, ours);
    const std::vector<uint8_t> halves = with_view(&split), middles = with_view(&both);
    for (size_t y = 0; y < 48; ++y) {
      for (size_t x = 0; x < 31; ++x) ASSERT_EQ(halves[64 * y + x], base[64 * y + x]);
      for (size_t x = 33; x < 64; ++x) ASSERT_EQ(halves[64 * y + x], ours[64 * y + x]);
      for (size_t x = 0; x < 32; ++x) ASSERT_EQ(middles[64 * y + x], base[64 * y + 16 + x]);
      for (size_t x = 0; x < 32; ++x) ASSERT_EQ(middles[64 * y + 32 + x], ours[64 * y + 16 + x]);
    }
  }
}

TEST(Session, ColorFixesRunAndChangeWhilePlaying) {
  for (const char* kind : {"decoder", "enlarged"}) {
    const ModelPtr model = open_model(kind);
    const FlashVsrFormat format = make_format(kRgb, 40, 24);
    std::vector<std::vector<uint8_t>> firsts;
    for (FlashVsrColorFix fix : {FLASHVSR_COLOR_FIX_NONE, FLASHVSR_COLOR_FIX_ADAIN, FLASHVSR_COLOR_FIX_WAVELET}) {
      for (int scale : {4, 2}) {
        FlashVsrSessionOptions options = make_options(scale);
        options.color_fix = fix;
        const Player player = play(model.get(), format, options, 2);
        expect_ids(player.received, 0, 2);
        if (scale == 4) firsts.push_back(player.received[0].bytes);
      }
    }
    EXPECT_NE(firsts[0], firsts[1]);
    EXPECT_NE(firsts[1], firsts[2]);
    FlashVsrSessionOptions options = make_options(4);
    options.color_fix = FLASHVSR_COLOR_FIX_NONE;
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    for (int i = 0; i < 2; ++i) player.send(i);
    FlashVsrSessionOptions changed = options;
    changed.color_fix = FLASHVSR_COLOR_FIX_ADAIN;
    ASSERT_EQ(api().set_options(session.get(), &changed, nullptr), FLASHVSR_OK);
    player.drain();
    EXPECT_EQ(player.received[0].bytes, firsts[1]);
    changed.kv_chunks = 5;
    EXPECT_EQ(api().set_options(session.get(), &changed, nullptr), FLASHVSR_ERROR_INVALID_ARGUMENT);
  }
}

TEST(Session, SeedChangesOnlyModelsWithNoise) {
  for (bool has_noise : {false, true}) {
    const ModelPtr model = open_model(has_noise ? "enlarged" : "student");
    const FlashVsrFormat format = make_format(kRgb, 32, 32);
    FlashVsrSessionOptions options = make_options(4);
    const Player first = play(model.get(), format, options, 2);
    options.seed = 12345;
    const Player second = play(model.get(), format, options, 2);
    EXPECT_EQ(first.received[0].bytes != second.received[0].bytes, has_noise);
  }
}

// Three threads as flashvsr.h says, bounded from outside; results as on one thread.
TEST(Session, ThreeThreads) {
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_NV12, 48, 32);
  const FlashVsrSessionOptions options = make_options(4);
  constexpr int kFrames = 150;
  const Player alone = play(model.get(), format, options, kFrames);
  SessionPtr session = open_session(model.get(), format, options);
  std::atomic<int> sent{0}, got{0};
  std::atomic<bool> is_drained{false};
  std::thread sender([&] {
    Player player{session.get(), format, options};
    for (int i = 0; i < kFrames; ++i) {
      while (sent - got > 60) std::this_thread::yield();
      player.send(i);
      ++sent;
    }
  });
  std::thread worker([&] {
    while (got < kFrames) {
      const FlashVsrStatus status = api().run(session.get(), FLASHVSR_RUN_MODEL, nullptr);
      ASSERT_GE(status, 0);
      if (status == FLASHVSR_AGAIN) {
        // drain only while no other call is made by the other two: the sender is done, the receiver asks in vain
        if (sent == kFrames && !is_drained) {
          sender.join();
          ASSERT_EQ(api().drain(session.get(), nullptr), FLASHVSR_OK);
          is_drained = true;
        }
        std::this_thread::yield();
      }
    }
  });
  Player receiver{session.get(), format, options};
  while (got < kFrames) {
    got += receiver.receive();
    FlashVsrStats stats{};
    stats.struct_size = sizeof(stats);
    ASSERT_EQ(api().stats(session.get(), &stats, nullptr), FLASHVSR_OK);
    std::this_thread::yield();
  }
  worker.join();
  ASSERT_EQ(receiver.received.size(), alone.received.size());
  for (size_t i = 0; i < alone.received.size(); ++i) ASSERT_EQ(receiver.received[i].bytes, alone.received[i].bytes) << i;
}

// Sessions that always have a chunk get on alike, also of two models and of different sizes: between
// two chunks of one there is a chunk of each other.
TEST(Session, SessionsOnOneDeviceTakeTurns) {
  const ModelPtr models[] = {open_model("decoder"), open_model("student")};
  const FlashVsrSessionOptions options = make_options(4);
  constexpr int kSessions = 3, kFrames = 25 + 8 * 11, kChunks = 12;
  std::vector<FlashVsrFormat> formats;
  std::vector<SessionPtr> sessions;
  for (int i = 0; i < kSessions; ++i) {
    formats.push_back(make_format(kRgb, 32 + 32 * (i % 2), 32));
    sessions.push_back(open_session(models[i % 2].get(), formats.back(), options));
    Player player{sessions.back().get(), formats.back(), options};
    for (int time = 0; time < kFrames; ++time) player.send(time);
  }
  std::mutex mutex;
  std::vector<int> order;
  std::atomic<int> started{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < kSessions; ++i) {
    workers.emplace_back([&, i] {
      ++started;
      while (started < kSessions) std::this_thread::yield();
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        ASSERT_EQ(api().run(sessions[static_cast<size_t>(i)].get(), FLASHVSR_RUN_MODEL, nullptr), FLASHVSR_OK);
        const std::lock_guard<std::mutex> lock(mutex);
        order.push_back(i);
      }
      EXPECT_EQ(api().run(sessions[static_cast<size_t>(i)].get(), FLASHVSR_RUN_MODEL, nullptr), FLASHVSR_AGAIN);
    });
  }
  for (std::thread& worker : workers) worker.join();
  ASSERT_EQ(order.size(), static_cast<size_t>(kSessions * kChunks));
  // A thread that the machine held up between two runs was not in the line meanwhile: hence more than 1. Without turns the
  // session with the least work is nearly through before the others have begun their second chunk.
  int done[kSessions] = {}, widest = 0;
  for (int i : order) {
    ++done[i];
    const auto [least, most] = std::minmax_element(std::begin(done), std::end(done));
    widest = std::max(widest, *most - *least);
  }
  printf("widest lead: %d chunks of %d\n", widest, kChunks);
  EXPECT_LE(widest, 5);
  for (int i = 0; i < kSessions; ++i) {
    Player player{sessions[static_cast<size_t>(i)].get(), formats[static_cast<size_t>(i)], options};
    player.receive();
    const Player alone = play(models[i % 2].get(), formats[static_cast<size_t>(i)], options, kFrames);
    ASSERT_EQ(player.received.size(), static_cast<size_t>(kFrames - 4));
    for (size_t f = 0; f < player.received.size(); ++f) ASSERT_EQ(player.received[f].bytes, alone.received[f].bytes) << i << " " << f;
  }
}

// While another session's chunk runs: an interrupt ends the wait for the turn, and after a flush the
// session goes on as a fresh one. Passthrough does not wait, nor do send and receive.
TEST(Session, InterruptReachesARunThatWaitsForItsTurn) {
  const ModelPtr model = open_model("student");
  const FlashVsrFormat large = make_format(kRgb, 256, 256), small = make_format(kRgb, 32, 32);
  const FlashVsrSessionOptions options = make_options(4);
  const Player fresh = play(model.get(), small, options, 26);
  SessionPtr busy = open_session(model.get(), large, options), waiting = open_session(model.get(), small, options),
             passing = open_session(model.get(), small, options);
  Player other{busy.get(), large, options}, player{waiting.get(), small, options}, passer{passing.get(), small, options};
  for (int i = 0; i < 25; ++i) {
    other.send(i);
    player.send(i);
    passer.send(i);
  }
  std::atomic<bool> is_busy_over{false};
  std::thread worker([&] {
    api().run(busy.get(), FLASHVSR_RUN_MODEL, nullptr);
    is_busy_over = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // its chunk takes much longer
  std::atomic<int> status{99};
  std::thread waiter([&] { status = api().run(waiting.get(), FLASHVSR_RUN_MODEL, nullptr); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(status, 99);
  player.send(25);
  EXPECT_EQ(api().run(passing.get(), FLASHVSR_RUN_PASSTHROUGH, nullptr), FLASHVSR_OK);
  EXPECT_GT(passer.receive(), 0);
  api().interrupt(waiting.get());
  waiter.join();
  EXPECT_EQ(status, FLASHVSR_ERROR_INTERRUPTED);
  EXPECT_FALSE(is_busy_over);
  api().interrupt(busy.get());
  worker.join();
  api().flush(waiting.get());
  player.play(0, 26);
  ASSERT_EQ(player.received.size(), fresh.received.size());
  for (size_t i = 0; i < 26; ++i) ASSERT_EQ(player.received[i].bytes, fresh.received[i].bytes) << i;
}

size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * 4096;
}

// FLASHVSR_ENDURANCE_FRAMES=20000 for the long form.
TEST(Session, MemoryStaysConstant) {
  const char* wanted = std::getenv("FLASHVSR_ENDURANCE_FRAMES");
  const int frames = wanted != nullptr ? std::atoi(wanted) : 1200;
  const ModelPtr model = open_model("decoder");
  const FlashVsrFormat format = make_format(kRgb, 32, 32);
  const FlashVsrSessionOptions options = make_options(4);
  SessionPtr session = open_session(model.get(), format, options);
  Player player{session.get(), format, options};
  size_t early = 0;
  uint64_t early_held = 0, count = 0;
  FlashVsrStats stats{};
  stats.struct_size = sizeof(stats);
  for (int i = 0; i < frames; ++i) {
    player.send(i);
    player.run();
    count += static_cast<uint64_t>(player.receive());
    player.received.clear();
    if (i == frames / 3) {
      early = resident_bytes();
      ASSERT_EQ(api().stats(session.get(), &stats, nullptr), FLASHVSR_OK);
      early_held = stats.host_bytes;
    }
  }
  ASSERT_EQ(api().stats(session.get(), &stats, nullptr), FLASHVSR_OK);
  const size_t late = resident_bytes();
  player.drain();
  count += player.received.size();
  EXPECT_EQ(count, static_cast<uint64_t>(frames));
  EXPECT_EQ(stats.host_bytes, early_held);
  EXPECT_LE(late, early + 8 * 1024 * 1024) << "resident " << early << " -> " << late;
  printf("%d frames: resident %.1f MB after a third, %.1f MB at the end; session holds %.2f MB\n", frames,
         static_cast<double>(early) / 1e6, static_cast<double>(late) / 1e6, static_cast<double>(stats.host_bytes) / 1e6);
}

// Random protocol: every frame that was not flushed away exactly once, in order.
TEST(Session, RandomProtocol) {
  const ModelPtr model = open_model("decoder");
  std::mt19937 random(20261123);
  for (int round = 0; round < 25; ++round) {
    const FlashVsrFormat format = make_format(static_cast<FlashVsrPixelFormat>(random() % FLASHVSR_PIXEL_FORMAT_COUNT),
                                              16 + static_cast<int>(random() % 20), 16 + static_cast<int>(random() % 20));
    FlashVsrSessionOptions options = make_options(2 + static_cast<int>(random() % 7), 2);
    options.startup = static_cast<FlashVsrStartup>(random() % 2);
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    int next = 0;
    size_t first_of_epoch = 0;
    std::vector<uint64_t> expected;
    bool is_interrupted = false;
    for (int step = 0; step < 120; ++step) {
      switch (random() % 12) {
        case 0:
          ASSERT_EQ(api().drain(session.get(), nullptr), FLASHVSR_OK);
          break;
        case 1:
          if (random() % 3 == 0) {
            api().flush(session.get());
            is_interrupted = false;
            expected.resize(first_of_epoch + player.received.size() - first_of_epoch);
            first_of_epoch = expected.size();
          }
          break;
        case 2:
          if (random() % 6 == 0) {
            api().interrupt(session.get());
            is_interrupted = true;
          }
          break;
        case 3:
        case 4: {
          const FlashVsrStatus status =
              api().run(session.get(), random() % 3 == 0 ? FLASHVSR_RUN_PASSTHROUGH : FLASHVSR_RUN_MODEL, nullptr);
          ASSERT_TRUE(is_interrupted ? status == FLASHVSR_ERROR_INTERRUPTED
                                     : status == FLASHVSR_OK || status == FLASHVSR_AGAIN);
          break;
        }
        case 5:
        case 6: player.receive(); break;
        default:
          for (int i = static_cast<int>(random() % 9); i > 0; --i) {
            player.send(next);
            expected.push_back(static_cast<uint64_t>(next++));
          }
      }
      for (size_t i = 0; i < player.received.size(); ++i) ASSERT_EQ(player.received[i].id, expected[i]);
    }
    if (is_interrupted) {
      player.receive();
      expected.resize(player.received.size());
      api().flush(session.get());
    }
    player.drain();
    ASSERT_EQ(player.received.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(player.received[i].id, expected[i]);
  }
}

TEST(Session, RefusesWhatCannotBe) {
  const ModelPtr model = open_model("decoder");
  FlashVsrSession* session = nullptr;
  FlashVsrError error;
  const auto refused = [&](const FlashVsrFormat& format, const FlashVsrSessionOptions& options) {
    error.message[0] = '\0';
    const FlashVsrStatus status = api().session_open(model.get(), &format, &options, &session, &error);
    EXPECT_EQ(session, nullptr);
    EXPECT_NE(std::strlen(error.message), 0u);
    return status == FLASHVSR_ERROR_INVALID_ARGUMENT;
  };
  FlashVsrFormat good = make_format(kRgb, 32, 32);
  FlashVsrSessionOptions options = make_options(4);
  EXPECT_TRUE(refused(make_format(kRgb, 15, 32), options));
  EXPECT_TRUE(refused(make_format(kRgb, 32, 8193), options));
  EXPECT_TRUE(refused(make_format(kRgb, -5, 32), options));
  EXPECT_TRUE(refused(make_format(static_cast<FlashVsrPixelFormat>(18), 32, 32), options));
  EXPECT_TRUE(refused(make_format(static_cast<FlashVsrPixelFormat>(-1), 32, 32), options));
  EXPECT_TRUE(refused(make_format(kRgb, 8192, 32), make_options(4)));
  EXPECT_TRUE(refused(good, make_options(5)));
  EXPECT_TRUE(refused(good, make_options(1, 2)));
  EXPECT_TRUE(refused(good, make_options(4, 0)));
  EXPECT_TRUE(refused(good, make_options(-4, -1)));
  FlashVsrSessionOptions bad = options;
  bad.sparse_ratio = 9;
  EXPECT_TRUE(refused(good, bad));
  bad = options;
  bad.sparse_ratio = std::nanf("");
  EXPECT_TRUE(refused(good, bad));
  bad = options;
  bad.kv_chunks = 9;
  EXPECT_TRUE(refused(good, bad));
  bad = options;
  bad.local_range = 32;
  EXPECT_TRUE(refused(good, bad));
  bad = options;
  bad.color_fix = static_cast<FlashVsrColorFix>(17);
  EXPECT_TRUE(refused(good, bad));
  bad = options;
  bad.struct_size = 0;
  EXPECT_TRUE(refused(good, bad));
  FlashVsrFormat cuda = good;
  cuda.input_memory = FLASHVSR_MEMORY_CUDA;
  EXPECT_TRUE(refused(cuda, options));
  EXPECT_EQ(api().session_open(nullptr, &good, &options, &session, &error), FLASHVSR_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(api().session_open(model.get(), nullptr, &options, &session, &error), FLASHVSR_ERROR_INVALID_ARGUMENT);

  SessionPtr open = open_session(model.get(), good, options);
  Picture in(kRgb, 32, 32);
  FlashVsrFrame frame = in.frame;
  frame.data[0] = nullptr;
  EXPECT_EQ(api().send(open.get(), &frame, &error), FLASHVSR_ERROR_INVALID_ARGUMENT);
  frame = in.frame;
  frame.stride[0] = 95;
  EXPECT_EQ(api().send(open.get(), &frame, &error), FLASHVSR_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(api().send(open.get(), nullptr, &error), FLASHVSR_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(api().send(nullptr, &in.frame, &error), FLASHVSR_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(api().run(open.get(), static_cast<FlashVsrRunMode>(7), &error), FLASHVSR_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(api().receive(open.get(), nullptr, nullptr, &error), FLASHVSR_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(api().run(open.get(), FLASHVSR_RUN_MODEL, &error), FLASHVSR_AGAIN);
}

// The embedded student at 160x90, in each precision of the CPU; no bound on the time.
TEST(Session, PrintsItsSpeed) {
  for (FlashVsrPrecision precision : {FLASHVSR_PRECISION_FP32, FLASHVSR_PRECISION_BF16}) {
    FlashVsrModelOptions model_options;
    api().default_model_options(&model_options);
    model_options.device = "cpu";
    model_options.precision = precision;
    FlashVsrModel* opened = nullptr;
    FlashVsrError error;
    const FlashVsrStatus status = api().model_open(&model_options, &opened, &error);
    if (status == FLASHVSR_ERROR_MODEL_NOT_FOUND) GTEST_SKIP() << error.message;
    ASSERT_EQ(status, FLASHVSR_OK) << error.message;
    const ModelPtr model(opened);
    const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_I420, 160, 90);
    SessionPtr session = open_session(model.get(), format, make_options(4));
    Picture in(FLASHVSR_PIXEL_FORMAT_I420, 160, 90), out(FLASHVSR_PIXEL_FORMAT_I420, 640, 360);
    constexpr int kFrames = 73;
    double send_ms = 0, run_ms = 0, receive_ms = 0;
    int received = 0;
    const auto now = [] { return std::chrono::steady_clock::now(); };
    const auto ms = [](auto begin, auto end) { return std::chrono::duration<double, std::milli>(end - begin).count(); };
    for (int i = 0; i < kFrames; ++i) {
      in.draw(i);
      const auto begin = now();
      ASSERT_EQ(api().send(session.get(), &in.frame, nullptr), FLASHVSR_OK);
      const auto sent = now();
      while (api().run(session.get(), FLASHVSR_RUN_MODEL, nullptr) == FLASHVSR_OK) {}
      const auto done = now();
      while (api().receive(session.get(), nullptr, &out.frame, nullptr) == FLASHVSR_OK) ++received;
      send_ms += ms(begin, sent);
      run_ms += ms(sent, done);
      receive_ms += ms(done, now());
    }
    FlashVsrStats stats{};
    stats.struct_size = sizeof(stats);
    ASSERT_EQ(api().stats(session.get(), &stats, nullptr), FLASHVSR_OK);
    printf("%s, 160x90 -> 640x360, ms a frame: send %.3f, preprocess %.3f, decoder %.3f, postprocess %.3f, "
           "receive %.3f; %.1f frames/s\n",
           precision == FLASHVSR_PRECISION_FP32 ? "fp32" : "bf16", send_ms / kFrames, stats.preprocess_ms / 8,
           stats.decoder_ms / 8, stats.postprocess_ms / 8, receive_ms / received,
           1000.0 * received / (send_ms + run_ms + receive_ms));
    EXPECT_EQ(received, 69);
  }
}

}  // namespace
}  // namespace flashvsr
