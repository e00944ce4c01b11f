// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/finish_frames.h"

#include <cmath>

#include "kernels/finish_frames_internal.h"

namespace flashvsr {
namespace {

// To the type of the frames.
float rounded(const FinishFramesParams& p, float value) { return p.input.is_fp32 ? value : bf16_to_float(float_to_bf16(value)); }

struct Statistics {
  float mean, deviation;
};

Statistics statistics(const FinishFramesParams& p, const ModelFrames& m, int64_t channel, int64_t frame) {
  const double count = double{1} * p.height * p.width;
  double sum = 0, squares = 0;
  for (int64_t y = 0; y < p.height; ++y) {
    for (int64_t x = 0; x < p.width; ++x) sum += frame_value(m, channel, frame, y, x);
  }
  const double mean = sum / count;
  for (int64_t y = 0; y < p.height; ++y) {
    for (int64_t x = 0; x < p.width; ++x) {
      const double difference = frame_value(m, channel, frame, y, x) - mean;
      squares += difference * difference;
    }
  }
  const float variance = rounded(p, static_cast<float>(squares / count));
  return {rounded(p, static_cast<float>(mean)), rounded(p, std::sqrt(rounded(p, variance + 1e-5f)))};
}

}  // namespace

size_t finish_frames_workspace_bytes(int32_t frames) { return size_t{2} * 3 * 32 * 16 * static_cast<size_t>(frames); }

int check_finish_frames(const FinishFramesParams& p) {
  if (!p.input.data || !p.samples || p.frames < 1 || p.height < 1 || p.width < 1 || p.max_value < 1 ||
      p.max_value > 65535 || p.frames > 21845 || int64_t{p.height} * p.width >= int64_t{1} << 31) {
    return 1;
  }
  return p.style.data && (!p.workspace || reinterpret_cast<uintptr_t>(p.workspace) % 16 || p.style.is_fp32);
}

int finish_frames_ref(const FinishFramesParams& p) {
  if (check_finish_frames(p)) return 1;
  const float max = static_cast<float>(p.max_value), half = max / 2.f, offset = p.nearest ? .5f : 0.f;
  for (int64_t frame = 0; frame < p.frames; ++frame) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      Statistics content{}, style{};
      if (p.style.data) {
        content = statistics(p, p.input, channel, frame);
        style = statistics(p, p.style, channel, frame);
      }
      for (int64_t y = 0; y < p.height; ++y) {
        for (int64_t x = 0; x < p.width; ++x) {
          float value = frame_value(p.input, channel, frame, y, x);
          if (p.style.data) {
            value = rounded(p, rounded(p, value - content.mean) / content.deviation);
            value = rounded(p, rounded(p, value * style.deviation) + style.mean);
            value = std::fmin(std::fmax(value, -1.f), 1.f);  // NaN: -1
          }
          float level = value + 1.f;
          level = level * half;
          level = std::fmin(std::fmax(level + offset, 0.f), max);
          const int64_t at = ((frame * 3 + channel) * p.height + y) * p.width + x;
          if (p.max_value > 255) static_cast<uint16_t*>(p.samples)[at] = static_cast<uint16_t>(level);
          else static_cast<uint8_t*>(p.samples)[at] = static_cast<uint8_t>(level);
        }
      }
    }
  }
  return 0;
}

}  // namespace flashvsr
