// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/known_files.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/log.h"
#include "io/sha256.h"

namespace flashvsr {
namespace {

namespace fs = std::filesystem;

struct KnownFile {
  Version version;
  uint64_t size;
  const char* sha256;
};
constexpr KnownFile kDits[] = {
    {Version::kV1_1, 5676070392u, "bd28180edcf3446c028e32fc6b731a80bf7e4da2ab4caac3186b9499964d37be"}};
constexpr KnownFile kProjectors[] = {
    {Version::kV1_1, 575694948u, "d6d011cdaaba6a52645086caa08fa04124e746f6ca568140a24007591142bfd2"}};

const char* version_name(Version version) { return version == Version::kV1 ? "v1" : "v1.1"; }

template <size_t n>
std::optional<Version> known_version(const std::string& path, const KnownFile (&known)[n]) {
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  if (error) return {};
  for (const KnownFile& file : known) {
    // A file of another size cannot be it: no need to read gigabytes.
    if (size == file.size && cached_sha256(path) == file.sha256) return file.version;
  }
  return {};
}

std::string cache_file() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache != nullptr && cache[0] != '\0') return std::string(cache) + "/flashvsr/sha256";
  if (home != nullptr && home[0] != '\0') return std::string(home) + "/.cache/flashvsr/sha256";
  return {};
}

}  // namespace

std::string cached_sha256(const std::string& path) {
  std::error_code error;
  const std::string full = fs::absolute(path, error).string();
  const auto changed = fs::last_write_time(path, error).time_since_epoch().count();
  const std::string key = concat(fs::file_size(path, error), " ", changed, " ", full);
  const std::string cache = cache_file();
  if (!cache.empty()) {
    std::ifstream in(cache);
    for (std::string line; std::getline(in, line);) {
      if (line.size() == 65 + key.size() && line.compare(65, std::string::npos, key) == 0) return line.substr(0, 64);
    }
  }
  log(LogLevel::kInfo, "hashing ", path, " (once)");
  std::string hash = sha256_of_file(path);
  if (!cache.empty()) {
    fs::create_directories(fs::path(cache).parent_path(), error);
    std::ofstream(cache, std::ios::app) << hash + " " + key + "\n";
  }
  return hash;
}

Version decide_version(const std::string& dit_file, const std::string& projector_file,
                       std::optional<Version> asked) {
  const std::optional<Version> dit = known_version(dit_file, kDits);
  const std::optional<Version> projector = known_version(projector_file, kProjectors);
  const auto describe = [](const std::optional<Version>& version) {
    return version ? std::string("known as ") + version_name(*version) : std::string("unknown");
  };
  if (!asked) {
    FLASHVSR_CHECK(projector && dit && *projector == *dit, ErrorCode::kModelInvalid, "The version cannot be told from the files: ",
                   dit_file, " is ", describe(dit), ", ", projector_file, " is ", describe(projector),
                   ". Set model-version to v1 or v1.1; mixed versions give ghosting and shifted colours.");
    return *projector;
  }
  const std::pair<std::string, std::optional<Version>> files[] = {{dit_file, dit}, {projector_file, projector}};
  for (const auto& [file, found] : files) {
    FLASHVSR_CHECK(!found || *found == *asked, ErrorCode::kModelInvalid, file, " is a ", found ? version_name(*found) : "",
                   " file, but model-version is ", version_name(*asked));
  }
  if (dit.has_value() != projector.has_value()) {
    log(LogLevel::kWarning, dit_file, " is ", describe(dit), ", ", projector_file, " is ", describe(projector),
        ": make sure that both are ", version_name(*asked));
  }
  return *asked;
}

}  // namespace flashvsr
