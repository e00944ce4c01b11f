// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/resize_samples.h"

#include <algorithm>

#include "kernels/bf16.h"

namespace flashvsr {

int check_resize_axis(const ResizeAxisParams& p) {
  return !p.input || !p.output || !p.first || !p.weights || p.planes < 1 || p.in_height < 1 || p.in_width < 1 ||
         p.out_size < 1 || p.taps < 1 || p.bits < 1 || p.bits > 30 || p.max_value < 1;
}

int check_normalize_samples(const NormalizeSamplesParams& p) {
  return !p.input || !p.output || p.frames < 1 || p.height < 1 || p.width < 1 || p.padded_height < p.height ||
         p.padded_width < p.width || p.max_value < 1;
}

template <typename Sample>
static void resize(const ResizeAxisParams& p) {
  const auto* in = static_cast<const Sample*>(p.input);
  auto* out = static_cast<Sample*>(p.output);
  const int64_t height = p.vertical ? p.out_size : p.in_height, width = p.vertical ? p.in_width : p.out_size;
  for (int64_t plane = 0; plane < p.planes; ++plane) {
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        const int64_t at = p.vertical ? y : x;
        int64_t sum = int64_t{1} << (p.bits - 1);
        for (int k = 0; k < p.taps; ++k) {
          const int64_t from = std::min<int64_t>(p.first[at] + k, (p.vertical ? p.in_height : p.in_width) - 1);
          const int64_t place = p.vertical ? (plane * p.in_height + from) * p.in_width + x
                                           : (plane * p.in_height + y) * p.in_width + from;
          sum += int64_t{in[place]} * p.weights[at * p.taps + k];
        }
        out[(plane * height + y) * width + x] =
            static_cast<Sample>(std::clamp<int64_t>(sum >> p.bits, 0, p.max_value));
      }
    }
  }
}

int resize_axis_ref(const ResizeAxisParams& p) {
  if (check_resize_axis(p)) return 1;
  p.is_16_bit ? resize<uint16_t>(p) : resize<uint8_t>(p);
  return 0;
}

int normalize_samples_ref(const NormalizeSamplesParams& p) {
  if (check_normalize_samples(p)) return 1;
  const auto mirrored = [](int64_t at, int64_t size) {
    while (at >= 2 * size) at -= 2 * size;
    return at < size ? at : 2 * size - 1 - at;
  };
  for (int64_t f = 0; f < p.frames; ++f) {
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < p.padded_height; ++y) {
        for (int64_t x = 0; x < p.padded_width; ++x) {
          const int64_t from = ((f * 3 + c) * p.height + mirrored(y, p.height)) * p.width + mirrored(x, p.width);
          const int sample = p.is_16_bit ? static_cast<const uint16_t*>(p.input)[from]
                                         : static_cast<const uint8_t*>(p.input)[from];
          const float ratio = static_cast<float>(sample) / static_cast<float>(p.max_value);
          const float twice = ratio * 2.f;
          p.output[((c * p.frames + f) * p.padded_height + y) * p.padded_width + x] = float_to_bf16(twice - 1.f);
        }
      }
    }
  }
  return 0;
}

}  // namespace flashvsr
