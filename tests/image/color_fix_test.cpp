// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/color_fix.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "fixture.h"
#include "image/preprocess.h"
#include "kernels/wavelet_color.h"

namespace flashvsr {
namespace {

at::Tensor to_tensor(const FixtureTensor& tensor) {
  const c10::ScalarType dtype = tensor.dtype == "BF16" ? c10::kBFloat16 : c10::kFloat;
  return at::from_blob(const_cast<char*>(tensor.bytes.data()), tensor.shape, at::TensorOptions().dtype(dtype)).clone();
}

at::Tensor style_of(const FixtureTensor& lq, c10::ScalarType dtype) {
  std::vector<PlanarImage> images;
  const int height = static_cast<int>(lq.shape[1]), width = static_cast<int>(lq.shape[2]);
  for (int64_t f = 0; f < lq.shape[0]; ++f) {
    PlanarImage image(width, height, 8, false);
    const uint8_t* bytes = lq.data<uint8_t>() + static_cast<size_t>(f) * image.plane_samples() * 3;
    for (size_t i = 0; i < image.plane_samples(); ++i) {
      for (size_t c = 0; c < 3; ++c) image.plane<uint8_t>(static_cast<int>(c))[i] = bytes[3 * i + c];
    }
    images.push_back(image);
  }
  std::vector<const PlanarImage*> frames;
  for (const PlanarImage& image : images) frames.push_back(&image);
  return images_to_tensor(frames, height, width, c10::kCPU, dtype);
}

// Prints the share of the tolerance that was used; NaN fails.
void expect_near(const std::string& name, const at::Tensor& actual, const at::Tensor& expected, double max_tolerance,
                 double mean_tolerance) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor difference = (actual.to(c10::kFloat) - expected.to(c10::kFloat)).abs();
  const double max = difference.max().item<double>(), mean = difference.mean().item<double>();
  printf("%-14s max %.3g (%.0f %% of %.3g), mean %.3g\n", name.c_str(), max, 100 * max / max_tolerance, max_tolerance, mean);
  EXPECT_FALSE(!(max <= max_tolerance)) << name;
  EXPECT_FALSE(!(mean <= mean_tolerance)) << name;
}

TEST(ColorFix, EqualsTheReference) {
  const auto tensors = read_fixture("color");
  if (tensors.empty()) GTEST_SKIP() << "no fixture 'color' in " << fixture_folder();
  const at::Tensor hq = to_tensor(tensors.at("hq"));
  const at::Tensor style = style_of(tensors.at("lq_u8"), c10::kFloat);
  const at::Tensor style_bf16 = style_of(tensors.at("lq_u8"), c10::kBFloat16);
  expect_near("adain fp32", adain(hq.to(c10::kFloat), style), to_tensor(tensors.at("adain_f32")), 2e-5, 2e-5);
  expect_near("wavelet fp32", wavelet(hq.to(c10::kFloat), style), to_tensor(tensors.at("wavelet_f32")), 2e-5, 2e-5);
  expect_near("adain bf16", adain(hq, style_bf16), to_tensor(tensors.at("adain_bf16")), 0.02, 0.002);
  expect_near("wavelet bf16", wavelet(hq, style_bf16), to_tensor(tensors.at("wavelet_bf16")), 0.06, 0.06);
}

// The kernel's plain twin; the style's rounding to bf16, in which the kernel gets it, is what the low frequencies keep of it.
TEST(ColorFix, TheWaveletKernelsTwinEqualsTheReference) {
  const auto tensors = read_fixture("color");
  if (tensors.empty()) GTEST_SKIP() << "no fixture 'color' in " << fixture_folder();
  const at::Tensor content = to_tensor(tensors.at("hq")).to(c10::kBFloat16).contiguous();
  const at::Tensor style = style_of(tensors.at("lq_u8"), c10::kBFloat16).contiguous();
  const auto frames_of = [](const at::Tensor& x) {
    return ModelFrames{static_cast<const uint16_t*>(x.data_ptr()), x.stride(1), x.stride(2), x.stride(3)};
  };
  FinishFramesParams p;
  p.input = frames_of(content);
  p.style = frames_of(style);
  p.frames = static_cast<int32_t>(content.size(2));
  p.height = static_cast<int32_t>(content.size(3));
  p.width = static_cast<int32_t>(content.size(4));
  p.max_value = 65535;
  p.nearest = true;
  std::vector<uint16_t> levels(static_cast<size_t>(content.numel()));
  p.samples = levels.data();
  ASSERT_EQ(wavelet_color_ref(p), 0);
  at::Tensor actual = at::empty({content.size(2), 3, content.size(3), content.size(4)});
  for (size_t i = 0; i < levels.size(); ++i) actual.data_ptr<float>()[i] = static_cast<float>(levels[i]) / 32767.5f - 1.0f;
  expect_near("wavelet kernel", actual.transpose(0, 1).unsqueeze(0), to_tensor(tensors.at("wavelet_f32")), 1e-3, 2e-4);
}

TEST(ColorFix, FramesDoNotTouchOneAnother) {
  at::manual_seed(5);
  const at::Tensor content = at::randn({1, 3, 4, 24, 40}), style = at::rand({1, 3, 4, 24, 40}) * 2 - 1;
  for (const auto& fix : {adain, wavelet}) {
    const at::Tensor whole = fix(content, style);
    for (int64_t f = 0; f < 4; ++f) {
      EXPECT_TRUE(at::equal(whole.narrow(2, f, 1), fix(content.narrow(2, f, 1), style.narrow(2, f, 1))));
    }
    EXPECT_LE(whole.abs().max().item<float>(), 1.0f);
  }
}

TEST(ColorFix, RefusesDifferentShapes) {
  EXPECT_ANY_THROW(adain(at::zeros({1, 3, 1, 4, 4}), at::zeros({1, 3, 1, 4, 5})));
  EXPECT_ANY_THROW(wavelet(at::zeros({1, 3, 1, 4, 4}), at::zeros({1, 3, 1, 4, 4}, c10::kBFloat16)));
}

}  // namespace
}  // namespace flashvsr
