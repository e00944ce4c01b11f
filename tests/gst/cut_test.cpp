// SPDX-License-Identifier: LGPL-2.1-or-later
#include "../../gst/gstflashvsrcut.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

using flashvsr_gst::CutDetector;
using flashvsr_gst::CutPlane;

namespace {

constexpr int kWidth = 160, kHeight = 90;

struct Picture {
  std::vector<uint8_t> levels = std::vector<uint8_t>(kWidth * kHeight);
  CutPlane plane() const {
    CutPlane plane;
    plane.data = levels.data();
    plane.stride = kWidth;
    plane.width = kWidth;
    plane.height = kHeight;
    return plane;
  }
};

// A smooth landscape of its own for each seed, moved by (dx, dy), with noise.
Picture scene(int seed, double dx, double dy, double gain, std::mt19937& random, double noise = 3) {
  Picture picture;
  std::normal_distribution<double> normal(0, noise);
  for (int y = 0; y < kHeight; ++y)
    for (int x = 0; x < kWidth; ++x) {
      const double u = (x + dx) / 31.0 + seed, v = (y + dy) / 23.0 - seed;
      const double level = (seed % 2 ? 60 : 150) + 55 * std::sin(u + seed) * std::cos(v) + 20 * std::sin(3 * u * 0.7 + v);
      picture.levels[y * kWidth + x] = static_cast<uint8_t>(std::min(255.0, std::max(0.0, gain * level + normal(random))));
    }
  return picture;
}

}  // namespace

TEST(Cut, FindsEachChangeOfSceneAndNothingElse) {
  std::mt19937 random(1);
  CutDetector detector;
  for (int shot = 0; shot < 8; ++shot)
    for (int frame = 0; frame < 20; ++frame) {
      const bool found = detector.is_cut(scene(shot, frame, 0.5 * frame, 1, random).plane());
      EXPECT_EQ(found, shot > 0 && frame == 0) << "shot " << shot << " frame " << frame;
    }
}

TEST(Cut, PanNoiseAndFadeAreNone) {
  std::mt19937 random(2);
  CutDetector pan, noise, fade;
  for (int frame = 0; frame < 60; ++frame) {
    EXPECT_FALSE(pan.is_cut(scene(3, 6.0 * frame, 0, 1, random).plane())) << frame;
    EXPECT_FALSE(noise.is_cut(scene(3, 0, 0, 1, random, 25).plane())) << frame;
    EXPECT_FALSE(fade.is_cut(scene(3, 0, 0, 1 - frame / 60.0, random).plane())) << frame;
  }
}

TEST(Cut, FirstFrameAndResetAreNone) {
  std::mt19937 random(3);
  CutDetector detector;
  EXPECT_FALSE(detector.is_cut(scene(0, 0, 0, 1, random).plane()));
  detector.reset();
  EXPECT_FALSE(detector.is_cut(scene(1, 0, 0, 1, random).plane()));
  EXPECT_TRUE(detector.is_cut(scene(4, 0, 0, 1, random).plane()));
}

TEST(Cut, TenBitsAndPackedSamples) {
  std::mt19937 random(4);
  CutDetector low, high, packed;
  for (int frame = 0; frame < 12; ++frame) {
    const Picture picture = scene(frame < 6 ? 0 : 1, frame, 0, 1, random);
    std::vector<uint8_t> low_bytes, high_bytes, packed_bytes;
    for (const uint8_t level : picture.levels) {
      const int ten = level * 4;
      low_bytes.push_back(ten & 255);
      low_bytes.push_back(ten >> 8);
      high_bytes.push_back(ten << 6 & 255);
      high_bytes.push_back(ten << 6 >> 8);
      packed_bytes.insert(packed_bytes.end(), {0, level, 0});
    }
    CutPlane plane = picture.plane();
    plane.data = low_bytes.data();
    plane.stride = 2 * kWidth;
    plane.step = 2;
    plane.shift = 2;
    EXPECT_EQ(low.is_cut(plane), frame == 6) << frame;
    plane.data = high_bytes.data();
    plane.shift = 8;
    EXPECT_EQ(high.is_cut(plane), frame == 6) << frame;
    plane.data = packed_bytes.data();
    plane.stride = 3 * kWidth;
    plane.step = 3;
    plane.offset = 1;
    plane.shift = 0;
    EXPECT_EQ(packed.is_cut(plane), frame == 6) << frame;
  }
}

// Smaller than the grid.
TEST(Cut, SmallestPicture) {
  std::vector<uint8_t> dark(16 * 16, 30), light(16 * 16, 200);
  CutPlane plane;
  plane.stride = plane.width = plane.height = 16;
  CutDetector detector;
  plane.data = dark.data();
  EXPECT_FALSE(detector.is_cut(plane));
  plane.data = light.data();
  EXPECT_TRUE(detector.is_cut(plane));
}
