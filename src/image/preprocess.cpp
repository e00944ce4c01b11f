// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/preprocess.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "image/image_ops.h"

namespace flashvsr {
namespace {

template <typename Sample, typename Value>
void fill_planes(const std::vector<const PlanarImage*>& frames, const std::vector<Value>& table, int64_t height,
                 int64_t width, Value* out) {
  const int64_t image_height = frames[0]->height(), image_width = frames[0]->width();
  const auto rows = symmetric_index(image_height, height);
  const auto columns = symmetric_index(image_width, width);
  const int64_t count = static_cast<int64_t>(frames.size());
  // [channel][frame][row]: a worker takes whole rows
  at::parallel_for(0, 3 * count * height, std::max<int64_t>(1, 32768 / width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = i % height, frame = i / height % count, channel = i / height / count;
      const Sample* source = frames[static_cast<size_t>(frame)]->plane<Sample>(static_cast<int>(channel)) +
                             rows[static_cast<size_t>(y)] * image_width;
      Value* target = out + i * width;
      const int64_t visible = std::min(width, image_width);
      for (int64_t x = 0; x < visible; ++x) target[x] = table[source[x]];
      for (int64_t x = visible; x < width; ++x) target[x] = table[source[columns[static_cast<size_t>(x)]]];
    }
  });
}

template <typename Value>
at::Tensor cpu_tensor(const std::vector<const PlanarImage*>& frames, int64_t height, int64_t width,
                      c10::ScalarType dtype) {
  const int max_value = frames[0]->max_value();
  std::vector<Value> table(static_cast<size_t>(max_value) + 1);
  for (int i = 0; i <= max_value; ++i) table[static_cast<size_t>(i)] = static_cast<Value>(normalized(i, max_value));
  at::Tensor result =
      at::empty({1, 3, static_cast<int64_t>(frames.size()), height, width}, at::TensorOptions().dtype(dtype));
  Value* out = result.data_ptr<Value>();
  if (frames[0]->depth() > 8) fill_planes<uint16_t, Value>(frames, table, height, width, out);
  else fill_planes<uint8_t, Value>(frames, table, height, width, out);
  return result;
}

}  // namespace

float normalized(int sample, int max_value) {
  const float unit = static_cast<float>(sample) / static_cast<float>(max_value);
  const float doubled = unit * 2.0f;
  return doubled - 1.0f;
}

std::vector<int64_t> symmetric_index(int64_t size, int64_t padded) {
  FLASHVSR_CHECK(size > 0, ErrorCode::kInternal, "preprocess: empty picture");
  std::vector<int64_t> index(static_cast<size_t>(padded));
  for (int64_t i = 0; i < padded; ++i) {
    const int64_t phase = i % (2 * size);
    index[static_cast<size_t>(i)] = phase < size ? phase : 2 * size - 1 - phase;
  }
  return index;
}

at::Tensor images_to_tensor(const std::vector<const PlanarImage*>& frames, int64_t padded_height,
                            int64_t padded_width, c10::Device device, c10::ScalarType dtype) {
  FLASHVSR_CHECK(!frames.empty(), ErrorCode::kInternal, "preprocess: no frames");
  for (const PlanarImage* frame : frames) {
    FLASHVSR_CHECK(frame->width() == frames[0]->width() && frame->height() == frames[0]->height() &&
                       frame->depth() == frames[0]->depth(),
                   ErrorCode::kInternal, "preprocess: frames of different shapes");
  }
  if (!device.is_cpu()) {
    return normalize_samples(upload_samples(frames, device), frames[0]->max_value(), padded_height, padded_width,
                             dtype);
  }
  at::Tensor result;
  switch (dtype) {
    case c10::kFloat: result = cpu_tensor<float>(frames, padded_height, padded_width, dtype); break;
    case c10::kBFloat16: result = cpu_tensor<c10::BFloat16>(frames, padded_height, padded_width, dtype); break;
    case c10::kHalf: result = cpu_tensor<c10::Half>(frames, padded_height, padded_width, dtype); break;
    default: throw Error(ErrorCode::kInternal, concat("preprocess: dtype ", c10::toString(dtype)));
  }
  return result;
}

PlanarImage reference_crop(const PlanarImage& image, int multiple) {
  const int width = image.width() / multiple * multiple;
  const int height = image.height() / multiple * multiple;
  FLASHVSR_CHECK(width > 0 && height > 0, ErrorCode::kInvalidArgument, "a picture of ", image.width(), "x",
                 image.height(), " has no part of ", multiple, "x", multiple);
  const size_t left = static_cast<size_t>((image.width() - width) / 2);
  const size_t top = static_cast<size_t>((image.height() - height) / 2);
  PlanarImage result(width, height, image.depth(), image.has_alpha());
  const size_t sample = image.depth() > 8 ? 2 : 1;
  for (int plane = 0; plane < image.planes(); ++plane) {
    const uint8_t* source = reinterpret_cast<const uint8_t*>(image.plane<uint8_t>(0)) +
                            static_cast<size_t>(plane) * image.plane_samples() * sample;
    uint8_t* target = result.plane<uint8_t>(0) + static_cast<size_t>(plane) * result.plane_samples() * sample;
    for (int y = 0; y < height; ++y) {
      std::memcpy(target + static_cast<size_t>(y) * static_cast<size_t>(width) * sample,
                  source + ((top + static_cast<size_t>(y)) * static_cast<size_t>(image.width()) + left) * sample,
                  static_cast<size_t>(width) * sample);
    }
  }
  return result;
}

}  // namespace flashvsr
