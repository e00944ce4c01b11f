// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/zip_archive.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/error.h"
#include "io/tensor_info.h"

namespace flashvsr {
namespace {

constexpr uint64_t kEndSize = 22, kMaxComment = 65535;
constexpr uint64_t kMaxDirectory = 64u << 20;
constexpr uint64_t kLocalSize = 30, kCentralSize = 46;

uint64_t little(const unsigned char* bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

// Tables for eight bytes at a time: storages are hundreds of megabytes.
const std::array<std::array<uint32_t, 256>, 8>& crc_tables() {
  static const auto tables = [] {
    std::array<std::array<uint32_t, 256>, 8> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0xEDB88320u ^ c >> 1 : c >> 1;
      t[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; ++i) {
      for (int s = 1; s < 8; ++s) t[s][i] = t[s - 1][i] >> 8 ^ t[0][t[s - 1][i] & 0xFF];
    }
    return t;
  }();
  return tables;
}

}  // namespace

uint32_t crc32(const void* data, size_t size, uint32_t crc) {
  const auto& t = crc_tables();
  const auto* bytes = static_cast<const unsigned char*>(data);
  crc = ~crc;
  for (; size >= 8; size -= 8, bytes += 8) {
    const uint32_t low = crc ^ static_cast<uint32_t>(little(bytes, 4));
    const uint32_t high = static_cast<uint32_t>(little(bytes + 4, 4));
    crc = t[7][low & 0xFF] ^ t[6][low >> 8 & 0xFF] ^ t[5][low >> 16 & 0xFF] ^ t[4][low >> 24] ^
          t[3][high & 0xFF] ^ t[2][high >> 8 & 0xFF] ^ t[1][high >> 16 & 0xFF] ^ t[0][high >> 24];
  }
  for (; size > 0; --size, ++bytes) crc = t[0][(crc ^ *bytes) & 0xFF] ^ crc >> 8;
  return ~crc;
}

void ZipArchive::read_at(uint64_t offset, void* out, uint64_t size, const char* what) const {
  FLASHVSR_CHECK(offset <= size_ && size <= size_ - offset, ErrorCode::kModelInvalid, path_, ": ", what, " at byte ",
                 offset, " with ", size, " bytes leaves the file of ", size_);
  file_.clear();
  file_.seekg(static_cast<std::streamoff>(offset));
  file_.read(static_cast<char*>(out), static_cast<std::streamsize>(size));
  FLASHVSR_CHECK(file_.good() || size == 0, ErrorCode::kModelInvalid, path_, ": ", what, " cannot be read");
}

ZipArchive::ZipArchive(const std::string& path) : path_(path) {
  // Opening a named pipe would wait for its writer.
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) file_.open(path, std::ios::binary);
  FLASHVSR_CHECK(file_.is_open(), ErrorCode::kModelNotFound, path, ": cannot be opened");
  file_.seekg(0, std::ios::end);
  const std::streamoff size = file_.tellg();
  FLASHVSR_CHECK(size >= static_cast<std::streamoff>(kEndSize), ErrorCode::kModelInvalid, path, ": ", size,
                 " bytes, too short for a zip archive");
  size_ = static_cast<uint64_t>(size);

  // End record: the last one whose comment reaches exactly the end of the file.
  const uint64_t tail_size = std::min(size_, kEndSize + kMaxComment);
  std::vector<unsigned char> tail(tail_size);
  read_at(size_ - tail_size, tail.data(), tail_size, "the end");
  int64_t end_at = -1;
  for (int64_t i = static_cast<int64_t>(tail_size - kEndSize); i >= 0 && end_at < 0; --i) {
    if (little(&tail[i], 4) == 0x06054b50 &&
        little(&tail[i + 20], 2) == tail_size - kEndSize - static_cast<uint64_t>(i)) {
      end_at = i;
    }
  }
  FLASHVSR_CHECK(end_at >= 0, ErrorCode::kModelInvalid, path, ": no end of a zip archive found; the file is truncated or none");
  const unsigned char* end = &tail[end_at];
  const uint64_t end_offset = size_ - tail_size + static_cast<uint64_t>(end_at);
  uint64_t entries = little(end + 10, 2), directory_size = little(end + 12, 4), directory_begin = little(end + 16, 4);
  bool several_disks = little(end + 4, 2) != 0 || little(end + 6, 2) != 0 || little(end + 8, 2) != entries;
  uint64_t directory_limit = end_offset;
  if (entries == 0xFFFF || directory_size == 0xFFFFFFFF || directory_begin == 0xFFFFFFFF) {
    unsigned char locator[20];
    FLASHVSR_CHECK(end_offset >= sizeof locator, ErrorCode::kModelInvalid, path, ": no zip64 end locator");
    read_at(end_offset - sizeof locator, locator, sizeof locator, "the zip64 end locator");
    FLASHVSR_CHECK(little(locator, 4) == 0x07064b50, ErrorCode::kModelInvalid, path, ": no zip64 end locator");
    const uint64_t end64_offset = little(locator + 8, 8);
    unsigned char end64[56];
    read_at(end64_offset, end64, sizeof end64, "the zip64 end record");
    FLASHVSR_CHECK(little(end64, 4) == 0x06064b50, ErrorCode::kModelInvalid, path, ": no zip64 end record");
    several_disks = little(end64 + 16, 4) != 0 || little(end64 + 20, 4) != 0;
    entries = little(end64 + 32, 8);
    directory_size = little(end64 + 40, 8);
    directory_begin = little(end64 + 48, 8);
    directory_limit = end64_offset;
  }
  FLASHVSR_CHECK(!several_disks, ErrorCode::kModelInvalid, path, ": the archive spans several disks");
  FLASHVSR_CHECK(directory_begin <= directory_limit && directory_size <= directory_limit - directory_begin &&
                     directory_size <= kMaxDirectory && entries <= directory_size / kCentralSize,
                 ErrorCode::kModelInvalid, path, ": a central directory of ", entries, " entries, ", directory_size,
                 " bytes at ", directory_begin, " does not fit the file of ", size_);

  std::vector<unsigned char> directory(directory_size);
  read_at(directory_begin, directory.data(), directory_size, "the central directory");
  uint64_t at = 0;
  for (uint64_t n = 0; n < entries; ++n) {
    FLASHVSR_CHECK(directory_size - at >= kCentralSize && little(&directory[at], 4) == 0x02014b50, ErrorCode::kModelInvalid,
                   path, ": central directory entry ", n, " of ", entries, " is damaged");
    const unsigned char* entry = &directory[at];
    const uint64_t name_size = little(entry + 28, 2), extra_size = little(entry + 30, 2), comment_size = little(entry + 32, 2);
    FLASHVSR_CHECK(directory_size - at - kCentralSize >= name_size + extra_size + comment_size, ErrorCode::kModelInvalid, path,
                   ": central directory entry ", n, " leaves the directory");
    const std::string name(reinterpret_cast<const char*>(entry + kCentralSize), name_size);
    const std::string where = path + ": member \"" + printable(name) + "\"";
    uint64_t stored_size = little(entry + 20, 4), full_size = little(entry + 24, 4), header_begin = little(entry + 42, 4);
    const unsigned char* extra = entry + kCentralSize + name_size;
    for (uint64_t left = extra_size; left >= 4;) {
      const uint64_t id = little(extra, 2), length = little(extra + 2, 2);
      FLASHVSR_CHECK(length <= left - 4, ErrorCode::kModelInvalid, where, ": a damaged extra field");
      if (id == 1) {
        uint64_t used = 0;
        const auto take = [&](uint64_t& field) {
          if (field != 0xFFFFFFFF) return;
          FLASHVSR_CHECK(length - used >= 8, ErrorCode::kModelInvalid, where, ": a short zip64 field");
          field = little(extra + 4 + used, 8);
          used += 8;
        };
        take(full_size);
        take(stored_size);
        take(header_begin);
      }
      extra += 4 + length;
      left -= 4 + length;
    }
    FLASHVSR_CHECK((little(entry + 8, 2) & 1) == 0, ErrorCode::kModelInvalid, where, ": encrypted");
    FLASHVSR_CHECK(little(entry + 10, 2) == 0 && stored_size == full_size, ErrorCode::kModelInvalid, where,
                   ": compressed (method ", little(entry + 10, 2), ", ", stored_size, " of ", full_size,
                   " bytes), expected a stored member");
    at += kCentralSize + name_size + extra_size + comment_size;

    unsigned char local[kLocalSize];
    read_at(header_begin, local, kLocalSize, "a local header");
    FLASHVSR_CHECK(little(local, 4) == 0x04034b50 && little(local + 8, 2) == 0, ErrorCode::kModelInvalid, where,
                   ": no local header of a stored member at byte ", header_begin);
    const auto agrees = [&](int offset, uint64_t expected) {
      const uint64_t found = little(local + offset, 4);
      return found == 0 || found == 0xFFFFFFFF || found == expected;
    };
    FLASHVSR_CHECK((little(local + 6, 2) & 1) == 0 && agrees(14, little(entry + 16, 4)) && agrees(18, stored_size) && agrees(22, full_size),
                   ErrorCode::kModelInvalid, where, ": its local header and the central directory differ");
    const uint64_t local_name = little(local + 26, 2), local_extra = little(local + 28, 2);
    std::string local_text(local_name, '\0');
    read_at(header_begin + kLocalSize, local_text.data(), local_name, "a local name");
    FLASHVSR_CHECK(local_text == name, ErrorCode::kModelInvalid, where, ": the local header names \"", printable(local_text), "\"");
    ZipMember member;
    member.size = full_size;
    member.header_begin = header_begin;
    member.data_begin = header_begin + kLocalSize + local_name + local_extra;
    member.crc = static_cast<uint32_t>(little(entry + 16, 4));
    FLASHVSR_CHECK(member.data_begin <= directory_begin && full_size <= directory_begin - member.data_begin, ErrorCode::kModelInvalid,
                   where, ": ", full_size, " bytes at ", member.data_begin, " leave the archive's ", directory_begin, " bytes of data");
    FLASHVSR_CHECK(members_.emplace(name, member).second, ErrorCode::kModelInvalid, where, ": appears twice");
  }
  FLASHVSR_CHECK(at == directory_size, ErrorCode::kModelInvalid, path, ": ", directory_size - at,
                 " bytes of the central directory belong to no entry");

  std::vector<const ZipMember*> by_offset;
  for (const auto& item : members_) by_offset.push_back(&item.second);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* a, const auto* b) { return a->header_begin < b->header_begin; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    FLASHVSR_CHECK(by_offset[i - 1]->data_begin + by_offset[i - 1]->size <= by_offset[i]->header_begin, ErrorCode::kModelInvalid,
                   path, ": members overlap at byte ", by_offset[i]->header_begin);
  }
}

void ZipArchive::read(const std::string& name, void* out) const {
  const auto it = members_.find(name);
  FLASHVSR_CHECK(it != members_.end(), ErrorCode::kModelInvalid, path_, ": no member \"", printable(name), "\"");
  read_at(it->second.data_begin, out, it->second.size, "a member");
  const uint32_t crc = crc32(out, it->second.size);
  FLASHVSR_CHECK(crc == it->second.crc, ErrorCode::kModelInvalid, path_, ": member \"", printable(name), "\": CRC is ", crc, ", expected ",
                 it->second.crc);
}

std::vector<char> ZipArchive::read(const std::string& name) const {
  const auto it = members_.find(name);
  FLASHVSR_CHECK(it != members_.end(), ErrorCode::kModelInvalid, path_, ": no member \"", printable(name), "\"");
  std::vector<char> data(it->second.size);
  read(name, data.data());
  return data;
}

}  // namespace flashvsr
