// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/preprocess.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "fixture.h"
#include "image/postprocess.h"

namespace flashvsr {
namespace {

TEST(Preprocess, ValuesEqualTheReference) {
  const auto tensors = read_fixture("upscale");
  if (tensors.empty()) GTEST_SKIP() << "no fixture 'upscale' in " << fixture_folder();
  PlanarImage ramp(256, 1, 8, false);
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < 256; ++i) ramp.plane<uint8_t>(c)[i] = static_cast<uint8_t>(i);
  }
  const at::Tensor fp32 = images_to_tensor({&ramp}, 1, 256, c10::kCPU, c10::kFloat);
  const at::Tensor bf16 = images_to_tensor({&ramp}, 1, 256, c10::kCPU, c10::kBFloat16);
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(fp32.data_ptr<float>()[i], tensors.at("ramp_f32").data<float>()[i]) << i;
    EXPECT_EQ(bf16.data_ptr<c10::BFloat16>()[i].x, tensors.at("ramp_bf16").data<uint16_t>()[i]) << i;
  }
}

TEST(Preprocess, QuantisationEqualsTheReference) {
  const auto tensors = read_fixture("upscale");
  if (tensors.empty()) GTEST_SKIP() << "no fixture 'upscale' in " << fixture_folder();
  const FixtureTensor& in = tensors.at("out_quant_in");
  const int64_t count = in.shape[0];
  const at::Tensor values = at::from_blob(const_cast<float*>(in.data<float>()), {count}).clone();
  for (bool is_bf16 : {false, true}) {
    const uint8_t* expected = tensors.at(is_bf16 ? "out_quant_bf16_u8" : "out_quant_u8").data<uint8_t>();
    const at::Tensor typed = is_bf16 ? values.to(c10::kBFloat16) : values;
    const at::Tensor levels = quantize(typed, 255, Quantization::kTruncate);
    PlanarImage image(static_cast<int>(count), 1, 8, false);
    tensor_to_images(typed.view({1, 1, 1, 1, count}).expand({1, 3, 1, 1, count}), 0, {}, {}, {&image});
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(levels.data_ptr<uint8_t>()[i], expected[i]) << i << (is_bf16 ? " bf16" : " fp32");
      EXPECT_EQ(image.plane<uint8_t>(1)[i], expected[i]) << i << (is_bf16 ? " bf16" : " fp32");
    }
  }
}

TEST(Preprocess, ReflectsAgainAndAgain) {
  EXPECT_EQ(symmetric_index(3, 11), (std::vector<int64_t>{0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1}));
  EXPECT_EQ(symmetric_index(1, 4), (std::vector<int64_t>{0, 0, 0, 0}));
  EXPECT_EQ(symmetric_index(4, 4), (std::vector<int64_t>{0, 1, 2, 3}));
}

TEST(Preprocess, LayoutAndPadding) {
  for (int depth : {8, 10}) {
    std::vector<PlanarImage> images;
    for (int f = 0; f < 3; ++f) {
      PlanarImage image(5, 3, depth, false);
      for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < 15; ++i) {
          const int value = f * 50 + c * 16 + i;
          if (depth > 8) image.plane<uint16_t>(c)[i] = static_cast<uint16_t>(value);
          else image.plane<uint8_t>(c)[i] = static_cast<uint8_t>(value);
        }
      }
      images.push_back(image);
    }
    const at::Tensor tensor =
        images_to_tensor({&images[0], &images[1], &images[2]}, 8, 16, c10::kCPU, c10::kFloat);
    ASSERT_EQ(tensor.sizes(), at::IntArrayRef({1, 3, 3, 8, 16}));
    const auto rows = symmetric_index(3, 8), columns = symmetric_index(5, 16);
    const auto values = tensor.accessor<float, 5>();
    for (int c = 0; c < 3; ++c) {
      for (int f = 0; f < 3; ++f) {
        for (int y = 0; y < 8; ++y) {
          for (int x = 0; x < 16; ++x) {
            const int sample = f * 50 + c * 16 + static_cast<int>(rows[static_cast<size_t>(y)] * 5 + columns[static_cast<size_t>(x)]);
            ASSERT_EQ(values[0][c][f][y][x], normalized(sample, depth > 8 ? 1023 : 255));
          }
        }
      }
    }
  }
}

TEST(Preprocess, RefusesFramesOfDifferentShapes) {
  const PlanarImage a(4, 4, 8, false), b(4, 5, 8, false);
  EXPECT_ANY_THROW(images_to_tensor({&a, &b}, 8, 8, c10::kCPU, c10::kFloat));
  EXPECT_ANY_THROW(images_to_tensor({}, 8, 8, c10::kCPU, c10::kFloat));
}

}  // namespace
}  // namespace flashvsr
