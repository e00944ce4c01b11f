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
                                key.rfind("encoder.", 0) == 0 || key.rfind("lq_proj_in.conv", 0) == 0;
  return followed_by_relu ? std::sqrt(2.0) : 1.0;
}

// A start from which the transformer's latents are small but reach the decoder at once: a head of
// standard deviation .06, gates of .1, no modulation by time. Smaller latents die out in training.
at::Tensor initial_value(const std::string& key, const std::vector<int64_t>& shape, const TcDecoderConfig& config) {
  if (ends_with(key, "gamma") || key.find(".norm_") != std::string::npos) return at::ones(shape);
  if (shape.size() == 1) return at::zeros(shape);
  if (ends_with(key, "modulation")) {
    const at::Tensor value = at::zeros(shape);
    if (shape[1] == 6) {
      value.select(1, 2).fill_(0.1);
      value.select(1, 5).fill_(0.1);
    }
    return value;
  }
  if (key.find("time_projection") != std::string::npos) return at::zeros(shape);
  double inputs = 1;
  for (size_t i = 1; i < shape.size(); ++i) inputs *= static_cast<double>(shape[i]);
  const double deviation = ends_with(key, "head.head.weight") ? 0.06 : gain_of(key, config) / std::sqrt(inputs);
  return at::randn(shape) * deviation;
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
  if (name == "student") return StageKind::kStudent;
  throw Error(ErrorCode::kInvalidArgument, "stage \"" + name + "\" is none of: decoder, autoencoder, student");
}

const char* name_of(StageKind kind) {
  switch (kind) {
    case StageKind::kDecoder: return "decoder";
    case StageKind::kAutoencoder: return "autoencoder";
    case StageKind::kStudent: return "student";
  }
  return "";
}

Stage::Stage(StageKind kind, const ModelConfig& config, uint64_t seed, c10::Device device)
    : kind_(kind),
      config_(config.tc_decoder),
      decoder_(config.tc_decoder),
      encoder_(config.tc_decoder.latent_channels) {
  if (kind == StageKind::kStudent) transformer_.emplace(config);
  const c10::NoGradGuard no_grad;
  at::manual_seed(seed);
  std::string last;
  const auto fill = [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    tensor = initial_value(key, shape, config_).to(device);
    if (key.rfind("tc_decoder.decoder.", 0) == 0 && shape.size() == 4) last = key;
  };
  decoder_.visit_parameters("tc_decoder.", fill);
  decoder_.visit_parameters("tc_decoder.", [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    if (key == last) tensor.zero_();
  });
  encoder_.visit_parameters("encoder.", fill);
  encoder_.visit_buffers("encoder.", [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    tensor = (ends_with(key, "running_var") ? at::ones(shape) : at::zeros(shape)).to(device);
  });
  if (transformer_) transformer_->visit_parameters(fill);
}

void Stage::visit_parameters(const ParameterVisitor& visit) {
  if (kind_ == StageKind::kStudent) return transformer_->visit_parameters(visit);
  decoder_.visit_parameters("tc_decoder.", visit);
  if (kind_ == StageKind::kAutoencoder) encoder_.visit_parameters("encoder.", visit);
}

void Stage::visit_buffers(const ParameterVisitor& visit) {
  if (kind_ == StageKind::kDecoder) return;
  encoder_.visit_buffers("encoder.", visit);
  if (kind_ == StageKind::kAutoencoder) return;
  encoder_.visit_parameters("encoder.", visit);
  decoder_.visit_parameters("tc_decoder.", visit);
}

at::ScalarType Stage::dtype() {
  at::ScalarType dtype = at::kFloat;
  decoder_.visit_parameters("", [&](const std::string&, at::Tensor& tensor, const std::vector<int64_t>&) {
    dtype = tensor.scalar_type();
  });
  return dtype;
}

at::Tensor Stage::loss(const Batch& batch, double progress, Random& random) {
  if (kind_ == StageKind::kStudent) return student_loss(batch, progress, random);
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

Batch Stage::outputs(const Batch& batch) const {
  const int64_t frames = outputs_of(batch.lq.size(2));
  return {batch.hq.narrow(2, 0, frames), batch.lq.narrow(2, 0, frames), batch.base.narrow(2, 0, frames)};
}

at::Tensor Stage::student_loss(const Batch& batch, double progress, Random& random) {
  const bool is_early = progress < 0.7;
  const Batch seen = outputs(batch);
  std::vector<double> condition(batch.hq.size(0), 1.0);
  for (double& value : condition) value = random.chance(is_early ? 0.5 : 0.2) ? 0.0 : 1.0;
  at::Tensor truth;
  {
    const c10::NoGradGuard no_grad;
    truth = encoder_.forward(seen.hq, seen.base, /*is_training=*/false);
  }
  const at::Tensor z = transformer_->forward(batch.lq).to(at::kFloat);
  DecoderMemory memory;
  const at::Tensor cond = seen.lq * per_sample(condition, seen.lq);
  const at::Tensor out = decoder_.forward(z, cond, memory, seen.base);
  if (is_early) return mse(out, seen.hq) * 10 + charbonnier(out, seen.hq) * 0.2 + mse(z, truth) * 0.05;
  return charbonnier(out, seen.hq) + temporal_difference(out, seen.hq) * 0.5 + mse(z, truth) * 0.02;
}

at::Tensor Stage::restore(const Batch& batch, Latents latents) {
  const c10::NoGradGuard no_grad;
  const Batch seen = outputs(batch);
  DecoderMemory memory;
  const at::ScalarType type = dtype();
  at::Tensor z;
  if (latents == Latents::kTrue) {
    FLASHVSR_CHECK(kind_ != StageKind::kDecoder, ErrorCode::kInvalidArgument, "true latents need an encoder");
    z = encoder_.forward(seen.hq, seen.base, /*is_training=*/false).to(type);
  } else if (latents == Latents::kStudent) {
    FLASHVSR_CHECK(kind_ == StageKind::kStudent, ErrorCode::kInvalidArgument, "no transformer in this stage");
    z = transformer_->forward(batch.lq).to(type);
  }
  return decoder_.forward(z, seen.lq.to(type), memory, seen.base);
}

}  // namespace flashvsr::train
