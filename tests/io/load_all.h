// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Reads a whole checkpoint file through the readers, with the C++ library only.
#ifndef FLASHVSR_TESTS_IO_LOAD_ALL_H_
#define FLASHVSR_TESTS_IO_LOAD_ALL_H_

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "io/torch_archive.h"

namespace flashvsr {

struct LoadedTensor {
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<char> bytes;
  bool operator==(const LoadedTensor& other) const { return dtype == other.dtype && shape == other.shape && bytes == other.bytes; }
};
using LoadedFile = std::map<std::string, LoadedTensor>;

inline bool has_suffix(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() && text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

inline LoadedFile load_all(const std::string& path) {
  LoadedFile loaded;
  if (has_suffix(path, ".safetensors")) {
    const SafetensorsFile file(path);
    for (const auto& [name, entry] : file.tensors()) {
      LoadedTensor& tensor = loaded[name] = {entry.dtype, entry.shape, std::vector<char>(entry.bytes())};
      file.read(entry, tensor.bytes.data());
    }
  } else {
    TorchArchive file(path);
    for (const auto& [name, entry] : file.tensors()) {
      LoadedTensor& tensor = loaded[name] = {entry.dtype, entry.shape, std::vector<char>(entry.bytes())};
      file.read(entry, tensor.bytes.data());
    }
  }
  return loaded;
}

inline ShapeMap shapes_of(const LoadedFile& file) {
  ShapeMap shapes;
  for (const auto& [name, tensor] : file) shapes[name] = tensor.shape;
  return shapes;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

// A folder of the test's own, removed with what the test put there.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const char* root = std::getenv("TMPDIR");
    path_ = std::string(root != nullptr && root[0] != '\0' ? root : "/tmp") + "/flashvsr-test.XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~TemporaryFolder() {
    for (const std::string& file : files_) unlink(file.c_str());
    rmdir(path_.c_str());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  // A path that is removed at the end.
  std::string file(const std::string& name) {
    files_.push_back(path_ + "/" + name);
    return files_.back();
  }
  std::string write(const std::string& name, const std::string& bytes) {
    const std::string path = file(name);
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  std::string path_;
  std::vector<std::string> files_;
};

inline std::string fixtures_root() {
  const char* folder = std::getenv("FLASHVSR_FIXTURES");
  return folder != nullptr && folder[0] != '\0' ? folder : FLASHVSR_FIXTURES_DEFAULT;
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_IO_LOAD_ALL_H_
