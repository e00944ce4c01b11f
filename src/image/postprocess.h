// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The model's frames -> pictures: cut to the visible part, correct the colours, quantise,
// download; and how a finished picture is shown.
//
//   frames  [1, 3, F, Hp, Wp]   fp32, bf16 or fp16, on any device
//   images  visible pixels, planes R, G, B of depth 8 or 10
//
// Quantisation: clip((x + 1) * max / 2, 0, max) in fp32, then kTruncate (what the reference
// does at 8 bits) or kNearest. NaN becomes 0.
//
// Rounding: the colour correction has image/color_fix.h's; on the CPU AdaIN and the
// quantisation are one pass, in the tensor's dtype, with statistics in double.
// Tolerance of that pass against adain() and quantisation of its result: equal but for 1e-4
// of the samples, which differ by 1.
// Cost: about 1.5 ns per sample and core with AdaIN, 0.3 without.
// Thread-safety: safe.
// Source: model.md 5.3, 7.
#ifndef FLASHVSR_IMAGE_POSTPROCESS_H_
#define FLASHVSR_IMAGE_POSTPROCESS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "image/color_fix.h"
#include "image/frame.h"

namespace flashvsr {

enum class Quantization { kTruncate, kNearest };

struct PostprocessOptions {
  ColorFix color_fix = ColorFix::kNone;
  Quantization quantization = Quantization::kTruncate;
};

// Writes planes R, G, B of images[i] (whose shape says the visible part) from frame first + i.
// Colours are taken from `references`, LQ pictures of the images' shape; or, on devices, from `style`,
// the model's input of the same frames [1, 3, F, >= H, >= W]. Both empty with kNone.
void tensor_to_images(const at::Tensor& frames, int64_t first, const std::vector<const PlanarImage*>& references,
                      const PostprocessOptions& options, const std::vector<PlanarImage*>& images,
                      const at::Tensor& style = {});

// The same on the frames' device: the visible height x width of all frames as samples [F, 3, height, width] of
// image/image_ops.h. `style`: see above, of the frames' device; undefined with kNone. On CUDA bf16 frames, and
// fp32 ones but for AdaIN or with a style in fp32, go through one kernel (kernels/finish_frames.h, kernels/wavelet_color.h),
// and nothing waits for the device. The wavelet's keeps fp32 throughout: nearer to fp32 than wavelet() of bf16 tensors is.
at::Tensor finish_frames(const at::Tensor& frames, const at::Tensor& style, int64_t height, int64_t width, int max_value,
                         const PostprocessOptions& options);

// Quantises any tensor to uint8 (max 255) or int16 (max 1023), on its device.
at::Tensor quantize(const at::Tensor& frames, int max_value, Quantization quantization);

enum class Compare { kOff, kSplit, kSideBySide };

// image = base + (image - base) * strength, all planes but alpha.
void blend(const PlanarImage& base, float strength, PlanarImage& image);

// Adds to `image` (an enlargement) the detail old_image - old_base of an earlier frame times
// `strength`, less where the enlargement has changed since, not at all beyond 8 levels of 255.
void carry_detail(const PlanarImage& old_image, const PlanarImage& old_base, float strength, PlanarImage& image);

// kSplit: left of `position` (0 .. 1 of the width) `base`, right of it `image`, between them a
// white bar two samples wide. kSideBySide: the middle half of `base`, then that of `image`.
void compare(const PlanarImage& base, Compare mode, float position, PlanarImage& image);

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_POSTPROCESS_H_
