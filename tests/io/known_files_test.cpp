// SPDX-License-Identifier: LGPL-2.1-or-later
// Files of the released sizes (sparse) whose hashes the cache claims to know: the decision without 6 GB.
#include "io/known_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/error.h"
#include "io/sha256.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kDitSize = 5676070392, kProjectorSize = 575694948;
constexpr const char* kDitHash = "bd28180edcf3446c028e32fc6b731a80bf7e4da2ab4caac3186b9499964d37be";
constexpr const char* kProjectorHash = "d6d011cdaaba6a52645086caa08fa04124e746f6ca568140a24007591142bfd2";

class KnownFilesTest : public testing::Test {
 protected:
  KnownFilesTest() {
    cache_ = cache_folder_.path() + "/flashvsr/sha256";
    mkdir((cache_folder_.path() + "/flashvsr").c_str(), 0700);
    setenv("XDG_CACHE_HOME", cache_folder_.path().c_str(), 1);
  }
  ~KnownFilesTest() override {
    unsetenv("XDG_CACHE_HOME");
    unlink(cache_.c_str());
    rmdir((cache_folder_.path() + "/flashvsr").c_str());
  }
  // A sparse file, and its hash as if it had been taken before.
  std::string released(const std::string& name, uint64_t size, const std::string& hash) {
    const std::string path = folder_.write(name, "");
    fs::resize_file(path, size);
    std::ofstream(cache_, std::ios::app) << hash << " " << size << " " << fs::last_write_time(path).time_since_epoch().count() << " "
                                         << fs::absolute(path).string() << "\n";
    return path;
  }
  std::string error(const std::string& dit, const std::string& projector, std::optional<Version> asked) {
    try {
      decide_version(dit, projector, asked);
    } catch (const Error& caught) {
      EXPECT_EQ(caught.code(), ErrorCode::kModelInvalid);
      return caught.what();
    }
    return "";
  }
  TemporaryFolder folder_, cache_folder_;
  std::string cache_;
};

TEST_F(KnownFilesTest, KnownFilesDecide) {
  const std::string dit = released("dit", kDitSize, kDitHash), projector = released("lq", kProjectorSize, kProjectorHash);
  EXPECT_EQ(decide_version(dit, projector, {}), Version::kV1_1);
  EXPECT_EQ(decide_version(dit, projector, Version::kV1_1), Version::kV1_1);
  const std::string refused = error(dit, projector, Version::kV1);
  EXPECT_NE(refused.find("is a v1.1 file, but model-version is v1"), std::string::npos) << refused;
}

TEST_F(KnownFilesTest, UnknownFilesAskForTheVersion) {
  const std::string dit = folder_.write("dit", "a"), projector = folder_.write("lq", "b");
  const std::string refused = error(dit, projector, {});
  EXPECT_NE(refused.find("Set model-version to v1 or v1.1"), std::string::npos) << refused;
  EXPECT_EQ(decide_version(dit, projector, Version::kV1), Version::kV1);
  EXPECT_EQ(decide_version(dit, projector, Version::kV1_1), Version::kV1_1);
}

TEST_F(KnownFilesTest, KnownAndUnknownTogetherAskForTheVersion) {
  const std::string dit = released("dit", kDitSize, kDitHash), projector = released("lq", kProjectorSize, kProjectorHash);
  const std::string other = folder_.write("other", "x"), changed = released("changed", kProjectorSize, std::string(64, '0'));
  for (const std::string& refused : {error(dit, other, {}), error(other, projector, {}), error(dit, changed, {})}) {
    EXPECT_NE(refused.find("known as v1.1"), std::string::npos) << refused;
    EXPECT_NE(refused.find("unknown"), std::string::npos) << refused;
    EXPECT_NE(refused.find("model-version"), std::string::npos) << refused;
  }
  EXPECT_NE(error(other, projector, Version::kV1), "");
  EXPECT_NE(error(dit, other, Version::kV1), "");
  EXPECT_EQ(decide_version(other, projector, Version::kV1_1), Version::kV1_1);
}

TEST_F(KnownFilesTest, HashesAreTakenOncePerPathSizeAndTime) {
  const std::string path = folder_.write("file", "first");
  const auto before = fs::last_write_time(path);
  const std::string hash = cached_sha256(path);
  EXPECT_EQ(hash, sha256_of_file(path));
  EXPECT_EQ(read_file(cache_).substr(0, 64), hash);
  // Same size and time: the cache answers. Another time: the file does.
  folder_.write("file", "other");
  fs::last_write_time(path, before);
  EXPECT_EQ(cached_sha256(path), hash);
  fs::last_write_time(path, before + std::chrono::seconds(1));
  EXPECT_EQ(cached_sha256(path), sha256_of_file(path));
  EXPECT_NE(cached_sha256(path), hash);
}

TEST_F(KnownFilesTest, ADamagedOrUnwritableCacheIsNoError) {
  const std::string path = folder_.write("file", "text");
  std::ofstream(cache_, std::ios::binary) << "garbage\n\n" << std::string(5000, 'x') << '\0' << "\n";
  EXPECT_EQ(cached_sha256(path), sha256_of_file(path));
  setenv("XDG_CACHE_HOME", "/proc/none", 1);
  EXPECT_EQ(cached_sha256(path), sha256_of_file(path));
}

}  // namespace
}  // namespace flashvsr
