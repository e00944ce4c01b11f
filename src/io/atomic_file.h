// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A file that appears whole or not at all: bytes go to a temporary name in the same folder,
// commit() syncs and renames it. Destroyed without commit(), it leaves nothing behind.
//
// Errors: throws Error (kInvalidArgument) naming the path and the system's reason.
// Thread-safety: unsafe. Several processes may write the same path; the last rename wins.
#ifndef FLASHVSR_IO_ATOMIC_FILE_H_
#define FLASHVSR_IO_ATOMIC_FILE_H_

#include <cstddef>
#include <string>

namespace flashvsr {

class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* what);

  std::string path_, temporary_;
  int fd_ = -1;
};

}  // namespace flashvsr

#endif  // FLASHVSR_IO_ATOMIC_FILE_H_
