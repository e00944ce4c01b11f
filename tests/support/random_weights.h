// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Random weights of the right scale for tests and benchmarks: matrices and kernels normal with
// standard deviation sqrt(1/fan_in), norms 1 +- 0.1, biases 0.02, modulation 1/sqrt(dim); the last
// layer of a transformer block is damped so that 30 layers stay finite.
#ifndef FLASHVSR_TESTS_SUPPORT_RANDOM_WEIGHTS_H_
#define FLASHVSR_TESTS_SUPPORT_RANDOM_WEIGHTS_H_

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "model/upscaler.h"

namespace flashvsr {

inline at::Tensor random_weight(const std::string& key, const std::vector<int64_t>& shape,
                                const at::TensorOptions& options) {
  const bool is_gain = key.find("norm") != std::string::npos || key.find("gamma") != std::string::npos;
  const bool is_bias = key.size() > 5 && key.compare(key.size() - 5, 5, ".bias") == 0;
  if (is_bias) return at::randn(shape, options).mul_(0.02);
  if (is_gain) return at::randn(shape, options).mul_(0.1).add_(1);
  if (key.find("modulation") != std::string::npos) {
    return at::randn(shape, options).mul_(1 / std::sqrt(static_cast<double>(shape.back())));
  }
  double fan_in = 1;
  for (size_t i = 1; i < shape.size(); ++i) fan_in *= static_cast<double>(shape[i]);
  return at::randn(shape, options).mul_(std::sqrt(1 / fan_in));
}

// Fills every weight on `device` in `dtype` and prepares the model.
inline void randomize(Upscaler& model, c10::Device device, c10::ScalarType dtype, bool with_vae,
                      int64_t prompt_tokens = 512) {
  const auto options =
      at::TensorOptions().device(device).dtype(dtype == at::kFloat8_e4m3fn ? at::kBFloat16 : dtype);
  model.visit_parameters(
      [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
        tensor = random_weight(key, shape, options);
      },
      with_vae);
  at::Tensor prompt;
  if (model.config().dit.has_text) prompt = at::randn({1, prompt_tokens, model.config().dit.text_dim}, options);
  model.prepare(device, dtype, prompt, with_vae);
}

// A small student with random weights: every module runs, in milliseconds.
inline ModelConfig random_student_config() {
  ModelConfig config;
  config.name = "random student";
  config.dit = {/*dim=*/128, /*heads=*/2, /*layers=*/2, /*ffn_dim=*/256, /*freq_dim=*/64, /*text_dim=*/0,
                /*latent_channels=*/16, /*has_text=*/false, /*eps=*/1e-6};
  config.lq_projector = {/*unshuffle=*/4, /*hidden1=*/32, /*hidden2=*/48, /*out_dim=*/128, Version::kV1_1};
  config.tc_decoder.cond_unshuffle = 2;
  config.tc_decoder.channels = {24, 16, 16, 0};
  config.tc_decoder.mem_blocks = {1, 1, 1};
  config.tc_decoder.up = {2, 1, 1};
  config.tc_decoder.grow = {2, 2, 1};
  config.tc_decoder.deepen = false;
  config.tc_decoder.final_shuffle = 4;
  config.tc_decoder.skip = true;
  config.tc_decoder.residual = true;
  config.input_scale = 4;
  config.noise_scale = 0;
  config.blocks_per_query = 6;
  config.local_range = 3;
  return config;
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_SUPPORT_RANDOM_WEIGHTS_H_
