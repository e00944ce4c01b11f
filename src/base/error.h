// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine's one exception type: a code that survives the C wall and a
// sentence for people. Thrown by everything in src/; caught in api/api.cpp only.
//
//     FLASHVSR_CHECK(n == 128, ErrorCode::kModelInvalid, "head_dim is ", n, ", expected 128");
//
// Thread-safety: immutable after construction.
#ifndef FLASHVSR_BASE_ERROR_H_
#define FLASHVSR_BASE_ERROR_H_

#include <sstream>
#include <stdexcept>
#include <string>

namespace flashvsr {

// Values are those of FlashVsrStatus.
enum class ErrorCode {
  kInvalidArgument = -1,
  kModelNotFound = -2,
  kModelInvalid = -3,
  kNoDevice = -4,
  kOutOfMemory = -5,
  kInterrupted = -6,
  kInternal = -7,
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// Joins its arguments as operator<< prints them.
template <typename... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace flashvsr

#define FLASHVSR_CHECK(condition, code, ...)                               \
  do {                                                                     \
    if (!(condition)) throw ::flashvsr::Error((code), ::flashvsr::concat(__VA_ARGS__)); \
  } while (false)

#endif  // FLASHVSR_BASE_ERROR_H_
