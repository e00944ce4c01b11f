// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/wavelet_color.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/finish_frames_internal.h"

namespace flashvsr {
namespace {

// Nine taps with dilation r; a neighbour outside is the nearest value inside.
std::vector<double> blurred(const std::vector<double>& x, int64_t height, int64_t width, int64_t r) {
  std::vector<double> result(x.size());
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t column = 0; column < width; ++column) {
      double sum = 0;
      for (int64_t i = -1; i <= 1; ++i) {
        for (int64_t j = -1; j <= 1; ++j) {
          const int64_t from_y = std::clamp<int64_t>(y + i * r, 0, height - 1);
          const int64_t from_x = std::clamp<int64_t>(column + j * r, 0, width - 1);
          sum += (i == 0 ? 2 : 1) * (j == 0 ? 2 : 1) * x[static_cast<size_t>(from_y * width + from_x)];
        }
      }
      result[static_cast<size_t>(y * width + column)] = sum / 16;
    }
  }
  return result;
}

}  // namespace

int check_wavelet_color(const FinishFramesParams& p) {
  FinishFramesParams plain = p;
  plain.style = {};
  return check_finish_frames(plain) || !p.style.data || p.style.is_fp32;
}

int wavelet_color_ref(const FinishFramesParams& p) {
  if (check_wavelet_color(p)) return 1;
  const size_t area = static_cast<size_t>(p.height) * static_cast<size_t>(p.width);
  std::vector<double> content(area), low(area);
  for (int64_t plane = 0; plane < int64_t{3} * p.frames; ++plane) {
    const auto value = [&](const ModelFrames& m, int64_t y, int64_t x) {
      return static_cast<double>(frame_value(m, plane % 3, plane / 3, y, x));
    };
    for (int64_t y = 0, at = 0; y < p.height; ++y) {
      for (int64_t x = 0; x < p.width; ++x, ++at) {
        content[static_cast<size_t>(at)] = value(p.input, y, x);
        low[static_cast<size_t>(at)] = value(p.style, y, x) - value(p.input, y, x);
      }
    }
    for (const int64_t r : {1, 2, 4, 8, 16}) low = blurred(low, p.height, p.width, r);
    for (size_t i = 0; i < area; ++i) {
      const double v = std::fmin(std::fmax(content[i] + low[i], -1.), 1.);  // NaN: -1
      const double level = std::fmin((v + 1) * p.max_value / 2 + (p.nearest ? .5 : 0), p.max_value);
      const size_t at = static_cast<size_t>(plane) * area + i;
      if (p.max_value > 255) static_cast<uint16_t*>(p.samples)[at] = static_cast<uint16_t>(level);
      else static_cast<uint8_t*>(p.samples)[at] = static_cast<uint8_t>(level);
    }
  }
  return 0;
}

}  // namespace flashvsr
