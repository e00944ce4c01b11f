// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/safetensors.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/json.h"

namespace flashvsr {
namespace {

constexpr uint64_t kMaxHeader = 64u << 20;

SafetensorsEntry parse_entry(const std::string& where, const Json& json, uint64_t data_size) {
  SafetensorsEntry entry;
  FLASHVSR_CHECK(json.members().size() == 3, ErrorCode::kModelInvalid, where, ": ", json.members().size(),
                 " fields, expected dtype, shape and data_offsets");
  const std::string& dtype = json.at("dtype").text();
  FLASHVSR_CHECK(parse_dtype(dtype, &entry.dtype), ErrorCode::kModelInvalid, where, ": unknown dtype \"",
                 printable(dtype), "\"");
  const auto& shape = json.at("shape").items();
  FLASHVSR_CHECK(shape.size() <= 16, ErrorCode::kModelInvalid, where, ": ", shape.size(), " dimensions");
  for (const Json& size : shape) entry.shape.push_back(size.integer());
  uint64_t bytes = 0;
  FLASHVSR_CHECK(checked_bytes(entry.shape, entry.dtype, &bytes), ErrorCode::kModelInvalid, where, ": shape ",
                 shape_text(entry.shape), " is negative or too large");
  const auto& offsets = json.at("data_offsets").items();
  FLASHVSR_CHECK(offsets.size() == 2, ErrorCode::kModelInvalid, where, ": ", offsets.size(), " data_offsets, expected 2");
  const int64_t begin = offsets[0].integer(), end = offsets[1].integer();
  FLASHVSR_CHECK(begin >= 0 && end >= begin && static_cast<uint64_t>(end) <= data_size, ErrorCode::kModelInvalid,
                 where, ": data_offsets [", begin, ", ", end, ") do not lie in the file's ", data_size, " bytes of data");
  entry.begin = static_cast<uint64_t>(begin);
  entry.end = static_cast<uint64_t>(end);
  FLASHVSR_CHECK(entry.bytes() == bytes, ErrorCode::kModelInvalid, where, ": ", entry.bytes(), " bytes, but ", dtype, " ",
                 shape_text(entry.shape), " needs ", bytes);
  return entry;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  // Opening a named pipe would wait for its writer.
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) file_.open(path, std::ios::binary);
  FLASHVSR_CHECK(file_.is_open(), ErrorCode::kModelNotFound, path, ": cannot be opened");
  file_.seekg(0, std::ios::end);
  const std::streamoff size = file_.tellg();
  FLASHVSR_CHECK(size >= 8, ErrorCode::kModelInvalid, path, ": ", size, " bytes, too short for a safetensors file");
  unsigned char prefix[8] = {};
  file_.seekg(0);
  file_.read(reinterpret_cast<char*>(prefix), 8);
  uint64_t header_size = 0;
  for (int i = 7; i >= 0; --i) header_size = header_size << 8 | prefix[i];
  const uint64_t rest = static_cast<uint64_t>(size) - 8;
  FLASHVSR_CHECK(file_.good() && header_size >= 2 && header_size <= rest && header_size <= kMaxHeader, ErrorCode::kModelInvalid,
                 path, ": the header claims ", header_size, " bytes; the file has ", rest, " after its first 8 and ",
                 kMaxHeader, " are allowed");
  std::string header(header_size, '\0');
  file_.read(header.data(), static_cast<std::streamsize>(header_size));
  FLASHVSR_CHECK(file_.good() && header[0] == '{', ErrorCode::kModelInvalid, path, ": the header is no JSON object");
  data_begin_ = 8 + header_size;
  const uint64_t data_size = rest - header_size;

  const Json json = parse_json(header, path);
  for (const auto& [name, value] : json.members()) {
    const std::string where = path + ": tensor " + ("\"" + printable(name) + "\"");
    try {
      if (name == "__metadata__") {
        for (const auto& [key, text] : value.members()) metadata_[key] = text.text();
        continue;
      }
      tensors_.emplace(name, parse_entry(where, value, data_size));
    } catch (const Error& error) {
      // The JSON accessors do not know the tensor.
      const std::string message = error.what();
      throw Error(error.code(), message.rfind(path, 0) == 0 ? message : where + ": " + message);
    }
  }

  std::vector<std::pair<const std::string*, const SafetensorsEntry*>> by_offset;
  for (const auto& [name, entry] : tensors_) by_offset.emplace_back(&name, &entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
    return std::make_pair(a.second->begin, a.second->end) < std::make_pair(b.second->begin, b.second->end);
  });
  uint64_t used = 0;
  for (const auto& [name, entry] : by_offset) {
    FLASHVSR_CHECK(entry->begin == used, ErrorCode::kModelInvalid, path, ": tensor ", "\"", printable(*name), "\"", " begins at byte ",
                   entry->begin, ", expected ", used, entry->begin < used ? " (it overlaps another)" : " (bytes are unused)");
    used = entry->end;
  }
  FLASHVSR_CHECK(used == data_size, ErrorCode::kModelInvalid, path, ": ", data_size, " bytes of data, but the tensors end at ", used);
}

void SafetensorsFile::read(const SafetensorsEntry& entry, void* out) const {
  file_.clear();
  file_.seekg(static_cast<std::streamoff>(data_begin_ + entry.begin));
  file_.read(static_cast<char*>(out), static_cast<std::streamsize>(entry.bytes()));
  FLASHVSR_CHECK(file_.good() || entry.bytes() == 0, ErrorCode::kModelInvalid, path_, ": ", entry.bytes(), " bytes at ",
                 data_begin_ + entry.begin, " cannot be read");
}

void write_safetensors(const std::string& path, std::vector<SafetensorsItem> items,
                       const std::map<std::string, std::string>& metadata) {
  std::set<std::string> names;
  for (const SafetensorsItem& item : items) {
    FLASHVSR_CHECK(!item.name.empty() && item.name != "__metadata__" && names.insert(item.name).second, ErrorCode::kInvalidArgument,
                   path, ": cannot hold a tensor named \"", item.name, "\"", names.count(item.name) != 0 ? " twice" : "");
  }
  // Large elements first: every tensor is then aligned to its element.
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    const size_t size_a = dtype_size(a.dtype), size_b = dtype_size(b.dtype);
    return size_a != size_b ? size_a > size_b : a.name < b.name;
  });
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    bool is_first = true;
    for (const auto& [key, value] : metadata) {
      header += (is_first ? "" : ",") + json_quote(key) + ":" + json_quote(value);
      is_first = false;
    }
    header += "}";
  }
  uint64_t offset = 0;
  std::vector<uint64_t> sizes;
  for (const SafetensorsItem& item : items) {
    uint64_t bytes = 0;
    FLASHVSR_CHECK(checked_bytes(item.shape, item.dtype, &bytes), ErrorCode::kInvalidArgument, path, ": ", item.name,
                   ": bad shape ", shape_text(item.shape));
    std::string shape = shape_text(item.shape);
    shape.erase(std::remove(shape.begin(), shape.end(), ' '), shape.end());
    header += (header.size() == 1 ? "" : ",") + json_quote(item.name) + ":{\"dtype\":\"" + dtype_name(item.dtype) +
              "\",\"shape\":" + shape + ",\"data_offsets\":[" + std::to_string(offset) + "," +
              std::to_string(offset + bytes) + "]}";
    offset += bytes;
    sizes.push_back(bytes);
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');

  AtomicFile file(path);
  const uint64_t header_size = header.size();
  unsigned char prefix[8];
  for (int i = 0; i < 8; ++i) prefix[i] = static_cast<unsigned char>(header_size >> (8 * i));
  file.write(prefix, sizeof prefix);
  file.write(header.data(), header.size());
  for (size_t i = 0; i < items.size(); ++i) file.write(items[i].data, sizes[i]);
  file.commit();
}

}  // namespace flashvsr
