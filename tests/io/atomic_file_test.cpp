// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/error.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

size_t files_in(const std::string& folder) {
  const std::filesystem::directory_iterator begin(folder), end;
  return static_cast<size_t>(std::distance(begin, end));
}

TEST(AtomicFile, AppearsOnCommitOnly) {
  TemporaryFolder folder;
  const std::string path = folder.write("a", "old");
  {
    AtomicFile file(path);
    file.write("new text", 8);
    EXPECT_EQ(read_file(path), "old");
    file.commit();
  }
  EXPECT_EQ(read_file(path), "new text");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, LeavesNothingWithoutCommit) {
  TemporaryFolder folder;
  const std::string path = folder.write("a", "old");
  {
    AtomicFile file(path);
    file.write("new", 3);
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, ModeFollowsTheUmask) {
  TemporaryFolder folder;
  const std::string path = folder.file("a");
  const mode_t before = umask(022);
  AtomicFile file(path);
  file.commit();
  umask(before);
  struct stat status;
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0644u);
}

TEST(AtomicFile, MissingFolderIsAnError) {
  TemporaryFolder folder;
  EXPECT_THROW(AtomicFile(folder.path() + "/none/a"), Error);
}

}  // namespace
}  // namespace flashvsr
