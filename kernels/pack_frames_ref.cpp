// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/pack_frames.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/bf16.h"

namespace flashvsr {
namespace {

bool is_aligned(const void* pointer) { return pointer && (reinterpret_cast<uintptr_t>(pointer) & 15) == 0; }

}  // namespace

int check_pack_frames(const PackFramesParams& p) {
  if (!is_aligned(p.frames) || !is_aligned(p.output)) return 1;
  if (p.steps < 1 || p.steps > 65535 || p.height < 1 || p.height > 65533 || p.width < 1 || p.group < 1 || p.missing < 0 ||
      p.latent_channels < 0 || p.latent_channels % 8 || (p.unshuffle != 8 && p.unshuffle != 16)) {
    return 1;
  }
  if (p.plane_stride % 8 || p.frame_stride % 8 || p.row_stride % 8) return 1;
  return int64_t{3} * p.group * p.unshuffle * p.unshuffle + p.latent_channels > 1528;
}

int check_pad_steps(const PadStepsParams& p) {
  if (!is_aligned(p.input) || !is_aligned(p.output)) return 1;
  if (p.steps < 1 || p.steps > 65535 || p.height < 1 || p.height > 65533 || p.width < 1 || p.channels < 8 || p.channels % 8) {
    return 1;
  }
  return (p.in_stride_t % 8 || p.in_stride_y % 8 || p.in_stride_x % 8) ? 1 : 0;
}

int pack_frames_ref(const PackFramesParams& p) {
  if (check_pack_frames(p)) return 1;
  const int u = p.unshuffle, border = p.border ? 1 : 0;
  uint16_t* out = p.output;
  const auto put = [&](uint16_t bits) {
    if (!p.squash) {
      *out++ = bits;
      return;
    }
    const double third = round_to_bf16(double{bf16_to_float(bits)} / 3);
    *out++ = float_to_bf16(3 * round_to_bf16(std::tanh(third)));
  };
  for (int step = 0; step < p.steps; ++step) {
    for (int row = -border; row < p.height + border; ++row) {
      for (int column = -border; column < p.width + border; ++column) {
        const int64_t y = std::clamp(row, 0, p.height - 1), x = std::clamp(column, 0, p.width - 1);
        for (int c = 0; c < 3; ++c) {
          for (int t = 0; t < p.group; ++t) {
            const int64_t frame = std::max(0, step * p.group + t - p.missing);
            for (int dy = 0; dy < u; ++dy) {
              for (int dx = 0; dx < u; ++dx) {
                put(p.frames[c * p.plane_stride + frame * p.frame_stride + (y * u + dy) * p.row_stride + x * u + dx]);
              }
            }
          }
        }
        for (int l = 0; l < p.latent_channels; ++l) {
          put(p.latents ? p.latents[l * p.latent_stride_c + step * p.latent_stride_t + y * p.latent_stride_y +
                                    x * p.latent_stride_x]
                        : uint16_t{0});
        }
      }
    }
  }
  return 0;
}

int pad_steps_ref(const PadStepsParams& p) {
  if (check_pad_steps(p)) return 1;
  uint16_t* out = p.output;
  for (int step = 0; step < p.steps; ++step) {
    for (int row = -1; row <= p.height; ++row) {
      for (int column = -1; column <= p.width; ++column) {
        const int64_t y = std::clamp(row, 0, p.height - 1), x = std::clamp(column, 0, p.width - 1);
        std::memcpy(out, p.input + step * p.in_stride_t + y * p.in_stride_y + x * p.in_stride_x, size_t(p.channels) * 2);
        out += p.channels;
      }
    }
  }
  return 0;
}

}  // namespace flashvsr
