// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Each operation of model/ops.h on a card: the CUDA library's kernel against the ATen reference, both in bf16, and
// never farther from the reference in fp32 than rounding explains.
#include "model/ops.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "model/block_mask.h"
#include "model/rope3d.h"

namespace flashvsr {
namespace {

class OpsGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* library = std::getenv("FLASHVSR_CUDA_LIBRARY");
    static void* handle = dlopen(library ? library : FLASHVSR_CUDA_LIBRARY_DEFAULT, RTLD_NOW | RTLD_GLOBAL);
    const bool have = handle != nullptr && at::hasCUDA();
    const char* required = std::getenv("FLASHVSR_REQUIRE_GPU");
    if (!have) {
      if (required && std::string(required) == "1") FAIL() << "no GPU, and FLASHVSR_REQUIRE_GPU is 1: " << dlerror();
      GTEST_SKIP() << "no GPU";
    }
    at::manual_seed(++seed_);
  }
  static at::Tensor random(at::IntArrayRef sizes, double scale = 1, double mean = 0) {
    return at::randn(sizes, at::TensorOptions().device(at::kCUDA).dtype(at::kFloat)).mul_(scale).add_(mean).to(at::kBFloat16);
  }
  static double relative(const at::Tensor& actual, const at::Tensor& expected) {
    const at::Tensor a = actual.to(at::kDouble), b = expected.to(at::kDouble);
    return ((a - b).norm() / b.norm()).item<double>();
  }
  static int seed_;
};
int OpsGpu::seed_ = 0;

#define EXPECT_CLOSE(actual, expected, tolerance)                     \
  do {                                                                \
    ASSERT_EQ((actual).sizes(), (expected).sizes());                  \
    const double error = relative(actual, expected);                  \
    EXPECT_TRUE(error <= (tolerance)) << #actual << ": " << error;    \
  } while (false)

TEST_F(OpsGpu, Rows) {
  const c10::InferenceMode guard;
  for (const int64_t dim : {192, 1536}) {
    const at::Tensor x = random({77, dim}, 2, 0.5), y = random({77, dim}), scale = random({dim}, 0.3, 1),
                     shift = random({dim}), gate = random({dim});
    EXPECT_CLOSE(ops::layer_norm_modulate(x, scale, shift, 1e-6), reference::layer_norm_modulate(x, scale, shift, 1e-6), 2e-3);
    EXPECT_CLOSE(ops::layer_norm_affine(x, scale, shift, 1e-6), reference::layer_norm_affine(x, scale, shift, 1e-6), 2e-3);
    EXPECT_CLOSE(ops::rms_norm_rows(x, scale, 1e-6), reference::rms_norm_rows(x, scale, 1e-6), 2e-3);
    EXPECT_TRUE(at::equal(ops::gated_residual(x, y, gate), reference::gated_residual(x, y, gate)));
    const at::Tensor weight = random({4 * dim, dim}, 0.03), bias = random({4 * dim});
    EXPECT_CLOSE(ops::linear_gelu(x, weight, bias), reference::linear_gelu(x, weight, bias), 5e-3);
  }
}

TEST_F(OpsGpu, Attention) {
  const c10::InferenceMode guard;
  struct Case { int64_t f, h, w, heads, head_dim, cached; };
  for (const Case& c : {Case{2, 16, 24, 3, 64, 3}, Case{6, 16, 16, 2, 128, 0}, Case{2, 24, 16, 12, 128, 3}}) {
    const TokenGrid grid{c.f, c.h, c.w};
    const int64_t dim = c.heads * c.head_dim, windows = grid.blocks().windows(), slots = c.f / 2;
    const at::Tensor qkv = random({grid.tokens(), 3 * dim}), q_weight = random({dim}, 0.2, 1), k_weight = random({dim}, 0.2, 1);
    auto [cosine, sine] = rope3d_table(c.head_dim, 4, c.f, c.h, c.w);
    cosine = cosine.to(at::kCUDA);
    sine = sine.to(at::kCUDA);
    const WindowedQkv own = ops::norm_rope_window(qkv, q_weight, k_weight, 1e-6, c.heads, grid, cosine, sine);
    const WindowedQkv ref = reference::norm_rope_window(qkv, q_weight, k_weight, 1e-6, c.heads, grid, cosine, sine);
    EXPECT_CLOSE(own.q, ref.q, 2e-3);
    EXPECT_CLOSE(own.k, ref.k, 2e-3);
    EXPECT_TRUE(at::equal(own.v, ref.v));
    EXPECT_CLOSE(own.q_mean, ref.q_mean, 5e-3);
    EXPECT_CLOSE(own.k_mean, ref.k_mean, 5e-3);

    // Cached slots in a turned ring, this chunk's last.
    const int64_t capacity = c.cached;
    AttentionKv kv{{}, {}, ref.k, ref.v};
    std::vector<int32_t> map;
    at::Tensor mean_ring;
    if (capacity > 0) {
      kv.key_ring = random({capacity, windows, 128, dim});
      kv.value_ring = random({capacity, windows, 128, dim});
      mean_ring = kv.key_ring.mean(2);
      for (int64_t i = 0; i < capacity; ++i) map.push_back(static_cast<int32_t>((i + 1) % capacity));
    }
    for (int64_t i = 0; i < slots; ++i) map.push_back(static_cast<int32_t>(-1 - i));
    const at::Tensor means = visible_slots(mean_ring, ref.k_mean.view({slots, windows, dim}), map);
    const int64_t key_blocks = static_cast<int64_t>(map.size()) * windows;
    const int64_t topk = windows * key_blocks / 2;
    const BlockPairs pairs = ops::block_mask(ref.q_mean, means, c.heads, grid.blocks(), 11, topk);
    const BlockPairs ref_pairs = reference::block_mask(ref.q_mean, means, c.heads, grid.blocks(), 11, topk);
    const at::Tensor mask = pairs_to_mask(pairs, key_blocks), ref_mask = pairs_to_mask(ref_pairs, key_blocks);
    const double unequal = at::logical_xor(mask, ref_mask).sum().item<double>();
    // The reference's bf16 product adds in another order, which moves a few scores by one rounding.
    EXPECT_TRUE(unequal <= 0.02 * ref_mask.sum().item<double>()) << unequal;
    const at::Tensor device_map = at::tensor(map, at::kInt).to(at::kCUDA);
    EXPECT_CLOSE(ops::block_sparse_attention(ref.q, kv, device_map, ref_pairs, c.heads, grid),
                 reference::block_sparse_attention(ref.q, kv, device_map, ref_pairs, c.heads, grid), 5e-3);
  }
}

TEST_F(OpsGpu, Projector) {
  const c10::InferenceMode guard;
  const at::Tensor x = random({1, 96, 10, 8, 24}), weight = random({136, 96, 4, 3, 3}, 0.02), bias = random({136});
  for (const at::Tensor& input : {x, x.contiguous(at::MemoryFormat::ChannelsLast3d)}) {
    EXPECT_CLOSE(ops::projector_conv(input, weight, bias), reference::projector_conv(input, weight, bias), 4e-3);
  }
  const at::Tensor gamma = random({136, 1, 1, 1}, 0.2, 1);
  const at::Tensor y = ops::projector_conv(x, weight, bias);
  EXPECT_CLOSE(ops::channel_rms_norm_silu(y, gamma), reference::channel_rms_norm_silu(y, gamma), 5e-3);
}

TEST_F(OpsGpu, Decoder) {
  const c10::InferenceMode guard;
  const auto last = [](const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); };
  for (const int64_t steps : {1, 2, 3}) {
    const at::Tensor x = last(random({steps, 128, 20, 36})), past = last(random({steps, 128, 20, 36}));
    const at::Tensor weight = last(random({128, 128, 3, 3}, 0.03)), weight2 = last(random({128, 256, 3, 3}, 0.03)),
                     bias = random({128}), none;
    EXPECT_CLOSE(ops::conv3x3(x, none, weight, bias, none, true, 1), reference::conv3x3(x, none, weight, bias, none, true, 1), 4e-3);
    EXPECT_CLOSE(ops::conv3x3(x, past, weight2, bias, none, true, 1), reference::conv3x3(x, past, weight2, bias, none, true, 1), 4e-3);
    EXPECT_CLOSE(ops::conv3x3(x, none, weight, bias, past, true, 1), reference::conv3x3(x, none, weight, bias, past, true, 1), 4e-3);
    // Folded taps are rounded once more than the reference's.
    EXPECT_CLOSE(ops::conv3x3(x, none, weight, none, none, false, 2), reference::conv3x3(x, none, weight, none, none, false, 2), 6e-3);
    const at::Tensor rgb = last(random({3, 128, 3, 3}, 0.03)), rgb_bias = random({3});
    EXPECT_CLOSE(ops::conv3x3(x, none, rgb, rgb_bias, none, false, 1), reference::conv3x3(x, none, rgb, rgb_bias, none, false, 1), 4e-3);
    const at::Tensor grow = last(random({256, 128, 1, 1}, 0.1));
    EXPECT_CLOSE(ops::time_grow(x, grow, 2), reference::time_grow(x, grow, 2), 4e-3);
    const at::Tensor in = last(random({steps, 784, 12, 8})), in_weight = last(random({512, 784, 3, 3}, 0.01));
    EXPECT_CLOSE(ops::conv3x3(in, none, in_weight, none, none, true, 1), reference::conv3x3(in, none, in_weight, none, none, true, 1), 4e-3);
  }
}

}  // namespace
}  // namespace flashvsr
