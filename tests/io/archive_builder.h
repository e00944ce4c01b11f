// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Makes checkpoint files byte by byte, right ones and wrong ones: zip archives, pickles,
// safetensors. Positions of records are kept, so that a test can damage one field.
#ifndef FLASHVSR_TESTS_IO_ARCHIVE_BUILDER_H_
#define FLASHVSR_TESTS_IO_ARCHIVE_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "io/zip_archive.h"

namespace flashvsr {

inline std::string little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

inline void patch(std::string& file, size_t at, uint64_t value, int bytes) { file.replace(at, static_cast<size_t>(bytes), little(value, bytes)); }

// `zip64`: sizes and offsets in zip64 extra fields and a zip64 end record. `deferred`: CRC and sizes in
// data descriptors.
struct ZipStyle {
  bool zip64 = false;
  bool deferred = false;
  size_t padding = 0;  // of the local extra field, as torch.save aligns
};

class ZipBuilder {
 public:
  explicit ZipBuilder(ZipStyle style = {}) : style_(style) {}

  ZipBuilder& add(const std::string& name, const std::string& data) {
    const uint32_t crc = crc32(data.data(), data.size());
    const uint64_t begin = file_.size();
    local_at.push_back(begin);
    const std::string pad = style_.padding > 0 ? little(0x4246, 2) + little(style_.padding, 2) + std::string(style_.padding, 'Z') : "";
    file_ += little(0x04034b50, 4) + little(style_.zip64 ? 45 : 20, 2) + little(style_.deferred ? 8 : 0, 2) + little(0, 2) + little(0, 4);
    file_ += little(style_.deferred ? 0 : crc, 4) + little(style_.deferred ? 0 : data.size(), 4) + little(style_.deferred ? 0 : data.size(), 4);
    file_ += little(name.size(), 2) + little(pad.size(), 2) + name + pad;
    data_at.push_back(file_.size());
    file_ += data;
    if (style_.deferred) file_ += little(0x08074b50, 4) + little(crc, 4) + little(data.size(), 4) + little(data.size(), 4);
    central_offset_.push_back(directory_.size());
    const std::string extra = style_.zip64 ? little(1, 2) + little(24, 2) + little(data.size(), 8) + little(data.size(), 8) + little(begin, 8) : "";
    const auto narrow = [&](uint64_t value) { return style_.zip64 ? 0xFFFFFFFFull : value; };
    directory_ += little(0x02014b50, 4) + little(20, 2) + little(20, 2) + little(style_.deferred ? 8 : 0, 2) + little(0, 2) + little(0, 4);
    directory_ += little(crc, 4) + little(narrow(data.size()), 4) + little(narrow(data.size()), 4);
    directory_ += little(name.size(), 2) + little(extra.size(), 2) + little(0, 2) + little(0, 2) + little(0, 2) + little(0, 4);
    directory_ += little(narrow(begin), 4) + name + extra;
    return *this;
  }

  std::string finish(const std::string& comment = "") {
    directory_at = file_.size();
    for (const size_t offset : central_offset_) central_at.push_back(directory_at + offset);
    std::string out = file_ + directory_;
    const uint64_t count = central_at.size();
    if (style_.zip64) {
      end64_at = out.size();
      out += little(0x06064b50, 4) + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 4) + little(0, 4) + little(count, 8) +
             little(count, 8) + little(directory_.size(), 8) + little(directory_at, 8);
      out += little(0x07064b50, 4) + little(0, 4) + little(end64_at, 8) + little(1, 4);
    }
    end_at = out.size();
    const auto narrow = [&](uint64_t value, uint64_t limit) { return style_.zip64 ? limit : value; };
    out += little(0x06054b50, 4) + little(0, 2) + little(0, 2) + little(narrow(count, 0xFFFF), 2) + little(narrow(count, 0xFFFF), 2) +
           little(narrow(directory_.size(), 0xFFFFFFFF), 4) + little(narrow(directory_at, 0xFFFFFFFF), 4) + little(comment.size(), 2) + comment;
    return out;
  }

  // Where the records lie in the finished file.
  std::vector<size_t> local_at, data_at, central_at;
  size_t directory_at = 0, end64_at = 0, end_at = 0;

 private:
  ZipStyle style_;
  std::string file_, directory_;
  std::vector<size_t> central_offset_;
};

// Pieces of a pickle of protocol 2, as torch.save writes them.
namespace pickle {
inline std::string proto() { return "\x80\x02"; }
inline std::string text(const std::string& s) { return "X" + little(s.size(), 4) + s; }
inline std::string global(const std::string& module, const std::string& name) { return "c" + module + "\n" + name + "\n"; }
inline std::string integer(int64_t value) {
  if (value >= 0 && value < 256) return "K" + little(static_cast<uint64_t>(value), 1);
  if (value >= INT32_MIN && value <= INT32_MAX) return "J" + little(static_cast<uint64_t>(value), 4);
  return std::string("\x8a") + "\x08" + little(static_cast<uint64_t>(value), 8);
}
inline std::string tuple(const std::vector<int64_t>& values) {
  std::string out = "(";
  for (const int64_t value : values) out += integer(value);
  return out + "t";
}
inline std::string storage(const std::string& type, const std::string& key, int64_t elements, const std::string& location = "cpu") {
  return "(" + text("storage") + global("torch", type) + text(key) + text(location) + integer(elements) + "tQ";
}
inline std::string ordered_dict() { return global("collections", "OrderedDict") + ")R"; }
inline std::string tensor(const std::string& storage, int64_t offset, const std::vector<int64_t>& shape, const std::vector<int64_t>& stride) {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + storage + integer(offset) + tuple(shape) + tuple(stride) + "\x89" +
         ordered_dict() + "tR";
}
// A state dict of one tensor "weight".
inline std::string state_dict(const std::string& tensor) { return proto() + ordered_dict() + "(" + text("weight") + tensor + "u."; }
}  // namespace pickle

// A torch.save file of `pickle` and fp32 storages "0", "1", ... that hold 0, 1, 2, ...
inline ZipBuilder torch_zip(const std::string& pickle, const std::vector<int64_t>& storages, ZipStyle style = {}) {
  ZipBuilder zip(style);
  zip.add("archive/data.pkl", pickle);
  zip.add("archive/byteorder", "little");
  for (size_t i = 0; i < storages.size(); ++i) {
    std::string data;
    for (int64_t n = 0; n < storages[i]; ++n) {
      const float value = static_cast<float>(n);
      data.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    zip.add("archive/data/" + std::to_string(i), data);
  }
  zip.add("archive/version", "3\n");
  return zip;
}

inline std::string safetensors_bytes(const std::string& header, const std::string& data) { return little(header.size(), 8) + header + data; }

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_IO_ARCHIVE_BUILDER_H_
