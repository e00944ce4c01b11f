// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whole pipelines as one types them into gst-launch-1.0, on the bundled clips of every kind and on odd sizes
// from videotestsrc: each frame comes out once, at its time, four times as large, and shows what went in.
#include <glib.h>
#include <glib/gstdio.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/e2e/media.h"

namespace flashvsr {
namespace {

constexpr uint64_t kMillisecond = 1000000;
// The mean of the 4 x 4 pixels of the result above a pixel of the source, against that pixel. A frame that is
// black, green or of another place is far below. Measured with the embedded model: 31.8 dB for the worst frame
// of all clips (the interlaced one, whose lines flicker), 35 and more elsewhere.
constexpr double kLeastPsnr = 28;

std::string clip(const std::string& name) { return std::string(std::getenv("FLASHVSR_CLIPS")) + "/" + name; }

struct Case {
  const char* name;
  const char* file;
  size_t frames;
  int width, height;
  const char* before;  // what the source needs ahead of the element
};
const Case kCases[] = {
    {"plain", "dog_256x144.mp4", 96, 256, 144, ""},
    {"with_audio", "cars_audio_192x108.mp4", 60, 192, 108, ""},
    {"variable_frame_rate", "flower_vfr_318x178.webm", 95, 318, 178, ""},
    {"gray", "friday_gray_160x120.mp4", 72, 160, 120, ""},
    {"ten_bit_hlg", "roof_10bit_hlg_320x180.mkv", 72, 320, 180, ""},
    {"interlaced", "walk_interlaced_320x180.mkv", 50, 320, 180, "deinterlace fields=top ! videoconvert ! "},
};

class Clip : public testing::TestWithParam<Case> {};

TEST_P(Clip, EveryFrameOnceAtItsTimeAndAlike) {
  const Case& c = GetParam();
  gchar* folder = g_dir_make_tmp("flashvsr-e2e-XXXXXX", nullptr);
  ASSERT_NE(folder, nullptr);
  const std::string output = std::string(folder) + "/out.mkv";
  const Passage passage =
      run_pipeline("filesrc location=\"" + clip(c.file) + "\" ! decodebin ! videoconvert ! " + c.before +
                   "flashvsr name=f ! videoconvert ! video/x-raw,format=I420 ! x264enc speed-preset=veryfast ! "
                   "h264parse ! matroskamux ! filesink location=\"" + output + "\"");
  ASSERT_EQ(passage.error, "");

  // at the element: exact
  EXPECT_EQ(passage.in.size(), c.frames);
  ASSERT_EQ(passage.out.size(), passage.in.size());
  for (size_t i = 0; i < passage.in.size(); i++)
    ASSERT_TRUE(passage.in[i] == passage.out[i])
        << "frame " << i << ": " << passage.in[i].pts << " became " << passage.out[i].pts;
  EXPECT_EQ(passage.in_width, c.width);
  EXPECT_EQ(passage.in_height, c.height);
  EXPECT_EQ(passage.out_width, 4 * c.width);
  EXPECT_EQ(passage.out_height, 4 * c.height);

  // in the file: to Matroska's millisecond
  std::string error;
  const auto source = decode_gray(clip(c.file), &error, c.before);
  ASSERT_EQ(error, "");
  const auto result = decode_gray(output, &error);
  ASSERT_EQ(error, "");
  ASSERT_EQ(result.size(), source.size());
  double least = 1e9, sum = 0;
  for (size_t i = 0; i < source.size(); i++) {
    const auto late = static_cast<int64_t>(result[i].pts - result[0].pts) - static_cast<int64_t>(source[i].pts - source[0].pts);
    ASSERT_LE(std::llabs(late), static_cast<int64_t>(kMillisecond)) << "frame " << i;
    ASSERT_EQ(result[i].width, 4 * source[i].width);
    ASSERT_EQ(result[i].height, 4 * source[i].height);
    const double psnr = psnr_of_reduced(result[i], source[i]);
    least = std::min(least, psnr);
    sum += psnr;
  }
  printf("%s: result reduced against source: %.1f dB mean, %.1f dB least\n", c.name, sum / source.size(), least);
  EXPECT_TRUE(least >= kLeastPsnr) << least;
  const auto longer = static_cast<int64_t>(container_duration(output)) - static_cast<int64_t>(container_duration(clip(c.file)));
  printf("%s: container longer by %.3f ms\n", c.name, 1e-6 * longer);
  EXPECT_LE(std::llabs(longer), static_cast<int64_t>(40 * kMillisecond));

  g_unlink(output.c_str());
  g_rmdir(folder);
  g_free(folder);
}

INSTANTIATE_TEST_SUITE_P(Bundled, Clip, testing::ValuesIn(kCases), [](const auto& info) { return info.param.name; });

// Two scenes in one stream: the second comes out as it does by itself, to the bit, so that nothing of the first is left in
// it. Without the detector it does not. JPEG, so that what a file decodes to depends on no other frame.
TEST(TwoScenes, NothingOfTheFirstIsInTheSecond) {
  gchar* folder = g_dir_make_tmp("flashvsr-e2e-XXXXXX", nullptr);
  ASSERT_NE(folder, nullptr);
  const std::string both = std::string(folder) + "/both.mkv", alone = std::string(folder) + "/alone.mkv";
  const auto scene = [](const char* file) {
    return "filesrc location=\"" + clip(file) + "\" ! decodebin ! videoconvert ! videoscale ! videorate ! " +
           "video/x-raw,format=I420,width=96,height=54,framerate=15/1,colorimetry=bt601,pixel-aspect-ratio=1/1 ! c. ";
  };
  const std::string first = scene("dog_256x144.mp4"), second = scene("cars_audio_192x108.mp4");
  const std::string file = "concat name=c ! jpegenc ! matroskamux ! filesink location=";
  ASSERT_EQ(run_pipeline(first + second + file + both).error, "");
  ASSERT_EQ(run_pipeline(second + file + alone).error, "");
  std::string error;
  const auto wanted = decode_gray(alone, &error, "flashvsr scale=2 ! videoconvert ! ");
  ASSERT_EQ(error, "");
  ASSERT_GT(wanted.size(), 30u);
  for (const bool has_detector : {true, false}) {
    const auto seen = decode_gray(both, &error, std::string("flashvsr scale=2 scene-cut=") + (has_detector ? "auto" : "off") + " ! videoconvert ! ");
    ASSERT_EQ(error, "");
    ASSERT_GT(seen.size(), wanted.size() + 30);
    const size_t cut = seen.size() - wanted.size();
    size_t same = 0;
    for (size_t i = 0; i < wanted.size(); i++) same += seen[cut + i].pixels == wanted[i].pixels;
    printf("scene-cut %d: %zu of %zu frames as without the first scene\n", has_detector, same, wanted.size());
    if (has_detector) {
      EXPECT_EQ(same, wanted.size());
    } else {
      EXPECT_LT(same, wanted.size());
    }
  }
  g_unlink(both.c_str());
  g_unlink(alone.c_str());
  g_rmdir(folder);
  g_free(folder);
}

class OddSize : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(OddSize, EveryFrameOnceAtItsTime) {
  const auto [width, height, frames] = GetParam();
  const Passage passage = run_pipeline(
      "videotestsrc pattern=ball num-buffers=" + std::to_string(frames) + " ! video/x-raw,framerate=25/1,width=" +
      std::to_string(width) + ",height=" + std::to_string(height) + " ! videoconvert ! flashvsr name=f ! fakesink");
  ASSERT_EQ(passage.error, "");
  EXPECT_EQ(passage.in.size(), static_cast<size_t>(frames));
  ASSERT_EQ(passage.out.size(), passage.in.size());
  for (size_t i = 0; i < passage.in.size(); i++) ASSERT_TRUE(passage.in[i] == passage.out[i]) << "frame " << i;
  EXPECT_EQ(passage.out_width, 4 * width);
  EXPECT_EQ(passage.out_height, 4 * height);
}

INSTANTIATE_TEST_SUITE_P(Sizes, OddSize,
                         testing::Values(std::tuple(16, 16, 1), std::tuple(17, 31, 26), std::tuple(65, 37, 9),
                                         std::tuple(131, 16, 25), std::tuple(97, 129, 34)));

// The full path (projector, transformer with its cache, decoder) through the element: the golden tests' tiny
// checkpoint as published, both versions and decoders, over three runs of the model.
class Checkpoint : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(Checkpoint, RunsThroughTheElement) {
  const auto [version, decoder] = GetParam();
  const Passage passage = run_pipeline(
      std::string("videotestsrc pattern=ball num-buffers=38 ! video/x-raw,format=RGB,framerate=25/1,width=48,height=32 ! ") +
      "flashvsr name=f model=\"" + std::getenv("FLASHVSR_CHECKPOINT") + "\" model-version=" + version + " decoder=" + decoder +
      " ! fakesink");
  ASSERT_EQ(passage.error, "");
  ASSERT_EQ(passage.in.size(), 38u);
  ASSERT_EQ(passage.out.size(), 38u);
  for (size_t i = 0; i < passage.in.size(); i++) ASSERT_TRUE(passage.in[i] == passage.out[i]) << "frame " << i;
  EXPECT_EQ(passage.out_width, 192);
  EXPECT_EQ(passage.out_height, 128);
}
INSTANTIATE_TEST_SUITE_P(Tiny, Checkpoint, testing::Combine(testing::Values("v1", "v1.1"), testing::Values("tc", "vae")));

// The same of our own form: a small student with a transformer, and one that sees an enlargement, random weights.
class RandomModel : public testing::TestWithParam<const char*> {};

TEST_P(RandomModel, RunsThroughTheElement) {
  const Passage passage = run_pipeline(
      std::string("videotestsrc pattern=ball num-buffers=38 ! video/x-raw,format=I420,framerate=25/1,width=47,height=33 ! ") +
      "flashvsr name=f model=\"" + std::getenv("FLASHVSR_RANDOM_MODELS") + "/" + GetParam() + "\" ! fakesink");
  ASSERT_EQ(passage.error, "");
  ASSERT_EQ(passage.out.size(), 38u);
  for (size_t i = 0; i < passage.in.size(); i++) ASSERT_TRUE(passage.in[i] == passage.out[i]) << "frame " << i;
  EXPECT_EQ(passage.out_width, 188);
  EXPECT_EQ(passage.out_height, 132);
}
INSTANTIATE_TEST_SUITE_P(Small, RandomModel, testing::Values("student", "enlarged"));

TEST(UnknownCheckpoint, IsRefusedWithAReason) {
  const Passage passage = run_pipeline(std::string("videotestsrc num-buffers=1 ! video/x-raw,width=48,height=32 ! flashvsr model=\"") +
                                       std::getenv("FLASHVSR_CHECKPOINT") + "\" ! fakesink");
  EXPECT_NE(passage.error.find("Set model-version"), std::string::npos) << passage.error;
}

}  // namespace
}  // namespace flashvsr
