// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Named tensors with a few strings, on disk as safetensors: shards, checkpoints and
// the exported student are all this.
//
// A checkpoint holds, per parameter KEY: "master.KEY", "ema.KEY", "adam_m.KEY",
// "adam_v.KEY" (fp32), buffers as "buffer.KEY", and in its metadata every number the
// run needs to go on (iteration, seed, stage, ...). Random numbers are functions of
// (seed, iteration), so a resumed run on the CPU is bit-equal to an unbroken one
// with the same number of threads.
//
// Errors: throws Error. Writing goes to a temporary name first: a stopped run
// leaves the previous file whole.
// Thread-safety: safe (different files).
#ifndef FLASHVSR_TRAIN_CHECKPOINT_H_
#define FLASHVSR_TRAIN_CHECKPOINT_H_

#include <map>
#include <string>

#include "model/config.h"
#include "model/parameters.h"

namespace flashvsr::train {

struct TensorFile {
  TensorMap tensors;                            // CPU
  std::map<std::string, std::string> metadata;
};

TensorFile read_file(const std::string& path);
void write_file(const std::string& path, const TensorFile& file);

// "key" of the metadata, or an error that names the file.
const std::string& metadata_of(const TensorFile& file, const std::string& key, const std::string& path);

// Writes `directory`/config.json and model.safetensors: what the engine loads as a model.
void export_model(const std::string& directory, const ModelConfig& config, const TensorMap& weights,
                  const std::map<std::string, std::string>& metadata);

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_CHECKPOINT_H_
