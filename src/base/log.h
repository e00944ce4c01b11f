// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine's one log: four levels, one callback for the process, silent until
// one is set.
//
//     log(LogLevel::kInfo, "block_sparse_attention: running the reference on ", device);
//
// Thread-safety: safe. The callback is called from whichever thread logs.
#ifndef FLASHVSR_BASE_LOG_H_
#define FLASHVSR_BASE_LOG_H_

#include <string>

#include "base/error.h"

namespace flashvsr {

// Values are those of FlashVsrLogLevel.
enum class LogLevel { kError = 1, kWarning = 2, kInfo = 4, kDebug = 5 };

using LogCallback = void (*)(LogLevel level, const char* message, void* user);

void set_log_callback(LogCallback callback, void* user);
bool log_enabled();
void log_message(LogLevel level, const std::string& message);

template <typename... Args>
void log(LogLevel level, const Args&... args) {
  if (log_enabled()) log_message(level, concat(args...));
}

}  // namespace flashvsr

#endif  // FLASHVSR_BASE_LOG_H_
