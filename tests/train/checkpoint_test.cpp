// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/error.h"
#include "io/json.h"
#include "io/weights.h"
#include "train/trainer.h"

namespace flashvsr::train {
namespace {

TEST(Checkpoint, TensorsAndStringsComeBack) {
  const std::string path = testing::TempDir() + "/checkpoint_test.safetensors";
  TensorFile file;
  file.tensors["a"] = at::randn({2, 3, 1});
  file.tensors["b"] = at::randn({5}).to(at::kBFloat16);
  file.metadata = {{"seed", "18446744073709551615"}, {"quote", "\"x\"\n"}};
  write_file(path, file);
  const TensorFile back = read_file(path);
  EXPECT_TRUE(at::equal(back.tensors.at("a"), file.tensors.at("a")));
  EXPECT_TRUE(at::equal(back.tensors.at("b"), file.tensors.at("b")));
  EXPECT_EQ(back.metadata, file.metadata);
  EXPECT_EQ(metadata_of(back, "seed", path), "18446744073709551615");
  EXPECT_THROW(metadata_of(back, "absent", path), Error);
}

// What the trainer exports is what the engine opens: strictly, with nothing missing or left over.
TEST(Checkpoint, ExportLoadsInTheEngine) {
  const std::string directory = testing::TempDir() + "/export_test";
  const ModelConfig config = exported_config(nano_decoder_config());
  TcDecoder decoder(config.tc_decoder);
  TensorMap weights;
  decoder.visit_parameters("tc_decoder.", [&](const std::string& key, at::Tensor&, const std::vector<int64_t>& shape) {
    weights[key] = at::randn(shape);
  });
  export_model(directory, config, weights, {{"iteration", "3"}});
  Checkpoint opened = open_checkpoint(directory, std::nullopt, false);
  EXPECT_EQ(opened.config.input_scale, 4);
  EXPECT_FALSE(opened.config.has_transformer);
  EXPECT_EQ(opened.config.tc_decoder.channels, config.tc_decoder.channels);
  EXPECT_EQ(opened.config.dit.dim, 192);
  assign_checkpoint([&](const ParameterVisitor& visit) { decoder.visit_parameters("tc_decoder.", visit); }, opened);
  decoder.visit_parameters("tc_decoder.", [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    EXPECT_TRUE(at::equal(tensor, weights.at(key).to(at::kBFloat16))) << key;
  });
}

}  // namespace
}  // namespace flashvsr::train
