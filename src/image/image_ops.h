// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Enlarging and normalising as tensor operations, for devices other than the CPU: the same
// integers and the same fp32 operations as image/bicubic.h and image/preprocess.h, so the
// same values bit for bit.
//
//   samples  [F, 3, h, w]   uint8 (depth 8) or int16 (depth 10), on the device
//
// Thread-safety: a TensorResizer is immutable after construction.
#ifndef FLASHVSR_IMAGE_IMAGE_OPS_H_
#define FLASHVSR_IMAGE_IMAGE_OPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "image/bicubic.h"
#include "image/frame.h"

namespace flashvsr {

// Planes R, G, B of the pictures as samples on `device`; by pinned memory on CUDA.
at::Tensor upload_samples(const std::vector<const PlanarImage*>& pictures, c10::Device device);

class TensorResizer {
 public:
  TensorResizer(int width_in, int height_in, int width_out, int height_out, int depth, c10::Device device);
  at::Tensor resize(const at::Tensor& samples) const;

 private:
  struct Axis {
    bool is_copied = false;
    std::vector<at::Tensor> index, weight;  // per tap: int64 [size_out], int32 [size_out]
    at::Tensor first, weights;              // the same for the kernel: int32 [size_out], [size_out, taps]
  };
  static Axis axis_of(const BicubicAxis& axis, c10::Device device);
  at::Tensor filter(const at::Tensor& samples, const Axis& axis, int64_t dim) const;

  int depth_;
  int precision_bits_;
  Axis horizontal_, vertical_;
};

// [1, 3, F, padded_height, padded_width] in `dtype`: what images_to_tensor gives.
at::Tensor normalize_samples(const at::Tensor& samples, int max_value, int64_t padded_height, int64_t padded_width,
                             c10::ScalarType dtype);

// levels [1, 3, F, H, W] (uint8 or int16, any device) -> planes R, G, B of the F pictures.
void download_samples(const at::Tensor& levels, const std::vector<PlanarImage*>& pictures);

}  // namespace flashvsr

#endif  // FLASHVSR_IMAGE_IMAGE_OPS_H_
