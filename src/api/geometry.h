// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sizes of one session, from the caller's picture to the model's grid and back.
//
//   in       what the caller sends
//   out      in * num / den, rounded (integer division): what the caller gets
//   decoded  the visible part of what the model returns: `out` for a model that sees a
//            bicubic pre-enlargement (input_scale 1); in * 4 for the student, which is then
//            reduced to `out`
//   model    the visible part of what the model sees: `out`, or `in` for the student
//   padded   decoded / model up to multiples that the model's windows ask for
//
// Thread-safety: a value.
// Source: decisions.md 8, 11.
#ifndef FLASHVSR_API_GEOMETRY_H_
#define FLASHVSR_API_GEOMETRY_H_

#include <cstdint>

#include "base/error.h"
#include "model/config.h"

namespace flashvsr {

struct PictureSize {
  int width = 0;
  int height = 0;
  bool operator==(const PictureSize& other) const { return width == other.width && height == other.height; }
  bool operator!=(const PictureSize& other) const { return !(*this == other); }
};

struct Geometry {
  PictureSize in, out, decoded, model, padded_decoded, padded_model;

  static constexpr int kMinSide = 16;
  static constexpr int kMaxSide = 8192;
  static constexpr int kMaxOutputSide = 16384;

  Geometry(const ModelConfig& config, int width, int height, int64_t num, int64_t den) {
    FLASHVSR_CHECK(width >= kMinSide && width <= kMaxSide && height >= kMinSide && height <= kMaxSide,
                   ErrorCode::kInvalidArgument, "pictures are ", width, "x", height, "; sides must be ", kMinSide,
                   " .. ", kMaxSide);
    FLASHVSR_CHECK(num > 0 && den > 0 && num <= 1000000 && den <= 1000000 && num >= den && num <= 4 * den,
                   ErrorCode::kInvalidArgument, "scale is ", num, "/", den, "; it must be 1 .. 4");
    in = {width, height};
    const auto scaled = [&](int side) { return static_cast<int>((side * num + den / 2) / den); };
    out = {scaled(width), scaled(height)};
    FLASHVSR_CHECK(out.width <= kMaxOutputSide && out.height <= kMaxOutputSide, ErrorCode::kInvalidArgument,
                   "the output would be ", out.width, "x", out.height, "; sides may be ", kMaxOutputSide);
    const int input_scale = static_cast<int>(config.input_scale);
    model = input_scale == 1 ? out : in;
    decoded = {model.width * input_scale, model.height * input_scale};
    const int multiple = static_cast<int>(config.size_multiple());
    const auto padded = [&](int side) { return (side + multiple - 1) / multiple * multiple; };
    padded_decoded = {padded(decoded.width), padded(decoded.height)};
    padded_model = {padded_decoded.width / input_scale, padded_decoded.height / input_scale};
  }
};

}  // namespace flashvsr

#endif  // FLASHVSR_API_GEOMETRY_H_
