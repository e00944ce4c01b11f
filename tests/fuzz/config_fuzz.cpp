// SPDX-License-Identifier: LGPL-2.1-or-later
// The input is a config.json. One that is accepted writes and reads back equal.
#include "base/error.h"
#include "io/model_config.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace flashvsr;
  const std::string name = "config.json";
  std::string text;
  try {
    text = config_to_json(config_from_json(parse_json({reinterpret_cast<const char*>(data), size}, name), name));
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kModelInvalid && std::string(error.what()).rfind(name, 0) == 0);
    return 0;
  }
  require(config_to_json(config_from_json(parse_json(text, name), name)) == text);
  return 0;
}
