// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The safetensors container: 8 bytes little-endian header length, JSON header (name ->
// dtype, shape, data_offsets), raw little-endian row-major data.
//
//     const SafetensorsFile file("model.safetensors");
//     for (const auto& [name, tensor] : file.tensors()) file.read(tensor, buffer);
//
// Reads headers only until asked; any order and alignment of tensors. Refused: a header
// longer than the file or than 64 MiB, unknown types, sizes that overflow or do not match
// their bytes, offsets outside the file, overlapping or unused bytes, repeated names.
//
// Errors: throws Error naming the file, the tensor, what was expected and found:
// kModelNotFound when the file cannot be opened, else kModelInvalid.
// Thread-safety: unsafe: one reader, one thread.
#ifndef FLASHVSR_IO_SAFETENSORS_H_
#define FLASHVSR_IO_SAFETENSORS_H_

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "io/tensor_info.h"

namespace flashvsr {

struct SafetensorsEntry {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes from the start of the data
  uint64_t end = 0;
  uint64_t bytes() const { return end - begin; }
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, SafetensorsEntry>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // entry.bytes() bytes to `out`.
  void read(const SafetensorsEntry& entry, void* out) const;

 private:
  std::string path_;
  mutable std::ifstream file_;
  uint64_t data_begin_ = 0;
  std::map<std::string, SafetensorsEntry> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct SafetensorsItem {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;  // row-major
};

// Writes `path` whole or not at all (io/atomic_file.h). The same items give the same bytes: sorted by
// element size (large first), then name.
void write_safetensors(const std::string& path, std::vector<SafetensorsItem> items,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace flashvsr

#endif  // FLASHVSR_IO_SAFETENSORS_H_
