// SPDX-License-Identifier: LGPL-2.1-or-later
//
// precision=fp8: the transformer with quantized linears stays near the one in bf16, and is not the same.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "model/ops.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

TEST(Quantized, RowsKeepTheirScale) {
  const c10::InferenceMode guard;
  at::Tensor x = at::randn({5, 64}) * at::tensor({1e-3, 1.0, 30.0, 0.0, 7.0}).to(at::kFloat).unsqueeze(1);
  const auto [values, scale] = ops::quantize_rows(x.to(at::kBFloat16), false);
  EXPECT_EQ(values.scalar_type(), at::kFloat8_e4m3fn);
  EXPECT_TRUE(scale[3].item<float>() == 1.f);
  const at::Tensor back = values.to(at::kFloat) * scale.unsqueeze(1);
  for (const int64_t row : {0, 1, 2, 4}) {
    const double error = ((back[row] - x[row]).norm() / x[row].norm()).item<double>();
    EXPECT_TRUE(error <= 0.05) << row << ": " << error;
    EXPECT_NEAR(values[row].to(at::kFloat).abs().max().item<double>(), 448.0, 1.0);
  }
}

TEST(Quantized, TransformerNearBf16) {
  const c10::InferenceMode guard;
  ModelConfig config = random_student_config();
  config.dit.has_text = true;
  config.dit.text_dim = 32;
  at::Tensor out[2];
  for (const int i : {0, 1}) {
    at::manual_seed(3);
    Upscaler model(config);
    randomize(model, at::kCPU, i == 0 ? at::kBFloat16 : at::kFloat8_e4m3fn, false, 16);
    EXPECT_EQ(model.dtype(), at::kBFloat16);
    EXPECT_EQ(model.dit().blocks()[0].ffn0.is_quantized(), i == 1);
    at::manual_seed(4);
    const at::Tensor latents = at::randn({1, 16, 6, 16, 16}).to(at::kBFloat16);
    const at::Tensor tokens = at::randn({1, 6 * 8 * 8, config.dit.dim}).to(at::kBFloat16);
    KvCache cache;
    out[i] = model.dit().forward(latents, tokens, 0, {/*topk=*/100, /*local_range=*/11, /*kv_chunks=*/3}, cache).to(at::kFloat);
  }
  const double error = ((out[1] - out[0]).norm() / out[0].norm()).item<double>();
  EXPECT_TRUE(error > 1e-4 && error <= 0.1) << error;
}

}  // namespace
}  // namespace flashvsr
