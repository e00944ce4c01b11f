// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Against GstVideoConverter, both ways, every format, matrix and range.
#include "image/color_convert.h"

#include <gst/video/video.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace flashvsr {
namespace {

const GstVideoFormat kGstFormats[kPixelFormatCount] = {
    GST_VIDEO_FORMAT_I420, GST_VIDEO_FORMAT_NV12,      GST_VIDEO_FORMAT_RGB,       GST_VIDEO_FORMAT_BGR,
    GST_VIDEO_FORMAT_RGBx, GST_VIDEO_FORMAT_BGRx,      GST_VIDEO_FORMAT_xRGB,      GST_VIDEO_FORMAT_xBGR,
    GST_VIDEO_FORMAT_RGBA, GST_VIDEO_FORMAT_BGRA,      GST_VIDEO_FORMAT_ARGB,      GST_VIDEO_FORMAT_ABGR,
    GST_VIDEO_FORMAT_GBR,  GST_VIDEO_FORMAT_Y42B,      GST_VIDEO_FORMAT_Y444,      GST_VIDEO_FORMAT_GRAY8,
    GST_VIDEO_FORMAT_I420_10LE, GST_VIDEO_FORMAT_P010_10LE};

bool is_rgb(PixelFormat format) {
  return (format >= PixelFormat::kRgb && format <= PixelFormat::kGbr);
}

// A frame in the caller's memory, strides longer than needed, sentinels in the padding.
struct Buffer {
  PixelFormat format;
  int width, height;
  std::vector<uint8_t> memory[4];
  FramePlanes planes;
  Buffer(PixelFormat f, int w, int h) : format(f), width(w), height(h) {
    for (int p = 0; p < format_planes(f); ++p) {
      const size_t row = plane_row_bytes(f, p, w);
      planes.stride[p] = (row + 7) / 4 * 4 + 8;
      memory[p].assign(planes.stride[p] * static_cast<size_t>(plane_rows(f, p, h)), 0xA5);
      planes.data[p] = memory[p].data();
    }
  }
  bool padding_is_whole() const {
    for (int p = 0; p < format_planes(format); ++p) {
      const size_t row = plane_row_bytes(format, p, width);
      for (int y = 0; y < plane_rows(format, p, height); ++y) {
        for (size_t x = row; x < planes.stride[p]; ++x) {
          if (memory[p][static_cast<size_t>(y) * planes.stride[p] + x] != 0xA5) return false;
        }
      }
    }
    return true;
  }
};

GstVideoInfo video_info(GstVideoFormat format, int width, int height, const ColorSpec& color, bool rgb) {
  GstVideoInfo info;
  gst_video_info_set_format(&info, format, static_cast<guint>(width), static_cast<guint>(height));
  info.chroma_site = GST_VIDEO_CHROMA_SITE_MPEG2;
  if (!rgb) {
    info.colorimetry.range = color.full_range ? GST_VIDEO_COLOR_RANGE_0_255 : GST_VIDEO_COLOR_RANGE_16_235;
    info.colorimetry.matrix = gst_video_color_matrix_from_iso(static_cast<guint>(color.matrix));
  } else {
    info.colorimetry.range = GST_VIDEO_COLOR_RANGE_0_255;
    info.colorimetry.matrix = GST_VIDEO_COLOR_MATRIX_RGB;
  }
  return info;
}

// GStreamer converts between the format and ARGB64: its 16-bit path. (Between formats of 8 bits it has
// short cuts in 8-bit arithmetic, off by as much as 7.)
struct GstPicture {
  GstVideoInfo info;
  GstBuffer* buffer;
  GstVideoFrame frame;
  GstPicture(GstVideoFormat format, int width, int height, const ColorSpec& color, bool rgb)
      : info(video_info(format, width, height, color, rgb)),
        buffer(gst_buffer_new_allocate(nullptr, info.size, nullptr)) {
    gst_video_frame_map(&frame, &info, buffer, GST_MAP_READWRITE);
  }
  GstPicture(const GstPicture&) = delete;
  ~GstPicture() {
    gst_video_frame_unmap(&frame);
    gst_buffer_unref(buffer);
  }
  uint8_t* row(int plane, int y) {
    return static_cast<uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, plane)) +
           static_cast<size_t>(y) * static_cast<size_t>(GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane));
  }
};

void gst_convert(GstPicture& in, GstPicture& out) {
  GstVideoConverter* converter = gst_video_converter_new(
      &in.info, &out.info,
      gst_structure_new("options", GST_VIDEO_CONVERTER_OPT_DITHER_METHOD, GST_TYPE_VIDEO_DITHER_METHOD,
                        GST_VIDEO_DITHER_NONE, nullptr));
  ASSERT_NE(converter, nullptr);
  gst_video_converter_frame(converter, &in.frame, &out.frame);
  gst_video_converter_free(converter);
}

PlanarImage gst_to_rgb(const Buffer& in, const ColorSpec& color) {
  GstPicture source(kGstFormats[static_cast<int>(in.format)], in.width, in.height, color, is_rgb(in.format));
  GstPicture wide(GST_VIDEO_FORMAT_ARGB64, in.width, in.height, color, true);
  for (int p = 0; p < format_planes(in.format); ++p) {
    for (int y = 0; y < plane_rows(in.format, p, in.height); ++y) {
      memcpy(source.row(p, y), in.memory[p].data() + static_cast<size_t>(y) * in.planes.stride[p],
             plane_row_bytes(in.format, p, in.width));
    }
  }
  gst_convert(source, wide);
  PlanarImage image(in.width, in.height, format_depth(in.format), false);
  for (int y = 0; y < in.height; ++y) {
    for (int x = 0; x < in.width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const int value = reinterpret_cast<uint16_t*>(wide.row(0, y))[4 * x + 1 + c];
        const int level = (value * image.max_value() + 32767) / 65535;
        const size_t i = static_cast<size_t>(y * in.width + x);
        if (image.depth() > 8) image.plane<uint16_t>(c)[i] = static_cast<uint16_t>(level);
        else image.plane<uint8_t>(c)[i] = static_cast<uint8_t>(level);
      }
    }
  }
  return image;
}

void gst_from_rgb(const PlanarImage& image, const ColorSpec& color, Buffer& out) {
  GstPicture wide(GST_VIDEO_FORMAT_ARGB64, out.width, out.height, color, true);
  GstPicture target(kGstFormats[static_cast<int>(out.format)], out.width, out.height, color, is_rgb(out.format));
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      uint16_t* pixel = reinterpret_cast<uint16_t*>(wide.row(0, y)) + 4 * x;
      pixel[0] = 65535;
      for (int c = 0; c < 3; ++c) {
        const size_t i = static_cast<size_t>(y * out.width + x);
        const int value = image.depth() > 8 ? image.plane<uint16_t>(c)[i] : image.plane<uint8_t>(c)[i];
        pixel[1 + c] = static_cast<uint16_t>(value * 65535 / image.max_value());
      }
    }
  }
  gst_convert(wide, target);
  for (int p = 0; p < format_planes(out.format); ++p) {
    for (int y = 0; y < plane_rows(out.format, p, out.height); ++y) {
      memcpy(out.memory[p].data() + static_cast<size_t>(y) * out.planes.stride[p], target.row(p, y),
             plane_row_bytes(out.format, p, out.width));
    }
  }
}

// Waves and a little noise, within the gamut.
PlanarImage picture(int width, int height, int depth, std::mt19937& random) {
  PlanarImage image(width, height, depth, true);
  for (int c = 0; c < 4; ++c) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const double wave = 0.5 + 0.3 * std::sin(0.11 * x + c) + 0.15 * std::cos(0.17 * y - 2 * c);
        const double value = (wave + static_cast<double>(random() % 100) / 4000) * image.max_value();
        const size_t i = static_cast<size_t>(y * width + x);
        if (depth > 8) image.plane<uint16_t>(c)[i] = static_cast<uint16_t>(value);
        else image.plane<uint8_t>(c)[i] = static_cast<uint8_t>(value);
      }
    }
  }
  return image;
}

int sample(const PlanarImage& image, int plane, size_t i) {
  return image.depth() > 8 ? image.plane<uint16_t>(plane)[i] : image.plane<uint8_t>(plane)[i];
}
int sample(const Buffer& buffer, int plane, int y, size_t x) {
  const uint8_t* row = buffer.memory[plane].data() + static_cast<size_t>(y) * buffer.planes.stride[plane];
  if (format_depth(buffer.format) == 8) return row[x];
  uint16_t value;
  memcpy(&value, row + 2 * x, 2);
  return buffer.format == PixelFormat::kP010_10le ? value >> 6 : value;
}
size_t row_samples(const Buffer& buffer, int plane) {
  return plane_row_bytes(buffer.format, plane, buffer.width) / (format_depth(buffer.format) > 8 ? 2 : 1);
}

class ColorConvert : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    setenv("GST_REGISTRY_DISABLE", "yes", 1);  // no plugin is needed
    gst_init(nullptr, nullptr);
  }
};

const int kSizes[][2] = {{64, 48}, {33, 17}, {16, 16}};

TEST_F(ColorConvert, AgreesWithGstreamerBothWays) {
  std::mt19937 random(9);
  int worst_to = 0, worst_from = 0;
  for (int f = 0; f < kPixelFormatCount; ++f) {
    const PixelFormat format = static_cast<PixelFormat>(f);
    const int depth = format_depth(format);
    // GStreamer rounds chroma after each filter and has matrices of 8 bits after the point
    const int tolerance = is_rgb(format) ? 0 : (depth > 8 ? 10 : 5);
    const double mean_tolerance = is_rgb(format) ? 0 : (depth > 8 ? 3.0 : 2.0);
    for (int matrix : {1, 4, 6, 7, 9}) {
      for (bool full_range : {false, true}) {
        const ColorSpec color{matrix, full_range};
        for (const auto& size : kSizes) {
          const PlanarImage image = picture(size[0], size[1], depth, random);
          Buffer ours(format, size[0], size[1]), theirs(format, size[0], size[1]);
          convert_from_rgb(image, format, color, ours.planes);
          EXPECT_TRUE(ours.padding_is_whole());
          gst_from_rgb(image, color, theirs);
          int worst = 0;
          double sum = 0, count = 0;
          for (int p = 0; p < format_planes(format); ++p) {
            for (int y = 0; y < plane_rows(format, p, size[1]); ++y) {
              for (size_t x = 0; x < row_samples(ours, p); ++x) {
                // the fourth component is opaque there, since GBR has no alpha
                if (format_has_alpha(format) && x % 4 == (f == 8 || f == 9 ? 3u : 0u)) continue;
                if (f >= 4 && f <= 7 && x % 4 == (f <= 5 ? 3u : 0u)) continue;  // the x byte
                const int difference = std::abs(sample(ours, p, y, x) - sample(theirs, p, y, x));
                worst = std::max(worst, difference);
                sum += difference;
                count += 1;
              }
            }
          }
          EXPECT_LE(sum / count, mean_tolerance) << "to format " << f << " matrix " << matrix << " full " << full_range;
          EXPECT_LE(worst, tolerance) << "to format " << f << " matrix " << matrix << " full " << full_range << " "
                                      << size[0] << "x" << size[1];
          worst_from = std::max(worst_from, depth > 8 ? worst / 4 : worst);

          PlanarImage back;
          convert_to_rgb(theirs.planes, format, color, size[0], size[1], back);
          const PlanarImage expected = gst_to_rgb(theirs, color);
          worst = 0;
          sum = count = 0;
          for (int c = 0; c < 3; ++c) {
            for (size_t i = 0; i < back.plane_samples(); ++i) {
              const int difference = std::abs(sample(back, c, i) - sample(expected, c, i));
              worst = std::max(worst, difference);
              sum += difference;
              count += 1;
            }
          }
          EXPECT_LE(sum / count, mean_tolerance) << "from format " << f << " matrix " << matrix << " full " << full_range;
          EXPECT_LE(worst, tolerance) << "from format " << f << " matrix " << matrix << " full " << full_range << " "
                                      << size[0] << "x" << size[1];
          worst_to = std::max(worst_to, depth > 8 ? worst / 4 : worst);
        }
      }
    }
  }
  printf("worst difference: to RGB %d, from RGB %d of 255\n", worst_to, worst_from);
}

// The header's formulas in double, rounded once.
struct Plain {
  double kr, kb, luma_offset, luma_scale, chroma_offset, chroma_scale, max;
  Plain(const ColorSpec& color, int depth) {
    const double unit = depth > 8 ? 4 : 1;
    max = depth > 8 ? 1023 : 255;
    luma_offset = color.full_range ? 0 : 16 * unit;
    luma_scale = color.full_range ? max : 219 * unit;
    chroma_offset = 128 * unit;
    chroma_scale = color.full_range ? max : 224 * unit;
    kr = 0.299, kb = 0.114;
    if (color.matrix == 1) kr = 0.2126, kb = 0.0722;
    if (color.matrix == 4) kr = 0.30, kb = 0.11;
    if (color.matrix == 7) kr = 0.212, kb = 0.087;
    if (color.matrix == 9) kr = 0.2627, kb = 0.0593;
  }
  double rounded(double value) const { return std::min(max, std::max(0.0, std::floor(value + 0.5))); }
};

TEST_F(ColorConvert, AgreesWithDoubleArithmetic) {
  std::mt19937 random(10);
  for (PixelFormat format : {PixelFormat::kI420, PixelFormat::kNv12, PixelFormat::kY42b, PixelFormat::kY444,
                             PixelFormat::kI420_10le, PixelFormat::kP010_10le}) {
    const int depth = format_depth(format);
    const bool across = format != PixelFormat::kY444;
    const bool down = across && format != PixelFormat::kY42b;
    const bool paired = format_planes(format) == 2;
    for (int matrix : {1, 4, 6, 7, 9, 2}) {
      for (bool full_range : {false, true}) {
        const Plain plain({matrix, full_range}, depth);
        const double kg = 1 - plain.kr - plain.kb;
        for (const auto& size : kSizes) {
          const int width = size[0], height = size[1];
          const int chroma_width = across ? (width + 1) / 2 : width, chroma_height = down ? (height + 1) / 2 : height;
          const PlanarImage image = picture(width, height, depth, random);
          Buffer buffer(format, width, height);
          convert_from_rgb(image, format, {matrix, full_range}, buffer.planes);
          const auto rgb = [&](int c, int x, int y) -> double {
            x = std::clamp(x, 0, width - 1);
            y = std::clamp(y, 0, height - 1);
            return sample(image, c, static_cast<size_t>(y * width + x));
          };
          const auto chroma_at = [&](int v, int cx, int cy) {
            return paired ? sample(buffer, 1, cy, static_cast<size_t>(2 * cx + v)) : sample(buffer, 1 + v, cy, static_cast<size_t>(cx));
          };
          for (int y = 0; y < height; ++y) {
            for (int x = 0; x < width; ++x) {
              const double luma = plain.kr * rgb(0, x, y) + kg * rgb(1, x, y) + plain.kb * rgb(2, x, y);
              ASSERT_LE(std::abs(sample(buffer, 0, y, static_cast<size_t>(x)) - plain.rounded(plain.luma_offset + luma / plain.max * plain.luma_scale)), 1);
            }
          }
          for (int cy = 0; cy < chroma_height; ++cy) {
            for (int cx = 0; cx < chroma_width; ++cx) {
              double mean[3];
              for (int c = 0; c < 3; ++c) {
                const auto column = [&](int x) { return down ? (rgb(c, x, 2 * cy) + rgb(c, x, 2 * cy + 1)) / 2 : rgb(c, x, cy); };
                mean[c] = across ? (column(2 * cx - 1) + 2 * column(2 * cx) + column(2 * cx + 1)) / 4 : column(cx);
              }
              const double luma = plain.kr * mean[0] + kg * mean[1] + plain.kb * mean[2];
              const double u = (mean[2] - luma) / (2 * (1 - plain.kb)), v = (mean[0] - luma) / (2 * (1 - plain.kr));
              ASSERT_LE(std::abs(chroma_at(0, cx, cy) - plain.rounded(plain.chroma_offset + u / plain.max * plain.chroma_scale)), 1);
              ASSERT_LE(std::abs(chroma_at(1, cx, cy) - plain.rounded(plain.chroma_offset + v / plain.max * plain.chroma_scale)), 1);
            }
          }
          PlanarImage back;
          convert_to_rgb(buffer.planes, format, {matrix, full_range}, width, height, back);
          for (int y = 0; y < height; ++y) {
            for (int x = 0; x < width; ++x) {
              double chroma[2];
              for (int v = 0; v < 2; ++v) {
                const auto row = [&](int cx) {
                  cx = std::min(cx, chroma_width - 1);
                  if (!down) return static_cast<double>(chroma_at(v, cx, y));
                  const int near = y / 2, far = std::clamp(y % 2 == 0 ? near - 1 : near + 1, 0, chroma_height - 1);
                  return (3.0 * chroma_at(v, cx, near) + chroma_at(v, cx, far)) / 4;
                };
                const double value = !across ? row(x) : x % 2 == 0 ? row(x / 2) : (row(x / 2) + row(x / 2 + 1)) / 2;
                chroma[v] = (value - plain.chroma_offset) * plain.max / plain.chroma_scale;
              }
              const double luma = (sample(buffer, 0, y, static_cast<size_t>(x)) - plain.luma_offset) * plain.max / plain.luma_scale;
              const double red = luma + 2 * (1 - plain.kr) * chroma[1], blue = luma + 2 * (1 - plain.kb) * chroma[0];
              const double green = (luma - plain.kr * red - plain.kb * blue) / kg;
              const size_t i = static_cast<size_t>(y * width + x);
              ASSERT_LE(std::abs(sample(back, 0, i) - plain.rounded(red)), 1);
              ASSERT_LE(std::abs(sample(back, 1, i) - plain.rounded(green)), 1);
              ASSERT_LE(std::abs(sample(back, 2, i) - plain.rounded(blue)), 1);
            }
          }
        }
      }
    }
  }
}

TEST_F(ColorConvert, RgbFormatsAreExactBothWays) {
  std::mt19937 random(4);
  for (int f = 0; f < kPixelFormatCount; ++f) {
    const PixelFormat format = static_cast<PixelFormat>(f);
    if (!is_rgb(format)) continue;
    const PlanarImage image = picture(21, 13, 8, random);
    Buffer buffer(format, 21, 13);
    convert_from_rgb(image, format, {}, buffer.planes);
    PlanarImage back;
    convert_to_rgb(buffer.planes, format, {}, 21, 13, back);
    for (int c = 0; c < back.planes(); ++c) {
      EXPECT_TRUE(std::equal(back.plane<uint8_t>(c), back.plane<uint8_t>(c) + back.plane_samples(), image.plane<uint8_t>(c))) << f;
    }
    EXPECT_EQ(back.has_alpha(), format_has_alpha(format));
  }
}

TEST_F(ColorConvert, GreysAndEndsOfRangeAreExact) {
  for (PixelFormat format : {PixelFormat::kI420, PixelFormat::kNv12, PixelFormat::kY42b, PixelFormat::kY444,
                             PixelFormat::kGray8, PixelFormat::kI420_10le, PixelFormat::kP010_10le}) {
    for (int matrix : {1, 6, 9}) {
      const int depth = format_depth(format);
      PlanarImage grey(16, 2, depth, false), back;
      for (int c = 0; c < 3; ++c) {
        for (size_t i = 0; i < 32; ++i) {
          const int value = static_cast<int>(i) * grey.max_value() / 31;
          if (depth > 8) grey.plane<uint16_t>(c)[i] = static_cast<uint16_t>(value);
          else grey.plane<uint8_t>(c)[i] = static_cast<uint8_t>(value);
        }
      }
      for (bool full_range : {false, true}) {
        Buffer buffer(format, 16, 2);
        convert_from_rgb(grey, format, {matrix, full_range}, buffer.planes);
        const int unit = depth > 8 ? 4 : 1;
        EXPECT_EQ(sample(buffer, 0, 0, 0), full_range ? 0 : 16 * unit);
        EXPECT_EQ(sample(buffer, 0, 1, 15), full_range ? grey.max_value() : 235 * unit);
        if (format_planes(format) > 1) {
          EXPECT_EQ(sample(buffer, 1, 0, 1), 128 * unit);
        }
        convert_to_rgb(buffer.planes, format, {matrix, full_range}, 16, 2, back);
        for (int c = 0; c < 3; ++c) {
          for (size_t i = 0; i < 32; ++i) EXPECT_LE(std::abs(sample(back, c, i) - sample(grey, c, i)), full_range ? 0 : 1);
        }
      }
    }
  }
}

TEST_F(ColorConvert, TenBitsKeepTheirLowBits) {
  PlanarImage image(64, 16, 10, false), back;
  for (int c = 0; c < 3; ++c) {
    for (size_t i = 0; i < image.plane_samples(); ++i) image.plane<uint16_t>(c)[i] = static_cast<uint16_t>(i);
  }
  for (PixelFormat format : {PixelFormat::kI420_10le, PixelFormat::kP010_10le}) {
    Buffer buffer(format, 64, 16);
    convert_from_rgb(image, format, {1, true}, buffer.planes);
    convert_to_rgb(buffer.planes, format, {1, true}, 64, 16, back);
    for (size_t i = 0; i < image.plane_samples(); ++i) EXPECT_EQ(sample(back, 1, i), static_cast<int>(i));
  }
}

TEST_F(ColorConvert, PrintsItsSpeed) {
  std::mt19937 random(1);
  for (PixelFormat format : {PixelFormat::kI420, PixelFormat::kNv12, PixelFormat::kRgb, PixelFormat::kBgra}) {
    PlanarImage image = picture(640, 360, 8, random);
    Buffer buffer(format, 640, 360);
    double ms[2] = {1e9, 1e9};
    for (int i = 0; i < 20; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      convert_from_rgb(image, format, {}, buffer.planes);
      const auto middle = std::chrono::steady_clock::now();
      convert_to_rgb(buffer.planes, format, {}, 640, 360, image);
      const auto end = std::chrono::steady_clock::now();
      ms[0] = std::min(ms[0], std::chrono::duration<double, std::milli>(middle - begin).count());
      ms[1] = std::min(ms[1], std::chrono::duration<double, std::milli>(end - middle).count());
    }
    printf("format %2d, 640x360: from RGB %.3f ms, to RGB %.3f ms\n", static_cast<int>(format), ms[0], ms[1]);
  }
}

}  // namespace
}  // namespace flashvsr
