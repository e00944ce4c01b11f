// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Callers' pictures <-> samples where the model is: image/color_convert.h on a device, bit for bit, through the CUDA
// library's kernels; elsewhere by the CPU's conversion, copied there and back.
//
//   samples  [F, 3, height, width]   planes R, G, B: uint8 (depth 8) or int16 (depth 10), dense (image/image_ops.h)
//   packed   [packed_bytes]          uint8, dense: a frame's planes one behind the other, each at a multiple of 16 bytes,
//                                    rows as far apart as a row's bytes, rounded up to a multiple of 16
//
// Alpha is left out on the way in and opaque on the way out. 16-bit planes begin at even addresses and have even strides.
// On CUDA everything is queued on the current stream and nothing waits for it: pinned memory goes back to its allocator
// when the device is through with it, planes that callers lend must stay until the stream has passed.
// Thread-safety: safe.
#ifndef FLASHVSR_IMAGE_DEVICE_PICTURES_H_
#define FLASHVSR_IMAGE_DEVICE_PICTURES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "image/frame.h"

namespace flashvsr {

int64_t packed_bytes(PixelFormat format, int width, int height);
// The planes within a packed frame that begins at `packed`.
FramePlanes packed_planes(void* packed, PixelFormat format, int width, int height);

// Rows of every plane, host to host; what lies between rows is not touched.
void copy_planes(const FramePlanes& from, const FramePlanes& to, PixelFormat format, int width, int height);

// A caller's host planes as a packed frame on the host, pinned when it will go to CUDA.
at::Tensor pack_planes(const FramePlanes& planes, PixelFormat format, int width, int height, bool is_pinned);

// Packed frames, on the host or on `device`, to samples on `device`: one copy a frame, one launch for up to 32.
at::Tensor packed_to_samples(const std::vector<at::Tensor>& packed, PixelFormat format, const ColorSpec& color, int width,
                             int height, c10::Device device);

// Planes that lie on `device` to samples there.
at::Tensor planes_to_samples(const std::vector<FramePlanes>& frames, PixelFormat format, const ColorSpec& color, int width,
                             int height, c10::Device device);

// Samples to planes that lie on their device; to packed frames [F, packed_bytes] there.
void samples_to_planes(const at::Tensor& samples, PixelFormat format, const ColorSpec& color,
                       const std::vector<FramePlanes>& frames);
at::Tensor samples_to_packed(const at::Tensor& samples, PixelFormat format, const ColorSpec& color);

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_DEVICE_PICTURES_H_
