// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/color_convert.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

struct Format {
  const char* name;
  PlanesKind kind;
  bool is_16_bit, halved_down;
  int shift, step, red, green, blue;
};
const Format kFormats[] = {
    {"NV12", PlanesKind::kYuvPaired, false, true, 0, 0, 0, 0, 0},
    {"I420", PlanesKind::kYuvHalved, false, true, 0, 0, 0, 0, 0},
    {"Y42B", PlanesKind::kYuvHalved, false, false, 0, 0, 0, 0, 0},
    {"Y444", PlanesKind::kYuvFull, false, false, 0, 0, 0, 0, 0},
    {"P010", PlanesKind::kYuvPaired, true, true, 6, 0, 0, 0, 0},
    {"I420_10LE", PlanesKind::kYuvHalved, true, true, 0, 0, 0, 0, 0},
    {"GBR", PlanesKind::kGbr, false, false, 0, 0, 0, 0, 0},
    {"GRAY8", PlanesKind::kGrey, false, false, 0, 0, 0, 0, 0},
    {"BGR", PlanesKind::kPacked, false, false, 0, 3, 2, 1, 0},
    {"xRGB", PlanesKind::kPacked, false, false, 0, 4, 1, 2, 3},
    {"RGBx", PlanesKind::kPacked, false, false, 0, 4, 0, 1, 2},
};

// Where the planes of all frames lie in one allocation: rows padded by `padding` bytes, planes apart by `gap`.
struct Placement {
  int64_t offset[kMaxConvertFrames][3] = {}, stride[3] = {};
  size_t bytes = 0;
  Placement(const Format& f, int frames, int height, int width, int padding, int gap) {
    const int chroma_width = f.kind == PlanesKind::kYuvFull ? width : (width + 1) / 2;
    const int chroma_height = f.halved_down ? (height + 1) / 2 : height;
    const bool paired = f.kind == PlanesKind::kYuvPaired, packed = f.kind == PlanesKind::kPacked;
    const bool grey = f.kind == PlanesKind::kGrey, gbr = f.kind == PlanesKind::kGbr;
    const int count = packed || grey ? 1 : paired ? 2 : 3;
    for (int frame = 0; frame < frames; ++frame) {
      for (int plane = 0; plane < count; ++plane) {
        const bool chroma = plane > 0 && !gbr;
        const int values = packed ? f.step * width : !chroma ? width : paired ? 2 * chroma_width : chroma_width;
        stride[plane] = values * (f.is_16_bit ? 2 : 1) + padding;
        offset[frame][plane] = int64_t(bytes);
        bytes += size_t(stride[plane]) * (chroma ? chroma_height : height) + gap;
      }
    }
  }
  void apply(uint8_t* base, int frames, ConvertPlanesParams& p) const {
    for (int frame = 0; frame < frames; ++frame) {
      for (int plane = 0; plane < 3; ++plane) {
        p.planes[frame][plane] = base + offset[frame][plane];
        p.strides[frame][plane] = stride[plane];
      }
    }
  }
};

ConvertPlanesParams params_of(const Format& f, int frames, int height, int width, int matrix, bool full_range) {
  ConvertPlanesParams p;
  p.frames = frames;
  p.height = height;
  p.width = width;
  p.kind = f.kind;
  p.is_16_bit = f.is_16_bit;
  p.halved_down = f.halved_down;
  p.shift = f.shift;
  p.step = f.step;
  p.red = f.red;
  p.green = f.green;
  p.blue = f.blue;
  p.to_rgb = to_rgb_coefficients(matrix, full_range, f.is_16_bit ? 10 : 8);
  p.from_rgb = from_rgb_coefficients(matrix, full_range, f.is_16_bit ? 10 : 8);
  grey_levels(full_range, p.grey);
  return p;
}

struct Shape {
  int frames, height, width, padding, gap;
};
const Shape kShapes[] = {{1, 1, 1, 0, 0},  {1, 1, 2, 4, 2},   {2, 3, 17, 6, 10}, {1, 17, 3, 0, 2},
                         {2, 5, 16, 0, 0}, {3, 4, 32, 16, 0}, {1, 6, 50, 14, 0}, {2, 2, 33, 15, 16}};

void check_both_ways(const Format& f, const Shape& s, int matrix, bool full_range) {
  SCOPED_TRACE(testing::Message() << f.name << " " << s.frames << " of " << s.width << "x" << s.height << " padding "
                                  << s.padding << " matrix " << matrix << " full " << full_range);
  const int padding = f.is_16_bit ? s.padding / 2 * 2 : s.padding;
  const Placement placement(f, s.frames, s.height, s.width, padding, s.gap);
  std::mt19937 engine(uint32_t(s.width * 100 + s.height * 10 + matrix));
  const size_t sample_bytes = size_t(s.frames) * 3 * s.height * s.width * (f.is_16_bit ? 2 : 1);
  ConvertPlanesParams p = params_of(f, s.frames, s.height, s.width, matrix, full_range);
  std::vector<uint8_t> planes(placement.bytes), samples(sample_bytes);
  for (uint8_t& byte : planes) byte = uint8_t(engine());
  for (uint8_t& byte : samples) byte = uint8_t(engine());
  if (f.is_16_bit) {
    // 10 bits, and for P010 whatever lies below them.
    for (size_t i = 1; i < samples.size(); i += 2) samples[i] &= 3;
    for (size_t i = 1; f.shift == 0 && i < planes.size(); i += 2) planes[i] &= 3;
  }

  std::vector<uint8_t> expected(sample_bytes);
  placement.apply(planes.data(), s.frames, p);
  p.samples = expected.data();
  ASSERT_EQ(planes_to_samples_ref(p), 0);
  {
    Buffer<uint8_t> d_planes(planes), d_samples(sample_bytes);
    placement.apply(d_planes.get(), s.frames, p);
    p.samples = d_samples.get();
    ASSERT_EQ(launch_planes_to_samples(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(d_samples.download(), expected);
    EXPECT_TRUE(d_samples.guard_is_intact());
    EXPECT_EQ(d_planes.download(), planes);
  }
  // Both start poisoned, so that bytes between rows must stay.
  std::vector<uint8_t> expected_planes(placement.bytes, 0xff);
  placement.apply(expected_planes.data(), s.frames, p);
  p.samples = samples.data();
  ASSERT_EQ(samples_to_planes_ref(p), 0);
  Buffer<uint8_t> d_planes(placement.bytes), d_samples(samples);
  placement.apply(d_planes.get(), s.frames, p);
  p.samples = d_samples.get();
  ASSERT_EQ(launch_samples_to_planes(p, nullptr), 0);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(d_planes.download(), expected_planes);
  EXPECT_TRUE(d_planes.guard_is_intact());
}

TEST(ColorConvertGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  for (const Format& f : kFormats) {
    for (const Shape& s : kShapes) check_both_ways(f, s, 6, false);
    check_both_ways(f, kShapes[2], 1, true);
    check_both_ways(f, kShapes[5], 9, false);
  }
}

TEST(ColorConvertGpu, RefusesWhatItCannotDo) {
  std::vector<uint8_t> memory(64);
  ConvertPlanesParams p = params_of(kFormats[4], 1, 2, 2, 6, false);
  p.samples = memory.data();
  for (int plane = 0; plane < 2; ++plane) {
    p.planes[0][plane] = memory.data();
    p.strides[0][plane] = 8;
  }
  EXPECT_EQ(check_convert_planes(p), 0);
  ConvertPlanesParams bad = p;
  bad.strides[0][1] = 7;  // 16-bit samples at odd addresses
  EXPECT_NE(launch_planes_to_samples(bad, nullptr), 0);
  bad = p;
  bad.planes[0][1] = nullptr;
  EXPECT_NE(launch_samples_to_planes(bad, nullptr), 0);
  bad = p;
  bad.frames = kMaxConvertFrames + 1;
  EXPECT_NE(launch_samples_to_planes(bad, nullptr), 0);
}

}  // namespace
}  // namespace flashvsr
