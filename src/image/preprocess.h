// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures -> the model's input.
//
//   frames  F pictures of one size and depth
//   result  [1, 3, F, Hm, Wm]   x / 255 * 2 - 1 (1023 at depth 10) as three fp32 operations,
//                               each rounded, then rounded once to `dtype`
//
// Right and bottom are filled up to Hm x Wm by symmetric reflection (the border sample
// repeats), again and again where the picture is smaller than what is missing.
//
// Thread-safety: safe.
// Source: model.md 2.1; the reflection: decisions.md 11. Deviation: the reference crops.
#ifndef FLASHVSR_IMAGE_PREPROCESS_H_
#define FLASHVSR_IMAGE_PREPROCESS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "image/frame.h"

namespace flashvsr {

at::Tensor images_to_tensor(const std::vector<const PlanarImage*>& frames, int64_t padded_height,
                            int64_t padded_width, c10::Device device, c10::ScalarType dtype);

// Source index of each of `padded` positions of an axis of `size` samples.
std::vector<int64_t> symmetric_index(int64_t size, int64_t padded);

// The part of a picture that the reference keeps: centred, sides cut down to multiples of
// `multiple`. Throws when nothing would be left.
PlanarImage reference_crop(const PlanarImage& image, int multiple);

// What value `sample` of `max_value` becomes, in fp32.
float normalized(int sample, int max_value);

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_PREPROCESS_H_
