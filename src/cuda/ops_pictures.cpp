// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Registers the CUDA kernels for pictures: the operations that src/image defines. Like ops.cpp: on the current stream,
// without waiting for the device.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>

#include "cuda/glue.cuh"
#include "image/format_layout.h"
#include "kernels/color_convert.h"
#include "kernels/finish_frames.h"
#include "kernels/resize_samples.h"
#include "kernels/wavelet_color.h"

namespace flashvsr {
namespace {

// samples [N, C, h, w] bytes or shorts; one axis resized.
at::Tensor resize_axis(const at::Tensor& samples, const at::Tensor& first, const at::Tensor& weights, int64_t bits,
                       int64_t max_value, bool vertical) {
  const CUDAGuard guard(samples.device());
  const at::Tensor in = samples.contiguous();
  const int64_t size = first.size(0);
  const at::Tensor out = vertical ? at::empty({in.size(0), in.size(1), size, in.size(3)}, in.options())
                                  : at::empty({in.size(0), in.size(1), in.size(2), size}, in.options());
  ResizeAxisParams p;
  p.input = in.data_ptr();
  p.output = out.data_ptr();
  p.first = first.data_ptr<int32_t>();
  p.weights = weights.data_ptr<int32_t>();
  p.planes = in.size(0) * in.size(1);
  p.in_height = static_cast<int32_t>(in.size(2));
  p.in_width = static_cast<int32_t>(in.size(3));
  p.out_size = static_cast<int32_t>(size);
  p.taps = static_cast<int32_t>(weights.size(1));
  p.bits = static_cast<int32_t>(bits);
  p.max_value = static_cast<int32_t>(max_value);
  p.is_16_bit = in.element_size() == 2;
  p.vertical = vertical;
  check(launch_resize_axis(p, stream()), "resize_axis");
  return out;
}

// samples [F, 3, h, w] -> [1, 3, F, H, W] bf16
at::Tensor normalize_samples(const at::Tensor& samples, int64_t max_value, int64_t padded_height, int64_t padded_width) {
  const CUDAGuard guard(samples.device());
  const at::Tensor in = samples.contiguous();
  const at::Tensor out =
      at::empty({1, 3, in.size(0), padded_height, padded_width}, in.options().dtype(at::kBFloat16));
  NormalizeSamplesParams p;
  p.input = in.data_ptr();
  p.output = mutable_bits(out);
  p.frames = static_cast<int32_t>(in.size(0));
  p.height = static_cast<int32_t>(in.size(2));
  p.width = static_cast<int32_t>(in.size(3));
  p.padded_height = static_cast<int32_t>(padded_height);
  p.padded_width = static_cast<int32_t>(padded_width);
  p.max_value = static_cast<int32_t>(max_value);
  p.is_16_bit = in.element_size() == 2;
  check(launch_normalize_samples(p, stream()), "normalize_samples");
  return out;
}

ConvertPlanesParams convert_params(const at::Tensor& samples, PixelFormat format, int matrix, bool full_range) {
  ConvertPlanesParams p;
  const int depth = format_depth(format);
  const Packing packing = packing_of(format);
  p.height = static_cast<int32_t>(samples.size(2));
  p.width = static_cast<int32_t>(samples.size(3));
  p.is_16_bit = depth > 8;
  p.to_rgb = to_rgb_coefficients(matrix, full_range, depth);
  p.from_rgb = from_rgb_coefficients(matrix, full_range, depth);
  if (packing.step != 0) {
    p.kind = PlanesKind::kPacked;
    p.step = packing.step;
    p.red = packing.red;
    p.green = packing.green;
    p.blue = packing.blue;
  } else if (format == PixelFormat::kGbr) {
    p.kind = PlanesKind::kGbr;
  } else if (format == PixelFormat::kGray8) {
    p.kind = PlanesKind::kGrey;
    grey_levels(full_range, p.grey);
  } else {
    p.kind = is_paired(format)          ? PlanesKind::kYuvPaired
             : is_halved_across(format) ? PlanesKind::kYuvHalved
                                        : PlanesKind::kYuvFull;
    p.halved_down = is_halved_down(format);
    p.shift = is_paired(format) && depth > 8 ? 6 : 0;
  }
  return p;
}

// planes and strides: all planes of the first frame, of the second, ...
void convert_planes(const at::Tensor& samples, at::IntArrayRef planes, at::IntArrayRef strides, int64_t format,
                    int64_t matrix, bool full_range, int (*launch)(const ConvertPlanesParams&, void*), const char* name) {
  const CUDAGuard guard(samples.device());
  const PixelFormat pixel_format = static_cast<PixelFormat>(format);
  const int64_t frames = samples.size(0), count = format_planes(pixel_format);
  FLASHVSR_CHECK(samples.is_contiguous() && samples.element_size() == (format_depth(pixel_format) > 8 ? 2 : 1) &&
                     static_cast<int64_t>(planes.size()) == frames * count && strides.size() == planes.size(),
                 ErrorCode::kInternal, name, ": ", planes.size(), " planes for samples of ", samples.sizes());
  ConvertPlanesParams p = convert_params(samples, pixel_format, static_cast<int>(matrix), full_range);
  auto* data = static_cast<uint8_t*>(samples.data_ptr());
  for (int64_t begin = 0; begin < frames; begin += kMaxConvertFrames) {
    p.frames = static_cast<int32_t>(std::min<int64_t>(kMaxConvertFrames, frames - begin));
    p.samples = data + begin * 3 * p.height * p.width * samples.element_size();
    for (int64_t i = 0; i < p.frames * count; ++i) {
      const size_t from = static_cast<size_t>(begin * count + i);
      p.planes[i / count][i % count] = reinterpret_cast<void*>(static_cast<intptr_t>(planes[from]));
      p.strides[i / count][i % count] = strides[from];
    }
    check(launch(p, stream()), name);
  }
}

void planes_to_samples(at::Tensor& samples, at::IntArrayRef planes, at::IntArrayRef strides, int64_t format,
                       int64_t matrix, bool full_range) {
  convert_planes(samples, planes, strides, format, matrix, full_range, launch_planes_to_samples, "planes_to_samples");
}

void samples_to_planes(const at::Tensor& samples, at::IntArrayRef planes, at::IntArrayRef strides, int64_t format,
                       int64_t matrix, bool full_range) {
  convert_planes(samples.contiguous(), planes, strides, format, matrix, full_range, launch_samples_to_planes,
                 "samples_to_planes");
}

ModelFrames model_frames(const at::Tensor& x) {
  return {x.data_ptr(), x.stride(1), x.stride(2), x.stride(3), x.scalar_type() == at::kFloat};
}

// frames, style [1, 3, F, >= height, >= width] -> [F, 3, height, width]. `with_statistics`: needs the workspace.
at::Tensor finished(const at::Tensor& frames, const Maybe& style, int64_t height, int64_t width, int64_t max_value,
                    bool nearest, bool with_statistics, int (*launch)(const FinishFramesParams&, void*), const char* name) {
  const auto holds_pictures = [&](const at::Tensor& x, bool may_be_fp32) {
    return (x.scalar_type() == at::kBFloat16 || (may_be_fp32 && x.scalar_type() == at::kFloat)) && x.dim() == 5 && x.size(0) == 1 && x.size(1) == 3 &&
           x.size(2) == frames.size(2) && x.size(3) >= height && x.size(4) >= width && x.device() == frames.device();
  };
  FLASHVSR_CHECK(holds_pictures(frames, true) && (!style || holds_pictures(*style, false)), ErrorCode::kInternal,
                 name, ": frames do not hold the pictures");
  const CUDAGuard guard(frames.device());
  const auto with_dense_rows = [](const at::Tensor& x) { return x.stride(4) == 1 ? x : x.contiguous(); };
  const at::Tensor input = with_dense_rows(frames), colors = style ? with_dense_rows(*style) : at::Tensor();
  const at::Tensor samples = at::empty({input.size(2), 3, height, width},
                                       input.options().dtype(max_value > 255 ? at::kShort : at::kByte));
  FinishFramesParams p;
  p.input = model_frames(input);
  p.samples = samples.data_ptr();
  p.frames = static_cast<int32_t>(input.size(2));
  p.height = static_cast<int32_t>(height);
  p.width = static_cast<int32_t>(width);
  p.max_value = static_cast<int32_t>(max_value);
  p.nearest = nearest;
  if (style) p.style = model_frames(colors);
  at::Tensor workspace;
  if (with_statistics) {
    workspace = at::empty({static_cast<int64_t>(finish_frames_workspace_bytes(p.frames))},
                          input.options().dtype(at::kByte));
    p.workspace = workspace.data_ptr();
  }
  check(launch(p, stream()), name);
  return samples;
}

at::Tensor finish_frames(const at::Tensor& frames, const Maybe& style, int64_t height, int64_t width, int64_t max_value,
                         bool nearest) {
  return finished(frames, style, height, width, max_value, nearest, style.has_value(), launch_finish_frames, "finish_frames");
}

at::Tensor wavelet_color(const at::Tensor& frames, const Maybe& style, int64_t height, int64_t width, int64_t max_value,
                         bool nearest) {
  return finished(frames, style, height, width, max_value, nearest, false, launch_wavelet_color, "wavelet_color");
}

}  // namespace

TORCH_LIBRARY_IMPL(flashvsr, FLASHVSR_KERNEL_DEVICE, m) {
  m.impl("resize_axis", resize_axis);
  m.impl("normalize_samples", normalize_samples);
  m.impl("planes_to_samples", planes_to_samples);
  m.impl("samples_to_planes", samples_to_planes);
  m.impl("finish_frames", finish_frames);
  m.impl("wavelet_color", wavelet_color);
}

}  // namespace flashvsr
