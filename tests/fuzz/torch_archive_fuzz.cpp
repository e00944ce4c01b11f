// SPDX-License-Identifier: LGPL-2.1-or-later
// The input is a whole zip archive.
#include <vector>

#include "base/error.h"
#include "io/torch_archive.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace flashvsr;
  const MemoryFile input(data, size);
  try {
    TorchArchive file(input.path());
    uint64_t total = 0;
    for (const auto& [name, tensor] : file.tensors()) {
      total += tensor.bytes();
      require(total <= 2 * size);
      std::vector<char> bytes(tensor.bytes());
      file.read(tensor, bytes.data());
    }
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kModelInvalid && std::string(error.what()).rfind(input.path(), 0) == 0);
  }
  return 0;
}
