// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/stages.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "train/losses.h"

namespace flashvsr::train {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Standard deviation of a weight is gain / sqrt(inputs). With PyTorch's own default the H/8 path
// reaches the last stage fifty times too weak and the latents are never used.
double gain_of(const std::string& key, const TcDecoderConfig& config) {
  if (ends_with(key, "tc_decoder.skip.weight")) return 0.5;
  if (ends_with(key, ".conv.4.weight")) return 0.3;        // last of a MemBlock
  if (ends_with(key, ".conv.weight")) return 1.0;          // time growth: linear
  const bool followed_by_relu = key == "tc_decoder.decoder.1.weight" ||
                                (config.deepen && key == "tc_decoder.decoder.3.weight") ||
                                key.find(".conv.") != std::string::npos ||
                                key.rfind("encoder.", 0) == 0;
  return followed_by_relu ? std::sqrt(2.0) : 1.0;
}

std::vector<double> draw(int64_t count, double low, double high, Random& random) {
  std::vector<double> values(count);
  for (double& value : values) value = random.uniform(low, high);
  return values;
}

at::Tensor per_sample(const std::vector<double>& values, const at::Tensor& like) {
  return at::tensor(values).to(like.device()).to(at::kFloat).reshape({-1, 1, 1, 1, 1});
}

}  // namespace

StageKind stage_named(const std::string& name) {
  if (name == "decoder") return StageKind::kDecoder;
  if (name == "autoencoder") return StageKind::kAutoencoder;
  throw Error(ErrorCode::kInvalidArgument, "stage \"" + name + "\" is none of: decoder, autoencoder");
}

const char* name_of(StageKind kind) { return kind == StageKind::kDecoder ? "decoder" : "autoencoder"; }

Stage::Stage(StageKind kind, const TcDecoderConfig& config, uint64_t seed, c10::Device device)
    : kind_(kind), config_(config), decoder_(config), encoder_(config.latent_channels) {
  const c10::NoGradGuard no_grad;
  at::manual_seed(seed);
  std::string last;
  visit_parameters([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    if (shape.size() == 1) {
      tensor = at::zeros(shape);
    } else {
      const double inputs = static_cast<double>(shape[1] * shape[2] * shape[3]);
      tensor = at::randn(shape) * (gain_of(key, config_) / std::sqrt(inputs));
      if (key.rfind("tc_decoder.decoder.", 0) == 0) last = key;
    }
    tensor = tensor.to(device);
  });
  visit_parameters([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    if (key == last) tensor.zero_();
  });
  visit_buffers([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    tensor = (ends_with(key, "running_var") ? at::ones(shape) : at::zeros(shape)).to(device);
  });
}

void Stage::visit_parameters(const ParameterVisitor& visit) {
  decoder_.visit_parameters("tc_decoder.", visit);
  if (kind_ == StageKind::kAutoencoder) encoder_.visit_parameters("encoder.", visit);
}

void Stage::visit_buffers(const ParameterVisitor& visit) {
  if (kind_ == StageKind::kAutoencoder) encoder_.visit_buffers("encoder.", visit);
}

at::ScalarType Stage::dtype() {
  at::ScalarType dtype = at::kFloat;
  decoder_.visit_parameters("", [&](const std::string&, at::Tensor& tensor, const std::vector<int64_t>&) {
    dtype = tensor.scalar_type();
  });
  return dtype;
}

at::Tensor Stage::loss(const Batch& batch, double progress, Random& random) {
  DecoderMemory memory;
  const at::ScalarType type = dtype();
  if (kind_ == StageKind::kDecoder) {
    const at::Tensor out = decoder_.forward({}, batch.lq.to(type), memory, batch.base);
    if (progress < mse_share) return mse(out, batch.hq) * 10;
    return charbonnier(out, batch.hq) + temporal_difference(out, batch.hq) * 0.5;
  }
  const int64_t count = batch.hq.size(0);
  std::vector<double> scale = draw(count, 0.4, 1.0, random), noise = draw(count, 0.0, 0.4, random);
  std::vector<double> condition(count, 1.0);
  for (int64_t i = 0; i < count; ++i) {
    if (random.chance(0.2)) {
      scale[i] = noise[i] = 0;
    } else if (random.chance(0.6)) {
      condition[i] = 0;
    }
  }
  at::Tensor z = encoder_.forward(batch.hq, batch.base, /*is_training=*/true);
  z = z * per_sample(scale, z) + at::randn(z.sizes(), z.options()) * per_sample(noise, z);
  const at::Tensor cond = batch.lq * per_sample(condition, batch.lq);
  const at::Tensor out = decoder_.forward(z.to(type), cond.to(type), memory, batch.base);
  return mse(out, batch.hq) * 10 + charbonnier(out, batch.hq) * 0.2;
}

at::Tensor Stage::restore(const Batch& batch, bool true_latents) {
  const c10::NoGradGuard no_grad;
  DecoderMemory memory;
  const at::ScalarType type = dtype();
  at::Tensor z;
  if (true_latents) {
    FLASHVSR_CHECK(kind_ == StageKind::kAutoencoder, ErrorCode::kInvalidArgument,
                   "true latents need the autoencoder stage");
    z = encoder_.forward(batch.hq, batch.base, /*is_training=*/false).to(type);
  }
  return decoder_.forward(z, batch.lq.to(type), memory, batch.base);
}

}  // namespace flashvsr::train
