// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/degradation.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace flashvsr::train {
namespace {

constexpr int64_t kScale = 4;

// [B, 3, F, h, w] <-> [B*F, 3, h, w]
at::Tensor to_planes(const at::Tensor& clip) {
  return clip.transpose(1, 2).flatten(0, 1).contiguous();
}
at::Tensor to_clip(const at::Tensor& planes, int64_t batch) {
  return planes.unflatten(0, {batch, planes.size(0) / batch}).transpose(1, 2).contiguous();
}

at::Tensor reduced_planes(const at::Tensor& planes) {
  return at::_upsample_bicubic2d_aa(planes, {planes.size(2) / kScale, planes.size(3) / kScale}, false);
}

// Full-range BT.601, as JPEG uses it, without its offset of 128.
at::Tensor to_ycc(const at::Tensor& rgb) {
  const at::Tensor r = rgb.select(1, 0), g = rgb.select(1, 1), b = rgb.select(1, 2);
  const at::Tensor y = r * 0.299 + g * 0.587 + b * 0.114;
  return at::stack({y, (b - y) / 1.772, (r - y) / 1.402}, 1);
}
at::Tensor to_rgb(const at::Tensor& ycc) {
  const at::Tensor y = ycc.select(1, 0), cb = ycc.select(1, 1), cr = ycc.select(1, 2);
  return at::stack({y + cr * 1.402, y - cb * 0.344136 - cr * 0.714136, y + cb * 1.772}, 1);
}

at::Tensor pad_to_multiple(const at::Tensor& planes, int64_t multiple) {
  const int64_t h = planes.size(2), w = planes.size(3);
  const int64_t bottom = (multiple - h % multiple) % multiple, right = (multiple - w % multiple) % multiple;
  if (bottom == 0 && right == 0) return planes;
  return at::replication_pad2d(planes, {0, right, 0, bottom});
}

at::Tensor halved(const at::Tensor& planes) { return at::avg_pool2d(planes, {2, 2}, {2, 2}); }
at::Tensor doubled(const at::Tensor& planes) {
  return at::upsample_bilinear2d(planes, {planes.size(2) * 2, planes.size(3) * 2}, false);
}

// The example tables of ITU-T T.81 annex K.
constexpr int kLumaTable[64] = {
    16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,  14, 13, 16, 24, 40, 57,
    69, 56, 14, 17, 22,  29,  51,  87,  80, 62, 18, 22, 37,  56,  68,  109, 103, 77, 24, 35, 55, 64,
    81, 104, 113, 92, 49, 64, 78,  87,  103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99};
constexpr int kChromaTable[64] = {
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99,
    99, 99, 47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99};

at::Tensor quantiser(const int (&table)[64], double quality, const at::Tensor& like) {
  const double scale = quality < 50 ? 5000 / quality : 200 - 2 * quality;
  std::vector<float> steps(64);
  for (int i = 0; i < 64; ++i) {
    steps[i] = static_cast<float>(std::clamp(std::floor((table[i] * scale + 50) / 100), 1.0, 255.0));
  }
  return at::tensor(steps).reshape({8, 8}).to(like.device());
}

const at::Tensor& dct_matrix(const at::Tensor& like) {
  static std::map<std::string, at::Tensor> by_device;
  at::Tensor& matrix = by_device[like.device().str()];
  if (!matrix.defined()) {
    std::vector<float> values(64);
    for (int k = 0; k < 8; ++k) {
      for (int n = 0; n < 8; ++n) {
        values[k * 8 + n] = static_cast<float>((k == 0 ? std::sqrt(0.125) : 0.5) * std::cos(M_PI * (2 * n + 1) * k / 16));
      }
    }
    matrix = at::tensor(values).reshape({8, 8}).to(like.device());
  }
  return matrix;
}

// Planes [N, C, h, w] centred at zero; h and w multiples of 8.
at::Tensor quantise_blocks(const at::Tensor& planes, const at::Tensor& steps) {
  const int64_t n = planes.size(0), c = planes.size(1), h = planes.size(2), w = planes.size(3);
  const at::Tensor& dct = dct_matrix(planes);
  const at::Tensor blocks = planes.reshape({n, c, h / 8, 8, w / 8, 8}).transpose(3, 4);
  at::Tensor values = at::matmul(at::matmul(dct, blocks), dct.t());
  values = (values / steps).round() * steps;
  return at::matmul(at::matmul(dct.t(), values), dct).transpose(3, 4).reshape({n, c, h, w});
}

at::Tensor to_eight_bits(const at::Tensor& planes) { return planes.round().clamp(0, 255); }

}  // namespace

at::Tensor gaussian_blur(const at::Tensor& planes, double sigma) {
  const int64_t radius = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(3 * sigma)));
  std::vector<float> taps(2 * radius + 1);
  double sum = 0;
  for (int64_t i = -radius; i <= radius; ++i) sum += std::exp(-0.5 * i * i / (sigma * sigma));
  for (int64_t i = -radius; i <= radius; ++i) {
    taps[i + radius] = static_cast<float>(std::exp(-0.5 * i * i / (sigma * sigma)) / sum);
  }
  const at::Tensor kernel = at::tensor(taps).to(planes.device());
  at::Tensor x = planes.flatten(0, 1).unsqueeze(1);
  x = at::replication_pad2d(x, {radius, radius, radius, radius});
  x = at::conv2d(x, kernel.reshape({1, 1, 1, -1}));
  x = at::conv2d(x, kernel.reshape({1, 1, -1, 1}));
  return x.reshape(planes.sizes());
}

at::Tensor halve_chroma(const at::Tensor& rgb) {
  const at::Tensor ycc = to_ycc(pad_to_multiple(rgb, 2));
  const at::Tensor chroma = doubled(halved(ycc.narrow(1, 1, 2)).round());
  return to_rgb(at::cat({ycc.narrow(1, 0, 1), chroma}, 1)).narrow(2, 0, rgb.size(2)).narrow(3, 0, rgb.size(3));
}

at::Tensor jpeg(const at::Tensor& rgb, double quality) {
  const at::Tensor ycc = to_ycc(pad_to_multiple(rgb, 16));
  const at::Tensor luma =
      quantise_blocks(ycc.narrow(1, 0, 1) - 128, quantiser(kLumaTable, quality, rgb)) + 128;
  const at::Tensor chroma =
      doubled(quantise_blocks(halved(ycc.narrow(1, 1, 2)), quantiser(kChromaTable, quality, rgb)));
  return to_rgb(at::cat({luma, chroma}, 1)).narrow(2, 0, rgb.size(2)).narrow(3, 0, rgb.size(3));
}

at::Tensor reduce(const at::Tensor& hq) {
  const c10::NoGradGuard no_grad;
  const at::Tensor planes = reduced_planes((to_planes(hq) + 1) * 127.5);
  return to_clip(to_eight_bits(planes).div_(127.5).sub_(1), hq.size(0));
}

at::Tensor enlarge(const at::Tensor& lq) {
  const c10::NoGradGuard no_grad;
  const at::Tensor planes = to_planes(lq);
  return to_clip(at::_upsample_bicubic2d_aa(planes, {planes.size(2) * kScale, planes.size(3) * kScale}, false),
                 lq.size(0));
}

at::Tensor degrade(const at::Tensor& hq, const DegradationOptions& options, Random& random,
                   const std::vector<at::Tensor>& given) {
  const c10::NoGradGuard no_grad;
  const int64_t batch = hq.size(0);
  std::vector<at::Tensor> samples;
  for (int64_t i = 0; i < batch; ++i) {
    if (i < static_cast<int64_t>(given.size()) && given[i].defined()) {
      samples.push_back(((given[i] + 1) * 127.5).round().unsqueeze(0));
      continue;
    }
    at::Tensor x = (to_planes(hq.narrow(0, i, 1)) + 1) * 127.5;
    const bool is_clean = random.chance(options.clean);
    if (!is_clean && random.chance(options.blur)) {
      x = gaussian_blur(x, random.uniform(options.blur_low, options.blur_high));
    }
    x = reduced_planes(x);
    if (!is_clean && random.chance(options.noise)) {
      x = x + at::randn(x.sizes(), x.options()) * random.uniform(options.noise_low, options.noise_high);
    }
    if (!is_clean && random.chance(options.jpeg)) {
      x = jpeg(to_eight_bits(x), random.uniform(options.jpeg_low, options.jpeg_high));
    } else if (random.chance(options.chroma_half)) {
      x = halve_chroma(x.clamp(0, 255));
    }
    samples.push_back(to_clip(to_eight_bits(x), 1));
  }
  return at::cat(samples, 0).div_(127.5).sub_(1);
}

}  // namespace flashvsr::train
