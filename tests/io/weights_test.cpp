// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "model/upscaler.h"
#include "tests/io/load_all.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

namespace fs = std::filesystem;

const char* const kFiles[] = {"diffusion_pytorch_model_streaming_dmd.safetensors", "LQ_proj_in.ckpt", "TCDecoder.ckpt", "posi_prompt.pth",
                              "Wan2.1_VAE.pth"};

// A folder with links to the golden checkpoint's files.
class ModelFolder {
 public:
  ModelFolder() {
    for (const char* file : kFiles) link(file);
  }
  void link(const std::string& file) {
    if (!fs::exists(folder_.path() + "/" + file)) {
      fs::create_symlink(fs::absolute(fixtures_root() + "/checkpoint/" + file), folder_.file(file));
    }
  }
  void remove(const std::string& file) { fs::remove(folder_.path() + "/" + file); }
  // Replaces a file by a safetensors or other file of the test's.
  std::string path(const std::string& file) {
    remove(file);
    return folder_.file(file);
  }
  const std::string& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "nothing was thrown");
}
#define EXPECT_NAMES(error, ...)                                                                       \
  for (const char* const part : {__VA_ARGS__}) {                                                       \
    EXPECT_NE(std::string((error).what()).find(part), std::string::npos) << (error).what() << "\n  " << part; \
  }

void load(const std::string& folder, std::optional<Version> version, bool with_vae) {
  Checkpoint files = open_checkpoint(folder, version, with_vae);
  Upscaler model(files.config);
  assign_checkpoint([&](const ParameterVisitor& visit) { model.visit_parameters(visit, with_vae); }, files);
  model.visit_parameters([](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    EXPECT_EQ(tensor.sizes(), at::IntArrayRef(shape)) << key;
  }, with_vae);
}

TEST(Weights, GoldenCheckpointLoadsWithItsSizes) {
  for (const bool with_vae : {false, true}) {
    const Checkpoint files = open_checkpoint(fixtures_root() + "/checkpoint", Version::kV1, with_vae);
    const Json expected = parse_json(read_file(fixtures_root() + "/checkpoint/case.json"), "case.json").at("config");
    const ModelConfig& c = files.config;
    EXPECT_EQ(c.dit.dim, expected.at("dim").integer());
    EXPECT_EQ(c.dit.heads, expected.at("num_heads").integer());
    EXPECT_EQ(c.dit.ffn_dim, expected.at("ffn_dim").integer());
    EXPECT_EQ(c.dit.layers, expected.at("num_layers").integer());
    EXPECT_EQ(c.dit.text_dim, expected.at("text_dim").integer());
    EXPECT_EQ(c.dit.freq_dim, expected.at("freq_dim").integer());
    EXPECT_EQ(c.lq_projector.hidden1, expected.at("lq_hidden").items()[0].integer());
    EXPECT_EQ(c.lq_projector.hidden2, expected.at("lq_hidden").items()[1].integer());
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(c.tc_decoder.channels[i], expected.at("tc_channels").items()[i].integer());
    if (with_vae) {
      EXPECT_EQ(c.vae.dim, expected.at("vae_dim").integer());
    }
    EXPECT_EQ(files.has_vae, with_vae);
    EXPECT_EQ(files.prompt.sizes(), (at::IntArrayRef{1, expected.at("prompt_len").integer(), c.dit.text_dim}));
    EXPECT_EQ(c.lq_projector.version, Version::kV1);
    EXPECT_EQ(c.input_scale, 1);
    load(fixtures_root() + "/checkpoint", Version::kV1_1, with_vae);
  }
}

TEST(Weights, ConvertedWhileReading) {
  const std::string path = fixtures_root() + "/checkpoint/" + kFiles[2];
  const TensorMap plain = read_tensors(path), converted = read_tensors(path, at::kHalf);
  ASSERT_EQ(plain.size(), converted.size());
  for (const auto& [name, tensor] : plain) {
    EXPECT_EQ(converted.at(name).scalar_type(), at::kHalf);
    EXPECT_TRUE(converted.at(name).equal(tensor.to(at::kHalf))) << name;
  }
  const Checkpoint files = open_checkpoint(fixtures_root() + "/checkpoint", Version::kV1, false, {}, at::kBFloat16);
  for (const Checkpoint::Part& part : files.parts) {
    for (const auto& [name, tensor] : part.tensors) EXPECT_EQ(tensor.scalar_type(), at::kBFloat16) << name;
  }
}

TEST(Weights, AnyFileOfTheFolderNamesIt) {
  ModelFolder folder;
  load(folder.path() + "/LQ_proj_in.ckpt", Version::kV1_1, false);
}

TEST(Weights, MissingFilesAreListedByName) {
  ModelFolder folder;
  folder.remove("TCDecoder.ckpt");
  folder.remove("posi_prompt.pth");
  const Error error = error_of([&] { load(folder.path(), Version::kV1_1, false); });
  EXPECT_EQ(error.code(), ErrorCode::kModelNotFound);
  EXPECT_NAMES(error, "TCDecoder.ckpt", "posi_prompt.pth", folder.path().c_str());
  EXPECT_EQ(std::string(error.what()).find("LQ_proj_in.ckpt"), std::string::npos) << error.what();
  EXPECT_EQ(error_of([] { open_checkpoint("/none/at/all", {}, false); }).code(), ErrorCode::kModelNotFound);
}

TEST(Weights, OnlyTheVaeDecoderNeedsItsFile) {
  ModelFolder folder;
  folder.remove("Wan2.1_VAE.pth");
  load(folder.path(), Version::kV1_1, false);
  const Error error = error_of([&] { load(folder.path(), Version::kV1_1, true); });
  EXPECT_EQ(error.code(), ErrorCode::kModelNotFound);
  EXPECT_NAMES(error, "Wan2.1_VAE.pth");
}

TEST(Weights, UnknownFilesAskForTheVersion) {
  const Error error = error_of([] { load(fixtures_root() + "/checkpoint", {}, false); });
  EXPECT_EQ(error.code(), ErrorCode::kModelInvalid);
  EXPECT_NAMES(error, "model-version");
}

TEST(Weights, MissingMisshapenAndSurplusTensorsAreNamed) {
  ModelFolder folder;
  const TensorMap good = read_tensors(fixtures_root() + "/checkpoint/" + kFiles[0]);
  const auto error_with = [&](const std::function<void(TensorMap&)>& change) {
    TensorMap tensors = good;
    change(tensors);
    write_tensors(folder.path(kFiles[0]), tensors);
    const Error error = error_of([&] { load(folder.path(), Version::kV1_1, false); });
    EXPECT_EQ(error.code(), ErrorCode::kModelInvalid) << error.what();
    EXPECT_NAMES(error, kFiles[0]);
    return error;
  };
  EXPECT_NAMES(error_with([](TensorMap& t) { t.erase("blocks.1.norm3.bias"); }), "\"blocks.1.norm3.bias\" of shape [256] is missing");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["head.head.bias"] = at::zeros({63}); }), "\"head.head.bias\" has shape [63], expected [64]");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["blocks.0.ffn.2.weight"] = at::zeros({160, 256}); }), "has shape [160, 256], expected [256, 160]");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["blocks.7.norm3.bias"] = at::zeros({256}); }), "\"blocks.7.norm3.bias\" of shape [256] is not part");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["blocks.999999999.modulation"] = at::zeros({1}); }), "\"blocks.999999999.modulation\" of shape [1] is not part");
  EXPECT_NAMES(error_with([](TensorMap& t) { t.erase("patch_embedding.weight"); }), "patch_embedding.weight");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["patch_embedding.weight"] = at::zeros({256, 16}); }), "patch_embedding.weight");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["patch_embedding.weight"] = at::zeros({0, 16, 1, 2, 2}); }), "patch_embedding.weight");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["patch_embedding.weight"] = at::zeros({250, 16, 1, 2, 2}); }), "250", "128");
  EXPECT_NAMES(error_with([](TensorMap& t) { t["head.head.bias"] = at::zeros({64}, at::kLong); }), "head.head.bias", "Long");
  // The undamaged map still loads.
  write_tensors(folder.path(kFiles[0]), good);
  load(folder.path(), Version::kV1_1, false);
}

TEST(Weights, PromptMustFit) {
  ModelFolder folder;
  fs::copy_file(fs::canonical(fixtures_root() + "/checkpoint/LQ_proj_in.ckpt"), folder.path("posi_prompt.pth"));
  const Error error = error_of([&] { load(folder.path(), Version::kV1_1, false); });
  EXPECT_EQ(error.code(), ErrorCode::kModelInvalid);
  EXPECT_NAMES(error, "posi_prompt.pth");
}

TEST(Weights, FilesInEachOthersPlaceAreRefused) {
  ModelFolder folder;
  fs::copy_file(fs::canonical(fixtures_root() + "/checkpoint/LQ_proj_in.ckpt"), folder.path("TCDecoder.ckpt"));
  EXPECT_NAMES(error_of([&] { load(folder.path(), Version::kV1_1, false); }), "TCDecoder.ckpt", "decoder.1.weight");
}

class OwnModel : public testing::Test {
 protected:
  OwnModel() {
    Upscaler model(config_);
    model.visit_parameters([&](const std::string& key, at::Tensor&, const std::vector<int64_t>& shape) {
      tensors_[key] = random_weight(key, shape, at::TensorOptions().dtype(at::kBFloat16));
    }, false);
    write();
  }
  void write() {
    write_tensors(folder_.file("model.safetensors"), tensors_);
    folder_.write("config.json", config_to_json(config_));
  }
  TemporaryFolder folder_;
  ModelConfig config_ = random_student_config();
  TensorMap tensors_;
};

TEST_F(OwnModel, WrittenModelLoadsEqual) {
  Checkpoint files = open_checkpoint(folder_.path(), {}, false);
  EXPECT_EQ(config_to_json(files.config), config_to_json(config_));
  EXPECT_FALSE(files.prompt.defined());
  Upscaler model(files.config);
  assign_checkpoint([&](const ParameterVisitor& visit) { model.visit_parameters(visit, false); }, files);
  model.visit_parameters([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    EXPECT_TRUE(tensor.equal(tensors_.at(key))) << key;
    EXPECT_EQ(tensor.scalar_type(), at::kBFloat16);
  }, false);
  open_checkpoint(folder_.path() + "/model.safetensors", Version::kV1_1, false);
}

TEST_F(OwnModel, FaultsAreNamed) {
  EXPECT_NAMES(error_of([&] { open_checkpoint(folder_.path(), Version::kV1, false); }), "model-version", "v1.1");
  EXPECT_EQ(error_of([&] { open_checkpoint(folder_.path(), {}, true); }).code(), ErrorCode::kInvalidArgument);

  config_.dit.layers += 1;
  write();
  EXPECT_NAMES(error_of([&] { load(folder_.path(), {}, false); }), "model.safetensors", "\"dit.blocks.2.", "is missing");
  config_.dit.layers -= 2;
  write();
  EXPECT_NAMES(error_of([&] { load(folder_.path(), {}, false); }), "model.safetensors", "\"dit.blocks.1.", "is not part");
  folder_.write("config.json", "{\"dit\": {\"heads\": 0}}");
  EXPECT_NAMES(error_of([&] { load(folder_.path(), {}, false); }), "config.json", "heads");
  fs::remove(folder_.path() + "/config.json");
  const Error error = error_of([&] { load(folder_.path(), {}, false); });
  EXPECT_EQ(error.code(), ErrorCode::kModelNotFound);
  EXPECT_NAMES(error, "config.json");
}

TEST_F(OwnModel, TwoModelsInOneFolderAreRefused) {
  folder_.write(kFiles[0], "");
  EXPECT_NAMES(error_of([&] { open_checkpoint(folder_.path(), {}, false); }), "two models");
}

TEST(Weights, ConfigBesideReleasedFilesIsIgnored) {
  ModelFolder folder;
  std::ofstream(folder.path("config.json")) << "{\"_class_name\": \"somebody's\"}";
  load(folder.path(), Version::kV1_1, false);
}

TEST(Weights, TensorsOfAnyLayoutAreWrittenRowMajor) {
  TemporaryFolder folder;
  const std::string path = folder.file("a.safetensors");
  const at::Tensor base = at::arange(24, at::kFloat).view({2, 3, 4});
  const TensorMap tensors = {{"plain", base},
                             {"transposed", base.transpose(0, 2)},
                             {"slice", base.select(1, 1)},
                             {"expanded", at::ones({1}).expand({5})},
                             {"channels_last", at::randn({2, 3, 4, 5}).contiguous(at::MemoryFormat::ChannelsLast)},
                             {"half", base.to(at::kHalf)},
                             {"bool", base > 3},
                             {"long", base.to(at::kLong)},
                             {"scalar", at::scalar_tensor(7)},
                             {"empty", at::empty({0, 3})}};
  write_tensors(path, tensors, {{"made", "by a test"}});
  std::map<std::string, std::string> metadata;
  const TensorMap read = read_tensors(path, &metadata);
  ASSERT_EQ(read.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_TRUE(read.at(name).equal(tensor)) << name;
    EXPECT_EQ(read.at(name).scalar_type(), tensor.scalar_type()) << name;
  }
  EXPECT_EQ(metadata.at("made"), "by a test");
}

}  // namespace
}  // namespace flashvsr
