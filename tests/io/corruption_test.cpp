// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Damaged and hostile checkpoint files, each a case of its own: every one must be refused with an
// Error that names the file. Built with ASan and UBSan whatever the build's options are; the
// allocator refuses more than 64 MiB at once (see meson.build), so a huge allocation fails the test.
//
// The cases are generated: fixed ones by hand, the rest from a seed (printed in their names).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>

#include "base/error.h"
#include "io/json.h"
#include "io/model_config.h"
#include "tests/io/archive_builder.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

namespace pk = pickle;

struct Corruption {
  std::string name;
  std::string file;                    // the name to write under; its ending chooses the reader
  std::string base;                    // golden file that it was made from, "" for none
  std::function<std::string()> bytes;  // made when the case runs
};

const std::string& golden(const std::string& file) {
  static std::map<std::string, std::string> files;
  std::string& bytes = files[file];
  if (bytes.empty()) bytes = read_file(fixtures_root() + "/checkpoint/" + file);
  return bytes;
}

constexpr const char* kDit = "diffusion_pytorch_model_streaming_dmd.safetensors";
constexpr const char* kArchives[] = {"LQ_proj_in.ckpt", "TCDecoder.ckpt", "Wan2.1_VAE.pth", "posi_prompt.pth"};

// What a loader knows besides the file: names and shapes. Read once per golden file.
const ShapeMap& golden_shapes(const std::string& file) {
  static std::map<std::string, ShapeMap> shapes;
  const auto found = shapes.find(file);
  if (found != shapes.end()) return found->second;
  return shapes[file] = shapes_of(load_all(fixtures_root() + "/checkpoint/" + file));
}

std::string safetensors_of(const std::string& header, size_t data) { return safetensors_bytes(header, std::string(data, '\1')); }
std::string one_entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"w\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
}

uint64_t number(const std::string& file, size_t at, int bytes) {
  uint64_t value = 0;
  for (int i = bytes; i-- > 0;) value = value << 8 | static_cast<unsigned char>(file[at + static_cast<size_t>(i)]);
  return value;
}

// Positions of the central directory's entries of a golden archive, and of its end record.
struct ZipMap {
  std::vector<size_t> central;
  size_t end = 0;
};
ZipMap map_zip(const std::string& file) {
  ZipMap map;
  map.end = file.rfind("PK\5\6");
  size_t at = number(file, map.end + 16, 4);
  while (number(file, at, 4) == 0x02014b50) {
    map.central.push_back(at);
    at += 46 + number(file, at + 28, 2) + number(file, at + 30, 2) + number(file, at + 32, 2);
  }
  return map;
}

std::vector<Corruption> make_corruptions() {
  std::vector<Corruption> list;
  const auto add = [&](const std::string& name, const std::string& file, const std::string& base, std::function<std::string()> bytes) {
    list.push_back({name, file, base, std::move(bytes)});
  };

  // --- truncations, of every golden file -----------------------------------------------------
  for (const std::string file : {kDit, kArchives[0], kArchives[1], kArchives[2], kArchives[3]}) {
    for (const size_t keep : {0u, 1u, 7u, 8u, 9u, 100u, 4000u}) {
      add("truncated_to_" + std::to_string(keep), file, file, [=] { return golden(file).substr(0, keep); });
    }
    for (const size_t drop : {1u, 2u, 21u, 22u, 23u, 500u, 60000u}) {
      add("truncated_by_" + std::to_string(drop), file, file, [=] { return golden(file).substr(0, golden(file).size() - drop); });
    }
    for (const int percent : {10, 25, 50, 75, 90}) {
      add("truncated_to_" + std::to_string(percent) + "_percent", file, file,
          [=] { return golden(file).substr(0, golden(file).size() * static_cast<size_t>(percent) / 100); });
    }
    add("first_byte_lost", file, file, [=] { return golden(file).substr(1); });
    add("all_zero", file, file, [=] { return std::string(golden(file).size(), '\0'); });
    add("one_byte_more", file, file, [=] { return golden(file) + '\0'; });
  }

  // --- bits flipped in the safetensors header --------------------------------------------------
  for (int seed = 0; seed < 60; ++seed) {
    add("header_bit_flipped_seed_" + std::to_string(seed), kDit, kDit, [=] {
      std::string bytes = golden(kDit);
      std::mt19937 random(static_cast<unsigned>(seed));
      const size_t header = number(bytes, 0, 8);
      // The first twenty in the length itself, where the high bytes ask for exabytes.
      const size_t at = seed < 20 ? random() % 8 : 8 + random() % header;
      bytes[at] ^= static_cast<char>(1 << random() % 8);
      return bytes;
    });
  }

  // --- bits flipped in the fields of the zip directories that matter, and in the data ----------
  struct Field {
    const char* name;
    size_t at, size;
  };
  // The CRC comes last: it is found wrong when the member is read.
  for (const Field field : {Field{"signature", 0, 4}, Field{"method", 10, 2}, Field{"stored_size", 20, 4}, Field{"full_size", 24, 4},
                            Field{"name_length", 28, 2}, Field{"extra_length", 30, 2}, Field{"comment_length", 32, 2}, Field{"offset", 42, 4},
                            Field{"name", 46, 5}, Field{"crc", 16, 4}}) {
    for (int seed = 0; seed < 8; ++seed) {
      const std::string file = kArchives[seed % 4];
      add(std::string("directory_") + field.name + "_flipped_seed_" + std::to_string(seed), file, file, [=] {
        std::string bytes = golden(file);
        std::mt19937 random(static_cast<unsigned>(seed) * 977 + static_cast<unsigned>(field.at));
        const ZipMap map = map_zip(bytes);
        // Of the pickle or a storage: those are read. (Small members such as `version` are not.)
        std::vector<size_t> entries;
        for (const size_t entry : map.central) {
          const std::string name = bytes.substr(entry + 46, number(bytes, entry + 28, 2));
          if (has_suffix(name, "/data.pkl") || name.find("/data/") != std::string::npos) entries.push_back(entry);
        }
        bytes[entries[random() % entries.size()] + field.at + random() % field.size] ^= static_cast<char>(1 << random() % 8);
        return bytes;
      });
    }
  }
  for (int seed = 0; seed < 16; ++seed) {
    const std::string file = kArchives[seed % 4];
    add("end_record_flipped_seed_" + std::to_string(seed), file, file, [=] {
      std::string bytes = golden(file);
      std::mt19937 random(static_cast<unsigned>(seed) + 5000);
      bytes[map_zip(bytes).end + random() % 22] ^= static_cast<char>(1 << random() % 8);
      return bytes;
    });
    add("local_header_flipped_seed_" + std::to_string(seed), file, file, [=] {
      std::string bytes = golden(file);
      std::mt19937 random(static_cast<unsigned>(seed) + 6000);
      const std::vector<size_t> central = map_zip(bytes).central;
      const size_t local = number(bytes, central[random() % central.size()] + 42, 4);
      const size_t fields[] = {0, 1, 2, 3, 8, 9, 26, 27, 30, 31};  // signature, method, length of the name, name
      bytes[local + fields[random() % 10]] ^= static_cast<char>(1 << random() % 8);
      return bytes;
    });
    add("data_flipped_seed_" + std::to_string(seed), file, file, [=] {
      std::string bytes = golden(file);
      std::mt19937 random(static_cast<unsigned>(seed) + 7000);
      const ZipMap map = map_zip(bytes);
      while (true) {
        const size_t entry = map.central[random() % map.central.size()];
        const size_t size = number(bytes, entry + 24, 4);
        const std::string name = bytes.substr(entry + 46, number(bytes, entry + 28, 2));
        if (size == 0 || (name.find("/data/") == std::string::npos && !has_suffix(name, "/data.pkl"))) continue;
        const size_t local = number(bytes, entry + 42, 4);
        bytes[local + 30 + number(bytes, local + 26, 2) + number(bytes, local + 28, 2) + random() % size] ^= static_cast<char>(1 << random() % 8);
        return bytes;
      }
    });
  }

  // --- safetensors headers by hand -------------------------------------------------------------
  const std::pair<const char*, std::string> headers[] = {
      {"shape_too_large", one_entry("\"F32\"", "[3]", "[0,8]")},
      {"shape_too_small", one_entry("\"F32\"", "[1]", "[0,8]")},
      {"shape_negative", one_entry("\"F32\"", "[-2]", "[0,8]")},
      {"shape_negative_twice", one_entry("\"F32\"", "[-2,-1]", "[0,8]")},
      {"shape_overflows", one_entry("\"F32\"", "[4611686018427387904,4]", "[0,8]")},
      {"shape_overflows_to_8", one_entry("\"U8\"", "[4294967296,4294967296,8]", "[0,8]")},
      {"shape_overflows_beside_zero", one_entry("\"U8\"", "[4294967296,4294967296,0]", "[0,8]")},
      {"shape_past_int64", one_entry("\"F32\"", "[18446744073709551618]", "[0,8]")},
      {"shape_fractional", one_entry("\"F32\"", "[2.0]", "[0,8]")},
      {"shape_exponent", one_entry("\"F32\"", "[2e0]", "[0,8]")},
      {"shape_nan", one_entry("\"F32\"", "[NaN]", "[0,8]")},
      {"shape_text", one_entry("\"F32\"", "[\"2\"]", "[0,8]")},
      {"shape_object", one_entry("\"F32\"", "{}", "[0,8]")},
      {"shape_null", one_entry("\"F32\"", "null", "[0,8]")},
      {"shape_of_17_dimensions", one_entry("\"F32\"", "[2,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,8]")},
      {"dtype_unknown", one_entry("\"F33\"", "[2]", "[0,8]")},
      {"dtype_lower_case", one_entry("\"f32\"", "[2]", "[0,8]")},
      {"dtype_of_another_size", one_entry("\"F64\"", "[2]", "[0,8]")},
      {"dtype_number", one_entry("32", "[2]", "[0,8]")},
      {"dtype_long", one_entry("\"" + std::string(100000, 'F') + "\"", "[2]", "[0,8]")},
      {"offsets_reversed", one_entry("\"F32\"", "[2]", "[8,0]")},
      {"offsets_negative", one_entry("\"F32\"", "[2]", "[-8,0]")},
      {"offsets_past_the_end", one_entry("\"F32\"", "[2]", "[8,16]")},
      {"offsets_far_past_the_end", one_entry("\"F32\"", "[2]", "[9223372036854775799,9223372036854775807]")},
      {"offsets_past_int64", one_entry("\"F32\"", "[2]", "[0,18446744073709551624]")},
      {"offsets_odd", one_entry("\"F32\"", "[2]", "[1,9]")},
      {"offsets_leave_a_gap", one_entry("\"F32\"", "[1]", "[4,8]")},
      {"offsets_leave_a_tail", one_entry("\"F32\"", "[1]", "[0,4]")},
      {"offsets_of_three", one_entry("\"F32\"", "[2]", "[0,4,8]")},
      {"offsets_empty", one_entry("\"F32\"", "[2]", "[]")},
      {"offsets_fractional", one_entry("\"F32\"", "[2]", "[0,8.0]")},
      {"overlap", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"},
      {"same_bytes_twice", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"},
      {"empty_inside_another", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}})"},
      {"key_twice", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"},
      {"field_twice", R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})"},
      {"field_missing", R"({"w":{"dtype":"F32","shape":[2]}})"},
      {"field_too_many", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]}})"},
      {"entry_no_object", R"({"w":[0,8]})"},
      {"entry_null", R"({"w":null})"},
      {"metadata_no_object", R"({"__metadata__":[1],"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"},
      {"metadata_no_text", R"({"__metadata__":{"a":1},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"},
      {"metadata_nested", R"({"__metadata__":{"a":{}},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"},
      {"name_not_printable", "{\"a\\n\\u0007\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}"},
      {"name_of_a_megabyte", "{\"" + std::string(1 << 20, 'a') + "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}"},
      {"name_of_a_megabyte_twice", "{\"" + std::string(1 << 20, 'a') + "\":1,\"" + std::string(1 << 20, 'a') + "\":1}"},
      {"name_not_utf8", "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"},
      {"header_array", "[]"},
      {"header_empty_object", "{}"},
      {"header_unclosed", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})"},
      {"header_with_a_tail", one_entry("\"F32\"", "[2]", "[0,8]") + "}"},
      {"header_with_zeros", one_entry("\"F32\"", "[2]", "[0,8]") + std::string(8, '\0')},
      {"header_blank_first", " " + one_entry("\"F32\"", "[2]", "[0,8]")},
      {"header_deep", "{\"w\":" + std::string(1000000, '[')},
      {"header_deep_objects",
       [] {
         std::string text;
         for (int i = 0; i < 200000; ++i) text += "{\"a\":";
         return text;
       }()},
      {"header_of_a_million_values",
       [] {
         std::string text = "{\"w\":[0";
         for (int i = 0; i < 1000000; ++i) text += ",0";
         return text + "]}";
       }()},
  };
  for (const auto& [name, header] : headers) {
    add(name, "a.safetensors", "", [header = header] { return safetensors_of(header, 8); });
  }
  for (const uint64_t length : {0ull, 1ull, 1ull << 20, 64ull << 20, (64ull << 20) + 1, 1ull << 32, 1ull << 40, 1ull << 63, ~0ull, ~0ull - 7}) {
    add("header_length_" + std::to_string(length), "a.safetensors", "", [=] {
      std::string bytes = safetensors_of(one_entry("\"F32\"", "[2]", "[0,8]"), 8);
      patch(bytes, 0, length, 8);
      return bytes;
    });
  }

  // --- zip archives by hand --------------------------------------------------------------------
  const std::string good = pk::state_dict(pk::tensor(pk::storage("FloatStorage", "0", 4), 0, {4}, {1}));
  struct ZipCase {
    const char* name;
    bool zip64;
    std::function<void(ZipBuilder& zip, std::string& bytes)> damage;
  };
  const auto central = [](size_t member, size_t at, uint64_t value, int size) {
    return [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[member] + at, value, size); };
  };
  const auto end = [](size_t at, uint64_t value, int size) { return [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.end_at + at, value, size); }; };
  const auto end64 = [](size_t at, uint64_t value, int size) { return [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.end64_at + at, value, size); }; };
  const auto local = [](size_t member, size_t at, uint64_t value, int size) {
    return [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.local_at[member] + at, value, size); };
  };
  // Members: 0 data.pkl, 1 byteorder, 2 storage 0, 3 version. Extra fields follow the name.
  const size_t extra = 46 + std::string("archive/data.pkl").size() + 4;
  const ZipCase zips[] = {
      {"zip_bomb_deflated", false, central(2, 10, 8, 2)},
      {"zip_bomb_stored_size_small", false, central(2, 24, 0x7FFFFFFF, 4)},
      {"zip_bomb_both_sizes_huge", false,
       [](ZipBuilder& zip, std::string& bytes) {
         patch(bytes, zip.central_at[2] + 20, 0xFFFFFFFE, 4);
         patch(bytes, zip.central_at[2] + 24, 0xFFFFFFFE, 4);
       }},
      {"zip_bomb_zip64_sizes", true,
       [=](ZipBuilder& zip, std::string& bytes) {
         patch(bytes, zip.central_at[0] + extra, 1ull << 62, 8);
         patch(bytes, zip.central_at[0] + extra + 8, 1ull << 62, 8);
       }},
      {"zip_bomb_zip64_sizes_minus_one", true,
       [=](ZipBuilder& zip, std::string& bytes) {
         patch(bytes, zip.central_at[0] + extra, ~0ull, 8);
         patch(bytes, zip.central_at[0] + extra + 8, ~0ull, 8);
       }},
      {"zip64_offset_wraps", true, [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[0] + extra + 16, ~0ull - 10, 8); }},
      {"zip64_extra_too_short", true, [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[0] + extra - 2, 8, 2); }},
      {"zip64_extra_too_long", true, [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[0] + extra - 2, 2000, 2); }},
      {"zip64_extra_missing", true, [=](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[0] + extra - 4, 2, 2); }},
      {"zip64_locator_wraps", true, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.end64_at + 56 + 8, ~0ull - 20, 8); }},
      {"zip64_locator_elsewhere", true, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.end64_at + 56 + 8, 3, 8); }},
      {"zip64_locator_lost", true, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.end64_at + 56, 0, 4); }},
      {"zip64_entries_huge", true, end64(32, ~0ull, 8)},
      {"zip64_directory_huge", true, end64(40, ~0ull, 8)},
      {"zip64_directory_elsewhere", true, end64(48, ~0ull - 100, 8)},
      {"zip64_several_disks", true, end64(20, 1, 4)},
      {"two_names_for_one_member", false, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[3] + 42, zip.local_at[2], 4); }},
      {"member_twice", false,
       [](ZipBuilder& zip, std::string& bytes) { bytes.replace(zip.central_at[1] + 46, 17, bytes.substr(zip.central_at[1] + 46, 17)), patch(bytes, zip.central_at[1] + 42, zip.local_at[2], 4); }},
      {"member_past_the_directory", false, central(2, 20, 100000, 4)},
      {"member_begins_in_the_directory", false, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[2] + 42, zip.directory_at, 4); }},
      {"member_begins_past_the_end", false, central(2, 42, 0xFFFFFFF0, 4)},
      {"encrypted", false, central(0, 8, 1, 2)},
      {"encrypted_locally", false, local(0, 6, 1, 2)},
      {"crc_wrong_pickle", false, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[0] + 16, 1, 4), patch(bytes, zip.local_at[0] + 14, 1, 4); }},
      {"crc_wrong_storage", false, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.central_at[2] + 16, 1, 4), patch(bytes, zip.local_at[2] + 14, 1, 4); }},
      {"local_crc_differs", false, local(2, 14, 1, 4)},
      {"local_size_differs", false, local(2, 18, 15, 4)},
      {"local_full_size_differs", false, local(2, 22, 17, 4)},
      {"local_method_differs", false, local(2, 8, 8, 2)},
      {"local_name_length_huge", false, local(2, 26, 0xFFFF, 2)},
      {"local_extra_length_huge", false, local(2, 28, 0xFFFF, 2)},
      {"local_signature_lost", false, local(2, 0, 0, 4)},
      {"directory_signature_lost", false, central(1, 0, 0, 4)},
      {"directory_name_length_huge", false, central(3, 28, 0xFFFF, 2)},
      {"directory_comment_length_huge", false, central(3, 32, 0xFFFF, 2)},
      {"end_entries_too_many", false, end(10, 5, 2)},
      {"end_entries_differ_by_disk", false, end(8, 3, 2)},
      {"end_entries_too_few", false, [](ZipBuilder& zip, std::string& bytes) { patch(bytes, zip.end_at + 8, 3, 2), patch(bytes, zip.end_at + 10, 3, 2); }},
      {"end_several_disks", false, end(4, 1, 2)},
      {"end_directory_elsewhere", false, end(16, 3, 4)},
      {"end_directory_past_the_end", false, end(16, 0x7FFFFFFF, 4)},
      {"end_directory_too_long", false, end(12, 0x7FFFFFFF, 4)},
      {"end_directory_too_short", false, end(12, 40, 4)},
      {"end_comment_too_long", false, end(20, 10, 2)},
      {"end_says_zip64_without_one", false, end(16, 0xFFFFFFFF, 4)},
      {"end_signature_lost", false, end(0, 0, 4)},
  };
  for (const ZipCase& item : zips) {
    add(item.name, "a.ckpt", "", [=] {
      ZipBuilder zip = torch_zip(good, {4}, {item.zip64, false, 0});
      std::string bytes = zip.finish();
      item.damage(zip, bytes);
      return bytes;
    });
  }
  // The storage takes in the header behind it, and everything else says so too: sizes, CRCs, the pickle.
  add("overlapping_members", "a.ckpt", "", [] {
    ZipBuilder zip = torch_zip(pk::state_dict(pk::tensor(pk::storage("FloatStorage", "0", 15), 0, {15}, {1})), {4});
    std::string bytes = zip.finish();
    const uint32_t crc = crc32(&bytes[zip.data_at[2]], 60);
    for (const size_t at : {20u, 24u}) patch(bytes, zip.central_at[2] + at, 60, 4);
    for (const size_t at : {18u, 22u}) patch(bytes, zip.local_at[2] + at, 60, 4);
    patch(bytes, zip.central_at[2] + 16, crc, 4);
    patch(bytes, zip.local_at[2] + 14, crc, 4);
    return bytes;
  });
  add("no_pickle", "a.ckpt", "", [] { return ZipBuilder().add("archive/data", "x").finish(); });
  add("two_pickles", "a.ckpt", "", [=] { return ZipBuilder().add("a/data.pkl", good).add("b/data.pkl", good).finish(); });
  add("empty_archive", "a.ckpt", "", [] { return ZipBuilder().finish(); });
  add("big_endian", "a.ckpt", "", [=] { return ZipBuilder().add("a/data.pkl", good).add("a/byteorder", "big").add("a/data/0", std::string(16, 'x')).finish(); });
  add("pickle_of_17_mebibytes", "a.ckpt", "", [] { return ZipBuilder().add("a/data.pkl", std::string(17 << 20, 'N')).finish(); });
  add("storage_missing", "a.ckpt", "", [=] { return torch_zip(good, {}).finish(); });
  add("storage_too_short", "a.ckpt", "", [=] { return torch_zip(good, {3}).finish(); });
  add("storage_too_long", "a.ckpt", "", [=] { return torch_zip(good, {5}).finish(); });

  // --- pickles by hand ---------------------------------------------------------------------------
  const std::string storage = pk::storage("FloatStorage", "0", 4);
  const std::string rebuild = pk::global("torch._utils", "_rebuild_tensor_v2");
  const auto call = [](const std::string& module, const std::string& name, const std::string& argument) {
    return pk::proto() + pk::global(module, name) + "(" + pk::text(argument) + "tR.";
  };
  const auto tensor = [&](int64_t offset, const std::vector<int64_t>& shape, const std::vector<int64_t>& stride) {
    return pk::state_dict(pk::tensor(storage, offset, shape, stride));
  };
  const auto repeat = [](const std::string& what, size_t count) {
    std::string out;
    out.reserve(what.size() * count);
    for (size_t i = 0; i < count; ++i) out += what;
    return out;
  };
  constexpr int64_t kMax = INT64_MAX;
  const std::pair<const char*, std::string> pickles[] = {
      {"calls_os_system", call("os", "system", "touch owned")},
      {"calls_posix_system", call("posix", "system", "touch owned")},
      {"calls_eval", call("builtins", "eval", "1")},
      {"calls_exec", call("__builtin__", "exec", "1")},
      {"calls_popen", call("subprocess", "Popen", "sh")},
      {"calls_getattr", call("builtins", "getattr", "x")},
      {"calls_torch_load", call("torch", "load", "x")},
      {"calls_torch_hub", call("torch.hub", "load", "x")},
      {"calls_a_storage_class", call("torch", "FloatStorage", "x")},
      {"calls_by_inst", pk::proto() + "(" + pk::text("touch owned") + "ios\nsystem\n."},
      {"calls_by_obj", pk::proto() + "(" + pk::global("os", "system") + pk::text("touch owned") + "o."},
      {"calls_by_newobj", pk::proto() + pk::global("collections", "OrderedDict") + ")\x81."},
      {"calls_by_stack_global", pk::proto() + pk::text("os") + pk::text("system") + "\x93(" + pk::text("touch owned") + "tR."},
      {"calls_by_reduce_of_a_string", pk::proto() + pk::text("os.system") + "(tR."},
      {"calls_by_extension_registry", pk::proto() + "\x82\x01."},
      {"calls_in_build", pk::proto() + pk::ordered_dict() + pk::global("os", "system") + "b."},
      {"calls_after_a_good_tensor", good.substr(0, good.size() - 1) + call("os", "system", "x").substr(2)},
      {"global_with_lookalike", pk::proto() + pk::global("torch._utils ", "_rebuild_tensor_v2") + "."},
      {"global_not_printable", pk::proto() + pk::global("o\x01\xff", "\x1b[31m") + "."},
      {"global_unterminated", pk::proto() + "ctorch"},
      {"global_of_a_megabyte", pk::proto() + "c" + std::string(1 << 20, 'a') + "\nb\n."},
      {"build_of_a_tensor", good.substr(0, 2) + pk::tensor(storage, 0, {4}, {1}) + "}b."},
      {"ordered_dict_with_arguments", pk::proto() + pk::global("collections", "OrderedDict") + "(" + pk::text("a") + "tR."},
      {"offset_past_the_storage", tensor(1, {4}, {1})},
      {"offset_at_the_end", tensor(4, {1}, {1})},
      {"offset_negative", tensor(-1, {1}, {1})},
      {"offset_huge", tensor(kMax, {1}, {1})},
      {"offset_wraps_in_bytes", tensor(int64_t{1} << 62, {1}, {1})},
      {"stride_past_the_storage", tensor(0, {2, 2}, {3, 1})},
      {"stride_negative", tensor(3, {4}, {-1})},
      {"stride_huge", tensor(0, {2}, {kMax})},
      {"stride_wraps_to_zero", tensor(0, {3}, {int64_t{1} << 62})},
      {"strides_wrap_together", tensor(0, {2, 2, 2}, {kMax / 2, kMax / 2, 2})},
      {"stride_missing", tensor(0, {2, 2}, {1})},
      {"shape_past_the_storage", tensor(0, {5}, {1})},
      {"shape_expanded", tensor(0, {1000000, 1000000}, {0, 0})},
      {"shape_expanded_a_little", tensor(0, {5, 1}, {0, 1})},
      {"shape_negative", tensor(0, {-1}, {1})},
      {"shape_overflows", tensor(0, {kMax, kMax}, {1, 1})},
      {"shape_overflows_to_4", tensor(0, {int64_t{1} << 32, int64_t{1} << 32, 4}, {0, 0, 1})},
      {"shape_overflows_beside_zero", tensor(0, {int64_t{1} << 32, int64_t{1} << 32, 0}, {0, 0, 1})},
      {"shape_of_17_dimensions", tensor(0, std::vector<int64_t>(17, 1), std::vector<int64_t>(17, 1))},
      {"shape_of_text", pk::state_dict(rebuild + "(" + storage + "K" + std::string(1, '\0') + "(" + pk::text("4") + "t" + pk::tuple({1}) + "\x89" + pk::ordered_dict() + "tR")},
      {"shape_a_list", pk::state_dict(rebuild + "(" + storage + "K" + std::string(1, '\0') + "]" + pk::tuple({1}) + "\x89" + pk::ordered_dict() + "tR")},
      {"tensor_with_5_arguments", pk::state_dict(rebuild + "(" + storage + pk::integer(0) + pk::tuple({4}) + pk::tuple({1}) + "\x89tR")},
      {"tensor_with_8_arguments", pk::state_dict(rebuild + "(" + storage + pk::integer(0) + pk::tuple({4}) + pk::tuple({1}) + "\x89" + pk::ordered_dict() + "NNtR")},
      {"tensor_of_no_storage", pk::state_dict(rebuild + "(N" + pk::integer(0) + pk::tuple({4}) + pk::tuple({1}) + "\x89" + pk::ordered_dict() + "tR")},
      {"tensor_arguments_no_tuple", pk::state_dict(rebuild + "NR")},
      {"parameter_of_nothing", pk::state_dict(pk::global("torch._utils", "_rebuild_parameter") + ")R")},
      {"storage_elements_negative", pk::state_dict(pk::tensor(pk::storage("FloatStorage", "0", -4), 0, {1}, {1}))},
      {"storage_elements_huge", pk::state_dict(pk::tensor(pk::storage("FloatStorage", "0", kMax), 0, {1}, {1}))},
      {"storage_elements_wrap", pk::state_dict(pk::tensor(pk::storage("FloatStorage", "0", (int64_t{1} << 62) + 4), 0, {1}, {1}))},
      {"storage_of_another_type", pk::state_dict(pk::tensor(pk::storage("HalfStorage", "0", 4), 0, {4}, {1}))},
      {"storage_of_unknown_type", pk::state_dict(pk::tensor(pk::storage("QInt8Storage", "0", 4), 0, {4}, {1}))},
      {"storage_outside_data", pk::state_dict(pk::tensor(pk::storage("FloatStorage", "../version", 4), 0, {4}, {1}))},
      {"storage_key_absolute", pk::state_dict(pk::tensor(pk::storage("FloatStorage", "/etc/passwd", 4), 0, {4}, {1}))},
      {"persistent_id_no_tuple", pk::proto() + pk::text("storage") + "Q."},
      {"persistent_id_too_short", pk::proto() + "(" + pk::text("storage") + "tQ."},
      {"persistent_id_as_text", pk::proto() + "Pstorage\n."},
      {"top_level_list", pk::proto() + "]."},
      {"top_level_none", pk::proto() + "N."},
      {"top_level_number", pk::proto() + "K\x05."},
      {"entry_no_tensor", pk::proto() + "}(" + pk::text("epoch") + "K\x05u."},
      {"entry_key_no_text", pk::proto() + "}(K\x05" + pk::tensor(storage, 0, {4}, {1}) + "u."},
      {"entry_twice", pk::proto() + "}(" + pk::text("w") + pk::tensor(storage, 0, {4}, {1}) + pk::text("w") + pk::tensor(storage, 0, {4}, {1}) + "u."},
      {"model_state_no_dict", pk::proto() + "}(" + pk::text("model_state") + "Nu."},
      {"model_state_in_model_state", pk::proto() + "}" + pk::text("model_state") + "}" + pk::text("model_state") + "}" + pk::text("w") + pk::tensor(storage, 0, {4}, {1}) + "sss."},
      {"items_odd", pk::proto() + "}(" + pk::text("w") + "u."},
      {"items_on_a_list", pk::proto() + "](" + pk::text("w") + "Nu."},
      {"append_to_a_dict", pk::proto() + "}Na."},
      {"stack_empty_stop", pk::proto() + "."},
      {"stack_empty_pop", pk::proto() + "s."},
      {"stack_below_the_mark", pk::proto() + "}N(s."},
      {"stack_leftover", pk::proto() + "NN."},
      {"mark_leftover", pk::proto() + "(N."},
      {"mark_missing", pk::proto() + "Nt."},
      {"memo_unset", pk::proto() + "h\x07."},
      {"memo_long_unset", pk::proto() + "j" + little(0xFFFFFFFF, 4) + "."},
      {"memo_put_on_empty_stack", pk::proto() + "q\x01N."},
      {"memo_of_a_mark", pk::proto() + "}(q\x01."},
      {"memo_self_in_list", pk::proto() + "]q\x01h\x01" "a."},
      {"memo_self_in_dict", pk::proto() + "}q\x01" + pk::text("w") + "h\x01s."},
      {"memo_tower", pk::proto() + "Nq" + std::string(1, '\0') + repeat(std::string("h\0h\0\x86q\0", 7), 60) + "."},
      {"protocol_1", "\x80\x01N."},
      {"protocol_9", "\x80\x09N."},
      {"protocol_4_frame", std::string("\x80\x04\x95", 3) + little(2, 8) + "N."},
      {"no_stop", pk::proto() + "N"},
      {"only_a_header", pk::proto()},
      {"tail_after_stop", good + "N"},
      {"text_past_the_end", pk::proto() + "X" + little(0x7FFFFFFF, 4) + "a."},
      {"text_length_minus_one", pk::proto() + "X" + little(0xFFFFFFFF, 4) + "a."},
      {"text_short_past_the_end", pk::proto() + "\x8c\xff" "a."},
      {"integer_of_255_bytes", pk::proto() + "\x8a\xff" + std::string(255, '\1') + "."},
      {"integer_of_9_bytes", pk::proto() + "\x8a\x09" + std::string(9, '\1') + "."},
      {"integer_past_the_end", pk::proto() + "J\x01"},
      {"unknown_instruction", pk::proto() + "\xff."},
      {"text_instruction", pk::proto() + "S'abc'\n."},
      {"long_text_instruction", pk::proto() + "L99999999999999999999L\n."},
      {"a_million_lists", pk::proto() + repeat("]", 1000000) + "."},
      {"a_million_nested_lists", pk::proto() + repeat("]", 200000) + repeat("a", 199999) + "."},
      {"a_million_nested_tuples", pk::proto() + ")" + repeat("\x85", 1000000) + "."},
      {"a_million_marks", pk::proto() + repeat("(", 1000000) + "N."},
      {"a_million_memos",
       [] {
         std::string text = pk::proto() + "N";
         for (uint32_t i = 0; i < 1000000; ++i) text += "r" + little(i, 4);
         return text + ".";
       }()},
      {"a_million_copies", pk::proto() + "](Nq\x01" + repeat("h\x01", 1000000) + "e."},
  };
  for (const auto& [name, pickle] : pickles) {
    add(std::string("pickle_") + name, "a.ckpt", "", [pickle = pickle] { return torch_zip(pickle, {4}).finish(); });
  }
  // Bytes of a good pickle changed at random; CRCs are right, so the pickle machine sees them. A change
  // that still gives a state dict must give another one (a name, a shape), which the loader refuses.
  for (int seed = 0; seed < 60; ++seed) {
    add("pickle_byte_changed_seed_" + std::to_string(seed), "a.ckpt", "pickle", [=] {
      std::string bytes = good;
      std::mt19937 random(static_cast<unsigned>(seed) + 9000);
      // Not the storage's location, the flag and the hooks, which no reader looks at.
      const size_t location = bytes.find("cpu"), stop = bytes.find("\x89");
      size_t at = random() % stop;
      while (at + 1 > location && at < location + 3) at = random() % stop;
      bytes[at] ^= static_cast<char>(1 + random() % 255);
      return torch_zip(bytes, {4}).finish();
    });
  }
  return list;
}

const std::vector<Corruption>& corruptions() {
  static const std::vector<Corruption> list = make_corruptions();
  return list;
}

class CorruptionTest : public testing::TestWithParam<size_t> {};

TEST_P(CorruptionTest, IsRefused) {
  const Corruption& corruption = corruptions()[GetParam()];
  const std::string bytes = corruption.bytes();
  ASSERT_TRUE(corruption.base.empty() || corruption.base == "pickle" || bytes != golden(corruption.base)) << "nothing was damaged";
  TemporaryFolder folder;
  const std::string path = folder.write(corruption.file, bytes);
  try {
    const LoadedFile loaded = load_all(path);
    // The reader found it sound: then names or shapes differ, and strict loading refuses it.
    ShapeMap expected;
    if (corruption.base == "pickle") {
      expected = {{"weight", {4}}};
    } else if (!corruption.base.empty()) {
      expected = golden_shapes(corruption.base);
    }
    if (!corruption.base.empty()) check_shapes(expected, shapes_of(loaded), path);
    FAIL() << "accepted: " << loaded.size() << " tensors";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_EQ(error.code(), ErrorCode::kModelInvalid) << what;
    EXPECT_EQ(what.rfind(path + ": ", 0), 0u) << what;
    EXPECT_LT(what.size(), path.size() + 1500) << what;
    for (const char c : what) EXPECT_TRUE(c >= ' ' && c <= '~') << what;
    std::printf("%s\n", what.substr(std::min(what.size(), folder.path().size() + 1)).c_str());
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, CorruptionTest, testing::Range(size_t{0}, corruptions().size()), [](const auto& info) {
  std::string name = corruptions()[info.param].file + "_" + corruptions()[info.param].name + "_" + std::to_string(info.param);
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(CorruptionTest, ThereAreEnough) { EXPECT_GE(corruptions().size(), 400u); }

// The other half: undamaged, the same builders make files that load.
TEST(CorruptionTest, UndamagedFilesLoad) {
  TemporaryFolder folder;
  for (const char* file : {kDit, kArchives[0], kArchives[1], kArchives[2], kArchives[3]}) {
    EXPECT_FALSE(load_all(fixtures_root() + "/checkpoint/" + file).empty()) << file;
  }
  const std::string good = pk::state_dict(pk::tensor(pk::storage("FloatStorage", "0", 4), 0, {4}, {1}));
  for (const bool zip64 : {false, true}) {
    EXPECT_EQ(load_all(folder.write("a.ckpt", torch_zip(good, {4}, {zip64, false, 0}).finish())).size(), 1u);
  }
  EXPECT_EQ(load_all(folder.write("a.safetensors", safetensors_of(one_entry("\"F32\"", "[2]", "[0,8]"), 8))).size(), 1u);
}

}  // namespace
}  // namespace flashvsr
