// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <numeric>

#include "base/error.h"
#include "tests/io/archive_builder.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

std::string error_of(const std::string& path) {
  try {
    load_all(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Safetensors, WritesWhatItReads) {
  TemporaryFolder folder;
  std::vector<float> a(24);
  std::iota(a.begin(), a.end(), 0.5f);
  const std::vector<uint8_t> b = {1, 2, 3};
  const std::vector<int64_t> c = {-1};
  const std::vector<uint16_t> d = {0x3f80, 0x4000};
  const std::vector<SafetensorsItem> items = {{"z", DType::kF32, {2, 3, 4}, a.data()},  {"b \"q\"\n", DType::kU8, {3}, b.data()},
                                              {"c", DType::kI64, {}, c.data()},         {"d", DType::kBF16, {2, 1}, d.data()},
                                              {"empty", DType::kF16, {0, 5}, nullptr}};
  const std::string path = folder.file("a.safetensors");
  write_safetensors(path, items, {{"key", "value"}});
  const LoadedFile loaded = load_all(path);
  ASSERT_EQ(loaded.size(), items.size());
  for (const SafetensorsItem& item : items) {
    const LoadedTensor& tensor = loaded.at(item.name);
    EXPECT_EQ(tensor.dtype, item.dtype);
    EXPECT_EQ(tensor.shape, item.shape);
    if (tensor.bytes.empty()) continue;
    EXPECT_EQ(std::memcmp(tensor.bytes.data(), item.data, tensor.bytes.size()), 0) << item.name;
  }
  EXPECT_EQ(loaded.at("empty").bytes.size(), 0u);
  EXPECT_EQ(loaded.at("c").bytes.size(), 8u);
  EXPECT_EQ(SafetensorsFile(path).metadata().at("key"), "value");

  // The same tensors in another order give the same file; every tensor is aligned to its element.
  std::vector<SafetensorsItem> reversed(items.rbegin(), items.rend());
  const std::string again = folder.file("b.safetensors");
  write_safetensors(again, reversed, {{"key", "value"}});
  EXPECT_EQ(read_file(path), read_file(again));
  uint64_t header = 0;
  const std::string bytes = read_file(path);
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ(header % 8, 0u);
  const SafetensorsFile file(path);
  for (const auto& [name, entry] : file.tensors()) EXPECT_EQ(entry.begin % dtype_size(entry.dtype), 0u) << name;
}

TEST(Safetensors, EveryDtypeKeepsItsNameAndSize) {
  for (const auto& [name, size] : std::map<std::string, size_t>{{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                                                {"I32", 4}, {"I16", 2}, {"I8", 1}, {"U8", 1}, {"BOOL", 1}}) {
    DType dtype = DType::kF32;
    ASSERT_TRUE(parse_dtype(name, &dtype));
    EXPECT_EQ(dtype_name(dtype), name);
    EXPECT_EQ(dtype_size(dtype), size);
  }
  DType dtype = DType::kF32;
  for (const char* name : {"", "f32", "F8_E4M3", "U16", "F320"}) EXPECT_FALSE(parse_dtype(name, &dtype)) << name;
}

TEST(Safetensors, AnyOrderAndAlignment) {
  TemporaryFolder folder;
  const std::string header = R"({"b":{"shape":[1],"data_offsets":[1,5],"dtype":"F32"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   )";
  const LoadedFile loaded = load_all(folder.write("a.safetensors", safetensors_bytes(header, std::string("\x07\x00\x00\x80\x3f", 5))));
  EXPECT_EQ(loaded.at("a").bytes, std::vector<char>{7});
  float value = 0;
  std::memcpy(&value, loaded.at("b").bytes.data(), 4);
  EXPECT_EQ(value, 1.0f);
}

TEST(Safetensors, WriterRefusesBadNamesAndShapes) {
  TemporaryFolder folder;
  const std::string path = folder.file("a.safetensors");
  const float value = 0;
  EXPECT_THROW(write_safetensors(path, {{"", DType::kF32, {1}, &value}}), Error);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", DType::kF32, {1}, &value}}), Error);
  EXPECT_THROW(write_safetensors(path, {{"a", DType::kF32, {1}, &value}, {"a", DType::kF32, {1}, &value}}), Error);
  EXPECT_THROW(write_safetensors(path, {{"a", DType::kF32, {-1}, &value}}), Error);
  EXPECT_THROW(write_safetensors(path, {{"a", DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}, &value}}), Error);
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST(Safetensors, ErrorsNameFileTensorExpectedAndFound) {
  TemporaryFolder folder;
  const std::string path = folder.write("a.safetensors", safetensors_bytes(R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "12345678"));
  const std::string error = error_of(path);
  for (const char* part : {"a.safetensors", "\"w\"", "8 bytes", "F32", "[3]", "12"}) EXPECT_NE(error.find(part), std::string::npos) << error;
}

TEST(Safetensors, OnlyRegularFiles) {
  TemporaryFolder folder;
  EXPECT_NE(error_of(folder.path() + "/none.safetensors"), "");
  const std::string pipe = folder.file("pipe.safetensors");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_NE(error_of(pipe), "");  // and does not wait for a writer
  const std::string directory = folder.path() + "/d.safetensors";
  ASSERT_EQ(mkdir(directory.c_str(), 0700), 0);
  EXPECT_NE(error_of(directory), "");
  rmdir(directory.c_str());
}

TEST(CheckShapes, NamesTheFirstFaultAndCountsTheOthers) {
  const ShapeMap expected = {{"a", {1, 2}}, {"b", {3}}};
  const auto error = [&](const ShapeMap& found, bool ignore_x = false) -> std::string {
    try {
      check_shapes(expected, found, "file.ckpt", [&](const std::string& name) { return ignore_x && name == "x"; });
    } catch (const Error& caught) {
      EXPECT_EQ(caught.code(), ErrorCode::kModelInvalid);
      return caught.what();
    }
    return "";
  };
  EXPECT_EQ(error(expected), "");
  EXPECT_EQ(error({{"a", {1, 2}}}), "file.ckpt: tensor \"b\" of shape [3] is missing");
  EXPECT_EQ(error({{"a", {2, 1}}, {"b", {3}}}), "file.ckpt: tensor \"a\" has shape [2, 1], expected [1, 2]");
  EXPECT_EQ(error({{"a", {1, 2}}, {"b", {3}}, {"x", {7}}}), "file.ckpt: tensor \"x\" of shape [7] is not part of the model");
  EXPECT_EQ(error({{"a", {1, 2}}, {"b", {3}}, {"x", {7}}}, true), "");
  EXPECT_EQ(error({{"x", {7}}}), "file.ckpt: tensor \"a\" of shape [1, 2] is missing (and 2 more that do not fit)");
}

}  // namespace
}  // namespace flashvsr
