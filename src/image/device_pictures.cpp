// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/device_pictures.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cstring>

#include "base/error.h"
#include "image/color_convert.h"
#include "image/image_ops.h"
#include "image/own_kernel.h"

namespace flashvsr {
namespace {

constexpr size_t kPackedAlignment = 16;

size_t packed_stride(PixelFormat format, int plane, int width) {
  return (plane_row_bytes(format, plane, width) + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
}

c10::ScalarType sample_type(PixelFormat format) { return format_depth(format) > 8 ? c10::kShort : c10::kByte; }

// Addresses and strides of all planes of all frames, as the operations take them.
struct PlaneList {
  std::vector<int64_t> addresses, strides;
  PlaneList(const std::vector<FramePlanes>& frames, PixelFormat format) {
    for (const FramePlanes& frame : frames) {
      for (int p = 0; p < format_planes(format); ++p) {
        addresses.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(frame.data[p])));
        strides.push_back(static_cast<int64_t>(frame.stride[p]));
      }
    }
  }
};

at::Tensor plane_tensor(const FramePlanes& frame, int plane, PixelFormat format, int width, int height,
                        c10::Device device) {
  return at::from_blob(frame.data[plane],
                       {plane_rows(format, plane, height), static_cast<int64_t>(plane_row_bytes(format, plane, width))},
                       {static_cast<int64_t>(frame.stride[plane]), 1},
                       at::TensorOptions().dtype(at::kByte).device(device));
}

// Without a kernel: the planes on the host, packed, and back.
struct HostFrame {
  at::Tensor memory;
  FramePlanes planes;
  HostFrame(PixelFormat format, int width, int height)
      : memory(at::empty({packed_bytes(format, width, height)}, at::kByte)),
        planes(packed_planes(memory.data_ptr(), format, width, height)) {}
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(flashvsr, m) {
  m.def("planes_to_samples(Tensor(a!) samples, int[] planes, int[] strides, int format, int matrix, bool full_range) "
        "-> ()");
  m.def("samples_to_planes(Tensor samples, int[] planes, int[] strides, int format, int matrix, bool full_range) -> ()");
}

int64_t packed_bytes(PixelFormat format, int width, int height) {
  size_t bytes = 0;
  for (int p = 0; p < format_planes(format); ++p) {
    bytes += packed_stride(format, p, width) * static_cast<size_t>(plane_rows(format, p, height));
  }
  return static_cast<int64_t>(bytes);
}

FramePlanes packed_planes(void* packed, PixelFormat format, int width, int height) {
  FramePlanes planes;
  uint8_t* at = static_cast<uint8_t*>(packed);
  for (int p = 0; p < format_planes(format); ++p) {
    planes.data[p] = at;
    planes.stride[p] = packed_stride(format, p, width);
    at += planes.stride[p] * static_cast<size_t>(plane_rows(format, p, height));
  }
  return planes;
}

void copy_planes(const FramePlanes& from, const FramePlanes& to, PixelFormat format, int width, int height) {
  for (int p = 0; p < format_planes(format); ++p) {
    const size_t bytes = plane_row_bytes(format, p, width);
    const uint8_t* source = static_cast<const uint8_t*>(from.data[p]);
    uint8_t* target = static_cast<uint8_t*>(to.data[p]);
    for (int y = 0; y < plane_rows(format, p, height); ++y) {
      std::memcpy(target, source, bytes);
      source += from.stride[p];
      target += to.stride[p];
    }
  }
}

at::Tensor pack_planes(const FramePlanes& planes, PixelFormat format, int width, int height, bool is_pinned) {
  const at::Tensor packed = at::empty({packed_bytes(format, width, height)},
                                      at::TensorOptions().dtype(at::kByte).pinned_memory(is_pinned));
  copy_planes(planes, packed_planes(packed.data_ptr(), format, width, height), format, width, height);
  return packed;
}

at::Tensor packed_to_samples(const std::vector<at::Tensor>& packed, PixelFormat format, const ColorSpec& color, int width,
                             int height, c10::Device device) {
  std::vector<at::Tensor> there;  // until the launch is queued
  std::vector<FramePlanes> frames;
  for (const at::Tensor& frame : packed) {
    FLASHVSR_CHECK(frame.numel() == packed_bytes(format, width, height) && frame.is_contiguous(), ErrorCode::kInternal,
                   "device_pictures: a packed frame of ", frame.numel(), " bytes");
    there.push_back(frame.to(device, /*non_blocking=*/true));
    frames.push_back(packed_planes(there.back().data_ptr(), format, width, height));
  }
  return planes_to_samples(frames, format, color, width, height, device);
}

at::Tensor planes_to_samples(const std::vector<FramePlanes>& frames, PixelFormat format, const ColorSpec& color, int width,
                             int height, c10::Device device) {
  at::Tensor samples = at::empty({static_cast<int64_t>(frames.size()), 3, height, width},
                                 at::TensorOptions().dtype(sample_type(format)).device(device));
  using Kernel = void(at::Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t, int64_t, bool);
  if (const auto kernel = own_kernel<Kernel>("planes_to_samples", samples)) {
    const PlaneList planes(frames, format);
    kernel->call(samples, planes.addresses, planes.strides, static_cast<int64_t>(format), color.matrix, color.full_range);
    return samples;
  }
  HostFrame host(format, width, height);
  PlanarImage picture;
  for (size_t i = 0; i < frames.size(); ++i) {
    FramePlanes planes = frames[i];
    if (!device.is_cpu()) {
      planes = host.planes;
      for (int p = 0; p < format_planes(format); ++p) {
        plane_tensor(planes, p, format, width, height, at::kCPU)
            .copy_(plane_tensor(frames[i], p, format, width, height, device));
      }
    }
    convert_to_rgb(planes, format, color, width, height, picture);
    samples[static_cast<int64_t>(i)].copy_(upload_samples({&picture}, at::kCPU)[0]);
  }
  return samples;
}

void samples_to_planes(const at::Tensor& samples, PixelFormat format, const ColorSpec& color,
                       const std::vector<FramePlanes>& frames) {
  FLASHVSR_CHECK(samples.dim() == 4 && samples.size(0) == static_cast<int64_t>(frames.size()) && samples.size(1) == 3 &&
                     samples.scalar_type() == sample_type(format),
                 ErrorCode::kInternal, "device_pictures: samples of ", samples.sizes(), " for ", frames.size(), " frames");
  using Kernel = void(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, int64_t, int64_t, bool);
  if (const auto kernel = own_kernel<Kernel>("samples_to_planes", samples)) {
    const PlaneList planes(frames, format);
    kernel->call(samples, planes.addresses, planes.strides, static_cast<int64_t>(format), color.matrix, color.full_range);
    return;
  }
  const int width = static_cast<int>(samples.size(3)), height = static_cast<int>(samples.size(2));
  HostFrame host(format, width, height);
  PlanarImage picture(width, height, format_depth(format), false);
  for (size_t i = 0; i < frames.size(); ++i) {
    download_samples(samples.narrow(0, static_cast<int64_t>(i), 1).transpose(0, 1).unsqueeze(0), {&picture});
    if (samples.device().is_cpu()) {
      convert_from_rgb(picture, format, color, frames[i]);
      continue;
    }
    convert_from_rgb(picture, format, color, host.planes);
    for (int p = 0; p < format_planes(format); ++p) {
      plane_tensor(frames[i], p, format, width, height, samples.device())
          .copy_(plane_tensor(host.planes, p, format, width, height, at::kCPU));
    }
  }
}

at::Tensor samples_to_packed(const at::Tensor& samples, PixelFormat format, const ColorSpec& color) {
  const int width = static_cast<int>(samples.size(3)), height = static_cast<int>(samples.size(2));
  const at::Tensor packed =
      at::empty({samples.size(0), packed_bytes(format, width, height)}, samples.options().dtype(at::kByte));
  std::vector<FramePlanes> frames;
  for (int64_t i = 0; i < samples.size(0); ++i) {
    frames.push_back(packed_planes(static_cast<uint8_t*>(packed.data_ptr()) + i * packed.size(1), format, width, height));
  }
  samples_to_planes(samples, format, color, frames);
  return packed;
}

}  // namespace flashvsr
