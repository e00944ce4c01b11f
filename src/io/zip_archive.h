// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Members of a zip archive as torch.save writes it: stored, not compressed.
//
// The central directory is the authority; CRC and sizes in local headers may be deferred (data
// descriptors, zip64: 0 or all ones there) and must agree otherwise. Refused: compressed or encrypted members,
// several disks, members that overlap or leave the file, repeated names, a local header
// that names another member, a CRC that does not match what was read.
//
// Errors: throws Error (kModelNotFound, else kModelInvalid) naming the file and the member.
// Thread-safety: unsafe.
#ifndef FLASHVSR_IO_ZIP_ARCHIVE_H_
#define FLASHVSR_IO_ZIP_ARCHIVE_H_

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace flashvsr {

struct ZipMember {
  uint64_t size = 0;
  uint64_t header_begin = 0;  // of the local header
  uint64_t data_begin = 0;
  uint32_t crc = 0;
};

class ZipArchive {
 public:
  explicit ZipArchive(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, ZipMember>& members() const { return members_; }
  // The whole member, its CRC checked; into `out`, which has room for its size, or as a vector.
  void read(const std::string& name, void* out) const;
  std::vector<char> read(const std::string& name) const;
  uint64_t file_size() const { return size_; }

 private:
  void read_at(uint64_t offset, void* out, uint64_t size, const char* what) const;

  std::string path_;
  mutable std::ifstream file_;
  uint64_t size_ = 0;
  std::map<std::string, ZipMember> members_;
};

uint32_t crc32(const void* data, size_t size, uint32_t crc = 0);

}  // namespace flashvsr

#endif  // FLASHVSR_IO_ZIP_ARCHIVE_H_
