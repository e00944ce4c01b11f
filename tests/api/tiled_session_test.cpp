// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sessions that a small max-vram makes degrade, through the C table: they really do, keep the protocol,
// stay within their plan, and show nearly what they show with all the memory they want.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "engine.h"

namespace flashvsr {
namespace {

constexpr FlashVsrPixelFormat kRgb = FLASHVSR_PIXEL_FORMAT_RGB;

FlashVsrPlan plan_of(FlashVsrModel* model, const FlashVsrFormat& format, const FlashVsrSessionOptions& options) {
  FlashVsrPlan plan{};
  plan.struct_size = sizeof(plan);
  FlashVsrError error;
  if (api().model_plan(model, &format, &options, &plan, &error) != FLASHVSR_OK) throw std::runtime_error(error.message);
  return plan;
}

bool is_tiled(const FlashVsrPlan& plan) { return plan.tiles_x * plan.tiles_y > 1; }
bool is_in_8_bits(const FlashVsrPlan& plan) { return std::strstr(plan.text, ": KV cache in 8 bits") != nullptr; }

// The largest max_vram of some at which `is_wanted` of the plan.
template <typename Wanted>
FlashVsrSessionOptions capped(FlashVsrModel* model, const FlashVsrFormat& format, const Wanted& is_wanted) {
  FlashVsrSessionOptions options = make_options(4);
  options.max_vram = static_cast<double>(plan_of(model, format, options).session_bytes);
  while (options.max_vram > 1000) {
    const FlashVsrPlan plan = plan_of(model, format, options);
    if (is_wanted(plan)) {
      EXPECT_LE(static_cast<double>(plan.session_bytes), options.max_vram) << plan.text;
      return options;
    }
    options.max_vram *= 0.997;
  }
  throw std::runtime_error(std::string("no max_vram makes this plan; the last was ") + plan_of(model, format, options).text);
}

std::vector<Received> play(FlashVsrModel* model, const FlashVsrFormat& format, const FlashVsrSessionOptions& options, int frames) {
  SessionPtr session = open_session(model, format, options);
  Player player{session.get(), format, options};
  player.play(0, frames);
  return player.received;
}

void expect_ids(const std::vector<Received>& received, int begin, int end) {
  ASSERT_EQ(static_cast<int>(received.size()), end - begin);
  for (size_t i = 0; i < received.size(); ++i) EXPECT_EQ(received[i].id, static_cast<uint64_t>(begin) + i);
}

double psnr(const std::vector<Received>& a, const std::vector<Received>& b) {
  double sum = 0, count = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t k = 0; k < a[i].bytes.size(); ++k) {
      const double difference = static_cast<double>(a[i].bytes[k]) - b[i].bytes[k];
      sum += difference * difference;
      count += 1;
    }
  }
  return 10 * std::log10(255 * 255 * count / sum);
}

// Mean step of RGB frames `width` wide from the column before each of `columns` to it.
double step_at(const std::vector<Received>& frames, size_t width, const std::vector<size_t>& columns) {
  double sum = 0, count = 0;
  for (const Received& frame : frames) {
    for (size_t row = 0; row + 3 * width <= frame.bytes.size(); row += 3 * width) {
      for (const size_t column : columns) {
        for (size_t c = 0; c < 3; ++c) {
          sum += std::abs(static_cast<int>(frame.bytes[row + 3 * column + c]) - frame.bytes[row + 3 * (column - 1) + c]);
          count += 1;
        }
      }
    }
  }
  return sum / count;
}

// The golden checkpoint: the released form with its transformer, small. Null where there is none.
ModelPtr open_checkpoint() {
  const char* set = std::getenv("FLASHVSR_FIXTURES");
  const std::string path = std::string(set != nullptr && *set != '\0' ? set : FLASHVSR_FIXTURES_DEFAULT) + "/checkpoint";
  if (!std::ifstream(path + "/TCDecoder.ckpt")) return nullptr;
  FlashVsrModelOptions options;
  api().default_model_options(&options);
  options.path = path.c_str();
  options.device = "cpu";
  options.precision = FLASHVSR_PRECISION_FP32;
  options.version = FLASHVSR_VERSION_V1_1;
  FlashVsrModel* model = nullptr;
  FlashVsrError error;
  if (api().model_open(&options, &model, &error) != FLASHVSR_OK) throw std::runtime_error(error.message);
  return ModelPtr(model);
}

// Odd sizes, scales, colours, two streams in one session, over several chunks.
TEST(TiledSession, EveryFrameOnceWithTiles) {
  using Size = std::pair<int, int>;
  const std::pair<const char*, std::vector<Size>> cases[] = {{"decoder", {{259, 37}, {41, 257}, {203, 131}}}, {"enlarged", {{259, 37}}}};
  for (const auto& [kind, sizes] : cases) {
    const ModelPtr model = open_model(kind);
    for (const auto& [width, height] : sizes) {
      const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_I420, width, height);
      FlashVsrSessionOptions options = capped(model.get(), format, is_tiled);
      options.color_fix = FLASHVSR_COLOR_FIX_ADAIN;
      printf("%s\n", plan_of(model.get(), format, options).text);
      SessionPtr session = open_session(model.get(), format, options);
      Player player{session.get(), format, options};
      player.play(0, 26);
      player.play(26, 28);
      expect_ids(player.received, 0, 28);
      EXPECT_NE(player.received[0].bytes, player.received[1].bytes);
      FlashVsrStats stats{};
      stats.struct_size = sizeof(stats);
      ASSERT_EQ(api().stats(session.get(), &stats, nullptr), FLASHVSR_OK);
      EXPECT_EQ(stats.resets, 2u);
    }
  }
}

TEST(TiledSession, FlushAndInterruptWithTiles) {
  const ModelPtr model = open_model("student");
  const FlashVsrFormat format = make_format(kRgb, 224, 32);
  const FlashVsrSessionOptions options = capped(model.get(), format, is_tiled);
  const std::vector<Received> fresh = play(model.get(), format, options, 30);
  SessionPtr session = open_session(model.get(), format, options);
  Player player{session.get(), format, options};
  for (int i = 50; i < 85; ++i) player.send(i);
  player.run();
  api().flush(session.get());
  EXPECT_EQ(player.receive(), 0);
  player.play(0, 30);
  ASSERT_EQ(player.received.size(), fresh.size());
  for (size_t i = 0; i < fresh.size(); ++i) ASSERT_EQ(player.received[i].bytes, fresh[i].bytes) << i;

  // in the middle of a run: between its tiles or within one
  int interrupted = 0;
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 25; ++i) player.send(i);
    interrupted += run_and_interrupt(session.get(), std::chrono::milliseconds(2 + 8 * round));
    api().flush(session.get());
  }
  EXPECT_GT(interrupted, 0);
  player.received.clear();
  player.play(0, 30);
  for (size_t i = 0; i < fresh.size(); ++i) ASSERT_EQ(player.received[i].bytes, fresh[i].bytes) << i;
}

// Past the model and back: the tiles' states restart as one state does.
TEST(TiledSession, PassthroughRestartsEveryTile) {
  const ModelPtr model = open_model("student");
  const FlashVsrFormat format = make_format(kRgb, 224, 32);
  const FlashVsrSessionOptions options = capped(model.get(), format, is_tiled);
  SessionPtr session = open_session(model.get(), format, options);
  Player player{session.get(), format, options};
  int sent = 0;
  for (FlashVsrRunMode mode : {FLASHVSR_RUN_MODEL, FLASHVSR_RUN_PASSTHROUGH, FLASHVSR_RUN_MODEL, FLASHVSR_RUN_MODEL}) {
    while (api().run(session.get(), mode, nullptr) != FLASHVSR_OK) player.send(sent++);
    player.receive();
  }
  player.drain();
  expect_ids(player.received, 0, sent);
}

// A decoder alone sees about as far as tiles overlap: hardly any difference.
TEST(TiledSession, TilesShowWhatTheWholePictureShows) {
  const ModelPtr decoder = open_model("decoder");
  const FlashVsrFormat format = make_format(kRgb, 160, 40);
  const double of_decoder = psnr(play(decoder.get(), format, make_options(4), 10),
                                 play(decoder.get(), format, capped(decoder.get(), format, is_tiled), 10));
  printf("random decoder, tiles against whole: %.1f dB\n", of_decoder);
  EXPECT_GE(of_decoder, 60);
}

// The released form with its transformer, whose attention sees its own tile only, over three chunks; and
// the cache in 8 bits. Weights are random, so that what a query attends to matters more than in a trained model.
TEST(TiledSession, TheTransformerRunsInTilesAndWithASmallCache) {
  const ModelPtr model = open_checkpoint();
  if (!model) GTEST_SKIP() << "no checkpoint";
  const FlashVsrFormat format = make_format(kRgb, 160, 64);
  constexpr int kFrames = 38;
  const std::vector<Received> whole = play(model.get(), format, make_options(4), kFrames);
  const FlashVsrSessionOptions tiled = capped(model.get(), format, is_tiled);
  const FlashVsrSessionOptions small = capped(model.get(), format, is_in_8_bits);
  printf("%s\n%s\n", plan_of(model.get(), format, tiled).text, plan_of(model.get(), format, small).text);
  const std::vector<Received> in_tiles = play(model.get(), format, tiled, kFrames);
  const std::vector<Received> in_8_bits = play(model.get(), format, small, kFrames);
  expect_ids(in_tiles, 0, kFrames);
  expect_ids(in_8_bits, 0, kFrames);
  printf("golden checkpoint against whole: tiles %.1f dB, KV cache in 8 bits %.1f dB\n", psnr(whole, in_tiles),
         psnr(whole, in_8_bits));
  // No seam: where tiles begin and end, neighbouring columns differ no more than in the whole picture.
  ASSERT_NE(std::strstr(plan_of(model.get(), format, tiled).text, ": 4x1 tiles of 256x256"), nullptr);
  const std::vector<size_t> edges = {128, 256, 384, 512};
  printf("mean step of neighbouring columns at edges of tiles: %.3f, in the whole picture %.3f\n",
         step_at(in_tiles, 640, edges), step_at(whole, 640, edges));
  EXPECT_LE(step_at(in_tiles, 640, edges), 1.1 * step_at(whole, 640, edges));
  EXPECT_NE(whole[30].bytes, in_tiles[30].bytes);
  EXPECT_NE(whole[30].bytes, in_8_bits[30].bytes);
  EXPECT_EQ(whole[0].bytes, in_8_bits[0].bytes);  // nothing is cached yet
  EXPECT_GE(psnr(whole, in_tiles), 37);
  EXPECT_GE(psnr(whole, in_8_bits), 60);
}

// The same bytes from the same numbers.
TEST(TiledSession, TilesAreDeterministic) {
  const ModelPtr model = open_model("enlarged");
  const FlashVsrFormat format = make_format(kRgb, 224, 32);
  const FlashVsrSessionOptions options = capped(model.get(), format, is_tiled);
  EXPECT_STREQ(plan_of(model.get(), format, options).text, plan_of(model.get(), format, options).text);
  const std::vector<Received> first = play(model.get(), format, options, 27), second = play(model.get(), format, options, 27);
  for (size_t i = 0; i < first.size(); ++i) ASSERT_EQ(first[i].bytes, second[i].bytes) << i;
}

// The process's peak in the first two runs against the plan of a session that was made to degrade.
TEST(TiledSession, StaysWithinItsPlan) {
  for (const auto& [kind, width] : {std::pair<const char*, int>{"decoder", 320}, {"student", 256}, {"enlarged", 256}}) {
    const ModelPtr model = open_model(kind);
    const FlashVsrFormat format = make_format(kRgb, width, 128);
    const FlashVsrSessionOptions options = capped(model.get(), format, is_tiled);
    const FlashVsrPlan plan = plan_of(model.get(), format, options);
    SessionPtr session = open_session(model.get(), format, options);
    Player player{session.get(), format, options};
    for (int i = 0; i < 33; ++i) player.send(i);
    malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts again here
    const uint64_t before = status_bytes("VmRSS");
    EXPECT_EQ(player.run(), 2);
    const uint64_t taken = status_bytes("VmHWM") - before;
    printf("%s\n%s in %dx%d tiles: planned %.0f MB, taken %.0f MB\n", plan.text, kind, plan.tiles_x, plan.tiles_y,
           static_cast<double>(plan.session_bytes) / 1e6, static_cast<double>(taken) / 1e6);
    EXPECT_LE(taken, plan.session_bytes) << kind;
    EXPECT_GE(3 * taken, plan.session_bytes) << kind;
  }
}

}  // namespace
}  // namespace flashvsr
