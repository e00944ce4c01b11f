// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/postprocess.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "image/image_ops.h"
#include "image/own_kernel.h"
#include "image/preprocess.h"
#include "image/vectorize.h"

namespace flashvsr {
namespace {

constexpr int kLanes = 16;
// Through tensor operations: bounds what lies between them.
constexpr int64_t kFramesAtOnce = 8;

FLASHVSR_INLINE float load(const float* row, int64_t x) { return row[x]; }
FLASHVSR_INLINE float load(const c10::BFloat16* row, int64_t x) {
  const uint32_t bits = static_cast<uint32_t>(row[x].x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// To the tensor's dtype and back: what an operation on such tensors leaves.
template <typename Value>
FLASHVSR_INLINE float rounded(float value);
template <>
FLASHVSR_INLINE float rounded<float>(float value) {
  return value;
}
template <>
FLASHVSR_INLINE float rounded<c10::BFloat16>(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

struct Affine {
  float content_mean, content_deviation, style_deviation, style_mean;
};

template <typename Value>
FLASHVSR_INLINE double row_sum(const Value* row, int64_t width, float shift, bool squared) {
  float sum[kLanes] = {};
  const int64_t whole = width / kLanes * kLanes;
  for (int64_t x = 0; x < whole; x += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = load(row, x + lane) - shift;
      sum[lane] += squared ? value * value : value;
    }
  }
  double total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
  for (int64_t x = whole; x < width; ++x) {
    const float value = load(row, x) - shift;
    total += squared ? value * value : value;
  }
  return total;
}

template <typename Value, typename Sample>
FLASHVSR_INLINE void quantize_row(const Value* FLASHVSR_RESTRICT row, int64_t width, const Affine* affine, float half_max,
                                  float max, float offset, Sample* FLASHVSR_RESTRICT out) {
  if (affine != nullptr) {
    const Affine a = *affine;
    for (int64_t x = 0; x < width; ++x) {
      float value = rounded<Value>(load(row, x) - a.content_mean);
      value = rounded<Value>(value / a.content_deviation);
      value = rounded<Value>(value * a.style_deviation);
      value = rounded<Value>(value + a.style_mean);
      value = value > -1.0f ? value : -1.0f;  // NaN too
      value = value < 1.0f ? value : 1.0f;
      float level = (value + 1.0f) * half_max + offset;
      level = level < max ? level : max;
      out[x] = static_cast<Sample>(static_cast<int32_t>(level));
    }
    return;
  }
  for (int64_t x = 0; x < width; ++x) {
    float level = (load(row, x) + 1.0f) * half_max + offset;
    level = level > 0.0f ? level : 0.0f;
    level = level < max ? level : max;
    out[x] = static_cast<Sample>(static_cast<int32_t>(level));
  }
}

FLASHVSR_VECTORIZED double row_sum_float(const float* row, int64_t width, float shift, bool squared) {
  return row_sum(row, width, shift, squared);
}
FLASHVSR_VECTORIZED double row_sum_bfloat16(const c10::BFloat16* row, int64_t width, float shift, bool squared) {
  return row_sum(row, width, shift, squared);
}
FLASHVSR_VECTORIZED void quantize_row_float_8(const float* row, int64_t width, const Affine* affine, float half_max,
                                              float max, float offset, uint8_t* out) {
  quantize_row(row, width, affine, half_max, max, offset, out);
}
FLASHVSR_VECTORIZED void quantize_row_float_16(const float* row, int64_t width, const Affine* affine, float half_max,
                                               float max, float offset, uint16_t* out) {
  quantize_row(row, width, affine, half_max, max, offset, out);
}
FLASHVSR_VECTORIZED void quantize_row_bfloat16_8(const c10::BFloat16* row, int64_t width, const Affine* affine,
                                                 float half_max, float max, float offset, uint8_t* out) {
  quantize_row(row, width, affine, half_max, max, offset, out);
}
FLASHVSR_VECTORIZED void quantize_row_bfloat16_16(const c10::BFloat16* row, int64_t width, const Affine* affine,
                                                  float half_max, float max, float offset, uint16_t* out) {
  quantize_row(row, width, affine, half_max, max, offset, out);
}
double sum_of_row(const float* row, int64_t width, float shift, bool squared) {
  return row_sum_float(row, width, shift, squared);
}
double sum_of_row(const c10::BFloat16* row, int64_t width, float shift, bool squared) {
  return row_sum_bfloat16(row, width, shift, squared);
}
void quantized_row(const float* row, int64_t width, const Affine* affine, float half_max, float max, float offset,
                   uint8_t* out) {
  quantize_row_float_8(row, width, affine, half_max, max, offset, out);
}
void quantized_row(const float* row, int64_t width, const Affine* affine, float half_max, float max, float offset,
                   uint16_t* out) {
  quantize_row_float_16(row, width, affine, half_max, max, offset, out);
}
void quantized_row(const c10::BFloat16* row, int64_t width, const Affine* affine, float half_max, float max,
                   float offset, uint8_t* out) {
  quantize_row_bfloat16_8(row, width, affine, half_max, max, offset, out);
}
void quantized_row(const c10::BFloat16* row, int64_t width, const Affine* affine, float half_max, float max,
                   float offset, uint16_t* out) {
  quantize_row_bfloat16_16(row, width, affine, half_max, max, offset, out);
}

template <typename Value>
float deviation(double variance) {
  const float rounded_variance = rounded<Value>(static_cast<float>(variance));
  return rounded<Value>(std::sqrt(rounded<Value>(rounded_variance + 1e-5f)));
}

// Mean and deviation of a picture's plane as the model sees it, from its histogram.
template <typename Value, typename Sample>
void style_statistics(const PlanarImage& image, int plane, const std::vector<float>& table, Affine& affine) {
  std::vector<uint32_t> counts(4 * table.size(), 0);  // four tables: equal neighbours do not wait for one another
  const Sample* samples = image.plane<Sample>(plane);
  const size_t size = image.plane_samples();
  const size_t bins = table.size();
  size_t i = 0;
  for (; i + 4 <= size; i += 4) {
    ++counts[samples[i]];
    ++counts[bins + samples[i + 1]];
    ++counts[2 * bins + samples[i + 2]];
    ++counts[3 * bins + samples[i + 3]];
  }
  for (; i < size; ++i) ++counts[samples[i]];
  double sum = 0;
  for (size_t v = 0; v < bins; ++v) {
    counts[v] += counts[bins + v] + counts[2 * bins + v] + counts[3 * bins + v];
    sum += static_cast<double>(counts[v]) * table[v];
  }
  const double mean = sum / static_cast<double>(size);
  double squares = 0;
  for (size_t v = 0; v < bins; ++v) {
    const double difference = table[v] - mean;
    squares += static_cast<double>(counts[v]) * difference * difference;
  }
  affine.style_mean = rounded<Value>(static_cast<float>(mean));
  affine.style_deviation = deviation<Value>(squares / static_cast<double>(size));
}

template <typename Value, typename Sample>
void cpu_to_images(const at::Tensor& frames, int64_t first, const std::vector<const PlanarImage*>& references,
                   const PostprocessOptions& options, const std::vector<PlanarImage*>& images) {
  const int64_t width = images[0]->width(), height = images[0]->height();
  const int max_value = images[0]->max_value();
  const float half_max = static_cast<float>(max_value) / 2.0f;
  const float offset = options.quantization == Quantization::kNearest ? 0.5f : 0.0f;
  std::vector<float> table;
  if (options.color_fix == ColorFix::kAdain) {
    for (int v = 0; v <= max_value; ++v) table.push_back(rounded<Value>(normalized(v, max_value)));
  }
  const Value* data = frames.data_ptr<Value>();
  const int64_t channel_stride = frames.stride(1), frame_stride = frames.stride(2), row_stride = frames.stride(3);
  at::parallel_for(0, static_cast<int64_t>(images.size()) * 3, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t channel = i % 3, image = i / 3;
      const Value* plane = data + channel * channel_stride + (first + image) * frame_stride;
      Affine affine{};
      if (options.color_fix == ColorFix::kAdain) {
        double sum = 0;
        for (int64_t y = 0; y < height; ++y) sum += sum_of_row(plane + y * row_stride, width, 0.0f, false);
        const double count = static_cast<double>(width * height);
        const double mean = sum / count;
        double squares = 0, shifted = 0;
        const float shift = static_cast<float>(mean);
        for (int64_t y = 0; y < height; ++y) {
          squares += sum_of_row(plane + y * row_stride, width, shift, true);
        }
        shifted = mean - static_cast<double>(shift);
        affine.content_mean = rounded<Value>(shift);
        affine.content_deviation = deviation<Value>(squares / count - shifted * shifted);
        style_statistics<Value, Sample>(*references[static_cast<size_t>(image)], static_cast<int>(channel), table,
                                        affine);
      }
      Sample* out = images[static_cast<size_t>(image)]->plane<Sample>(static_cast<int>(channel));
      for (int64_t y = 0; y < height; ++y) {
        quantized_row(plane + y * row_stride, width, options.color_fix == ColorFix::kAdain ? &affine : nullptr,
                      half_max, static_cast<float>(max_value), offset, out + y * width);
      }
    }
  });
}

template <typename Value>
void cpu_to_images(const at::Tensor& frames, int64_t first, const std::vector<const PlanarImage*>& references,
                   const PostprocessOptions& options, const std::vector<PlanarImage*>& images) {
  if (images[0]->depth() > 8) cpu_to_images<Value, uint16_t>(frames, first, references, options, images);
  else cpu_to_images<Value, uint8_t>(frames, first, references, options, images);
}

template <typename Sample>
FLASHVSR_INLINE void blend_plane(const Sample* FLASHVSR_RESTRICT base, int32_t weight, size_t size,
                                 Sample* FLASHVSR_RESTRICT image) {
  for (size_t i = 0; i < size; ++i) {
    const int32_t difference = static_cast<int32_t>(image[i]) - base[i];
    image[i] = static_cast<Sample>(base[i] + ((difference * weight + 2048) >> 12));
  }
}
FLASHVSR_VECTORIZED void blend_plane_8(const uint8_t* base, int32_t weight, size_t size, uint8_t* image) {
  blend_plane(base, weight, size, image);
}
FLASHVSR_VECTORIZED void blend_plane_16(const uint16_t* base, int32_t weight, size_t size, uint16_t* image) {
  blend_plane(base, weight, size, image);
}

template <typename Sample>
FLASHVSR_INLINE void carry_plane(const Sample* FLASHVSR_RESTRICT old_image, const Sample* FLASHVSR_RESTRICT old_base,
                                 int32_t weight, int32_t reach, int32_t max_value, size_t size,
                                 Sample* FLASHVSR_RESTRICT image) {
  for (size_t i = 0; i < size; ++i) {
    const int32_t value = image[i];
    int32_t change = value - old_base[i];
    change = change < 0 ? -change : change;
    const int32_t likeness = change < reach ? reach - change : 0;
    const int32_t detail = static_cast<int32_t>(old_image[i]) - old_base[i];
    int32_t result = value + detail * weight * likeness / (256 * reach);
    result = result < 0 ? 0 : result;
    image[i] = static_cast<Sample>(result > max_value ? max_value : result);
  }
}
FLASHVSR_VECTORIZED void carry_plane_8(const uint8_t* old_image, const uint8_t* old_base, int32_t weight, size_t size,
                                       uint8_t* image) {
  carry_plane(old_image, old_base, weight, 8, 255, size, image);
}
FLASHVSR_VECTORIZED void carry_plane_16(const uint16_t* old_image, const uint16_t* old_base, int32_t weight,
                                        size_t size, uint16_t* image) {
  carry_plane(old_image, old_base, weight, 32, 1023, size, image);
}

void check_alike(const PlanarImage& base, const PlanarImage& image) {
  FLASHVSR_CHECK(base.width() == image.width() && base.height() == image.height() && base.depth() == image.depth(),
                 ErrorCode::kInternal, "postprocess: pictures of different shapes");
}

template <typename Sample>
void compare_plane(const Sample* base, Compare mode, int bar, int width, int height, Sample white, Sample* image) {
  const size_t stride = static_cast<size_t>(width);
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    Sample* row = image + y * stride;
    const Sample* base_row = base + y * stride;
    if (mode == Compare::kSplit) {
      std::copy(base_row, base_row + bar, row);
      if (bar > 0 && bar < width) {
        row[bar - 1] = white;
        row[bar] = white;
      }
    } else {
      // left half: base's middle; right half: our middle, which may overlap where it goes
      const int left = width / 2, right = width - left;
      const int offset = (width - left) / 2;
      std::memmove(row + left, row + (width - right) / 2, static_cast<size_t>(right) * sizeof(Sample));
      std::copy(base_row + offset, base_row + offset + left, row);
    }
  }
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(flashvsr, m) {
  m.def("finish_frames(Tensor frames, Tensor? style, int height, int width, int max_value, bool nearest) -> Tensor");
  m.def("wavelet_color(Tensor frames, Tensor? style, int height, int width, int max_value, bool nearest) -> Tensor");
}

at::Tensor quantize(const at::Tensor& frames, int max_value, Quantization quantization) {
  at::Tensor level = (frames.to(c10::kFloat) + 1.0) * (max_value / 2.0);
  if (quantization == Quantization::kNearest) level = level + 0.5;
  level = at::nan_to_num(level, 0.0).clamp(0.0, static_cast<double>(max_value));
  return level.to(max_value > 255 ? c10::kShort : c10::kByte);
}

at::Tensor finish_frames(const at::Tensor& frames, const at::Tensor& style, int64_t height, int64_t width, int max_value,
                         const PostprocessOptions& options) {
  FLASHVSR_CHECK(style.defined() == (options.color_fix != ColorFix::kNone), ErrorCode::kInternal,
                 "postprocess: style frames and the colour correction do not go together");
  using Kernel = at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&, int64_t, int64_t, int64_t, bool);
  // A decoder whose result is added to the enlargement gives fp32, also with a model in bf16.
  const bool has_kernel = frames.scalar_type() == c10::kBFloat16 ||
                          (frames.scalar_type() == c10::kFloat && (!style.defined() || style.scalar_type() == c10::kBFloat16));
  if (has_kernel) {
    const char* name = options.color_fix == ColorFix::kWavelet ? "wavelet_color" : "finish_frames";
    if (const auto kernel = own_kernel<Kernel>(name, frames)) {
      const auto colors = style.defined() ? std::optional(style.to(c10::kBFloat16)) : std::nullopt;
      return kernel->call(frames, colors, height, width, max_value, options.quantization == Quantization::kNearest);
    }
  }
  std::vector<at::Tensor> samples;
  for (int64_t begin = 0; begin < frames.size(2); begin += kFramesAtOnce) {
    const auto part = [&](const at::Tensor& x) {
      return x.narrow(2, begin, std::min(kFramesAtOnce, x.size(2) - begin)).narrow(3, 0, height).narrow(4, 0, width);
    };
    at::Tensor visible = part(frames);
    if (style.defined()) {
      const at::Tensor colors = part(style).to(frames.scalar_type());
      visible = options.color_fix == ColorFix::kAdain ? adain(visible, colors) : wavelet(visible, colors);
    }
    samples.push_back(quantize(visible, max_value, options.quantization).squeeze(0).transpose(0, 1).contiguous());
  }
  return samples.size() == 1 ? samples[0] : at::cat(samples, 0);
}

void tensor_to_images(const at::Tensor& frames, int64_t first, const std::vector<const PlanarImage*>& references,
                      const PostprocessOptions& options, const std::vector<PlanarImage*>& images,
                      const at::Tensor& style) {
  if (images.empty()) return;
  const int64_t width = images[0]->width(), height = images[0]->height();
  const int64_t count = static_cast<int64_t>(images.size());
  const auto holds_pictures = [&](const at::Tensor& tensor) {
    return tensor.dim() == 5 && tensor.size(1) == 3 && first >= 0 && first + count <= tensor.size(2) &&
           height <= tensor.size(3) && width <= tensor.size(4);
  };
  FLASHVSR_CHECK(holds_pictures(frames) && (!style.defined() || holds_pictures(style)), ErrorCode::kInternal,
                 "postprocess: frames do not hold the pictures");
  if (options.color_fix != ColorFix::kNone && !style.defined()) {
    FLASHVSR_CHECK(references.size() == images.size(), ErrorCode::kInternal, "postprocess: ", references.size(),
                   " references for ", images.size(), " pictures");
    for (size_t i = 0; i < images.size(); ++i) check_alike(*references[i], *images[i]);
  }
  const bool is_plain = frames.device().is_cpu() && frames.stride(4) == 1 && !style.defined();
  if (is_plain && options.color_fix != ColorFix::kWavelet) {
    if (frames.scalar_type() == c10::kFloat) {
      cpu_to_images<float>(frames, first, references, options, images);
      return;
    }
    if (frames.scalar_type() == c10::kBFloat16) {
      cpu_to_images<c10::BFloat16>(frames, first, references, options, images);
      return;
    }
  }
  for (int64_t begin = 0; begin < count; begin += kFramesAtOnce) {
    const int64_t end = std::min(count, begin + kFramesAtOnce);
    const auto part = [&](const at::Tensor& tensor) { return tensor.narrow(2, first + begin, end - begin); };
    at::Tensor colors;
    if (options.color_fix != ColorFix::kNone) {
      colors = style.defined() ? part(style)
                               : images_to_tensor({references.begin() + begin, references.begin() + end}, height, width,
                                                  frames.device(), frames.scalar_type());
    }
    const at::Tensor samples = finish_frames(part(frames), colors, height, width, images[0]->max_value(), options);
    download_samples(samples.transpose(0, 1).unsqueeze(0), {images.begin() + begin, images.begin() + end});
  }
}

void blend(const PlanarImage& base, float strength, PlanarImage& image) {
  check_alike(base, image);
  const int32_t weight = static_cast<int32_t>(std::lround(std::clamp(strength, 0.0f, 1.0f) * 4096.0f));
  if (weight == 4096) return;
  const size_t size = 3 * image.plane_samples();
  if (image.depth() > 8) blend_plane_16(base.plane<uint16_t>(0), weight, size, image.plane<uint16_t>(0));
  else blend_plane_8(base.plane<uint8_t>(0), weight, size, image.plane<uint8_t>(0));
}

void carry_detail(const PlanarImage& old_image, const PlanarImage& old_base, float strength, PlanarImage& image) {
  check_alike(old_base, image);
  check_alike(old_image, image);
  const int32_t weight = static_cast<int32_t>(std::lround(std::clamp(strength, 0.0f, 1.0f) * 256.0f));
  const size_t size = 3 * image.plane_samples();
  if (image.depth() > 8) {
    carry_plane_16(old_image.plane<uint16_t>(0), old_base.plane<uint16_t>(0), weight, size, image.plane<uint16_t>(0));
  } else {
    carry_plane_8(old_image.plane<uint8_t>(0), old_base.plane<uint8_t>(0), weight, size, image.plane<uint8_t>(0));
  }
}

void compare(const PlanarImage& base, Compare mode, float position, PlanarImage& image) {
  check_alike(base, image);
  if (mode == Compare::kOff) return;
  const int bar = static_cast<int>(std::lround(std::clamp(position, 0.0f, 1.0f) * static_cast<float>(image.width())));
  for (int plane = 0; plane < 3; ++plane) {
    if (image.depth() > 8) {
      compare_plane<uint16_t>(base.plane<uint16_t>(plane), mode, bar, image.width(), image.height(), 1023,
                              image.plane<uint16_t>(plane));
    } else {
      compare_plane<uint8_t>(base.plane<uint8_t>(plane), mode, bar, image.width(), image.height(), 255,
                             image.plane<uint8_t>(plane));
    }
  }
}

}  // namespace flashvsr
