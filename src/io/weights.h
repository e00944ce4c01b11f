// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From files to modules: reads tensors of either container, finds the sizes of a model,
// and fills its modules strictly. Missing, misshapen and surplus tensors are errors that
// name the tensor, the file, the shape expected and found.
//
// A model is a directory in one of two forms:
//
//   released   diffusion_pytorch_model_streaming_dmd.safetensors, LQ_proj_in.ckpt,
//              TCDecoder.ckpt, posi_prompt.pth; Wan2.1_VAE.pth for decoder=vae only
//   own        config.json (fields of ModelConfig; what is absent has its default) and
//              model.safetensors with the keys "dit.", "lq_proj_in.", "tc_decoder."
//
// Released v1 and v1.1 have equal keys and shapes, so only a known sha256 or the caller can
// tell them apart (decide_version). Hashes are taken of files of a known size only, and
// kept in the user's cache by path, size and time of change.
//
// Errors: throws Error kModelNotFound (files) or kModelInvalid (contents, versions).
// Thread-safety: safe.
// Source: model.md 1.
#ifndef FLASHVSR_IO_WEIGHTS_H_
#define FLASHVSR_IO_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/model_config.h"
#include "io/tensor_info.h"
#include "model/config.h"
#include "model/parameters.h"

namespace flashvsr {

c10::ScalarType to_scalar_type(DType dtype);
DType to_dtype(c10::ScalarType type);

// All tensors of a .safetensors file or a .ckpt/.pth archive, on the CPU in the file's dtype. With
// `dtype`, floating point tensors are converted one by one while reading, so that a file of
// F32 never lies in memory whole.
TensorMap read_tensors(const std::string& path, std::optional<c10::ScalarType> dtype = {});
// The same and the header's metadata (safetensors only).
TensorMap read_tensors(const std::string& path, std::map<std::string, std::string>* metadata,
                       std::optional<c10::ScalarType> dtype = {});
// Whole or not at all. Tensors may be on any device.
void write_tensors(const std::string& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata = {});

// Walks a module: walk(visitor) calls the visitor for each of its parameters.
using ParameterWalk = std::function<void(const ParameterVisitor& visit)>;

// `file` is named in errors. Keys that `ignore` accepts may be there and stay unused.
void assign_parameters(const ParameterWalk& walk, const TensorMap& tensors, const std::string& file,
                       const std::function<bool(const std::string& key)>& ignore = {});

struct Checkpoint {
  std::string directory;
  ModelConfig config;
  at::Tensor prompt;  // [1, n, text_dim]; undefined without a text branch
  bool has_vae = false;
  // Keys with the modules' prefixes, by file, so that errors can name it.
  struct Part {
    std::string file;
    std::string prefix;
    TensorMap tensors;
  };
  std::vector<Part> parts;
};

// Reads everything. `version` nothing: decided by the hashes, or refused with the reason. `dtype`: see
// read_tensors.
Checkpoint open_checkpoint(const std::string& directory, std::optional<Version> version, bool with_vae,
                           const std::function<void(int percent, const std::string& what)>& progress = {},
                           std::optional<c10::ScalarType> dtype = {});

// Fills the modules that `walk` visits from the parts and empties them.
void assign_checkpoint(const ParameterWalk& walk, Checkpoint& checkpoint);

// Sizes by the shapes of the released files' tensors (keys without prefixes).
ModelConfig config_from_released(const TensorMap& dit, const TensorMap& lq_projector,
                                 const TensorMap& tc_decoder, const TensorMap& vae);

}  // namespace flashvsr

#endif  // FLASHVSR_IO_WEIGHTS_H_
