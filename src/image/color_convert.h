// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The callers' pixel formats <-> planar R'G'B' of the same depth.
//
// Y'CbCr by the matrix and range of the ColorSpec, 16-bit integer coefficients, rounded
// to nearest, clipped. R'G'B' formats are copied, whatever the ColorSpec says of their
// range; GRAY8 is R = G = B of its luma by the spec's range. Halved chroma sits on the left
// luma column and between the two luma rows (MPEG-2, what H.264 and its successors mean by
// default): linear interpolation up; 1-2-1 across and the mean of two rows down. Borders are
// repeated. Planes may have any stride; rows past the picture are not touched.
//
// Rounding: one, of the final value; within 1 of double arithmetic. GStreamer's converter rounds
// each of its steps and truncates: 1.5 of 255 away on average, at most 5.
// Cost: about 0.5 ns per pixel and core, either way.
// Thread-safety: safe.
#ifndef FLASHVSR_IMAGE_COLOR_CONVERT_H_
#define FLASHVSR_IMAGE_COLOR_CONVERT_H_

#include "image/frame.h"

namespace flashvsr {

// Fills `out` (reset to width x height, the format's depth and alpha).
void convert_to_rgb(const FramePlanes& in, PixelFormat format, const ColorSpec& color, int width, int height,
                    PlanarImage& out);

// Writes `in` (of the format's depth; alpha is opaque where `in` has none) to the planes.
void convert_from_rgb(const PlanarImage& in, PixelFormat format, const ColorSpec& color, const FramePlanes& out);

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_COLOR_CONVERT_H_
