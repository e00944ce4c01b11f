// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pixel by pixel, straight from the formulas.
#include "kernels/color_convert.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace flashvsr {
namespace {

int planes_of(PlanesKind kind) {
  switch (kind) {
    case PlanesKind::kYuvPaired: return 2;
    case PlanesKind::kYuvHalved:
    case PlanesKind::kYuvFull:
    case PlanesKind::kGbr: return 3;
    default: return 1;
  }
}

bool is_yuv(PlanesKind kind) {
  return kind == PlanesKind::kYuvPaired || kind == PlanesKind::kYuvHalved || kind == PlanesKind::kYuvFull;
}

// Sample `index` of a row of a plane.
template <typename Sample>
Sample& place(const ConvertPlanesParams& p, int frame, int plane, int y, int index) {
  auto* row = static_cast<uint8_t*>(p.planes[frame][plane]) + p.strides[frame][plane] * y;
  return reinterpret_cast<Sample*>(row)[index];
}

template <typename Sample>
Sample& sample(const ConvertPlanesParams& p, int frame, int plane, int y, int x) {
  return static_cast<Sample*>(p.samples)[((int64_t{frame} * 3 + plane) * p.height + y) * p.width + x];
}

template <typename Sample>
Sample& chroma_place(const ConvertPlanesParams& p, int frame, int component, int y, int x) {
  return p.kind == PlanesKind::kYuvPaired ? place<Sample>(p, frame, 1, y, 2 * x + component)
                                          : place<Sample>(p, frame, 1 + component, y, x);
}

// Chroma at pixel (x, y), times 8: halfway columns and quarter rows by linear interpolation, borders repeated.
template <typename Sample>
int chroma_at(const ConvertPlanesParams& p, int frame, int component, int y, int x) {
  const bool halved = p.kind != PlanesKind::kYuvFull;
  const int width = halved ? (p.width + 1) / 2 : p.width, height = p.halved_down ? (p.height + 1) / 2 : p.height;
  const int near = p.halved_down ? y / 2 : y;
  const int far = p.halved_down ? std::clamp(near + (y % 2 ? 1 : -1), 0, height - 1) : y;
  const auto column = [&](int at) {
    at = std::min(at, width - 1);
    return 3 * (chroma_place<Sample>(p, frame, component, near, at) >> p.shift) +
           (chroma_place<Sample>(p, frame, component, far, at) >> p.shift);
  };
  if (!halved) return 2 * column(x);
  return column(x / 2) + column((x + 1) / 2);
}

template <typename Sample>
std::array<int, 3> pixel_from_planes(const ConvertPlanesParams& p, int frame, int y, int x) {
  if (p.kind == PlanesKind::kGrey) {
    const int grey = p.grey[place<uint8_t>(p, frame, 0, y, x)];
    return {grey, grey, grey};
  }
  if (p.kind == PlanesKind::kGbr) {
    return {place<uint8_t>(p, frame, 2, y, x), place<uint8_t>(p, frame, 0, y, x), place<uint8_t>(p, frame, 1, y, x)};
  }
  if (p.kind == PlanesKind::kPacked) {
    const uint8_t* pixel = &place<uint8_t>(p, frame, 0, y, x * p.step);
    return {pixel[p.red], pixel[p.green], pixel[p.blue]};
  }
  const ToRgb& c = p.to_rgb;
  const int64_t level =
      int64_t{(place<Sample>(p, frame, 0, y, x) >> p.shift) - c.luma_offset} * kChromaScale * c.luma;
  const int64_t u = chroma_at<Sample>(p, frame, 0, y, x) - c.chroma_offset;
  const int64_t v = chroma_at<Sample>(p, frame, 1, y, x) - c.chroma_offset;
  const auto rounded = [&](int64_t value) {
    const int bits = kColorBits + kChromaBits;
    return static_cast<int>(std::clamp<int64_t>((value + (int64_t{1} << (bits - 1))) >> bits, 0, c.max));
  };
  return {rounded(level + c.red_v * v), rounded(level + c.green_u * u + c.green_v * v), rounded(level + c.blue_u * u)};
}

template <typename Sample>
void to_samples(const ConvertPlanesParams& p) {
  for (int frame = 0; frame < p.frames; ++frame) {
    for (int y = 0; y < p.height; ++y) {
      for (int x = 0; x < p.width; ++x) {
        const auto pixel = pixel_from_planes<Sample>(p, frame, y, x);
        for (int c = 0; c < 3; ++c) sample<Sample>(p, frame, c, y, x) = static_cast<Sample>(pixel[static_cast<size_t>(c)]);
      }
    }
  }
}

// One component over what a chroma sample covers, times 8.
template <typename Sample>
int64_t covered(const ConvertPlanesParams& p, int frame, int component, int chroma_y, int chroma_x) {
  const bool halved = p.kind != PlanesKind::kYuvFull;
  const int rows[2] = {p.halved_down ? 2 * chroma_y : chroma_y,
                       p.halved_down ? std::min(2 * chroma_y + 1, p.height - 1) : chroma_y};
  int64_t sum = 0;
  for (const int y : rows) {
    for (int k = -1; k <= 1; ++k) {
      const int x = halved ? std::clamp(2 * chroma_x + k, 0, p.width - 1) : chroma_x;
      sum += (k == 0 ? 2 : 1) * sample<Sample>(p, frame, component, y, x);
    }
  }
  return sum;
}

template <typename Sample>
void to_yuv(const ConvertPlanesParams& p, int frame) {
  const FromRgb& c = p.from_rgb;
  const int width = p.kind == PlanesKind::kYuvFull ? p.width : (p.width + 1) / 2;
  const int height = p.halved_down ? (p.height + 1) / 2 : p.height;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const int64_t red = covered<Sample>(p, frame, 0, y, x), green = covered<Sample>(p, frame, 1, y, x),
                    blue = covered<Sample>(p, frame, 2, y, x);
      const auto put = [&](int component, int64_t value) {
        value = std::clamp<int64_t>((value + c.chroma_offset) >> (kColorBits + kChromaBits), 0, c.max);
        chroma_place<Sample>(p, frame, component, y, x) = static_cast<Sample>(value << p.shift);
      };
      put(0, c.u_r * red + c.u_g * green + c.u_b * blue);
      put(1, c.v_r * red + c.v_g * green + c.v_b * blue);
    }
  }
}

template <typename Sample>
void to_planes(const ConvertPlanesParams& p) {
  const FromRgb& c = p.from_rgb;
  for (int frame = 0; frame < p.frames; ++frame) {
    for (int y = 0; y < p.height; ++y) {
      for (int x = 0; x < p.width; ++x) {
        const int red = sample<Sample>(p, frame, 0, y, x), green = sample<Sample>(p, frame, 1, y, x),
                  blue = sample<Sample>(p, frame, 2, y, x);
        if (p.kind == PlanesKind::kPacked) {
          uint8_t* pixel = &place<uint8_t>(p, frame, 0, y, x * p.step);
          std::memset(pixel, 255, static_cast<size_t>(p.step));
          pixel[p.red] = static_cast<uint8_t>(red);
          pixel[p.green] = static_cast<uint8_t>(green);
          pixel[p.blue] = static_cast<uint8_t>(blue);
        } else if (p.kind == PlanesKind::kGbr) {
          place<uint8_t>(p, frame, 0, y, x) = static_cast<uint8_t>(green);
          place<uint8_t>(p, frame, 1, y, x) = static_cast<uint8_t>(blue);
          place<uint8_t>(p, frame, 2, y, x) = static_cast<uint8_t>(red);
        } else {
          const int64_t luma = (int64_t{c.y_r} * red + c.y_g * green + c.y_b * blue + c.luma_offset) >> kColorBits;
          place<Sample>(p, frame, 0, y, x) = static_cast<Sample>(std::clamp<int64_t>(luma, 0, c.max) << p.shift);
        }
      }
    }
    if (is_yuv(p.kind)) to_yuv<Sample>(p, frame);
  }
}

}  // namespace

int check_convert_planes(const ConvertPlanesParams& p) {
  if (!p.samples || p.frames < 1 || p.frames > kMaxConvertFrames || p.height < 1 || p.width < 1 || p.width > 1 << 24 ||
      int64_t{p.height} * p.width >= int64_t{1} << 31) {
    return 1;
  }
  if (p.kind == PlanesKind::kPacked && (p.step < 3 || p.step > 4 || p.red < 0 || p.red >= p.step || p.green < 0 ||
                                        p.green >= p.step || p.blue < 0 || p.blue >= p.step)) {
    return 1;
  }
  if (p.is_16_bit && p.kind != PlanesKind::kYuvPaired && p.kind != PlanesKind::kYuvHalved) return 1;
  if (p.halved_down && p.kind != PlanesKind::kYuvPaired && p.kind != PlanesKind::kYuvHalved) return 1;
  if (p.shift < 0 || p.shift > (p.is_16_bit ? 6 : 0)) return 1;
  for (int frame = 0; frame < p.frames; ++frame) {
    for (int plane = 0; plane < planes_of(p.kind); ++plane) {
      const auto address = reinterpret_cast<uintptr_t>(p.planes[frame][plane]);
      if (address == 0 || (p.is_16_bit && (address % 2 || p.strides[frame][plane] % 2))) return 1;
    }
  }
  return 0;
}

int planes_to_samples_ref(const ConvertPlanesParams& p) {
  if (check_convert_planes(p)) return 1;
  p.is_16_bit ? to_samples<uint16_t>(p) : to_samples<uint8_t>(p);
  return 0;
}

int samples_to_planes_ref(const ConvertPlanesParams& p) {
  if (check_convert_planes(p)) return 1;
  p.is_16_bit ? to_planes<uint16_t>(p) : to_planes<uint8_t>(p);
  return 0;
}

}  // namespace flashvsr
