// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/color_convert.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "image/format_layout.h"
#include "image/vectorize.h"
#include "kernels/color_coefficients.h"

namespace flashvsr {
namespace {

FLASHVSR_INLINE int32_t clip(int32_t value, int32_t max) {
  value = value < 0 ? 0 : value;
  return value > max ? max : value;
}

// Chroma rows a (nearer) and b -> one chroma row times 8 at full width.
template <typename T, int kShift>
FLASHVSR_INLINE void upsample_chroma(const T* FLASHVSR_RESTRICT a, const T* FLASHVSR_RESTRICT b, int step, int chroma_width, bool is_halved, int width,
                                     int32_t* FLASHVSR_RESTRICT between, int32_t* FLASHVSR_RESTRICT out) {
  for (int i = 0; i < chroma_width; ++i) between[i] = 3 * (a[i * step] >> kShift) + (b[i * step] >> kShift);
  if (!is_halved) {
    for (int x = 0; x < width; ++x) out[x] = 2 * between[x];
    return;
  }
  between[chroma_width] = between[chroma_width - 1];
  const int pairs = width / 2;
  for (int i = 0; i < pairs; ++i) {
    out[2 * i] = 2 * between[i];
    out[2 * i + 1] = between[i] + between[i + 1];
  }
  if (width % 2 != 0) out[width - 1] = 2 * between[chroma_width - 1];
}

template <typename T, int kShift>
FLASHVSR_INLINE void matrix_row(const T* FLASHVSR_RESTRICT luma, const int32_t* FLASHVSR_RESTRICT u, const int32_t* FLASHVSR_RESTRICT v, int width, const ToRgb c, T* FLASHVSR_RESTRICT red,
                                T* FLASHVSR_RESTRICT green, T* FLASHVSR_RESTRICT blue) {
  const int bits = kColorBits + kChromaBits;
  const int32_t half = 1 << (bits - 1);
  for (int x = 0; x < width; ++x) {
    const int32_t y = ((luma[x] >> kShift) - c.luma_offset) * kChromaScale * c.luma + half;
    const int32_t cu = u[x] - c.chroma_offset;
    const int32_t cv = v[x] - c.chroma_offset;
    red[x] = static_cast<T>(clip((y + c.red_v * cv) >> bits, c.max));
    green[x] = static_cast<T>(clip((y + c.green_u * cu + c.green_v * cv) >> bits, c.max));
    blue[x] = static_cast<T>(clip((y + c.blue_u * cu) >> bits, c.max));
  }
}

// One row of one of the Y'CbCr formats.
struct YuvRow {
  const void* luma;
  const void *u_near, *u_far, *v_near, *v_far;
  int chroma_step, chroma_width, width;
  bool is_halved;
};

template <typename T, int kShift>
FLASHVSR_INLINE void yuv_row_to_rgb(const YuvRow& row, const ToRgb c, int32_t* FLASHVSR_RESTRICT scratch, T* FLASHVSR_RESTRICT red, T* FLASHVSR_RESTRICT green, T* FLASHVSR_RESTRICT blue) {
  int32_t* u = scratch;
  int32_t* v = u + row.width;
  int32_t* between = v + row.width;
  upsample_chroma<T, kShift>(static_cast<const T*>(row.u_near), static_cast<const T*>(row.u_far), row.chroma_step,
                             row.chroma_width, row.is_halved, row.width, between, u);
  upsample_chroma<T, kShift>(static_cast<const T*>(row.v_near), static_cast<const T*>(row.v_far), row.chroma_step,
                             row.chroma_width, row.is_halved, row.width, between, v);
  matrix_row<T, kShift>(static_cast<const T*>(row.luma), u, v, row.width, c, red, green, blue);
}

FLASHVSR_VECTORIZED void yuv_row_to_rgb_8(const YuvRow& row, const ToRgb& c, int32_t* scratch, uint8_t* red,
                                          uint8_t* green, uint8_t* blue) {
  if (row.chroma_step == 1) {
    YuvRow planar = row;
    planar.chroma_step = 1;
    yuv_row_to_rgb<uint8_t, 0>(planar, c, scratch, red, green, blue);
  } else {
    YuvRow paired = row;
    paired.chroma_step = 2;
    yuv_row_to_rgb<uint8_t, 0>(paired, c, scratch, red, green, blue);
  }
}
FLASHVSR_VECTORIZED void yuv_row_to_rgb_low10(const YuvRow& row, const ToRgb& c, int32_t* scratch, uint16_t* red,
                                              uint16_t* green, uint16_t* blue) {
  yuv_row_to_rgb<uint16_t, 0>(row, c, scratch, red, green, blue);
}
FLASHVSR_VECTORIZED void yuv_row_to_rgb_high10(const YuvRow& row, const ToRgb& c, int32_t* scratch, uint16_t* red,
                                               uint16_t* green, uint16_t* blue) {
  yuv_row_to_rgb<uint16_t, 6>(row, c, scratch, red, green, blue);
}

template <typename T, int kShift>
FLASHVSR_INLINE void luma_row(const T* FLASHVSR_RESTRICT red, const T* FLASHVSR_RESTRICT green, const T* FLASHVSR_RESTRICT blue, int width, const FromRgb c, T* FLASHVSR_RESTRICT luma) {
  for (int x = 0; x < width; ++x) {
    const int32_t y = (c.y_r * red[x] + c.y_g * green[x] + c.y_b * blue[x] + c.luma_offset) >> kColorBits;
    luma[x] = static_cast<T>(clip(y, c.max) << kShift);
  }
}

// Rows a and b of one component -> sums times 8 at the chroma's width.
template <typename T>
FLASHVSR_INLINE void downsample_row(const T* FLASHVSR_RESTRICT a, const T* FLASHVSR_RESTRICT b, int width, int chroma_width, bool is_halved, int32_t* FLASHVSR_RESTRICT between,
                                    int32_t* FLASHVSR_RESTRICT out) {
  if (!is_halved) {
    for (int x = 0; x < width; ++x) out[x] = 4 * (a[x] + b[x]);
    return;
  }
  between[0] = a[0] + b[0];  // the border, repeated; sums start at 1
  for (int x = 0; x < width; ++x) between[x + 1] = a[x] + b[x];
  between[width + 1] = between[width];
  for (int i = 0; i < chroma_width; ++i) out[i] = between[2 * i] + 2 * between[2 * i + 1] + between[2 * i + 2];
}

template <typename T, int kShift>
FLASHVSR_INLINE void chroma_row(const int32_t* FLASHVSR_RESTRICT red, const int32_t* FLASHVSR_RESTRICT green, const int32_t* FLASHVSR_RESTRICT blue, int chroma_width, int step,
                                const FromRgb c, T* FLASHVSR_RESTRICT u, T* FLASHVSR_RESTRICT v) {
  const int bits = kColorBits + kChromaBits;
  for (int i = 0; i < chroma_width; ++i) {
    const int32_t cu = (c.u_r * red[i] + c.u_g * green[i] + c.u_b * blue[i] + c.chroma_offset) >> bits;
    const int32_t cv = (c.v_r * red[i] + c.v_g * green[i] + c.v_b * blue[i] + c.chroma_offset) >> bits;
    u[i * step] = static_cast<T>(clip(cu, c.max) << kShift);
    v[i * step] = static_cast<T>(clip(cv, c.max) << kShift);
  }
}

// The rows that one row of chroma covers.
struct RgbRows {
  const void* red[2];
  const void* green[2];
  const void* blue[2];
  int width, chroma_width, chroma_step;
  bool is_halved;
};

template <typename T, int kShift>
FLASHVSR_INLINE void rgb_rows_to_chroma(const RgbRows& rows, const FromRgb c, int32_t* FLASHVSR_RESTRICT scratch, T* FLASHVSR_RESTRICT u, T* FLASHVSR_RESTRICT v) {
  int32_t* red = scratch;
  int32_t* green = red + rows.width;
  int32_t* blue = green + rows.width;
  int32_t* between = blue + rows.width;
  downsample_row<T>(static_cast<const T*>(rows.red[0]), static_cast<const T*>(rows.red[1]), rows.width,
                    rows.chroma_width, rows.is_halved, between, red);
  downsample_row<T>(static_cast<const T*>(rows.green[0]), static_cast<const T*>(rows.green[1]), rows.width,
                    rows.chroma_width, rows.is_halved, between, green);
  downsample_row<T>(static_cast<const T*>(rows.blue[0]), static_cast<const T*>(rows.blue[1]), rows.width,
                    rows.chroma_width, rows.is_halved, between, blue);
  chroma_row<T, kShift>(red, green, blue, rows.chroma_width, rows.chroma_step, c, u, v);
}

FLASHVSR_VECTORIZED void luma_row_8(const uint8_t* red, const uint8_t* green, const uint8_t* blue, int width,
                                    const FromRgb& c, uint8_t* luma) {
  luma_row<uint8_t, 0>(red, green, blue, width, c, luma);
}
FLASHVSR_VECTORIZED void luma_row_low10(const uint16_t* red, const uint16_t* green, const uint16_t* blue, int width,
                                        const FromRgb& c, uint16_t* luma) {
  luma_row<uint16_t, 0>(red, green, blue, width, c, luma);
}
FLASHVSR_VECTORIZED void luma_row_high10(const uint16_t* red, const uint16_t* green, const uint16_t* blue, int width,
                                         const FromRgb& c, uint16_t* luma) {
  luma_row<uint16_t, 6>(red, green, blue, width, c, luma);
}
FLASHVSR_VECTORIZED void chroma_8(const RgbRows& rows, const FromRgb& c, int32_t* scratch, uint8_t* u, uint8_t* v) {
  rgb_rows_to_chroma<uint8_t, 0>(rows, c, scratch, u, v);
}
FLASHVSR_VECTORIZED void chroma_low10(const RgbRows& rows, const FromRgb& c, int32_t* scratch, uint16_t* u,
                                      uint16_t* v) {
  rgb_rows_to_chroma<uint16_t, 0>(rows, c, scratch, u, v);
}
FLASHVSR_VECTORIZED void chroma_high10(const RgbRows& rows, const FromRgb& c, int32_t* scratch, uint16_t* u,
                                       uint16_t* v) {
  rgb_rows_to_chroma<uint16_t, 6>(rows, c, scratch, u, v);
}

template <int kStep>
FLASHVSR_INLINE void unpack_row(const uint8_t* FLASHVSR_RESTRICT in, int width, uint8_t* FLASHVSR_RESTRICT a, uint8_t* FLASHVSR_RESTRICT b, uint8_t* FLASHVSR_RESTRICT c, uint8_t* FLASHVSR_RESTRICT d) {
  for (int x = 0; x < width; ++x) {
    a[x] = in[kStep * x];
    b[x] = in[kStep * x + 1];
    c[x] = in[kStep * x + 2];
    if (kStep == 4) d[x] = in[kStep * x + 3];
  }
}
template <int kStep>
FLASHVSR_INLINE void pack_row(const uint8_t* FLASHVSR_RESTRICT a, const uint8_t* FLASHVSR_RESTRICT b, const uint8_t* FLASHVSR_RESTRICT c, const uint8_t* FLASHVSR_RESTRICT d, int width,
                              uint8_t* FLASHVSR_RESTRICT out) {
  for (int x = 0; x < width; ++x) {
    out[kStep * x] = a[x];
    out[kStep * x + 1] = b[x];
    out[kStep * x + 2] = c[x];
    if (kStep == 4) out[kStep * x + 3] = d[x];
  }
}
FLASHVSR_VECTORIZED void unpack_row_3(const uint8_t* in, int width, uint8_t* a, uint8_t* b, uint8_t* c) {
  unpack_row<3>(in, width, a, b, c, nullptr);
}
FLASHVSR_VECTORIZED void unpack_row_4(const uint8_t* in, int width, uint8_t* a, uint8_t* b, uint8_t* c, uint8_t* d) {
  unpack_row<4>(in, width, a, b, c, d);
}
FLASHVSR_VECTORIZED void pack_row_3(const uint8_t* a, const uint8_t* b, const uint8_t* c, int width, uint8_t* out) {
  pack_row<3>(a, b, c, nullptr, width, out);
}
FLASHVSR_VECTORIZED void pack_row_4(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d, int width,
                                    uint8_t* out) {
  pack_row<4>(a, b, c, d, width, out);
}

template <typename T>
const T* input_row(const FramePlanes& frame, int plane, int y) {
  return reinterpret_cast<const T*>(static_cast<const uint8_t*>(frame.data[plane]) +
                                    frame.stride[plane] * static_cast<size_t>(y));
}
template <typename T>
T* output_row(const FramePlanes& frame, int plane, int y) {
  return reinterpret_cast<T*>(static_cast<uint8_t*>(frame.data[plane]) + frame.stride[plane] * static_cast<size_t>(y));
}

template <typename T>
void yuv_to_rgb(const FramePlanes& in, PixelFormat format, const ColorSpec& color, int width, int height,
                PlanarImage& out) {
  const ToRgb c = to_rgb_coefficients(color.matrix, color.full_range, format_depth(format));
  const bool halved_across = is_halved_across(format);
  const bool halved_down = is_halved_down(format);
  const bool paired = is_paired(format);
  const int chroma_width = halved_across ? (width + 1) / 2 : width;
  const int chroma_height = halved_down ? (height + 1) / 2 : height;
  std::unique_ptr<int32_t[]> scratch(new int32_t[static_cast<size_t>(width) * 3 + 4]);
  for (int y = 0; y < height; ++y) {
    int near = y, far = y;
    if (halved_down) {
      near = y / 2;
      far = std::clamp(y % 2 == 0 ? near - 1 : near + 1, 0, chroma_height - 1);
    }
    YuvRow row;
    row.luma = input_row<T>(in, 0, y);
    if (paired) {
      row.u_near = input_row<T>(in, 1, near);
      row.u_far = input_row<T>(in, 1, far);
      row.v_near = input_row<T>(in, 1, near) + 1;
      row.v_far = input_row<T>(in, 1, far) + 1;
    } else {
      row.u_near = input_row<T>(in, 1, near);
      row.u_far = input_row<T>(in, 1, far);
      row.v_near = input_row<T>(in, 2, near);
      row.v_far = input_row<T>(in, 2, far);
    }
    row.chroma_step = paired ? 2 : 1;
    row.chroma_width = chroma_width;
    row.width = width;
    row.is_halved = halved_across;
    const size_t offset = static_cast<size_t>(y) * static_cast<size_t>(width);
    T* red = out.plane<T>(0) + offset;
    T* green = out.plane<T>(1) + offset;
    T* blue = out.plane<T>(2) + offset;
    if constexpr (sizeof(T) == 1) yuv_row_to_rgb_8(row, c, scratch.get(), red, green, blue);
    else if (paired) yuv_row_to_rgb_high10(row, c, scratch.get(), red, green, blue);
    else yuv_row_to_rgb_low10(row, c, scratch.get(), red, green, blue);
  }
}

template <typename T>
void rgb_to_yuv(const PlanarImage& in, PixelFormat format, const ColorSpec& color, const FramePlanes& out) {
  const FromRgb c = from_rgb_coefficients(color.matrix, color.full_range, format_depth(format));
  const int width = in.width(), height = in.height();
  const bool halved_across = is_halved_across(format);
  const bool halved_down = is_halved_down(format);
  const bool paired = is_paired(format);
  const auto source = [&](int plane, int y) {
    return in.plane<T>(plane) + static_cast<size_t>(y) * static_cast<size_t>(width);
  };
  std::unique_ptr<int32_t[]> scratch(new int32_t[static_cast<size_t>(width) * 4 + 4]);
  for (int y = 0; y < height; ++y) {
    T* luma = output_row<T>(out, 0, y);
    if constexpr (sizeof(T) == 1) luma_row_8(source(0, y), source(1, y), source(2, y), width, c, luma);
    else if (paired) luma_row_high10(source(0, y), source(1, y), source(2, y), width, c, luma);
    else luma_row_low10(source(0, y), source(1, y), source(2, y), width, c, luma);
    if (halved_down && y % 2 != 0) continue;
    const int second = halved_down ? std::min(y + 1, height - 1) : y;
    RgbRows rows;
    rows.red[0] = source(0, y);
    rows.red[1] = source(0, second);
    rows.green[0] = source(1, y);
    rows.green[1] = source(1, second);
    rows.blue[0] = source(2, y);
    rows.blue[1] = source(2, second);
    rows.width = width;
    rows.chroma_width = halved_across ? (width + 1) / 2 : width;
    rows.chroma_step = paired ? 2 : 1;
    rows.is_halved = halved_across;
    const int chroma_y = halved_down ? y / 2 : y;
    T* u = output_row<T>(out, 1, chroma_y);
    T* v = paired ? u + 1 : output_row<T>(out, 2, chroma_y);
    if constexpr (sizeof(T) == 1) chroma_8(rows, c, scratch.get(), u, v);
    else if (paired) chroma_high10(rows, c, scratch.get(), u, v);
    else chroma_low10(rows, c, scratch.get(), u, v);
  }
}

}  // namespace

int format_depth(PixelFormat format) {
  return format == PixelFormat::kI420_10le || format == PixelFormat::kP010_10le ? 10 : 8;
}

bool format_has_alpha(PixelFormat format) { return packing_of(format).alpha >= 0; }

int format_planes(PixelFormat format) {
  switch (format) {
    case PixelFormat::kI420:
    case PixelFormat::kGbr:
    case PixelFormat::kY42b:
    case PixelFormat::kY444:
    case PixelFormat::kI420_10le: return 3;
    case PixelFormat::kNv12:
    case PixelFormat::kP010_10le: return 2;
    default: return 1;
  }
}

size_t plane_row_bytes(PixelFormat format, int plane, int width) {
  const size_t w = static_cast<size_t>(width);
  const size_t half = (w + 1) / 2;
  switch (format) {
    case PixelFormat::kI420:
    case PixelFormat::kY42b: return plane == 0 ? w : half;
    case PixelFormat::kNv12: return plane == 0 ? w : 2 * half;
    case PixelFormat::kI420_10le: return 2 * (plane == 0 ? w : half);
    case PixelFormat::kP010_10le: return 2 * (plane == 0 ? w : 2 * half);
    case PixelFormat::kGbr:
    case PixelFormat::kY444:
    case PixelFormat::kGray8: return w;
    default: return w * static_cast<size_t>(packing_of(format).step);
  }
}

int plane_rows(PixelFormat format, int plane, int height) {
  switch (format) {
    case PixelFormat::kI420:
    case PixelFormat::kNv12:
    case PixelFormat::kI420_10le:
    case PixelFormat::kP010_10le: return plane == 0 ? height : (height + 1) / 2;
    default: return height;
  }
}

void convert_to_rgb(const FramePlanes& in, PixelFormat format, const ColorSpec& color, int width, int height,
                    PlanarImage& out) {
  out.reset(width, height, format_depth(format), format_has_alpha(format));
  const size_t w = static_cast<size_t>(width);
  switch (format) {
    case PixelFormat::kI420:
    case PixelFormat::kNv12:
    case PixelFormat::kY42b:
    case PixelFormat::kY444: yuv_to_rgb<uint8_t>(in, format, color, width, height, out); return;
    case PixelFormat::kI420_10le:
    case PixelFormat::kP010_10le: yuv_to_rgb<uint16_t>(in, format, color, width, height, out); return;
    case PixelFormat::kGbr:
      for (int y = 0; y < height; ++y) {
        const size_t offset = static_cast<size_t>(y) * w;
        std::memcpy(out.plane<uint8_t>(1) + offset, input_row<uint8_t>(in, 0, y), w);
        std::memcpy(out.plane<uint8_t>(2) + offset, input_row<uint8_t>(in, 1, y), w);
        std::memcpy(out.plane<uint8_t>(0) + offset, input_row<uint8_t>(in, 2, y), w);
      }
      return;
    case PixelFormat::kGray8: {
      uint8_t value[256];
      grey_levels(color.full_range, value);
      for (int y = 0; y < height; ++y) {
        const uint8_t* row = input_row<uint8_t>(in, 0, y);
        uint8_t* target = out.plane<uint8_t>(0) + static_cast<size_t>(y) * w;
        for (size_t x = 0; x < w; ++x) target[x] = value[row[x]];
      }
      std::memcpy(out.plane<uint8_t>(1), out.plane<uint8_t>(0), out.plane_samples());
      std::memcpy(out.plane<uint8_t>(2), out.plane<uint8_t>(0), out.plane_samples());
      return;
    }
    default: break;
  }
  const Packing packing = packing_of(format);
  std::unique_ptr<uint8_t[]> unused(new uint8_t[w]);
  for (int y = 0; y < height; ++y) {
    const uint8_t* row = input_row<uint8_t>(in, 0, y);
    uint8_t* component[4];
    const size_t offset = static_cast<size_t>(y) * w;
    component[packing.red] = out.plane<uint8_t>(0) + offset;
    component[packing.green] = out.plane<uint8_t>(1) + offset;
    component[packing.blue] = out.plane<uint8_t>(2) + offset;
    if (packing.alpha >= 0) component[packing.alpha] = out.plane<uint8_t>(3) + offset;
    if (packing.filler >= 0) component[packing.filler] = unused.get();
    if (packing.step == 3) unpack_row_3(row, width, component[0], component[1], component[2]);
    else unpack_row_4(row, width, component[0], component[1], component[2], component[3]);
  }
}

void convert_from_rgb(const PlanarImage& in, PixelFormat format, const ColorSpec& color, const FramePlanes& out) {
  FLASHVSR_CHECK(in.depth() == format_depth(format), ErrorCode::kInternal, "color_convert: picture of ", in.depth(),
                 " bits for a format of ", format_depth(format));
  const int width = in.width(), height = in.height();
  const size_t w = static_cast<size_t>(width);
  switch (format) {
    case PixelFormat::kI420:
    case PixelFormat::kNv12:
    case PixelFormat::kY42b:
    case PixelFormat::kY444: rgb_to_yuv<uint8_t>(in, format, color, out); return;
    case PixelFormat::kI420_10le:
    case PixelFormat::kP010_10le: rgb_to_yuv<uint16_t>(in, format, color, out); return;
    case PixelFormat::kGbr:
      for (int y = 0; y < height; ++y) {
        const size_t offset = static_cast<size_t>(y) * w;
        std::memcpy(output_row<uint8_t>(out, 0, y), in.plane<uint8_t>(1) + offset, w);
        std::memcpy(output_row<uint8_t>(out, 1, y), in.plane<uint8_t>(2) + offset, w);
        std::memcpy(output_row<uint8_t>(out, 2, y), in.plane<uint8_t>(0) + offset, w);
      }
      return;
    case PixelFormat::kGray8: {
      const FromRgb c = from_rgb_coefficients(color.matrix, color.full_range, 8);
      for (int y = 0; y < height; ++y) {
        const size_t offset = static_cast<size_t>(y) * w;
        luma_row_8(in.plane<uint8_t>(0) + offset, in.plane<uint8_t>(1) + offset, in.plane<uint8_t>(2) + offset, width,
                   c, output_row<uint8_t>(out, 0, y));
      }
      return;
    }
    default: break;
  }
  const Packing packing = packing_of(format);
  std::unique_ptr<uint8_t[]> opaque(new uint8_t[w]);
  std::memset(opaque.get(), 255, w);
  for (int y = 0; y < height; ++y) {
    const uint8_t* component[4];
    const size_t offset = static_cast<size_t>(y) * w;
    component[packing.red] = in.plane<uint8_t>(0) + offset;
    component[packing.green] = in.plane<uint8_t>(1) + offset;
    component[packing.blue] = in.plane<uint8_t>(2) + offset;
    if (packing.alpha >= 0) component[packing.alpha] = in.has_alpha() ? in.plane<uint8_t>(3) + offset : opaque.get();
    if (packing.filler >= 0) component[packing.filler] = opaque.get();
    uint8_t* row = output_row<uint8_t>(out, 0, y);
    if (packing.step == 3) pack_row_3(component[0], component[1], component[2], width, row);
    else pack_row_4(component[0], component[1], component[2], component[3], width, row);
  }
}

}  // namespace flashvsr
