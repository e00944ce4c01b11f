// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The demo program from outside: what it writes, keeps, prints, and how it fails.
#include <glib.h>
#include <glib/gstdio.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/e2e/media.h"

namespace flashvsr {
namespace {

std::string clip(const std::string& name) { return std::string(std::getenv("FLASHVSR_CLIPS")) + "/" + name; }

struct Outcome {
  int status;
  std::string out, err;
};

Outcome upscale(std::vector<std::string> arguments) {
  std::vector<char*> argv = {const_cast<char*>(std::getenv("FLASHVSR_UPSCALE"))};
  for (auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  gchar *out = nullptr, *err = nullptr;
  gint status = 0;
  GError* error = nullptr;
  if (!g_spawn_sync(nullptr, argv.data(), nullptr, G_SPAWN_DEFAULT, nullptr, nullptr, &out, &err, &status, &error))
    return {-1, "", error->message};
  Outcome outcome{WIFEXITED(status) ? WEXITSTATUS(status) : 128, out, err};
  g_free(out);
  g_free(err);
  return outcome;
}

class Upscale : public testing::Test {
 protected:
  void SetUp() override { folder_ = g_dir_make_tmp("flashvsr-upscale-XXXXXX", nullptr); }
  void TearDown() override {
    for (const std::string& name : files()) g_unlink((folder_ + "/" + name).c_str());
    EXPECT_EQ(g_rmdir(folder_.c_str()), 0);
  }
  std::string path(const std::string& name) { return folder_ + "/" + name; }
  std::vector<std::string> files() {
    std::vector<std::string> names;
    GDir* dir = g_dir_open(folder_.c_str(), 0, nullptr);
    while (const gchar* name = g_dir_read_name(dir)) names.emplace_back(name);
    g_dir_close(dir);
    return names;
  }
  std::string folder_;
};

TEST_F(Upscale, KeepsTheSoundPacketByPacketAndReports) {
  const Outcome outcome = upscale({"--device", "cpu", clip("cars_audio_192x108.mp4"), path("out.mkv")});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("768 x 432, from 192 x 108"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("60 in, 60 out"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find(path("out.mkv")), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("device   CPU"), std::string::npos) << outcome.out;
  EXPECT_EQ(files(), std::vector<std::string>{"out.mkv"});
  std::string error;
  const auto source = audio_packets(clip("cars_audio_192x108.mp4"), &error);
  ASSERT_EQ(error, "");
  const auto result = audio_packets(path("out.mkv"), &error);
  ASSERT_EQ(error, "");
  EXPECT_GT(source.size(), 100u);
  EXPECT_EQ(source, result);
}

TEST_F(Upscale, WritesMp4AndTakesAScale) {
  const Outcome outcome = upscale({"--scale", "2", clip("friday_gray_160x120.mp4"), path("out.mp4")});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  std::string error;
  const auto frames = decode_gray(path("out.mp4"), &error);
  ASSERT_EQ(error, "");
  ASSERT_EQ(frames.size(), 72u);
  EXPECT_EQ(frames[0].width, 320);
  EXPECT_EQ(frames[0].height, 240);
}

TEST_F(Upscale, DeinterlacesByItself) {
  const Outcome outcome = upscale({"--scale", "1.5", clip("walk_interlaced_320x180.mkv"), path("out.mkv")});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("interlaced"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("50 in, 50 out"), std::string::npos) << outcome.out;
}

// Each: an exit status that is not 0, one sentence with the cause, nothing left in the folder.
struct Bad {
  const char* name;
  std::vector<std::string> arguments;  // CLIP and OUT stand for paths
  const char* word;
};
const Bad kBad[] = {
    {"NoSuchInput", {"/nonexistent/clip.mp4", "OUT/a.mkv"}, "no such file"},
    {"NotAVideo", {"CLIPS/README.md", "OUT/a.mkv"}, "text"},
    {"WrongSuffix", {"CLIP", "OUT/a.xyz"}, ".mkv or .mp4"},
    {"NoSuchFolder", {"CLIP", "OUT/none/a.mkv"}, "cannot write"},
    {"UnknownProperty", {"--set", "colour=red", "CLIP", "OUT/a.mkv"}, "no property 'colour'"},
    {"BadValue", {"--set", "color-fix=sepia", "CLIP", "OUT/a.mkv"}, "no value of color-fix"},
    {"NoSuchModel", {"--model", "/nonexistent/model", "CLIP", "OUT/a.mkv"}, "/nonexistent/model"},
    {"OneFile", {"CLIP"}, "Usage"},
};
class UpscaleRefuses : public Upscale, public testing::WithParamInterface<Bad> {};

TEST_P(UpscaleRefuses, WithItsReasonAndLeavesNothing) {
  std::vector<std::string> arguments;
  for (const std::string& word : GetParam().arguments) {
    if (word == "CLIP") arguments.push_back(clip("friday_gray_160x120.mp4"));
    else if (word.rfind("CLIPS/", 0) == 0) arguments.push_back(clip(word.substr(6)));
    else if (word.rfind("OUT/", 0) == 0) arguments.push_back(path(word.substr(4)));
    else arguments.push_back(word);
  }
  const Outcome outcome = upscale(arguments);
  EXPECT_NE(outcome.status, 0);
  EXPECT_LT(outcome.status, 128) << "died";
  EXPECT_NE(outcome.err.find(GetParam().word), std::string::npos) << outcome.err;
  EXPECT_EQ(files(), std::vector<std::string>{});
}
INSTANTIATE_TEST_SUITE_P(Each, UpscaleRefuses, testing::ValuesIn(kBad), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace flashvsr
