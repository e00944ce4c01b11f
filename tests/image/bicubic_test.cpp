// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/bicubic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "fixture.h"
#include "image/preprocess.h"

namespace flashvsr {
namespace {

PlanarImage from_interleaved(const uint8_t* bytes, int width, int height) {
  PlanarImage image(width, height, 8, false);
  for (int c = 0; c < 3; ++c) {
    for (size_t i = 0; i < image.plane_samples(); ++i) image.plane<uint8_t>(c)[i] = bytes[3 * i + static_cast<size_t>(c)];
  }
  return image;
}

TEST(Bicubic, EqualsPillowBitForBit) {
  const auto tensors = read_fixture("upscale");
  if (tensors.empty()) GTEST_SKIP() << "no fixture 'upscale' in " << fixture_folder();
  const double scales[] = {4.0, 2.0, 3.0, 3.5, 3.5, 0.75, 1.0};
  for (int i = 0; i < 7; ++i) {
    const FixtureTensor& lr = tensors.at("c" + std::to_string(i) + "_lr");
    const FixtureTensor& hr = tensors.at("c" + std::to_string(i) + "_hr");
    const int width = static_cast<int>(lr.shape[1]), height = static_cast<int>(lr.shape[0]);
    const PlanarImage in = from_interleaved(lr.data<uint8_t>(), width, height);
    PlanarImage out;
    const BicubicResizer resizer(width, height, static_cast<int>(reference_scaled_size(width, scales[i])),
                                 static_cast<int>(reference_scaled_size(height, scales[i])), 8);
    for (bool parallel : {false, true}) {
      resizer.resize(in, out, parallel);
      const PlanarImage cropped = reference_crop(out, 128);
      ASSERT_EQ(cropped.width(), hr.shape[1]);
      ASSERT_EQ(cropped.height(), hr.shape[0]);
      const PlanarImage expected = from_interleaved(hr.data<uint8_t>(), cropped.width(), cropped.height());
      for (int c = 0; c < 3; ++c) {
        EXPECT_TRUE(std::equal(expected.plane<uint8_t>(c), expected.plane<uint8_t>(c) + expected.plane_samples(),
                               cropped.plane<uint8_t>(c)))
            << "case " << i << " channel " << c;
      }
    }
  }
}

double cubic(double x) {
  x = std::abs(x);
  if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
  if (x < 2) return -0.5 * (x * x * x - 5 * x * x + 8 * x - 4);
  return 0;
}

// One axis in double, rounded and clipped.
std::vector<double> plain_axis(const std::vector<double>& in, int out_size, int max_value) {
  const double r = static_cast<double>(in.size()) / out_size, fs = std::max(r, 1.0);
  std::vector<double> out;
  for (int x = 0; x < out_size; ++x) {
    const double c = (x + 0.5) * r;
    double sum = 0, weights = 0;
    for (size_t k = 0; k < in.size(); ++k) {
      const double w = cubic((static_cast<double>(k) - c + 0.5) / fs);
      sum += w * in[k];
      weights += w;
    }
    out.push_back(std::clamp(std::floor(sum / weights + 0.5), 0.0, static_cast<double>(max_value)));
  }
  return out;
}

TEST(Bicubic, TenBitsAndAlphaAgreeWithDoubleArithmetic) {
  std::mt19937 random(3);
  const int sizes[][4] = {{17, 16, 68, 64}, {33, 9, 50, 14}, {64, 40, 33, 21}, {16, 16, 16, 32}, {5, 7, 5, 7}, {1, 1, 9, 3}};
  for (int depth : {8, 10}) {
    for (const auto& size : sizes) {
      PlanarImage in(size[0], size[1], depth, true), out;
      for (int c = 0; c < 4; ++c) {
        for (size_t i = 0; i < in.plane_samples(); ++i) {
          const int value = random() % 4 == 0 ? in.max_value() * static_cast<int>(random() % 2)
                                              : static_cast<int>(random() % (static_cast<unsigned>(in.max_value()) + 1));
          if (depth > 8) in.plane<uint16_t>(c)[i] = static_cast<uint16_t>(value);
          else in.plane<uint8_t>(c)[i] = static_cast<uint8_t>(value);
        }
      }
      const auto at = [&](const PlanarImage& image, int c, int x, int y) -> double {
        const size_t i = static_cast<size_t>(y) * static_cast<size_t>(image.width()) + static_cast<size_t>(x);
        return depth > 8 ? image.plane<uint16_t>(c)[i] : image.plane<uint8_t>(c)[i];
      };
      BicubicResizer(size[0], size[1], size[2], size[3], depth).resize(in, out, false);
      ASSERT_EQ(out.planes(), 4);
      for (int c = 0; c < 4; ++c) {
        std::vector<std::vector<double>> rows;
        for (int y = 0; y < size[1]; ++y) {
          std::vector<double> row;
          for (int x = 0; x < size[0]; ++x) row.push_back(at(in, c, x, y));
          rows.push_back(plain_axis(row, size[2], in.max_value()));
        }
        for (int x = 0; x < size[2]; ++x) {
          std::vector<double> column;
          for (const auto& row : rows) column.push_back(row[static_cast<size_t>(x)]);
          const std::vector<double> expected = plain_axis(column, size[3], in.max_value());
          for (int y = 0; y < size[3]; ++y) {
            ASSERT_LE(std::abs(at(out, c, x, y) - expected[static_cast<size_t>(y)]), 1.0);
          }
        }
      }
    }
  }
}

TEST(Bicubic, RefusesImpossibleSizes) {
  EXPECT_ANY_THROW(BicubicResizer(0, 4, 4, 4, 8));
  EXPECT_ANY_THROW(BicubicResizer(4, 4, 4, 100000, 8));
}

TEST(Bicubic, PrintsItsSpeed) {
  PlanarImage in(160, 90, 8, false), out;
  std::fill(in.plane<uint8_t>(0), in.plane<uint8_t>(0) + in.bytes(), uint8_t{90});
  const BicubicResizer resizer(160, 90, 640, 360, 8);
  resizer.resize(in, out, false);
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) resizer.resize(in, out, false);
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count() / 20;
  printf("bicubic 160x90 -> 640x360: %.3f ms\n", ms);
  EXPECT_EQ(out.plane<uint8_t>(2)[12345], 90);
}

}  // namespace
}  // namespace flashvsr
