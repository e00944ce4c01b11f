// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/log.h"

#include <mutex>

namespace flashvsr {
namespace {

std::mutex log_mutex;
LogCallback log_callback = nullptr;
void* log_user = nullptr;

}  // namespace

void set_log_callback(LogCallback callback, void* user) {
  const std::lock_guard<std::mutex> lock(log_mutex);
  log_callback = callback;
  log_user = user;
}

bool log_enabled() {
  const std::lock_guard<std::mutex> lock(log_mutex);
  return log_callback != nullptr;
}

void log_message(LogLevel level, const std::string& message) {
  LogCallback callback;
  void* user;
  {
    const std::lock_guard<std::mutex> lock(log_mutex);
    callback = log_callback;
    user = log_user;
  }
  if (callback != nullptr) callback(level, message.c_str(), user);
}

}  // namespace flashvsr
