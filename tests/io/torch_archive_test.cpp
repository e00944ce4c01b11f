// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/torch_archive.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "io/json.h"
#include "tests/io/archive_builder.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

namespace pk = pickle;

std::vector<float> floats(const LoadedTensor& tensor) {
  std::vector<float> out(tensor.bytes.size() / 4);
  if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

class TorchArchiveTest : public testing::Test {
 protected:
  LoadedFile load(const std::string& pickle, const std::vector<int64_t>& storages) {
    return load_all(folder_.write("a.ckpt", torch_zip(pickle, storages).finish()));
  }
  std::string error(const std::string& pickle, const std::vector<int64_t>& storages) {
    try {
      load(pickle, storages);
    } catch (const Error& caught) {
      EXPECT_EQ(caught.code(), ErrorCode::kModelInvalid);
      return caught.what();
    }
    return "";
  }
  TemporaryFolder folder_;
};

TEST_F(TorchArchiveTest, ViewsAreCopiedRowMajor) {
  const std::string storage = pk::storage("FloatStorage", "0", 24);
  struct View {
    int64_t offset;
    std::vector<int64_t> shape, stride;
  };
  for (const View& view : {View{0, {24}, {1}}, View{3, {4}, {2}}, View{0, {2, 3, 4}, {12, 4, 1}}, View{0, {4, 3, 2}, {1, 4, 12}},
                           View{5, {2, 2}, {1, 7}}, View{23, {}, {}}, View{23, {1, 1}, {99, 5}}, View{0, {3, 4}, {0, 1}}, View{24, {0, 3}, {3, 1}},
                           View{2, {1, 3, 1, 2}, {100, 2, 50, 1}}}) {
    const LoadedFile file = load(pk::state_dict(pk::tensor(storage, view.offset, view.shape, view.stride)), {24});
    ASSERT_EQ(file.at("weight").shape, view.shape);
    std::vector<float> expected;
    std::vector<int64_t> index(view.shape.size(), 0);
    int64_t count = 1;
    for (const int64_t size : view.shape) count *= size;
    for (int64_t n = 0; n < count; ++n) {
      int64_t at = view.offset, rest = n;
      for (size_t d = view.shape.size(); d-- > 0;) {
        at += rest % view.shape[d] * view.stride[d];
        rest /= view.shape[d];
      }
      expected.push_back(static_cast<float>(at));
    }
    EXPECT_EQ(floats(file.at("weight")), expected) << shape_text(view.shape) << " " << shape_text(view.stride);
  }
}

TEST_F(TorchArchiveTest, TypesLocationsAndSharedStorages) {
  const std::string pickle = pk::proto() + pk::ordered_dict() + "(" + pk::text("a") +
                             pk::tensor(pk::storage("BFloat16Storage", "0", 4, "cuda:3"), 0, {4}, {1}) + pk::text("b") +
                             pk::tensor(pk::storage("HalfStorage", "1", 4), 2, {2}, {1}) + pk::text("c") +
                             pk::tensor(pk::storage("FloatStorage", "2", 3), 1, {2}, {1}) + pk::text("d") +
                             pk::tensor(pk::storage("FloatStorage", "2", 3), 0, {3}, {1}) + "u.";
  const LoadedFile file = load(pickle, {2, 2, 3});
  EXPECT_EQ(file.at("a").dtype, DType::kBF16);
  EXPECT_EQ(file.at("b").dtype, DType::kF16);
  EXPECT_EQ(floats(file.at("c")), (std::vector<float>{1, 2}));
  EXPECT_EQ(floats(file.at("d")), (std::vector<float>{0, 1, 2}));
}

TEST_F(TorchArchiveTest, ModelStateBareTensorsParametersAndAttributes) {
  const std::string tensor = pk::tensor(pk::storage("FloatStorage", "0", 2), 0, {2}, {1});
  EXPECT_EQ(load(pk::proto() + tensor + ".", {2}).count(""), 1u);
  const std::string inner = pk::ordered_dict() + pk::text("w") + tensor + "s";
  EXPECT_EQ(load(pk::proto() + "}(" + pk::text("epoch") + pk::integer(3) + pk::text("model_state") + inner + "u.", {2}).count("w"), 1u);
  const std::string parameter = pk::global("torch._utils", "_rebuild_parameter") + "(" + tensor + "\x88" + pk::ordered_dict() + "tR";
  EXPECT_EQ(load(pk::state_dict(parameter), {2}).count("weight"), 1u);
  // _metadata, set by BUILD.
  const std::string attributes = "}" + pk::text("_metadata") + pk::ordered_dict() + pk::text("") + "}" + pk::text("version") + "K\1ss" + "s" + "b";
  EXPECT_EQ(load(pk::proto() + inner + attributes + ".", {2}).count("w"), 1u);
}

TEST_F(TorchArchiveTest, MemoAndBatchedInstructions) {
  // The storage class and the persistent id come back from the memo, as torch.save writes them.
  const std::string storage = "(" + pk::text("storage") + "q\1" + pk::global("torch", "FloatStorage") + "q\2" + pk::text("0") + pk::text("cpu") + "K\2tq\3Q";
  const std::string again = std::string("h\3Q");
  const std::string pickle = pk::proto() + pk::ordered_dict() + "r" + little(70000, 4) + "(" + pk::text("a") + pk::tensor(storage, 0, {2}, {1}) +
                             pk::text("b") + pk::tensor(again, 1, {1}, {1}) + "u.";
  const LoadedFile file = load(pickle, {2});
  EXPECT_EQ(file.size(), 2u);
  EXPECT_EQ(floats(file.at("b")), std::vector<float>{1});
}

TEST_F(TorchArchiveTest, OtherGlobalsAreRefusedByName) {
  for (const auto& [module, name] : std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                                                     {"builtins", "eval"},
                                                                                     {"__builtin__", "exec"},
                                                                                     {"subprocess", "Popen"},
                                                                                     {"posix", "system"},
                                                                                     {"torch", "load"},
                                                                                     {"torch", "DoubleStorage"},
                                                                                     {"torch._utils", "_rebuild_tensor_v3"},
                                                                                     {"collections", "OrderedDict "},
                                                                                     {"numpy.core.multiarray", "_reconstruct"}}) {
    const std::string what = error(pk::proto() + pk::global(module, name) + "(" + pk::text("touch /tmp/owned") + "tR.", {});
    EXPECT_NE(what.find(module + " " + name), std::string::npos) << what;
  }
}

TEST_F(TorchArchiveTest, ViewsOfOneStorageCannotMultiplyIt) {
  std::string pickle = pk::proto() + pk::ordered_dict() + "(";
  for (int i = 0; i < 100; ++i) {
    pickle += pk::text("w" + std::to_string(i)) + pk::tensor(pk::storage("FloatStorage", "0", 50000), 0, {50000}, {1});
  }
  const std::string what = error(pickle + "u.", {50000});
  EXPECT_NE(what.find("its tensors take"), std::string::npos) << what;
}

TEST_F(TorchArchiveTest, EveryMemoryLimitIsTheReasonGiven) {
  const auto repeat = [](const std::string& what) {
    std::string out;
    for (int i = 0; i < 300000; ++i) out += what;
    return out;
  };
  std::string memos = pk::proto() + "N";
  for (uint32_t i = 0; i < 300000; ++i) memos += "r" + little(i, 4);
  for (const auto& [pickle, reason] : std::vector<std::pair<std::string, std::string>>{{pk::proto() + repeat("]"), "values"},
                                                                                       {pk::proto() + repeat("("), "marks"},
                                                                                       {memos, "remembered values"},
                                                                                       {pk::proto() + "Nq\x01" + repeat("h\x01"), "values on the stack"}}) {
    const std::string what = error(pickle + ".", {});
    EXPECT_TRUE(has_suffix(what, "more than 262144 " + reason)) << what;
  }
}

TEST_F(TorchArchiveTest, GoldenDecoderHasViewsAsRecorded) {
  const std::string folder = fixtures_root() + "/checkpoint/";
  const Json table = parse_json(read_file(folder + "tensors.json"), "tensors.json");
  const TorchArchive archive(folder + "TCDecoder.ckpt");
  std::map<std::string, int> layouts;
  for (const auto& [name, entry] : table.at("TCDecoder.ckpt").members()) {
    const TorchTensor& tensor = archive.tensors().at(name);
    std::vector<int64_t> stride;
    for (const Json& step : entry.at("stride").items()) stride.push_back(step.integer());
    EXPECT_EQ(tensor.stride, stride) << name;
    EXPECT_EQ(tensor.offset, entry.at("offset").integer()) << name;
    ++layouts[entry.at("layout").text()];
  }
  EXPECT_GE(layouts.size(), 3u);
}

}  // namespace
}  // namespace flashvsr
