// SPDX-License-Identifier: LGPL-2.1-or-later
#include <vector>

#include "base/error.h"
#include "io/safetensors.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace flashvsr;
  const MemoryFile input(data, size);
  try {
    const SafetensorsFile file(input.path());
    uint64_t total = 0;
    for (const auto& [name, entry] : file.tensors()) {
      total += entry.bytes();
      require(!name.empty() && total <= size);
      std::vector<char> bytes(entry.bytes());
      file.read(entry, bytes.data());
    }
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kModelInvalid && std::string(error.what()).rfind(input.path(), 0) == 0);
  }
  return 0;
}
