// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/postprocess.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <random>

#include "image/preprocess.h"

namespace flashvsr {
namespace {

void set(PlanarImage& image, int plane, size_t i, int value) {
  if (image.depth() > 8) image.plane<uint16_t>(plane)[i] = static_cast<uint16_t>(value);
  else image.plane<uint8_t>(plane)[i] = static_cast<uint8_t>(value);
}
int get(const PlanarImage& image, int plane, size_t i) {
  return image.depth() > 8 ? image.plane<uint16_t>(plane)[i] : image.plane<uint8_t>(plane)[i];
}

PlanarImage random_image(int width, int height, int depth, std::mt19937& random) {
  PlanarImage image(width, height, depth, false);
  for (int c = 0; c < 3; ++c) {
    for (size_t i = 0; i < image.plane_samples(); ++i) {
      set(image, c, i, static_cast<int>(random() % (static_cast<unsigned>(image.max_value()) + 1)) / (c + 1));
    }
  }
  return image;
}

// The one-pass CPU form against adain() and quantize() of image/color_fix.h.
TEST(Postprocess, OnePassEqualsTheOperations) {
  std::mt19937 random(11);
  at::manual_seed(11);
  for (int depth : {8, 10}) {
    for (c10::ScalarType dtype : {c10::kFloat, c10::kBFloat16}) {
      for (ColorFix fix : {ColorFix::kNone, ColorFix::kAdain}) {
        for (Quantization quantization : {Quantization::kTruncate, Quantization::kNearest}) {
          const at::Tensor frames = (at::randn({1, 3, 5, 40, 48}) * 0.6 + 0.1).to(dtype);
          std::vector<PlanarImage> references, images;
          for (int i = 0; i < 3; ++i) {
            references.push_back(random_image(45, 37, depth, random));
            images.emplace_back(45, 37, depth, false);
          }
          std::vector<const PlanarImage*> reference_list;
          std::vector<PlanarImage*> image_list;
          for (int i = 0; i < 3; ++i) {
            if (fix != ColorFix::kNone) reference_list.push_back(&references[static_cast<size_t>(i)]);
            image_list.push_back(&images[static_cast<size_t>(i)]);
          }
          tensor_to_images(frames, 2, reference_list, {fix, quantization}, image_list);
          at::Tensor expected = frames.narrow(2, 2, 3).narrow(3, 0, 37).narrow(4, 0, 45);
          if (fix == ColorFix::kAdain) {
            expected = adain(expected, images_to_tensor(reference_list, 37, 45, c10::kCPU, dtype));
          }
          expected = quantize(expected, depth > 8 ? 1023 : 255, quantization).to(c10::kInt).contiguous();
          const auto values = expected.accessor<int, 5>();
          int64_t different = 0;
          for (int f = 0; f < 3; ++f) {
            for (int c = 0; c < 3; ++c) {
              for (int i = 0; i < 37 * 45; ++i) {
                const int d = std::abs(get(images[static_cast<size_t>(f)], c, static_cast<size_t>(i)) - values[0][c][f][i / 45][i % 45]);
                // bf16 statistics may round to the neighbour: a level of bf16 near 1 is 2^-8 of the range
                ASSERT_LE(d, dtype == c10::kFloat || fix == ColorFix::kNone ? 1 : (depth > 8 ? 8 : 2));
                different += d != 0;
              }
            }
          }
          const int64_t all = 3 * 3 * 37 * 45;
          if (fix == ColorFix::kNone) {
            EXPECT_EQ(different, 0);
          }
          EXPECT_LE(different, dtype == c10::kFloat ? all / 1000 : all / 20)
              << "depth " << depth << " " << c10::toString(dtype);
        }
      }
    }
  }
}

TEST(Postprocess, NanAndInfinityBecomeBytes) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const at::Tensor row = at::tensor({nan, infinity, -infinity, 3e38f, -3e38f, 0.0f, 1.0f, -1.0f});
  const at::Tensor frames = row.view({1, 1, 1, 1, 8}).expand({1, 3, 1, 1, 8}).contiguous();
  for (c10::ScalarType dtype : {c10::kFloat, c10::kBFloat16, c10::kHalf}) {
    PlanarImage image(8, 1, 8, false);
    tensor_to_images(frames.to(dtype), 0, {}, {}, {&image});
    const std::vector<int> expected{0, 255, 0, 255, 0, 127, 255, 0};
    for (size_t i = 0; i < 8; ++i) EXPECT_EQ(get(image, 0, i), expected[i]) << i << c10::toString(dtype);
  }
}

TEST(Postprocess, BlendGoesFromBaseToImage) {
  std::mt19937 random(2);
  for (int depth : {8, 10}) {
    const PlanarImage base = random_image(19, 7, depth, random), image = random_image(19, 7, depth, random);
    for (float strength : {0.0f, 0.25f, 0.5f, 1.0f, 7.0f, -1.0f}) {
      PlanarImage result = image;
      blend(base, strength, result);
      const double weight = std::min(1.0f, std::max(0.0f, strength));
      for (size_t i = 0; i < base.plane_samples(); ++i) {
        const double expected = get(base, 1, i) + weight * (get(image, 1, i) - get(base, 1, i));
        ASSERT_LE(std::abs(get(result, 1, i) - expected), weight == 0.0 || weight == 1.0 ? 0.0 : 0.6);
      }
    }
  }
}

TEST(Postprocess, CompareShowsBothPictures) {
  for (int depth : {8, 10}) {
    for (int width : {20, 21}) {
      PlanarImage base(width, 4, depth, false), image(width, 4, depth, false);
      for (int c = 0; c < 3; ++c) {
        for (size_t i = 0; i < base.plane_samples(); ++i) {
          set(base, c, i, static_cast<int>(i) % width);
          set(image, c, i, 100 + static_cast<int>(i) % width);
        }
      }
      PlanarImage split = image;
      compare(base, Compare::kSplit, 0.5f, split);
      const int bar = static_cast<int>(std::lround(0.5f * static_cast<float>(width)));
      for (int x = 0; x < width; ++x) {
        const int expected = x == bar - 1 || x == bar ? base.max_value() : (x < bar ? x : 100 + x);
        EXPECT_EQ(get(split, 2, static_cast<size_t>(width + x)), expected) << x;
      }
      PlanarImage all_ours = image, all_base = image;
      compare(base, Compare::kSplit, 0.0f, all_ours);
      compare(base, Compare::kSplit, 1.0f, all_base);
      EXPECT_EQ(get(all_ours, 0, 0), 100);
      EXPECT_EQ(get(all_base, 0, static_cast<size_t>(width - 1)), width - 1);
      PlanarImage both = image;
      compare(base, Compare::kSideBySide, 0.0f, both);
      const int left = width / 2, right = width - left;
      for (int x = 0; x < width; ++x) {
        const int expected = x < left ? x + (width - left) / 2 : 100 + x - left + (width - right) / 2;
        EXPECT_EQ(get(both, 1, static_cast<size_t>(2 * width + x)), expected) << x;
      }
    }
  }
}

TEST(Postprocess, PrintsItsSpeed) {
  std::mt19937 random(1);
  const at::Tensor frames = at::rand({1, 3, 8, 384, 640}) * 2 - 1;
  std::vector<PlanarImage> references(8, random_image(640, 360, 8, random)), images(8, PlanarImage(640, 360, 8, false));
  std::vector<const PlanarImage*> reference_list;
  std::vector<PlanarImage*> image_list;
  for (size_t i = 0; i < 8; ++i) {
    reference_list.push_back(&references[i]);
    image_list.push_back(&images[i]);
  }
  for (ColorFix fix : {ColorFix::kNone, ColorFix::kAdain, ColorFix::kWavelet}) {
    tensor_to_images(frames, 0, reference_list, {fix, Quantization::kTruncate}, image_list);
    const auto begin = std::chrono::steady_clock::now();
    tensor_to_images(frames, 0, reference_list, {fix, Quantization::kTruncate}, image_list);
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count() / 8;
    printf("tensor_to_images 640x360, color fix %d: %.3f ms a frame\n", static_cast<int>(fix), ms);
  }
}

}  // namespace
}  // namespace flashvsr
