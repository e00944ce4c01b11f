// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Bytes under a path, without a disk: what a fuzz target hands to a reader.
#ifndef FLASHVSR_TESTS_FUZZ_MEMORY_FILE_H_
#define FLASHVSR_TESTS_FUZZ_MEMORY_FILE_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace flashvsr {

class MemoryFile {
 public:
  MemoryFile(const void* data, size_t size) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
    if (fd_ < 0 || write(fd_, data, size) != static_cast<ssize_t>(size)) std::abort();
    path_ = "/proc/self/fd/" + std::to_string(fd_);
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

// The promise every reader makes: an Error that names the file, or tensors that lie in it.
inline void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_FUZZ_MEMORY_FILE_H_
