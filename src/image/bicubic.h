// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pillow's bicubic resampling (a = -0.5, antialiased when reducing), bit for bit at 8 bits.
//
// Separable: rows first, to the input's sample type, then columns, likewise. Per axis
// (n_in -> n_out) with r = n_in / n_out, fs = max(r, 1): taps within 2 fs of the centre
// (x + 0.5) r, weights renormalised where the picture ends. Weights are integers of 22 bits
// after the point (20 at depth 10); sums are exact in int32. An axis whose size does not
// change is copied. A ratio and its inverse are any; sizes 1 .. 32768.
//
// Cost: about 1 ns per output sample and core when enlarging.
// Thread-safety: a resizer is immutable after construction.
// Tolerance: exact against fixtures/upscale (8 bit); depth 10 within 1 of double arithmetic.
//
// Source: model.md 2.2.
#ifndef FLASHVSR_IMAGE_BICUBIC_H_
#define FLASHVSR_IMAGE_BICUBIC_H_

#include <cstdint>
#include <vector>

#include "image/frame.h"

namespace flashvsr {

// Integer weights of one axis.
struct BicubicAxis {
  int size_in = 0;
  int size_out = 0;
  int taps = 0;                  // weights per output position, unused ones 0
  std::vector<int32_t> first;    // [size_out]; first + taps <= size_in whenever size_in >= taps
  std::vector<int32_t> weights;  // [size_out * taps]
  std::vector<int32_t> counts;   // [size_out] taps that may be read
  BicubicAxis(int size_in, int size_out, int precision_bits);
};

// Bits after the point of the integer weights.
constexpr int bicubic_precision_bits(int depth) { return depth > 8 ? 20 : 22; }

class BicubicResizer {
 public:
  BicubicResizer(int width_in, int height_in, int width_out, int height_out, int depth);

  // `in` has the constructor's size and depth; `out` is reset to the output size, with
  // alpha when `in` has one. `parallel`: on LibTorch's threads, else on the caller's.
  void resize(const PlanarImage& in, PlanarImage& out, bool parallel) const;

  // The alpha plane only; `out` has the output size and an alpha plane already.
  void resize_alpha(const PlanarImage& in, PlanarImage& out, bool parallel) const;

  int width_out() const { return horizontal_.size_out; }
  int height_out() const { return vertical_.size_out; }

 private:
  void check_input(const PlanarImage& in) const;
  template <typename T>
  void resize_plane(const T* in, T* out, bool parallel) const;

  int depth_;
  BicubicAxis horizontal_;
  BicubicAxis vertical_;
};

// round(size * scale) as the reference's scripts do it: half to even.
int64_t reference_scaled_size(int64_t size, double scale);

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_BICUBIC_H_
