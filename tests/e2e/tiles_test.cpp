// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A bundled clip through the element with the embedded model, once with all the memory it wants and once with
// a max-vram that makes it run in tiles: nearly the same picture, and no seam in it.
#include <flashvsr/flashvsr.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "api/tiles.h"
#include "tests/e2e/media.h"

namespace flashvsr {
namespace {

constexpr int kWidth = 256, kHeight = 144, kFrames = 34;

// The largest max-vram, in bytes, with which this clip runs in tiles; the plan is asked before each.
double tiling_max_vram(FlashVsrPlan& plan) {
  const FlashVsrApi* api = flashvsr_get_api(FLASHVSR_ABI_VERSION);
  FlashVsrModelOptions model_options;
  api->default_model_options(&model_options);
  model_options.device = "cpu";
  model_options.precision = FLASHVSR_PRECISION_FP32;
  FlashVsrModel* model = nullptr;
  FlashVsrError error;
  EXPECT_EQ(api->model_open(&model_options, &model, &error), FLASHVSR_OK) << error.message;
  FlashVsrFormat format{};
  format.width = kWidth;
  format.height = kHeight;
  FlashVsrSessionOptions options;
  api->default_session_options(&options);
  plan = {};
  plan.struct_size = sizeof plan;
  for (options.max_vram = 4e9; options.max_vram > 1e6; options.max_vram *= 0.995) {
    EXPECT_EQ(api->model_plan(model, &format, &options, &plan, &error), FLASHVSR_OK) << error.message;
    if (plan.tiles_x * plan.tiles_y > 1) break;
  }
  api->model_close(model);
  return options.max_vram;
}

std::vector<GrayFrame> upscaled(const std::string& properties) {
  std::string error;
  const auto frames = decode_gray(std::string(std::getenv("FLASHVSR_CLIPS")) + "/dog_256x144.mp4", &error,
                                  "identity eos-after=" + std::to_string(kFrames) + " ! flashvsr device=cpu precision=fp32 " +
                                      properties + " ! videoconvert !");
  EXPECT_EQ(error, "");
  return frames;
}

TEST(Tiles, ShowTheClipWithoutASeam) {
  FlashVsrPlan plan;
  const double max_vram = tiling_max_vram(plan);
  printf("%s\n", plan.text);
  ASSERT_GT(plan.tiles_x * plan.tiles_y, 1);
  const auto whole = upscaled(""), tiled = upscaled("max-vram=" + std::to_string(max_vram));
  // identity lets through what the decoder has in hand when it ends the stream: not always the same frame
  constexpr size_t kCompared = kFrames - 1;
  ASSERT_GE(whole.size(), kCompared);
  ASSERT_GE(tiled.size(), kCompared);

  // columns and rows that two tiles share, and their first and last ones, where a seam would be
  const auto marked = [](int length, int tiles, std::set<int>& edges) {
    std::set<int> shared;
    const auto axis = cut_axis((length + 7) / 8 * 8, tiles, kTileOverlap, 8);
    for (size_t i = 1; axis && i < axis->count(); i++) {
      const int begin = static_cast<int>(axis->begin[i]), end = static_cast<int>(axis->begin[i - 1] + axis->size);
      edges.insert({begin, end});
      for (int at = begin; at < end; at++) shared.insert(at);
    }
    return shared;
  };
  std::set<int> edge_columns, edge_rows;
  const int width = 4 * kWidth, height = 4 * kHeight;
  const auto columns = marked(width, plan.tiles_x, edge_columns), rows = marked(height, plan.tiles_y, edge_rows);

  double squares = 0, shared = 0, shared_count = 0, elsewhere = 0, elsewhere_count = 0;
  double step_tiled = 0, step_whole = 0;
  int largest = 0;
  for (size_t i = 0; i < kCompared; i++) {
    ASSERT_EQ(whole[i].pts, tiled[i].pts);
    ASSERT_EQ(tiled[i].width, width);
    ASSERT_EQ(tiled[i].height, height);
    const auto at = [&](const GrayFrame& frame, int x, int y) { return static_cast<int>(frame.pixels[static_cast<size_t>(y) * width + x]); };
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        const int difference = std::abs(at(whole[i], x, y) - at(tiled[i], x, y));
        largest = std::max(largest, difference);
        squares += difference * difference;
        const bool is_shared = columns.count(x) || rows.count(y);
        (is_shared ? shared : elsewhere) += difference;
        (is_shared ? shared_count : elsewhere_count) += 1;
        if (edge_columns.count(x)) {
          step_whole += std::abs(at(whole[i], x, y) - at(whole[i], x - 1, y));
          step_tiled += std::abs(at(tiled[i], x, y) - at(tiled[i], x - 1, y));
        }
        if (edge_rows.count(y)) {
          step_whole += std::abs(at(whole[i], x, y) - at(whole[i], x, y - 1));
          step_tiled += std::abs(at(tiled[i], x, y) - at(tiled[i], x, y - 1));
        }
      }
    }
  }
  EXPECT_GT(squares, 0) << "the result is the same to the last bit: it was not tiled";
  const double psnr = 10 * std::log10(255.0 * 255.0 * static_cast<double>(kCompared) * width * height / squares);
  printf("dog, tiles against whole: %.1f dB, largest difference %d of 255; mean %.5f where tiles overlap, %.5f elsewhere; "
         "steps at edges %.4f of the whole picture's\n",
         psnr, largest, shared / shared_count, elsewhere / elsewhere_count, step_tiled / step_whole);
  EXPECT_GE(psnr, 60);
  EXPECT_LE(step_tiled, 1.02 * step_whole);
}

}  // namespace
}  // namespace flashvsr
