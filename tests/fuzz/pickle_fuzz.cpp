// SPDX-License-Identifier: LGPL-2.1-or-later
// The input is a pickle; a right archive is built around it, so that no CRC stands in the way.
#include <cstring>
#include <vector>

#include "base/error.h"
#include "io/torch_archive.h"
#include "tests/fuzz/memory_file.h"
#include "tests/io/archive_builder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace flashvsr;
  const std::string bytes = torch_zip(std::string(reinterpret_cast<const char*>(data), size), {24, 6}).finish();
  const MemoryFile input(bytes.data(), bytes.size());
  try {
    TorchArchive file(input.path());
    for (const auto& [name, tensor] : file.tensors()) {
      require(tensor.bytes() <= 24 * 4);
      std::vector<char> copy(tensor.bytes());
      file.read(tensor, copy.data());
      if (tensor.dtype != DType::kF32) continue;
      // Storages count up from 0, so every element tells where it came from.
      for (size_t i = 0; i < copy.size(); i += 4) {
        float value = 0;
        std::memcpy(&value, &copy[i], 4);
        size_t rest = i / 4;
        int64_t at = tensor.offset;
        for (size_t d = tensor.shape.size(); d-- > 0;) {
          at += static_cast<int64_t>(rest % static_cast<size_t>(tensor.shape[d])) * tensor.stride[d];
          rest /= static_cast<size_t>(tensor.shape[d]);
        }
        require(value == static_cast<float>(at));
      }
    }
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kModelInvalid && std::string(error.what()).rfind(input.path(), 0) == 0);
  }
  return 0;
}
