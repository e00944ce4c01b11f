// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The tensor forms against the plain ones, on the CPU and, where there is one, on the GPU.
#include "image/image_ops.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "image/postprocess.h"
#include "image/preprocess.h"

namespace flashvsr {
namespace {

std::vector<PlanarImage> random_pictures(int count, int width, int height, int depth, std::mt19937& random) {
  std::vector<PlanarImage> pictures;
  for (int i = 0; i < count; ++i) {
    PlanarImage picture(width, height, depth, false);
    for (int c = 0; c < 3; ++c) {
      for (size_t s = 0; s < picture.plane_samples(); ++s) {
        const unsigned range = static_cast<unsigned>(picture.max_value()) + 1;
        const unsigned value = random() % 3 == 0 ? (random() % 2) * (range - 1) : random() % range;
        if (depth > 8) picture.plane<uint16_t>(c)[s] = static_cast<uint16_t>(value);
        else picture.plane<uint8_t>(c)[s] = static_cast<uint8_t>(value);
      }
    }
    pictures.push_back(picture);
  }
  return pictures;
}

std::vector<const PlanarImage*> pointers(const std::vector<PlanarImage>& pictures) {
  std::vector<const PlanarImage*> result;
  for (const PlanarImage& picture : pictures) result.push_back(&picture);
  return result;
}

std::vector<c10::Device> devices() {
  std::vector<c10::Device> result{c10::kCPU};
  if (at::globalContext().hasCUDA()) result.emplace_back(c10::kCUDA, 0);
  return result;
}

TEST(ImageOps, ResizeEqualsThePlainForm) {
  std::mt19937 random(6);
  const int sizes[][4] = {{16, 17, 64, 68}, {33, 20, 50, 30}, {40, 64, 20, 48}, {24, 24, 24, 48}, {20, 20, 20, 20}};
  for (c10::Device device : devices()) {
    for (int depth : {8, 10}) {
      for (const auto& size : sizes) {
        const auto pictures = random_pictures(3, size[0], size[1], depth, random);
        const at::Tensor resized = TensorResizer(size[0], size[1], size[2], size[3], depth, device)
                                       .resize(upload_samples(pointers(pictures), device))
                                       .cpu();
        const BicubicResizer plain(size[0], size[1], size[2], size[3], depth);
        for (size_t i = 0; i < pictures.size(); ++i) {
          PlanarImage expected;
          plain.resize(pictures[i], expected, false);
          const at::Tensor one = resized[static_cast<int64_t>(i)].contiguous();
          EXPECT_EQ(std::memcmp(one.data_ptr(), expected.plane<uint8_t>(0), expected.bytes()), 0)
              << size[0] << "x" << size[1] << " -> " << size[2] << "x" << size[3] << " depth " << depth;
        }
      }
    }
  }
}

TEST(ImageOps, NormalizeEqualsThePlainForm) {
  std::mt19937 random(7);
  for (c10::Device device : devices()) {
    for (int depth : {8, 10}) {
      for (c10::ScalarType dtype : {c10::kFloat, c10::kBFloat16, c10::kHalf}) {
        const auto pictures = random_pictures(4, 21, 13, depth, random);
        const at::Tensor expected = images_to_tensor(pointers(pictures), 32, 64, c10::kCPU, dtype);
        const at::Tensor actual =
            normalize_samples(upload_samples(pointers(pictures), device), depth > 8 ? 1023 : 255, 32, 64, dtype).cpu();
        EXPECT_TRUE(at::equal(actual, expected)) << depth << c10::toString(dtype);
      }
    }
  }
}

// Colours from the model's input instead of pictures; more frames than are handled at once.
TEST(ImageOps, StyleFromTheInputEqualsReferences) {
  std::mt19937 random(8);
  at::manual_seed(8);
  for (c10::Device device : devices()) {
    for (ColorFix fix : {ColorFix::kAdain, ColorFix::kWavelet}) {
      const auto references = random_pictures(11, 21, 13, 8, random);
      const at::Tensor style = images_to_tensor(pointers(references), 32, 64, c10::kCPU, c10::kFloat).to(device);
      const at::Tensor frames = (at::randn({1, 3, 11, 32, 64}) * 0.5).to(device);
      std::vector<PlanarImage> a(10, PlanarImage(21, 13, 8, false)), b = a;
      std::vector<PlanarImage*> a_list, b_list;
      for (size_t i = 0; i < 10; ++i) {
        a_list.push_back(&a[i]);
        b_list.push_back(&b[i]);
      }
      auto list = pointers(references);
      list.erase(list.begin());
      tensor_to_images(frames, 1, list, {fix, Quantization::kNearest}, a_list);
      tensor_to_images(frames, 1, {}, {fix, Quantization::kNearest}, b_list, style);
      int64_t different = 0;
      for (size_t i = 0; i < 10; ++i) {
        for (size_t s = 0; s < a[i].bytes(); ++s) {
          const int d = std::abs(a[i].plane<uint8_t>(0)[s] - b[i].plane<uint8_t>(0)[s]);
          ASSERT_LE(d, 1);
          different += d;
        }
      }
      EXPECT_LE(different, 10);
    }
  }
}

}  // namespace
}  // namespace flashvsr
