// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/model.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "api/devices.h"
#include "base/error.h"
#include "base/log.h"
#include "io/weights.h"

namespace flashvsr {
namespace {

using ModelKey = std::tuple<std::string, int, std::string, c10::ScalarType, int>;

struct ModelCache {
  std::mutex mutex;  // held while loading: two callers who want the same model load it once
  std::map<ModelKey, std::weak_ptr<const Model>> models;
};

ModelCache& cache() {
  static auto* instance = new ModelCache;  // outlives every thread
  return *instance;
}

std::string embedded_path() {
  const char* path = std::getenv("FLASHVSR_NANO_PATH");
  return path != nullptr && *path != '\0' ? path : engine_folder() + "models/nano";
}

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f s", seconds);
  return text;
}

std::shared_ptr<const Model> load(const std::string& path, bool is_embedded, const FlashVsrModelOptions& options,
                                  c10::Device device, c10::ScalarType dtype, DecoderKind decoder) {
  const auto progress = [&](int percent, const std::string& what) {
    if (options.progress != nullptr) options.progress(options.progress_user, percent, what.c_str());
  };
  const auto begin = std::chrono::steady_clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  progress(0, "reading " + path);
  const bool with_vae = decoder == DecoderKind::kVae;
  std::optional<Version> version;
  if (options.version != FLASHVSR_VERSION_AUTO) {
    version = options.version == FLASHVSR_VERSION_V1 ? Version::kV1 : Version::kV1_1;
  }
  Checkpoint files =
      open_checkpoint(path, version, with_vae,
                      [&](int percent, const std::string& what) { progress(percent * 8 / 10, what); }, dtype);
  FLASHVSR_CHECK(!with_vae || files.has_vae, ErrorCode::kModelNotFound, "decoder=vae: there is no VAE in ", path);
  auto model = std::make_shared<Model>(files.config);
  model->name = files.config.name;
  model->is_embedded = is_embedded;
  model->decoder = decoder;
  model->device_name = device_name(device);
  model->precision_name = precision_name(dtype);
  assign_checkpoint([&](const ParameterVisitor& visit) { model->upscaler.visit_parameters(visit, with_vae); }, files);
  const double read_seconds = passed();
  progress(80, "preparing the model on " + model->device_name);
  model->upscaler.prepare(device, dtype, files.prompt, with_vae);
  model->upscaler.visit_parameters(
      [&](const std::string&, at::Tensor& tensor, const std::vector<int64_t>&) {
        // Some are gone by now, or stayed on the host.
        if (tensor.defined() && tensor.device() == device) model->weight_bytes += tensor.nbytes();
      },
      with_vae);
  progress(100, "ready");
  log(LogLevel::kInfo, "model: ", model->name, " from ", path, " on ", model->device_name, " in ",
      model->precision_name, "; read in ", seconds_text(read_seconds), ", ready after ", seconds_text(passed()));
  return model;
}

}  // namespace

std::shared_ptr<const Model> open_model(const FlashVsrModelOptions& options) {
  FLASHVSR_CHECK(options.decoder == FLASHVSR_DECODER_TC || options.decoder == FLASHVSR_DECODER_VAE,
                 ErrorCode::kInvalidArgument, "decoder ", static_cast<int>(options.decoder), " is not known");
  FLASHVSR_CHECK(options.version >= FLASHVSR_VERSION_AUTO && options.version <= FLASHVSR_VERSION_V1_1,
                 ErrorCode::kInvalidArgument, "model-version ", static_cast<int>(options.version), " is not known");
  const bool is_embedded = options.path == nullptr;
  const std::string path = is_embedded ? embedded_path() : options.path;
  const c10::Device device = parse_device(options.device == nullptr ? "auto" : options.device);
  const c10::ScalarType dtype = choose_precision(options.precision, device);
  const DecoderKind decoder = options.decoder == FLASHVSR_DECODER_VAE ? DecoderKind::kVae : DecoderKind::kTc;

  std::lock_guard<std::mutex> lock(cache().mutex);
  for (auto it = cache().models.begin(); it != cache().models.end();) {
    it = it->second.expired() ? cache().models.erase(it) : std::next(it);
  }
  const ModelKey key{path, options.version, device.str(), dtype, options.decoder};
  if (auto model = cache().models[key].lock()) return model;
  auto model = load(path, is_embedded, options, device, dtype, decoder);
  cache().models[key] = model;
  return model;
}

}  // namespace flashvsr
