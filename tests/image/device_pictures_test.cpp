// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures to samples and back without kernels, which other tests (tests/cuda) compare with this.
#include "image/device_pictures.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "image/color_convert.h"
#include "image/image_ops.h"
#include "image/postprocess.h"

namespace flashvsr {
namespace {

TEST(DevicePictures, PackedPlanesLieBehindOneAnother) {
  uint8_t memory[1];
  const FramePlanes planes = packed_planes(memory, PixelFormat::kNv12, 17, 5);
  EXPECT_EQ(planes.stride[0], 32u);
  EXPECT_EQ(planes.stride[1], 32u);  // 18 bytes
  EXPECT_EQ(static_cast<uint8_t*>(planes.data[1]) - memory, 5 * 32);
  EXPECT_EQ(packed_bytes(PixelFormat::kNv12, 17, 5), (5 + 3) * 32);
  EXPECT_EQ(packed_bytes(PixelFormat::kP010_10le, 17, 5), (5 + 3) * 48);
  EXPECT_EQ(packed_bytes(PixelFormat::kRgb, 16, 2), 96);
}

TEST(DevicePictures, CopiedPlanesLeaveTheRoomBetweenRowsAlone) {
  const at::Tensor from = at::arange(3 * 7, at::kByte).view({3, 7}), to = at::full({3, 9}, 200, at::kByte);
  FramePlanes in, out;
  in.data[0] = from.data_ptr();
  in.stride[0] = 7;
  out.data[0] = to.data_ptr();
  out.stride[0] = 9;
  copy_planes(in, out, PixelFormat::kGray8, 5, 3);
  EXPECT_TRUE(at::equal(to.narrow(1, 0, 5), from.narrow(1, 0, 5)));
  EXPECT_TRUE(to.narrow(1, 5, 4).eq(200).all().item<bool>());
}

TEST(DevicePictures, SamplesEqualTheConversion) {
  at::manual_seed(3);
  for (const PixelFormat format : {PixelFormat::kNv12, PixelFormat::kBgra, PixelFormat::kI420_10le}) {
    const ColorSpec color{1, false};
    const int width = 19, height = 6;
    const at::Tensor bytes = at::randint(4, {2, packed_bytes(format, width, height)}, at::kByte);
    std::vector<at::Tensor> packed;
    for (int64_t i = 0; i < 2; ++i) {
      const FramePlanes planes = packed_planes(bytes[i].data_ptr(), format, width, height);
      packed.push_back(pack_planes(planes, format, width, height, /*is_pinned=*/false));
    }
    const at::Tensor samples = packed_to_samples(packed, format, color, width, height, at::kCPU);
    const at::Tensor back = samples_to_packed(samples, format, color);
    for (int64_t i = 0; i < 2; ++i) {
      PlanarImage picture;
      convert_to_rgb(packed_planes(bytes[i].data_ptr(), format, width, height), format, color, width, height, picture);
      EXPECT_TRUE(at::equal(samples.narrow(0, i, 1), upload_samples({&picture}, at::kCPU)));
      if (picture.has_alpha()) std::fill_n(picture.plane<uint8_t>(3), picture.plane_samples(), uint8_t{255});
      // What lies between rows is undefined: taken from the result.
      const at::Tensor expected = back[i].clone();
      convert_from_rgb(picture, format, color, packed_planes(expected.data_ptr(), format, width, height));
      EXPECT_TRUE(at::equal(back[i], expected));
    }
  }
}

TEST(DevicePictures, FinishedFramesEqualTheReference) {
  at::manual_seed(4);
  const at::Tensor frames = at::randn({1, 3, 2, 16, 24}).mul_(0.7).to(at::kBFloat16);
  const at::Tensor style = at::rand({1, 3, 2, 16, 24}).mul_(2).sub_(1).to(at::kBFloat16);
  const auto visible = [](const at::Tensor& x) { return x.narrow(3, 0, 13).narrow(4, 0, 21); };
  for (const ColorFix fix : {ColorFix::kNone, ColorFix::kAdain, ColorFix::kWavelet}) {
    const at::Tensor colored = fix == ColorFix::kAdain     ? adain(visible(frames), visible(style))
                               : fix == ColorFix::kWavelet ? wavelet(visible(frames), visible(style))
                                                           : visible(frames);
    const at::Tensor samples = finish_frames(frames, fix == ColorFix::kNone ? at::Tensor() : style, 13, 21, 1023,
                                             {fix, Quantization::kNearest});
    ASSERT_EQ(samples.sizes(), (at::IntArrayRef{2, 3, 13, 21}));
    EXPECT_TRUE(samples.is_contiguous());
    EXPECT_TRUE(at::equal(samples, quantize(colored, 1023, Quantization::kNearest)[0].transpose(0, 1)));
  }
  EXPECT_THROW(finish_frames(frames, {}, 13, 21, 255, {ColorFix::kAdain, Quantization::kTruncate}), std::exception);
}

}  // namespace
}  // namespace flashvsr
