// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/atomic_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/error.h"

namespace flashvsr {

AtomicFile::AtomicFile(const std::string& path) : path_(path), temporary_(path + ".XXXXXX") {
  fd_ = mkostemp(temporary_.data(), O_CLOEXEC);
  if (fd_ < 0) {
    temporary_.clear();
    fail("create");
  }
  // mkstemp makes files private; weights are as readable as any other file.
  const mode_t mask = umask(0);
  umask(mask);
  if (fchmod(fd_, 0666 & ~mask) != 0) {
    const int error = errno;
    close(fd_);
    fd_ = -1;
    unlink(temporary_.c_str());
    temporary_.clear();
    errno = error;
    fail("set the mode of");
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* what) {
  throw Error(ErrorCode::kInvalidArgument,
              concat(path_, ": cannot ", what, " the file: ", std::generic_category().message(errno)));
}

void AtomicFile::write(const void* data, size_t bytes) {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(fd_, from, bytes < (1u << 30) ? bytes : (1u << 30));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("write");
    from += done;
    bytes -= static_cast<size_t>(done);
  }
}

void AtomicFile::commit() {
  if (fsync(fd_) != 0) fail("sync");
  const int fd = fd_;
  fd_ = -1;
  if (close(fd) != 0) fail("close");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename");
  temporary_.clear();
}

}  // namespace flashvsr
