// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) and
// Box-Muller. One counter gives four words, of which the first two make one value, so that
// every value depends on its own coordinates only.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cmath>

#include "model/upscaler.h"

namespace flashvsr {
namespace {

std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

}  // namespace

at::Tensor philox_noise(uint64_t seed, int64_t channels, int64_t first_frame, int64_t frames,
                        int64_t height, int64_t width, c10::Device device) {
  at::Tensor noise = at::empty({1, channels, frames, height, width}, at::kFloat);
  float* out = noise.data_ptr<float>();
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  at::parallel_for(0, channels * frames * height, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t y = row % height, frame = first_frame + row / height % frames,
                    channel = row / height / frames;
      for (int64_t x = 0; x < width; ++x) {
        const auto words = philox4x32_10({static_cast<uint32_t>(frame), static_cast<uint32_t>(channel),
                                          static_cast<uint32_t>(y), static_cast<uint32_t>(x)},
                                         key);
        // (0, 1]: the logarithm stays finite.
        const double u = (words[0] + 1.0) * 0x1p-32, v = words[1] * 0x1p-32;
        out[row * width + x] = static_cast<float>(std::sqrt(-2.0 * std::log(u)) *
                                                  std::cos(6.283185307179586 * v));
      }
    }
  });
  return noise.to(device);
}

}  // namespace flashvsr
