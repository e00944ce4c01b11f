// SPDX-License-Identifier: LGPL-2.1-or-later
//
// ModelConfig as the text of config.json: an object with the fields of model/config.h, the parts
// "dit", "lq_projector", "tc_decoder" as objects inside it. A field that is absent has its default.
//
// Read strictly: unknown fields, wrong types, sizes outside 0 .. 65536 and combinations that the
// modules cannot be built with are Errors (kModelInvalid) that name the file and the field.
// What config_to_json writes reads back equal.
//
// Thread-safety: safe.
#ifndef FLASHVSR_IO_MODEL_CONFIG_H_
#define FLASHVSR_IO_MODEL_CONFIG_H_

#include <string>

#include "io/json.h"
#include "model/config.h"

namespace flashvsr {

// `name` is the file, for messages.
ModelConfig config_from_json(const Json& json, const std::string& name);
std::string config_to_json(const ModelConfig& config);

}  // namespace flashvsr

#endif  // FLASHVSR_IO_MODEL_CONFIG_H_
