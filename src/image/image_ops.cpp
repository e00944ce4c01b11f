// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/image_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "image/own_kernel.h"
#include "image/preprocess.h"

namespace flashvsr {
namespace {

c10::ScalarType sample_type(int depth) { return depth > 8 ? c10::kShort : c10::kByte; }

at::Tensor device_index(const std::vector<int64_t>& index, c10::Device device) {
  return at::tensor(index, at::kLong).to(device);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(flashvsr, m) {
  m.def("resize_axis(Tensor samples, Tensor first, Tensor weights, int bits, int max_value, bool vertical) -> Tensor");
  m.def("normalize_samples(Tensor samples, int max_value, int padded_height, int padded_width) -> Tensor");
}

at::Tensor upload_samples(const std::vector<const PlanarImage*>& pictures, c10::Device device) {
  FLASHVSR_CHECK(!pictures.empty(), ErrorCode::kInternal, "image_ops: no pictures");
  const PlanarImage& first = *pictures[0];
  const at::Tensor host =
      at::empty({static_cast<int64_t>(pictures.size()), 3, first.height(), first.width()},
                at::TensorOptions().dtype(sample_type(first.depth())).pinned_memory(device.is_cuda()));
  const size_t bytes = 3 * first.plane_samples() * (first.depth() > 8 ? 2 : 1);
  uint8_t* out = static_cast<uint8_t*>(host.data_ptr());
  for (size_t i = 0; i < pictures.size(); ++i) {
    FLASHVSR_CHECK(pictures[i]->width() == first.width() && pictures[i]->height() == first.height() &&
                       pictures[i]->depth() == first.depth(),
                   ErrorCode::kInternal, "image_ops: pictures of different shapes");
    std::memcpy(out + i * bytes, pictures[i]->plane<uint8_t>(0), bytes);
  }
  return device.is_cpu() ? host : host.to(device, /*non_blocking=*/true);
}

TensorResizer::Axis TensorResizer::axis_of(const BicubicAxis& axis, c10::Device device) {
  Axis result;
  result.is_copied = axis.size_in == axis.size_out;
  if (result.is_copied) return result;
  const int taps = *std::max_element(axis.counts.begin(), axis.counts.end());
  const size_t size = static_cast<size_t>(axis.size_out);
  const at::Tensor all = at::tensor(axis.weights, at::kInt).view({axis.size_out, axis.taps});
  result.weights = all.narrow(1, 0, taps).contiguous().to(device);
  result.first = at::tensor(axis.first, at::kInt).to(device);
  for (int k = 0; k < taps; ++k) {
    std::vector<int64_t> index(size);
    std::vector<int> weight(size);
    for (size_t x = 0; x < size; ++x) {
      index[x] = std::min(axis.first[x] + k, axis.size_in - 1);
      weight[x] = k < axis.counts[x] ? axis.weights[x * static_cast<size_t>(axis.taps) + static_cast<size_t>(k)] : 0;
    }
    result.index.push_back(device_index(index, device));
    result.weight.push_back(at::tensor(weight, at::kInt).to(device));
  }
  return result;
}

TensorResizer::TensorResizer(int width_in, int height_in, int width_out, int height_out, int depth, c10::Device device)
    : depth_(depth), precision_bits_(bicubic_precision_bits(depth)) {
  horizontal_ = axis_of(BicubicAxis(width_in, width_out, precision_bits_), device);
  vertical_ = axis_of(BicubicAxis(height_in, height_out, precision_bits_), device);
}

at::Tensor TensorResizer::filter(const at::Tensor& samples, const Axis& axis, int64_t dim) const {
  if (axis.is_copied) return samples;
  using Kernel = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t, bool);
  if (const auto kernel = own_kernel<Kernel>("resize_axis", samples)) {
    return kernel->call(samples, axis.first, axis.weights, precision_bits_, (1 << depth_) - 1, dim == 2);
  }
  at::Tensor sum;
  for (size_t k = 0; k < axis.index.size(); ++k) {
    const at::Tensor weight = dim == 3 ? axis.weight[k] : axis.weight[k].unsqueeze(1);
    const at::Tensor part = samples.index_select(dim, axis.index[k]).to(at::kInt).mul_(weight);
    sum = k == 0 ? part.add_(1 << (precision_bits_ - 1)) : sum.add_(part);
  }
  return sum.bitwise_right_shift_(precision_bits_).clamp_(0, (1 << depth_) - 1).to(sample_type(depth_));
}

at::Tensor TensorResizer::resize(const at::Tensor& samples) const {
  return filter(filter(samples, horizontal_, 3), vertical_, 2);
}

at::Tensor normalize_samples(const at::Tensor& samples, int max_value, int64_t padded_height, int64_t padded_width,
                             c10::ScalarType dtype) {
  using Kernel = at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t);
  const auto kernel = own_kernel<Kernel>("normalize_samples", samples);
  if (kernel && dtype == c10::kBFloat16) return kernel->call(samples, max_value, padded_height, padded_width);
  // A divisor on the device: by a number, CUDA would multiply with its reciprocal.
  const at::Tensor divisor = at::full({}, static_cast<float>(max_value), samples.options().dtype(at::kFloat));
  at::Tensor x = samples.to(at::kFloat).div_(divisor).mul_(2.0).sub_(1.0).to(dtype);
  if (x.size(2) != padded_height) {
    x = x.index_select(2, device_index(symmetric_index(x.size(2), padded_height), x.device()));
  }
  if (x.size(3) != padded_width) {
    x = x.index_select(3, device_index(symmetric_index(x.size(3), padded_width), x.device()));
  }
  return x.transpose(0, 1).unsqueeze(0).contiguous();
}

void download_samples(const at::Tensor& levels, const std::vector<PlanarImage*>& pictures) {
  const at::Tensor ordered = levels.squeeze(0).transpose(0, 1).contiguous();  // [F, 3, H, W]
  at::Tensor host = ordered;
  if (!ordered.device().is_cpu()) {
    host = at::empty(ordered.sizes(), at::TensorOptions().dtype(ordered.scalar_type()).pinned_memory(true));
    host.copy_(ordered);
  }
  const uint8_t* source = static_cast<const uint8_t*>(host.data_ptr());
  at::parallel_for(0, static_cast<int64_t>(pictures.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      PlanarImage& picture = *pictures[static_cast<size_t>(i)];
      const size_t bytes = 3 * picture.plane_samples() * (picture.depth() > 8 ? 2 : 1);
      std::memcpy(picture.plane<uint8_t>(0), source + static_cast<size_t>(i) * bytes, bytes);
    }
  });
}

}  // namespace flashvsr
