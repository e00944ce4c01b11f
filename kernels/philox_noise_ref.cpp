// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/philox_noise.h"

#include <cmath>

namespace flashvsr {

int philox_noise_ref(const PhiloxNoiseParams& p) {
  if (!p.output || p.channels < 1 || p.frames < 1 || p.height < 1 || p.width < 1) return 1;
  float* out = p.output;
  for (int channel = 0; channel < p.channels; ++channel) {
    for (int frame = 0; frame < p.frames; ++frame) {
      for (int y = 0; y < p.height; ++y) {
        for (int x = 0; x < p.width; ++x) {
          uint32_t c[4] = {static_cast<uint32_t>(p.first_frame + frame), static_cast<uint32_t>(channel),
                           static_cast<uint32_t>(y), static_cast<uint32_t>(x)};
          uint32_t key[2] = {static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32)};
          for (int round = 0; round < 10; ++round) {
            const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
            const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
                                      static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
            for (int i = 0; i < 4; ++i) c[i] = next[i];
            key[0] += 0x9E3779B9u;
            key[1] += 0xBB67AE85u;
          }
          const double u = (c[0] + 1.0) * 0x1p-32, v = c[1] * 0x1p-32;
          *out++ = static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
        }
      }
    }
  }
  return 0;
}

}  // namespace flashvsr
