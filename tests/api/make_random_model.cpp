// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Writes small models with random weights, as config.json + model.safetensors:
//
//     make_random_model decoder|student|enlarged FOLDER
//
// decoder: the student's decoder alone; student: with projector and transformer; enlarged: a model
// that sees a bicubic pre-enlargement, as the released ones do.
#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/weights.h"
#include "support/random_weights.h"

namespace flashvsr {
namespace {

ModelConfig config_of(const std::string& kind) {
  ModelConfig config = random_student_config();
  config.name = "random " + kind;
  config.tc_decoder.channels[3] = config.tc_decoder.channels[2];
  if (kind == "decoder") config.has_transformer = false;
  if (kind == "enlarged") {
    config.input_scale = 1;
    config.noise_scale = 1;
    config.lq_projector.unshuffle = 16;
    config.tc_decoder.cond_unshuffle = 8;
    config.tc_decoder.channels = {12, 8, 8, 8};
    config.tc_decoder.up = {2, 2, 2};
    config.tc_decoder.grow = {1, 2, 2};
    config.tc_decoder.final_shuffle = 1;
    config.tc_decoder.skip = false;
    config.tc_decoder.residual = false;
  }
  return config;
}

TensorMap random_weights(Upscaler& model) {
  TensorMap tensors;
  at::manual_seed(20261123);
  model.visit_parameters(
      [&](const std::string& key, at::Tensor&, const std::vector<int64_t>& shape) {
        at::Tensor weight = random_weight(key, shape, at::TensorOptions());
        // less than full strength: the residual stays a detail on the enlargement
        if (shape.size() == 4 && model.config().tc_decoder.residual) weight = weight * 0.7;
        tensors[key] = weight.to(at::kBFloat16).contiguous();
      },
      false);
  return tensors;
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "use: make_random_model decoder|student|enlarged FOLDER\n");
    return 2;
  }
  const flashvsr::ModelConfig config = flashvsr::config_of(argv[1]);
  std::filesystem::create_directories(argv[2]);
  const std::string folder = argv[2];
  std::ofstream(folder + "/config.json") << flashvsr::config_to_json(config);
  flashvsr::Upscaler model(config);
  flashvsr::write_tensors(folder + "/model.safetensors", flashvsr::random_weights(model));
  return 0;
}
