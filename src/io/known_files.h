// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which released version a pair of files is: v1 and v1.1 differ in values only, and mixing
// them gives ghosting and colour shift without any error.
//
//   asked      projector and transformer            result
//   nothing    both known, same version             that version
//   nothing    any unknown, or known and unknown    refused: model-version must say it
//   v1, v1.1   any known as another version         refused
//   v1, v1.1   otherwise                            as asked
//
// Errors: throws Error kModelInvalid. Thread-safety: safe.
// Source: model.md 1.1; issue threads on mixed files.
#ifndef FLASHVSR_IO_KNOWN_FILES_H_
#define FLASHVSR_IO_KNOWN_FILES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "model/config.h"

namespace flashvsr {

Version decide_version(const std::string& dit_file, const std::string& projector_file,
                       std::optional<Version> asked);

// sha256 of a file, from the user's cache when path, size and time of change are the same.
std::string cached_sha256(const std::string& path);

}  // namespace flashvsr

#endif  // FLASHVSR_IO_KNOWN_FILES_H_
