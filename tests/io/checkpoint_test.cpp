// SPDX-License-Identifier: LGPL-2.1-or-later
// The golden checkpoint against tensors.json: every file, every tensor, every value by its sums.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "io/json.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

double value_at(const LoadedTensor& tensor, size_t i) {
  float value = 0;
  if (tensor.dtype == DType::kF32) {
    std::memcpy(&value, &tensor.bytes[4 * i], 4);
  } else if (tensor.dtype == DType::kBF16) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, &tensor.bytes[2 * i], 2);
    std::memcpy(&value, &bits, 4);
  } else {
    ADD_FAILURE() << "unexpected dtype " << dtype_name(tensor.dtype);
  }
  return value;
}

class CheckpointTest : public testing::TestWithParam<const char*> {};

TEST_P(CheckpointTest, EveryValueAsRecorded) {
  const std::string folder = fixtures_root() + "/checkpoint/";
  const Json table = parse_json(read_file(folder + "tensors.json"), "tensors.json");
  const Json& expected = table.at(GetParam());
  const LoadedFile file = load_all(folder + GetParam());
  ASSERT_EQ(file.size(), expected.members().size());
  size_t values = 0;
  for (const auto& [name, entry] : expected.members()) {
    SCOPED_TRACE(name);
    const auto found = file.find(name);
    ASSERT_NE(found, file.end());
    const LoadedTensor& tensor = found->second;
    std::vector<int64_t> shape;
    for (const Json& size : entry.at("shape").items()) shape.push_back(size.integer());
    EXPECT_EQ(tensor.shape, shape);
    EXPECT_EQ(std::string(dtype_name(tensor.dtype)), entry.at("dtype").text() == "float32" ? "F32" : "BF16");
    const size_t count = tensor.bytes.size() / dtype_size(tensor.dtype);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; ++i) {
      const double value = value_at(tensor, i);
      sum += value;
      squares += value * value;
    }
    // The order of summation differs; every value is exact.
    EXPECT_TRUE(std::abs(sum - entry.at("sum").number()) <= 1e-9 * (1 + squares)) << sum;
    EXPECT_TRUE(std::abs(squares - entry.at("sumsq").number()) <= 1e-12 * (1 + squares)) << squares;
    const auto& first = entry.at("first").items();
    for (size_t i = 0; i < first.size(); ++i) EXPECT_EQ(value_at(tensor, i), first[i].number()) << i;
    EXPECT_EQ(value_at(tensor, count - 1), entry.at("last").number());
    values += count;
  }
  std::printf("%s: %zu tensors, %zu values\n", GetParam(), file.size(), values);
}

INSTANTIATE_TEST_SUITE_P(Files, CheckpointTest,
                         testing::Values("diffusion_pytorch_model_streaming_dmd.safetensors", "LQ_proj_in.ckpt", "TCDecoder.ckpt",
                                         "Wan2.1_VAE.pth", "posi_prompt.pth"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace flashvsr
