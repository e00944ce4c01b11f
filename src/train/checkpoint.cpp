// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/checkpoint.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "io/weights.h"

namespace flashvsr::train {

TensorFile read_file(const std::string& path) {
  TensorFile file;
  file.tensors = flashvsr::read_tensors(path, &file.metadata);
  return file;
}

void write_file(const std::string& path, const TensorFile& file) {
  flashvsr::write_tensors(path, file.tensors, file.metadata);
}

const std::string& metadata_of(const TensorFile& file, const std::string& key, const std::string& path) {
  const auto found = file.metadata.find(key);
  FLASHVSR_CHECK(found != file.metadata.end(), ErrorCode::kModelInvalid, path, ": no \"", key, "\" in its metadata");
  return found->second;
}

void export_model(const std::string& directory, const ModelConfig& config, const TensorMap& weights,
                  const std::map<std::string, std::string>& metadata) {
  std::filesystem::create_directories(directory);
  TensorFile file;
  file.metadata = metadata;
  for (const auto& [key, tensor] : weights) file.tensors[key] = tensor.to(at::kBFloat16);
  write_file(directory + "/model.safetensors", file);
  std::ofstream out(directory + "/config.json", std::ios::trunc);
  out << config_to_json(config);
  FLASHVSR_CHECK(out.flush(), ErrorCode::kInternal, "cannot write ", directory, "/config.json");
}

}  // namespace flashvsr::train
