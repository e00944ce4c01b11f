// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/model_config.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace flashvsr {
namespace {

// A student: no two neighbouring fields equal, nothing at its default.
ModelConfig student() {
  ModelConfig c;
  c.name = "a \"small\" one";
  c.dit = {192, 3, 6, 512, 64, 0, 16, false, 1e-5};
  c.lq_projector = {4, 48, 72, 192, Version::kV1};
  c.tc_decoder.cond_unshuffle = 2;
  c.tc_decoder.channels = {48, 32, 24, 0};
  c.tc_decoder.mem_blocks = {2, 1, 3};
  c.tc_decoder.up = {2, 1, 1};
  c.tc_decoder.grow = {2, 2, 1};
  c.tc_decoder.deepen = false;
  c.tc_decoder.final_shuffle = 4;
  c.tc_decoder.skip = c.tc_decoder.residual = true;
  c.input_scale = 4;
  c.has_transformer = true;
  c.noise_scale = 0.1;
  c.blocks_per_query = 6;
  c.sparse_ratio = 1.5;
  c.kv_chunks = 2;
  c.local_range = 9;
  return c;
}

ModelConfig read(const std::string& text) { return config_from_json(parse_json(text, "config.json"), "config.json"); }

TEST(ModelConfigFile, WrittenConfigReadsBackEqual) {
  const std::string text = config_to_json(student());
  const ModelConfig c = read(text);
  EXPECT_EQ(config_to_json(c), text);
  EXPECT_EQ(c.name, student().name);
  EXPECT_EQ(c.dit.head_dim(), 64);
  EXPECT_EQ(c.lq_projector.version, Version::kV1);
  EXPECT_EQ(c.tc_decoder.mem_blocks, student().tc_decoder.mem_blocks);
  EXPECT_EQ(c.noise_scale, 0.1);
  EXPECT_FALSE(c.dit.has_text);
  // Every field is in the text: a config with another value writes another text.
  EXPECT_NE(config_to_json(ModelConfig()), text);
}

TEST(ModelConfigFile, AbsentFieldsHaveTheirDefaults) {
  EXPECT_EQ(config_to_json(read("{}")), config_to_json(ModelConfig()));
  EXPECT_EQ(read(R"({"dit": {"layers": 7}})").dit.layers, 7);
}

class BadConfig : public testing::TestWithParam<const char*> {};
TEST_P(BadConfig, IsRefusedByName) {
  try {
    read(GetParam());
    FAIL() << GetParam();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelInvalid);
    EXPECT_EQ(std::string(error.what()).rfind("config.json: ", 0), 0u) << error.what();
  }
}
INSTANTIATE_TEST_SUITE_P(
    ModelConfigFile, BadConfig,
    testing::Values(R"([])", R"(3)", R"({"unknown": 1})", R"({"dit": {"dims": 1}})", R"({"dit": 5})", R"({"dit": []})", R"({"tc_decoder": null})",
                    R"({"name": 5})", R"({"input_scale": "4"})", R"({"has_transformer": 1})", R"({"noise_scale": true})", R"({"dit": {"dim": 1.5}})",
                    R"({"dit": {"dim": -128}})", R"({"dit": {"heads": 0}})", R"({"dit": {"heads": 7}})", R"({"dit": {"dim": 4611686018427387904}})",
                    R"({"dit": {"layers": 0}})", R"({"dit": {"layers": 65536}})", R"({"dit": {"freq_dim": 255}})", R"({"dit": {"latent_channels": 8}})",
                    R"({"lq_projector": {"unshuffle": 0}})", R"({"lq_projector": {"out_dim": 64}})", R"({"lq_projector": {"version": "v2"}})",
                    R"({"lq_projector": {"version": 1}})", R"({"tc_decoder": {"channels": [1, 2, 3]}})", R"({"tc_decoder": {"channels": [0, 2, 3, 4]}})",
                    R"({"tc_decoder": {"up": [2, 2, 0]}})", R"({"tc_decoder": {"up": [65536, 65536, 65536]}})", R"({"tc_decoder": {"grow": [1, 1, 1]}})",
                    R"({"tc_decoder": {"mem_blocks": [1, 1, 65536]}})", R"({"tc_decoder": {"final_shuffle": 65536}})", R"({"input_scale": 0})",
                    R"({"input_scale": 3})", R"({"kv_chunks": 0})", R"({"sparse_ratio": -1})", R"({"local_range": 0})", R"({"blocks_per_query": 0})",
                    R"({"vae": {"dim": 0}})"));

}  // namespace
}  // namespace flashvsr
