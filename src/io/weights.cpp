// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/weights.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>

#include "base/error.h"
#include "base/log.h"
#include "io/known_files.h"
#include "io/safetensors.h"
#include "io/torch_archive.h"

namespace flashvsr {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDitFile = "diffusion_pytorch_model_streaming_dmd.safetensors";
constexpr const char* kProjectorFile = "LQ_proj_in.ckpt";
constexpr const char* kTcDecoderFile = "TCDecoder.ckpt";
constexpr const char* kPromptFile = "posi_prompt.pth";
constexpr const char* kVaeFile = "Wan2.1_VAE.pth";
// Of one file at a time; more do not make it faster.
constexpr int64_t kReaders = 8;

struct TypePair {
  DType dtype;
  c10::ScalarType type;
};
constexpr TypePair kTypePairs[] = {
    {DType::kF64, c10::kDouble}, {DType::kF32, c10::kFloat}, {DType::kF16, c10::kHalf}, {DType::kBF16, c10::kBFloat16},
    {DType::kI64, c10::kLong},   {DType::kI32, c10::kInt},   {DType::kI16, c10::kShort}, {DType::kI8, c10::kChar},
    {DType::kU8, c10::kByte},    {DType::kBool, c10::kBool}};

bool is_torch_archive(const std::string& path) {
  const std::string extension = fs::path(path).extension();
  return extension == ".ckpt" || extension == ".pth" || extension == ".pt";
}

const at::Tensor& need(const TensorMap& tensors, const std::string& key, const char* file, int64_t dims) {
  const auto it = tensors.find(key);
  FLASHVSR_CHECK(it != tensors.end(), ErrorCode::kModelInvalid, file, ": tensor \"", key, "\" is missing");
  FLASHVSR_CHECK(it->second.dim() == dims, ErrorCode::kModelInvalid, file, ": tensor \"", key, "\" has shape ",
                 it->second.sizes(), ", expected ", dims, " dimensions");
  for (const int64_t size : it->second.sizes()) {
    FLASHVSR_CHECK(size > 0, ErrorCode::kModelInvalid, file, ": tensor \"", key, "\" has shape ", it->second.sizes());
  }
  return it->second;
}

bool is_unused_in_vae(const std::string& key) {
  return key.rfind("encoder.", 0) == 0 || key == "conv1.weight" || key == "conv1.bias";
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  FLASHVSR_CHECK(file.is_open(), ErrorCode::kModelNotFound, path, ": cannot be opened");
  std::string text(1 << 20, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  FLASHVSR_CHECK(file.eof(), ErrorCode::kModelInvalid, path, ": longer than ", text.size(), " bytes");
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

Checkpoint open_own(const std::string& directory, std::optional<Version> version, bool with_vae,
                    std::optional<c10::ScalarType> dtype) {
  FLASHVSR_CHECK(!with_vae, ErrorCode::kInvalidArgument, "decoder=vae: the model in ", directory, " has no VAE decoder");
  Checkpoint checkpoint;
  checkpoint.directory = directory;
  const std::string config = directory + "/config.json", weights = directory + "/model.safetensors";
  checkpoint.config = config_from_json(parse_json(read_text(config), config), config);
  FLASHVSR_CHECK(!version || *version == checkpoint.config.lq_projector.version, ErrorCode::kInvalidArgument, "model-version: ", config,
                 " says ", checkpoint.config.lq_projector.version == Version::kV1 ? "v1" : "v1.1");
  FLASHVSR_CHECK(!checkpoint.config.dit.has_text || !checkpoint.config.has_transformer, ErrorCode::kModelInvalid, config,
                 ": dit.has_text needs a prompt, which this form of model does not hold");
  checkpoint.parts.push_back({weights, "", read_tensors(weights, dtype)});
  return checkpoint;
}

}  // namespace

c10::ScalarType to_scalar_type(DType dtype) { return kTypePairs[static_cast<int>(dtype)].type; }

DType to_dtype(c10::ScalarType type) {
  for (const TypePair& pair : kTypePairs) {
    if (pair.type == type) return pair.dtype;
  }
  throw Error(ErrorCode::kInvalidArgument, concat("no checkpoint can hold ", c10::toString(type)));
}

TensorMap read_tensors(const std::string& path, std::optional<c10::ScalarType> dtype) { return read_tensors(path, nullptr, dtype); }

TensorMap read_tensors(const std::string& path, std::map<std::string, std::string>* metadata, std::optional<c10::ScalarType> dtype) {
  TensorMap out;
  // Reads one tensor into `target`, through `buffer` when it has to be converted. The buffer stays: a fresh one
  // for each tensor would leave holes of its size.
  const auto fill = [](const auto& info, at::Tensor& target, std::vector<char>& buffer, auto&& read) {
    const c10::ScalarType type = to_scalar_type(info.dtype);
    if (target.scalar_type() == type) {
      read(target.data_ptr());
      return;
    }
    if (buffer.size() < info.bytes()) buffer.resize(info.bytes());
    read(buffer.data());
    if (info.bytes() > 0) target.copy_(at::from_blob(buffer.data(), info.shape, type));
  };
  const auto allocate = [&](const auto& info) {
    const c10::ScalarType type = to_scalar_type(info.dtype);
    return at::empty(info.shape, dtype && c10::isFloatingType(type) ? *dtype : type);
  };
  if (is_torch_archive(path)) {
    TorchArchive archive(path);
    std::vector<char> buffer;
    for (const auto& [name, info] : archive.tensors()) {
      at::Tensor& tensor = out[name] = allocate(info);
      fill(info, tensor, buffer, [&, &info = info](void* to) { archive.read(info, to); });
    }
    return out;
  }
  // A reader for each thread: copying out of the page cache is what takes the time.
  const SafetensorsFile file(path);
  std::vector<std::pair<const SafetensorsEntry*, at::Tensor*>> work;
  for (const auto& [name, info] : file.tensors()) work.emplace_back(&info, &(out[name] = allocate(info)));
  const int64_t threads = std::min<int64_t>({at::get_num_threads(), kReaders, static_cast<int64_t>(work.size())});
  std::vector<SafetensorsFile> readers;
  for (int64_t i = 0; i < threads; ++i) readers.emplace_back(path);
  std::atomic<size_t> next{0};
  const bool is_inference = c10::InferenceMode::is_enabled();
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    const c10::InferenceMode mode(is_inference);
    for (int64_t reader = begin; reader < end; ++reader) {
      std::vector<char> buffer;
      for (size_t i = next++; i < work.size(); i = next++) {
        const SafetensorsEntry& info = *work[i].first;
        fill(info, *work[i].second, buffer, [&](void* to) { readers[static_cast<size_t>(reader)].read(info, to); });
      }
    }
  });
  if (metadata != nullptr) *metadata = file.metadata();
  return out;
}

void write_tensors(const std::string& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsItem> items;
  std::vector<at::Tensor> host;
  for (const auto& [name, tensor] : tensors) {
    host.push_back(tensor.detach().cpu().contiguous());
    items.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec(), host.back().data_ptr()});
  }
  write_safetensors(path, std::move(items), metadata);
}

void assign_parameters(const ParameterWalk& walk, const TensorMap& tensors, const std::string& file,
                       const std::function<bool(const std::string& key)>& ignore) {
  ShapeMap expected, found;
  walk([&](const std::string& key, at::Tensor&, const std::vector<int64_t>& shape) { expected[key] = shape; });
  for (const auto& [key, tensor] : tensors) {
    found[key] = tensor.sizes().vec();
    FLASHVSR_CHECK(expected.count(key) == 0 || at::isFloatingType(tensor.scalar_type()), ErrorCode::kModelInvalid, file, ": tensor \"",
                   key, "\" is ", c10::toString(tensor.scalar_type()), ", expected floating point values");
  }
  check_shapes(expected, found, file, ignore);
  walk([&](const std::string& key, at::Tensor& parameter, const std::vector<int64_t>&) { parameter = tensors.at(key); });
}

ModelConfig config_from_released(const TensorMap& dit, const TensorMap& lq_projector,
                                 const TensorMap& tc_decoder, const TensorMap& vae) {
  ModelConfig c;
  c.dit.dim = need(dit, "patch_embedding.weight", kDitFile, 5).size(0);
  FLASHVSR_CHECK(c.dit.dim > 0 && c.dit.dim % 128 == 0, ErrorCode::kModelInvalid, kDitFile, ": dim is ", c.dit.dim,
                 ", expected a multiple of the head dim 128");
  c.dit.heads = c.dit.dim / 128;
  c.dit.latent_channels = need(dit, "patch_embedding.weight", kDitFile, 5).size(1);
  c.dit.ffn_dim = need(dit, "blocks.0.ffn.0.weight", kDitFile, 2).size(0);
  c.dit.freq_dim = need(dit, "time_embedding.0.weight", kDitFile, 2).size(1);
  c.dit.text_dim = need(dit, "text_embedding.0.weight", kDitFile, 2).size(1);
  c.dit.layers = 0;
  while (dit.count("blocks." + std::to_string(c.dit.layers) + ".modulation") != 0) ++c.dit.layers;
  c.lq_projector.hidden1 = need(lq_projector, "conv1.weight", kProjectorFile, 5).size(0);
  c.lq_projector.hidden2 = need(lq_projector, "conv2.weight", kProjectorFile, 5).size(0);
  c.lq_projector.out_dim = c.dit.dim;
  c.tc_decoder.latent_channels = c.dit.latent_channels;
  const char* const keys[4] = {"decoder.1.weight", "decoder.10.weight", "decoder.16.weight", "decoder.22.weight"};
  for (int i = 0; i < 4; ++i) c.tc_decoder.channels[i] = need(tc_decoder, keys[i], kTcDecoderFile, 4).size(0);
  FLASHVSR_CHECK(c.tc_decoder.channels[3] > 0, ErrorCode::kModelInvalid, kTcDecoderFile, ": decoder.22.weight has no channels");
  if (!vae.empty()) c.vae.dim = need(vae, "decoder.head.0.gamma", kVaeFile, 4).size(0);
  return c;
}

Checkpoint open_checkpoint(const std::string& path, std::optional<Version> version, bool with_vae,
                           const std::function<void(int, const std::string&)>& progress,
                           std::optional<c10::ScalarType> dtype) {
  const auto report = [&](int percent, const std::string& what) {
    if (progress) progress(percent, what);
  };
  std::error_code ignored;
  FLASHVSR_CHECK(fs::exists(path, ignored), ErrorCode::kModelNotFound, "No FlashVSR model in \"", path, "\": there is no such directory");
  // A file names its directory.
  std::string directory = fs::is_directory(path, ignored) ? path : fs::path(path).parent_path().string();
  if (directory.empty()) directory = ".";
  const auto exists = [&](const char* file) { return fs::exists(fs::path(directory) / file, ignored); };
  // A config.json beside the released files is none of ours.
  FLASHVSR_CHECK(!exists("model.safetensors") || !exists(kDitFile), ErrorCode::kModelInvalid, directory, ": holds two models, ",
                 kDitFile, " and model.safetensors");
  if (exists("model.safetensors") || (exists("config.json") && !exists(kDitFile))) return open_own(directory, version, with_vae, dtype);

  std::vector<const char*> files = {kDitFile, kProjectorFile, kTcDecoderFile, kPromptFile};
  if (with_vae) files.push_back(kVaeFile);
  std::string missing;
  for (const char* file : files) {
    if (!exists(file)) missing += (missing.empty() ? "" : ", ") + std::string(file);
  }
  FLASHVSR_CHECK(missing.empty(), ErrorCode::kModelNotFound, "No FlashVSR model in \"", path, "\": missing ", missing,
                 " (the released files under their own names, or config.json with model.safetensors, are expected)");
  const auto in = [&](const char* file) { return (fs::path(directory) / file).string(); };

  report(0, "checking versions");
  const Version decided = decide_version(in(kDitFile), in(kProjectorFile), version);

  Checkpoint checkpoint;
  checkpoint.directory = directory;
  checkpoint.has_vae = with_vae;
  // All files at once: the projector's is checked (CRC) by one thread while others read the DiT's.
  const bool is_inference = c10::InferenceMode::is_enabled();
  const auto start = [&](const char* file) {
    return std::async(std::launch::async, [=, path = in(file)] {
      const c10::InferenceMode mode(is_inference);
      return read_tensors(path, dtype);
    });
  };
  std::future<TensorMap> projector = start(kProjectorFile), tc_decoder = start(kTcDecoderFile), vae;
  if (with_vae) vae = start(kVaeFile);
  const TensorMap prompt = read_tensors(in(kPromptFile));
  FLASHVSR_CHECK(prompt.size() == 1 && prompt.begin()->second.dim() == 3, ErrorCode::kModelInvalid, in(kPromptFile),
                 ": expected one tensor [1, n, text_dim]");
  checkpoint.prompt = prompt.begin()->second;
  report(5, std::string("reading ") + kDitFile);
  TensorMap dit = read_tensors(in(kDitFile), dtype);
  report(80, std::string("reading ") + kProjectorFile);
  checkpoint.parts.push_back({in(kProjectorFile), "lq_proj_in.", projector.get()});
  checkpoint.parts.push_back({in(kTcDecoderFile), "tc_decoder.", tc_decoder.get()});
  if (with_vae) checkpoint.parts.push_back({in(kVaeFile), "vae.", vae.get()});
  checkpoint.parts.push_back({in(kDitFile), "dit.", std::move(dit)});
  const TensorMap none;
  checkpoint.config = config_from_released(checkpoint.parts.back().tensors, checkpoint.parts[0].tensors,
                                           checkpoint.parts[1].tensors, with_vae ? checkpoint.parts[2].tensors : none);
  checkpoint.config.lq_projector.version = decided;
  checkpoint.config.name = decided == Version::kV1 ? "FlashVSR v1" : "FlashVSR v1.1";
  FLASHVSR_CHECK(checkpoint.prompt.size(0) == 1 && checkpoint.prompt.size(2) == checkpoint.config.dit.text_dim,
                 ErrorCode::kModelInvalid, in(kPromptFile), ": the prompt has shape ", shape_text(checkpoint.prompt.sizes().vec()),
                 ", expected [1, n, ", checkpoint.config.dit.text_dim, "]");
  return checkpoint;
}

void assign_checkpoint(const ParameterWalk& walk, Checkpoint& checkpoint) {
  for (Checkpoint::Part& part : checkpoint.parts) {
    // Only the keys below this part's prefix, without it.
    const ParameterWalk inner = [&](const ParameterVisitor& visit) {
      walk([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
        if (key.rfind(part.prefix, 0) == 0) visit(key.substr(part.prefix.size()), tensor, shape);
      });
    };
    const bool is_vae = part.prefix == "vae.";
    assign_parameters(inner, part.tensors, part.file, [is_vae](const std::string& key) { return is_vae && is_unused_in_vae(key); });
    part.tensors.clear();
  }
}

}  // namespace flashvsr
