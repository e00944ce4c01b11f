// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Reads the tensors of one fixture as raw bytes, with the C++ library only. The folder is
// FLASHVSR_FIXTURES, else the project's own copy (FLASHVSR_FIXTURES_DEFAULT).
#ifndef FLASHVSR_TESTS_IMAGE_FIXTURE_H_
#define FLASHVSR_TESTS_IMAGE_FIXTURE_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace flashvsr {

struct FixtureTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<char> bytes;
  template <typename T>
  const T* data() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
  template <typename T>
  size_t size() const {
    return bytes.size() / sizeof(T);
  }
};

inline std::string fixture_folder() {
  const char* folder = std::getenv("FLASHVSR_FIXTURES");
  return folder != nullptr && *folder != '\0' ? folder : FLASHVSR_FIXTURES_DEFAULT;
}

// Empty when the fixture is not there.
inline std::map<std::string, FixtureTensor> read_fixture(const std::string& name) {
  std::ifstream file(fixture_folder() + "/" + name + "/data.safetensors", std::ios::binary);
  if (!file) return {};
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  uint64_t header_size = 0;
  if (content.size() < 8) throw std::runtime_error(name + ": short file");
  std::memcpy(&header_size, content.data(), 8);
  const std::string header = content.substr(8, header_size);
  std::map<std::string, FixtureTensor> tensors;
  const std::regex entry(
      R"re("([^"]+)"\s*:\s*\{[^{}]*?"dtype"\s*:\s*"(\w+)"\s*,\s*"shape"\s*:\s*\[([^\]]*)\]\s*,\s*"data_offsets"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*\])re");
  for (std::sregex_iterator it(header.begin(), header.end(), entry), end; it != end; ++it) {
    FixtureTensor& tensor = tensors[(*it)[1]];
    tensor.dtype = (*it)[2];
    const std::string shape = (*it)[3];
    const std::regex number(R"(\d+)");
    for (std::sregex_iterator n(shape.begin(), shape.end(), number); n != end; ++n) tensor.shape.push_back(std::stoll((*n)[0]));
    const size_t begin = std::stoull((*it)[4]), stop = std::stoull((*it)[5]);
    const std::string bytes = content.substr(8 + header_size + begin, stop - begin);
    tensor.bytes.assign(bytes.begin(), bytes.end());
  }
  if (tensors.empty()) throw std::runtime_error(name + ": no tensors");
  return tensors;
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_IMAGE_FIXTURE_H_
