// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/bicubic.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "image/vectorize.h"

namespace flashvsr {
namespace {

// Rows handled side by side in the horizontal pass, so that its inner loop runs over rows.
constexpr int kLanes = 16;

double cubic(double x) {
  constexpr double a = -0.5;
  if (x < 0.0) x = -x;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

template <typename T>
FLASHVSR_INLINE T clip_shift(int32_t sum, int bits, int32_t max_value) {
  int32_t value = sum >> bits;
  value = value < 0 ? 0 : value;
  return static_cast<T>(value > max_value ? max_value : value);
}

// lanes [width_in][kLanes] int32 -> result [width_out][kLanes]
template <typename T>
FLASHVSR_INLINE void filter_lanes(const int32_t* FLASHVSR_RESTRICT lanes, const BicubicAxis& axis, int bits,
                                  int32_t max_value, T* FLASHVSR_RESTRICT result) {
  for (int x = 0; x < axis.size_out; ++x) {
    int32_t sum[kLanes];
    for (int r = 0; r < kLanes; ++r) sum[r] = 1 << (bits - 1);
    const int32_t* weight = axis.weights.data() + static_cast<size_t>(x) * static_cast<size_t>(axis.taps);
    const int32_t* source = lanes + static_cast<size_t>(axis.first[static_cast<size_t>(x)]) * kLanes;
    const int count = axis.counts[static_cast<size_t>(x)];
    for (int k = 0; k < count; ++k) {
      const int32_t w = weight[k];
      for (int r = 0; r < kLanes; ++r) sum[r] += w * source[k * kLanes + r];
    }
    for (int r = 0; r < kLanes; ++r) result[static_cast<size_t>(x) * kLanes + r] = clip_shift<T>(sum[r], bits, max_value);
  }
}

FLASHVSR_VECTORIZED void filter_lanes_8(const int32_t* lanes, const BicubicAxis& axis, uint8_t* result) {
  filter_lanes<uint8_t>(lanes, axis, 22, 255, result);
}
FLASHVSR_VECTORIZED void filter_lanes_16(const int32_t* lanes, const BicubicAxis& axis, uint16_t* result) {
  filter_lanes<uint16_t>(lanes, axis, 20, 1023, result);
}
void filter_lanes(const int32_t* lanes, const BicubicAxis& axis, uint8_t* result) {
  filter_lanes_8(lanes, axis, result);
}
void filter_lanes(const int32_t* lanes, const BicubicAxis& axis, uint16_t* result) {
  filter_lanes_16(lanes, axis, result);
}

// One output row from `count` rows of the same width.
template <typename T>
FLASHVSR_INLINE void filter_column(const T* FLASHVSR_RESTRICT rows, size_t stride, const int32_t* weight,
                                   int count, int width, int bits, int32_t max_value, T* FLASHVSR_RESTRICT out) {
  const int32_t half = 1 << (bits - 1);
  if (count == 4) {
    const T *r0 = rows, *r1 = rows + stride, *r2 = rows + 2 * stride, *r3 = rows + 3 * stride;
    const int32_t w0 = weight[0], w1 = weight[1], w2 = weight[2], w3 = weight[3];
    for (int x = 0; x < width; ++x) {
      out[x] = clip_shift<T>(half + w0 * r0[x] + w1 * r1[x] + w2 * r2[x] + w3 * r3[x], bits, max_value);
    }
    return;
  }
  constexpr int kBlock = 128;
  int32_t sum[kBlock];
  for (int begin = 0; begin < width; begin += kBlock) {
    const int n = std::min(kBlock, width - begin);
    for (int i = 0; i < n; ++i) sum[i] = half;
    for (int k = 0; k < count; ++k) {
      const T* row = rows + static_cast<size_t>(k) * stride + begin;
      const int32_t w = weight[k];
      for (int i = 0; i < n; ++i) sum[i] += w * row[i];
    }
    for (int i = 0; i < n; ++i) out[begin + i] = clip_shift<T>(sum[i], bits, max_value);
  }
}

FLASHVSR_VECTORIZED void filter_column_8(const uint8_t* rows, size_t stride, const int32_t* weight, int count,
                                         int width, uint8_t* out) {
  filter_column<uint8_t>(rows, stride, weight, count, width, 22, 255, out);
}
FLASHVSR_VECTORIZED void filter_column_16(const uint16_t* rows, size_t stride, const int32_t* weight, int count,
                                          int width, uint16_t* out) {
  filter_column<uint16_t>(rows, stride, weight, count, width, 20, 1023, out);
}
void filter_column(const uint8_t* rows, size_t stride, const int32_t* weight, int count, int width, uint8_t* out) {
  filter_column_8(rows, stride, weight, count, width, out);
}
void filter_column(const uint16_t* rows, size_t stride, const int32_t* weight, int count, int width, uint16_t* out) {
  filter_column_16(rows, stride, weight, count, width, out);
}

template <typename Body>
void for_range(int64_t size, bool parallel, const Body& body) {
  if (parallel) at::parallel_for(0, size, 1, body);
  else body(0, size);
}

}  // namespace

BicubicAxis::BicubicAxis(int in, int out, int bits) : size_in(in), size_out(out) {
  FLASHVSR_CHECK(in > 0 && out > 0 && in <= 32768 && out <= 32768, ErrorCode::kInvalidArgument,
                 "bicubic: size ", in, " -> ", out);
  const double ratio = static_cast<double>(in) / out;
  const double filter_scale = std::max(ratio, 1.0);
  const double support = 2.0 * filter_scale;
  const double inverse = 1.0 / filter_scale;
  taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  first.resize(static_cast<size_t>(out));
  counts.resize(static_cast<size_t>(out));
  weights.assign(static_cast<size_t>(out) * static_cast<size_t>(taps), 0);
  std::vector<double> exact(static_cast<size_t>(taps));
  for (int x = 0; x < out; ++x) {
    const double center = (x + 0.5) * ratio;
    const int begin = std::max(0, static_cast<int>(center - support + 0.5));
    const int end = std::min(in, static_cast<int>(center + support + 0.5));
    double sum = 0.0;
    for (int k = begin; k < end; ++k) {
      const double weight = cubic((k - center + 0.5) * inverse);
      exact[static_cast<size_t>(k - begin)] = weight;
      sum += weight;
    }
    first[static_cast<size_t>(x)] = begin;
    counts[static_cast<size_t>(x)] = end - begin;
    for (int k = 0; k < end - begin; ++k) {
      const double weight = exact[static_cast<size_t>(k)] / sum * static_cast<double>(1 << bits);
      weights[static_cast<size_t>(x) * static_cast<size_t>(taps) + static_cast<size_t>(k)] =
          static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
  }
}

BicubicResizer::BicubicResizer(int width_in, int height_in, int width_out, int height_out, int depth)
    : depth_(depth),
      horizontal_(width_in, width_out, bicubic_precision_bits(depth)),
      vertical_(height_in, height_out, bicubic_precision_bits(depth)) {}

template <typename T>
void BicubicResizer::resize_plane(const T* in, T* out, bool parallel) const {
  const size_t width_in = static_cast<size_t>(horizontal_.size_in);
  const size_t width_out = static_cast<size_t>(horizontal_.size_out);
  const int height_in = vertical_.size_in;
  const int height_out = vertical_.size_out;
  const bool has_vertical = height_in != height_out;

  std::unique_ptr<T[]> between;
  const T* wide = in;
  if (horizontal_.size_in != horizontal_.size_out) {
    if (has_vertical) between.reset(new T[width_out * static_cast<size_t>(height_in)]);
    T* result = has_vertical ? between.get() : out;
    const int blocks = (height_in + kLanes - 1) / kLanes;
    for_range(blocks, parallel, [&](int64_t block_begin, int64_t block_end) {
      std::unique_ptr<int32_t[]> lanes(new int32_t[width_in * kLanes]());
      std::unique_ptr<T[]> filtered(new T[width_out * kLanes]);
      for (int64_t block = block_begin; block < block_end; ++block) {
        const int row = static_cast<int>(block) * kLanes;
        const int rows = std::min(kLanes, height_in - row);
        for (int r = 0; r < rows; ++r) {
          const T* source = in + static_cast<size_t>(row + r) * width_in;
          for (size_t x = 0; x < width_in; ++x) lanes[x * kLanes + static_cast<size_t>(r)] = source[x];
        }
        filter_lanes(lanes.get(), horizontal_, filtered.get());
        for (int r = 0; r < rows; ++r) {
          T* target = result + static_cast<size_t>(row + r) * width_out;
          for (size_t x = 0; x < width_out; ++x) target[x] = filtered[x * kLanes + static_cast<size_t>(r)];
        }
      }
    });
    wide = result;
  }
  if (!has_vertical) {
    if (wide == in) std::memcpy(out, in, width_out * static_cast<size_t>(height_out) * sizeof(T));
    return;
  }
  for_range(height_out, parallel, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      const size_t row = static_cast<size_t>(y);
      filter_column(wide + static_cast<size_t>(vertical_.first[row]) * width_out, width_out,
                    vertical_.weights.data() + row * static_cast<size_t>(vertical_.taps), vertical_.counts[row],
                    horizontal_.size_out, out + row * width_out);
    }
  });
}

void BicubicResizer::check_input(const PlanarImage& in) const {
  FLASHVSR_CHECK(in.width() == horizontal_.size_in && in.height() == vertical_.size_in && in.depth() == depth_,
                 ErrorCode::kInternal, "bicubic: picture of ", in.width(), "x", in.height(), " at ", in.depth(),
                 " bits, expected ", horizontal_.size_in, "x", vertical_.size_in, " at ", depth_);
}

void BicubicResizer::resize(const PlanarImage& in, PlanarImage& out, bool parallel) const {
  check_input(in);
  out.reset(horizontal_.size_out, vertical_.size_out, depth_, in.has_alpha());
  for (int plane = 0; plane < in.planes(); ++plane) {
    if (depth_ > 8) resize_plane(in.plane<uint16_t>(plane), out.plane<uint16_t>(plane), parallel);
    else resize_plane(in.plane<uint8_t>(plane), out.plane<uint8_t>(plane), parallel);
  }
}

void BicubicResizer::resize_alpha(const PlanarImage& in, PlanarImage& out, bool parallel) const {
  check_input(in);
  FLASHVSR_CHECK(in.has_alpha() && out.has_alpha() && out.width() == width_out() && out.height() == height_out() &&
                     out.depth() == depth_,
                 ErrorCode::kInternal, "bicubic: no alpha plane, or not of the output's shape");
  if (depth_ > 8) resize_plane(in.plane<uint16_t>(3), out.plane<uint16_t>(3), parallel);
  else resize_plane(in.plane<uint8_t>(3), out.plane<uint8_t>(3), parallel);
}

int64_t reference_scaled_size(int64_t size, double scale) {
  return static_cast<int64_t>(std::nearbyint(static_cast<double>(size) * scale));
}

}  // namespace flashvsr
