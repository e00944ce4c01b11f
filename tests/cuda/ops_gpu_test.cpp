// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Each operation of model/ops.h on a card: the CUDA library's kernel against the ATen reference, both in bf16, and
// never farther from the reference in fp32 than rounding explains.
#include "model/ops.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "image/color_convert.h"
#include "image/device_pictures.h"
#include "image/image_ops.h"
#include "image/postprocess.h"
#include "model/block_mask.h"
#include "model/rope3d.h"

namespace flashvsr {
namespace {

#ifdef FLASHVSR_EMULATED
constexpr auto kDevice = at::kCPU;  // the same glue over host memory, emulated kernels and plain twins
constexpr int64_t kHeight = 9, kWidth = 11;  // twins are slow
#else
constexpr auto kDevice = at::kCUDA;
constexpr int64_t kHeight = 20, kWidth = 36;
#endif

class OpsGpu : public ::testing::Test {
 protected:
#ifdef FLASHVSR_EMULATED
  void SetUp() override { at::manual_seed(++seed_); }
#else
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
#endif
  static at::Tensor random(at::IntArrayRef sizes, double scale = 1, double mean = 0) {
    return at::randn(sizes, at::TensorOptions().device(kDevice).dtype(at::kFloat)).mul_(scale).add_(mean).to(at::kBFloat16);
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
    for (const bool affine : {false, true}) {
      for (const at::Tensor& g : {gate, at::Tensor()}) {
        const auto [sum, normed] = ops::residual_norm(x, y, g, scale, shift, 1e-6, affine);
        const auto [ref_sum, ref_normed] = reference::residual_norm(x, y, g, scale, shift, 1e-6, affine);
        EXPECT_TRUE(at::equal(sum, ref_sum));
        EXPECT_CLOSE(normed, ref_normed, 2e-3);
      }
    }
    const at::Tensor square = random({dim, dim}, 0.03), a = random({77, dim});
    for (const at::Tensor& g : {gate, at::Tensor()}) {
      const auto [sum, normed] = ops::linear_residual_norm(a, square, shift, x, g, scale, shift, 1e-6, !g.defined());
      const auto [ref_sum, ref_normed] = reference::linear_residual_norm(a, square, shift, x, g, scale, shift, 1e-6, !g.defined());
      EXPECT_CLOSE(sum, ref_sum, 3e-3);
      EXPECT_CLOSE(normed, ref_normed, 4e-3);
    }
    const at::Tensor weight = random({4 * dim, dim}, 0.03), bias = random({4 * dim});
    EXPECT_CLOSE(ops::linear_gelu(x, weight, bias), reference::linear_gelu(x, weight, bias), 5e-3);
  }
}

TEST_F(OpsGpu, Attention) {
  const c10::InferenceMode guard;
  struct Case { int64_t f, h, w, heads, head_dim, cached; };
  for (const Case& c : {Case{2, 16, 24, 3, 64, 3}, Case{6, 16, 16, 2, 128, 0}, Case{2, 24, 16, 12, 128, 3}}) {
#ifdef FLASHVSR_EMULATED
    if (c.heads == 12) continue;  // fibers are slow
#endif
    const TokenGrid grid{c.f, c.h, c.w};
    const int64_t dim = c.heads * c.head_dim, windows = grid.blocks().windows(), slots = c.f / 2;
    const at::Tensor qkv = random({grid.tokens(), 3 * dim}), q_weight = random({dim}, 0.2, 1), k_weight = random({dim}, 0.2, 1);
    const auto [cosine, sine] = rope3d_table(c.head_dim, 4, c.f, c.h, c.w, at::Device(kDevice));
    // Keys and values to a place of ours.
    const KvPlace place{at::empty({grid.tokens() / 128, 128, qkv.size(1) / 3}, qkv.options()),
                        at::empty({grid.tokens() / 128, 128, qkv.size(1) / 3}, qkv.options())};
    const WindowedQkv own = ops::norm_rope_window(qkv, q_weight, k_weight, 1e-6, c.heads, grid, cosine, sine, place);
    EXPECT_EQ(own.k.data_ptr(), place.key.data_ptr());
    EXPECT_EQ(own.v.data_ptr(), place.value.data_ptr());
    const WindowedQkv ref = reference::norm_rope_window(qkv, q_weight, k_weight, 1e-6, c.heads, grid, cosine, sine, {});
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
    const at::Tensor device_map = at::tensor(map, at::kInt).to(kDevice);
    EXPECT_CLOSE(ops::block_sparse_attention(ref.q, kv, device_map, ref_pairs, c.heads, grid),
                 reference::block_sparse_attention(ref.q, kv, device_map, ref_pairs, c.heads, grid), 5e-3);
  }
}

#ifndef FLASHVSR_EMULATED
// Enough rows for kernels/linear; fewer, as above, are cuBLASLt's.
TEST_F(OpsGpu, LinearsOfManyRows) {
  const c10::InferenceMode guard;
  const at::Tensor a = random({8448, 1536}), x = random({8448, 1536}, 3), weight = random({1536, 1536}, 0.03), bias = random({1536}),
                   gate = random({1536}), scale = random({1536}, 0.3, 1), shift = random({1536}), wide = random({8960, 1536}, 0.03),
                   wide_bias = random({8960});
  EXPECT_CLOSE(ops::linear_gelu(a, wide, wide_bias), reference::linear_gelu(a, wide, wide_bias), 5e-3);
  for (const at::Tensor& g : {gate, at::Tensor()}) {
    const auto [sum, normed] = ops::linear_residual_norm(a, weight, bias, x, g, scale, shift, 1e-6, !g.defined());
    const auto [ref_sum, ref_normed] = reference::linear_residual_norm(a, weight, bias, x, g, scale, shift, 1e-6, !g.defined());
    EXPECT_CLOSE(sum, ref_sum, 3e-3);
    EXPECT_CLOSE(normed, ref_normed, 4e-3);
  }
}
#endif

TEST_F(OpsGpu, QkvWindow) {
  const c10::InferenceMode guard;
  struct Case { int64_t f, h, w, heads, head_dim; bool has_place; };
  for (const Case& c : {Case{2, 16, 24, 3, 64, false}, Case{6, 8, 16, 3, 64, true}, Case{2, 24, 16, 12, 128, true}, Case{2, 48, 88, 12, 128, true}}) {
#ifdef FLASHVSR_EMULATED
    if (c.heads == 12) continue;
#endif
    const TokenGrid grid{c.f, c.h, c.w};
    const int64_t dim = c.heads * c.head_dim;
    const at::Tensor x = random({grid.tokens(), dim}), weight = random({3 * dim, dim}, 0.05), bias = random({3 * dim}),
                     q_weight = random({dim}, 0.2, 1), k_weight = random({dim}, 0.2, 1);
    const auto [cosine, sine] = rope3d_table(c.head_dim, 4, c.f, c.h, c.w, at::Device(kDevice));
    KvPlace place;
    if (c.has_place) place = {at::empty({grid.tokens() / 128, 128, dim}, x.options()), at::empty({grid.tokens() / 128, 128, dim}, x.options())};
    const WindowedQkv own = ops::qkv_window(x, weight, bias, q_weight, k_weight, 1e-6, c.heads, grid, cosine, sine, place);
    const WindowedQkv ref = reference::qkv_window(x, weight, bias, q_weight, k_weight, 1e-6, c.heads, grid, cosine, sine, {});
    if (c.has_place) {
      EXPECT_EQ(own.k.data_ptr(), place.key.data_ptr());
      EXPECT_EQ(own.v.data_ptr(), place.value.data_ptr());
    }
    EXPECT_CLOSE(own.q, ref.q, 4e-3);
    EXPECT_CLOSE(own.k, ref.k, 4e-3);
    EXPECT_CLOSE(own.v, ref.v, 4e-3);
    EXPECT_CLOSE(own.q_mean, ref.q_mean, 8e-3);
    EXPECT_CLOSE(own.k_mean, ref.k_mean, 8e-3);
  }
}

TEST_F(OpsGpu, CrossAttention) {
  const c10::InferenceMode guard;
  struct Case { int64_t tokens, prompt, heads, head_dim; };
  // The last goes to the reference: a prompt that is no whole number of blocks.
  for (const Case& c : {Case{384, 512, 3, 64}, Case{1280, 512, 12, 128}, Case{128, 128, 1, 128}, Case{256, 100, 2, 64}}) {
    const int64_t dim = c.heads * c.head_dim;
    const at::Tensor q = random({c.tokens, dim}), key = random({c.prompt, dim}), value = random({c.prompt, dim});
    EXPECT_CLOSE(ops::cross_attention(q, key, value, c.heads), reference::cross_attention(q, key, value, c.heads), 5e-3);
  }
}

TEST_F(OpsGpu, EightBits) {
  const c10::InferenceMode guard;
  const auto widen = [](const at::Tensor& v, const at::Tensor& scale) { return v.to(at::kFloat) * scale.unsqueeze(-1); };
  const at::Tensor x = random({256, 1536}, 2, 0.5), y = random({256, 1536}), scale = random({1536}, 0.3, 1),
                   shift = random({1536});
  for (const bool gelu : {false, true}) {
    const auto [v, s] = ops::quantize_rows(x, gelu);
    const auto [ref_v, ref_s] = reference::quantize_rows(x, gelu);
    EXPECT_CLOSE(s, ref_s, 4e-3);
    EXPECT_CLOSE(widen(v, s), widen(ref_v, ref_s), gelu ? 1e-2 : 4e-3);
    EXPECT_CLOSE(widen(v, s), (gelu ? at::gelu(x, "tanh") : x), 0.04);
  }
  for (const bool with_y : {false, true}) {
    const at::Tensor added = with_y ? y : at::Tensor();
    const auto [sum, v, s] = ops::residual_norm8(x, added, {}, scale, shift, 1e-6, true);
    const auto [ref_sum, ref_v, ref_s] = reference::residual_norm8(x, added, {}, scale, shift, 1e-6, true);
    EXPECT_TRUE(at::equal(sum, ref_sum));
    EXPECT_CLOSE(widen(v, s), widen(ref_v, ref_s), 1e-2);
  }
#ifndef FLASHVSR_EMULATED
  const at::Tensor weight = random({512, 1536}, 0.03), bias = random({512});
  const auto [x8, x_scale] = reference::quantize_rows(x, false);
  const auto [w8, w_scale] = reference::quantize_rows(weight, false);
  EXPECT_CLOSE(ops::scaled_linear(x8, x_scale, w8, w_scale, bias), reference::scaled_linear(x8, x_scale, w8, w_scale, bias), 5e-3);
#endif
}

TEST_F(OpsGpu, Pictures) {
  const c10::InferenceMode guard;
  using Resize = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t, bool);
  using Normalize = at::Tensor(const at::Tensor&, int64_t, int64_t, int64_t);
  auto& dispatcher = c10::Dispatcher::singleton();
  const auto resize = dispatcher.findSchemaOrThrow("flashvsr::resize_axis", "").typed<Resize>();
  const auto normalize = dispatcher.findSchemaOrThrow("flashvsr::normalize_samples", "").typed<Normalize>();
  const auto options = at::TensorOptions().device(kDevice);
  const at::Tensor samples = at::randint(256, {2, 3, 13, 21}, options.dtype(at::kByte));
  // Twice as large, halves of neighbours.
  const at::Tensor first = at::arange(26, options.dtype(at::kInt)).div(2, "floor").to(at::kInt);
  const at::Tensor weights = at::full({26, 2}, 1 << 21, options.dtype(at::kInt));
  const at::Tensor tall = resize.call(samples, first, weights, 22, 255, true);
  ASSERT_EQ(tall.sizes(), (at::IntArrayRef{2, 3, 26, 21}));
  const at::Tensor rows = first.to(at::kLong);
  const at::Tensor pair = samples.index_select(2, rows).to(at::kInt) + samples.index_select(2, (rows + 1).clamp_max(12)).to(at::kInt);
  EXPECT_TRUE(at::equal(tall.to(at::kInt), (pair + 1).div(2, "floor").to(at::kInt)));
  const at::Tensor wide = resize.call(samples, first.narrow(0, 0, 20), weights.narrow(0, 0, 20), 22, 255, false);
  EXPECT_EQ(wide.sizes(), (at::IntArrayRef{2, 3, 13, 20}));
  const at::Tensor pixels = normalize.call(samples, 255, 16, 32);
  ASSERT_EQ(pixels.sizes(), (at::IntArrayRef{1, 3, 2, 16, 32}));
  const at::Tensor expected = samples.to(at::kFloat).div(at::full({}, 255.f, options)).mul(2).sub(1).to(at::kBFloat16).transpose(0, 1);
  EXPECT_TRUE(at::equal(pixels[0].narrow(2, 0, 13).narrow(3, 0, 21), expected));
  EXPECT_TRUE(at::equal(pixels[0].select(2, 13), pixels[0].select(2, 12)));
  EXPECT_TRUE(at::equal(pixels[0].select(3, 22), pixels[0].select(3, 19)));
}

// A packed frame of the format with random bytes, 10-bit samples within their range.
at::Tensor random_packed(PixelFormat format, int width, int height) {
  const at::Tensor packed = at::randint(256, {packed_bytes(format, width, height)}, at::kByte);
  if (format == PixelFormat::kI420_10le) packed.slice(0, 1, std::nullopt, 2).bitwise_and_(3);
  return packed;
}

// Otherwise the reference would be compared with itself.
bool has_kernel(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").hasKernelForDispatchKey(
      kDevice == at::kCPU ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA);
}

at::Tensor samples_of(const PlanarImage& picture) { return upload_samples({&picture}, at::kCPU); }

TEST_F(OpsGpu, PlanesBothWaysEqualTheCpusBits) {
  const c10::InferenceMode guard;
  ASSERT_TRUE(has_kernel("flashvsr::planes_to_samples") && has_kernel("flashvsr::samples_to_planes"));
  const c10::Device device(kDevice);
  struct Shape { int width, height; };
  for (int code = 0; code < kPixelFormatCount; ++code) {
    const PixelFormat format = static_cast<PixelFormat>(code);
    for (const ColorSpec& color : {ColorSpec{1, false}, ColorSpec{5, true}, ColorSpec{6, false}, ColorSpec{9, true}, ColorSpec{9, false}}) {
      for (const Shape& s : {Shape{1, 1}, Shape{17, 3}, Shape{64, 6}, Shape{50, 37}}) {
        SCOPED_TRACE(testing::Message() << "format " << code << " matrix " << color.matrix << " full " << color.full_range
                                        << " " << s.width << "x" << s.height);
        std::vector<at::Tensor> packed;
        std::vector<PlanarImage> pictures(2);
        for (PlanarImage& picture : pictures) {
          packed.push_back(random_packed(format, s.width, s.height));
          convert_to_rgb(packed_planes(packed.back().data_ptr(), format, s.width, s.height), format, color, s.width,
                         s.height, picture);
        }
        const at::Tensor samples = packed_to_samples(packed, format, color, s.width, s.height, device);
        ASSERT_TRUE(samples.device().type() == kDevice);
        for (int64_t i = 0; i < 2; ++i) {
          ASSERT_TRUE(at::equal(samples.narrow(0, i, 1).cpu(), samples_of(pictures[static_cast<size_t>(i)])));
        }
        // Back: other samples than those, so that clipping and every level are met.
        const int max_value = format_depth(format) > 8 ? 1023 : 255;
        const at::Tensor colors = at::randint(max_value + 1, samples.sizes(), samples.options());
        const at::Tensor back = samples_to_packed(colors, format, color).cpu();
        ASSERT_EQ(back.sizes(), (at::IntArrayRef{2, packed_bytes(format, s.width, s.height)}));
        for (int64_t i = 0; i < 2; ++i) {
          PlanarImage picture(s.width, s.height, format_depth(format), false);
          download_samples(colors.narrow(0, i, 1).transpose(0, 1).unsqueeze(0), {&picture});
          // Rows compared without what lies between them.
          const at::Tensor expected = at::zeros({back.size(1)}, at::kByte), actual = at::zeros({back.size(1)}, at::kByte);
          convert_from_rgb(picture, format, color, packed_planes(expected.data_ptr(), format, s.width, s.height));
          copy_planes(packed_planes(back[i].data_ptr(), format, s.width, s.height),
                      packed_planes(actual.data_ptr(), format, s.width, s.height), format, s.width, s.height);
          ASSERT_TRUE(at::equal(actual, expected));
        }
      }
    }
  }
}

// More frames than one launch takes, planes with longer rows than needed.
TEST_F(OpsGpu, PlanesOfManyFrames) {
  const c10::InferenceMode guard;
  const c10::Device device(kDevice);
  const int width = 18, height = 5, count = 35;
  const PixelFormat format = PixelFormat::kNv12;
  const at::Tensor memory = at::randint(256, {count, 8, 29}, at::TensorOptions().dtype(at::kByte).device(device));
  const at::Tensor host = memory.cpu();
  const auto planes_in = [&](const at::Tensor& tensor) {
    std::vector<FramePlanes> frames(count);
    for (int i = 0; i < count; ++i) {
      uint8_t* data = static_cast<uint8_t*>(tensor.data_ptr()) + i * 8 * 29;
      frames[static_cast<size_t>(i)].data[0] = data;
      frames[static_cast<size_t>(i)].data[1] = data + 5 * 29;
      frames[static_cast<size_t>(i)].stride[0] = frames[static_cast<size_t>(i)].stride[1] = 29;
    }
    return frames;
  };
  const at::Tensor samples = planes_to_samples(planes_in(memory), format, {}, width, height, device);
  const std::vector<FramePlanes> on_host = planes_in(host);
  for (int i = 0; i < count; ++i) {
    PlanarImage picture;
    convert_to_rgb(on_host[static_cast<size_t>(i)], format, {}, width, height, picture);
    ASSERT_TRUE(at::equal(samples.narrow(0, i, 1).cpu(), samples_of(picture))) << "frame " << i;
    convert_from_rgb(picture, format, {}, on_host[static_cast<size_t>(i)]);
  }
  samples_to_planes(samples, format, {}, planes_in(memory));
  EXPECT_TRUE(at::equal(memory.cpu(), host));  // between the rows too: nobody wrote there
}

TEST_F(OpsGpu, FinishedFrames) {
  const c10::InferenceMode guard;
  ASSERT_TRUE(has_kernel("flashvsr::finish_frames"));
  struct Shape { int64_t frames, height, width, padded_height, padded_width; };
  for (const Shape& s : {Shape{1, 1, 1, 2, 8}, Shape{2, 3, 17, 8, 24}, Shape{3, 37, 51, 40, 56}, Shape{2, 24, 32, 24, 32}}) {
    for (const int max_value : {255, 1023}) {
      for (const Quantization quantization : {Quantization::kTruncate, Quantization::kNearest}) {
        SCOPED_TRACE(testing::Message() << s.frames << " of " << s.width << "x" << s.height << " max " << max_value);
        const at::Tensor style_samples = at::randint(max_value + 1, {s.frames, 3, s.height, s.width}, at::kInt)
                                             .to(max_value > 255 ? at::kShort : at::kByte);
        // Drawn on the host, so that a card sees what the emulation has seen.
        const at::Tensor frames = at::randn({1, 3, s.frames, s.padded_height, s.padded_width}, at::kFloat)
                                      .mul_(0.6).add_(0.2).to(at::kBFloat16).to(kDevice);
        const at::Tensor style = normalize_samples(style_samples.to(kDevice), max_value, s.padded_height, s.padded_width,
                                                   at::kBFloat16);
        // The CPU's single pass, which has the statistics from the pictures.
        std::vector<PlanarImage> references, expected;
        std::vector<const PlanarImage*> reference_list;
        std::vector<PlanarImage*> expected_list;
        for (int64_t i = 0; i < s.frames; ++i) {
          references.emplace_back(int(s.width), int(s.height), max_value > 255 ? 10 : 8, false);
          expected.push_back(references.back());
        }
        for (size_t i = 0; i < references.size(); ++i) {
          reference_list.push_back(&references[i]);
          expected_list.push_back(&expected[i]);
          download_samples(style_samples.narrow(0, int64_t(i), 1).transpose(0, 1).unsqueeze(0), {&references[i]});
        }
        // fp32, as residual decoders give it: the reference's operations one by one.
        const at::Tensor fine = at::randn(frames.sizes(), at::kFloat).mul_(0.6).add_(0.2).to(kDevice);
        EXPECT_TRUE(at::equal(finish_frames(fine, {}, s.height, s.width, max_value, {ColorFix::kNone, quantization}),
                              quantize(fine.narrow(3, 0, s.height).narrow(4, 0, s.width), max_value, quantization)[0].transpose(0, 1)));
        const auto visible = [&](const at::Tensor& x) { return x.narrow(3, 0, s.height).narrow(4, 0, s.width).to(at::kFloat); };
        const at::Tensor colored = quantize(adain(visible(fine), visible(style)), max_value, quantization)[0].transpose(0, 1);
        const at::Tensor difference =
            (finish_frames(fine, style, s.height, s.width, max_value, {ColorFix::kAdain, quantization}).to(at::kInt) - colored.to(at::kInt)).abs();
        EXPECT_LE(difference.max().item<int>(), 1);
        EXPECT_LE(difference.sum().item<int64_t>(), 1 + difference.numel() / 100);
        for (const ColorFix fix : {ColorFix::kNone, ColorFix::kAdain}) {
          const PostprocessOptions options{fix, quantization};
          const at::Tensor own = finish_frames(frames, fix == ColorFix::kAdain ? style : at::Tensor(), s.height, s.width,
                                               max_value, options);
          ASSERT_EQ(own.sizes(), (at::IntArrayRef{s.frames, 3, s.height, s.width}));
          tensor_to_images(frames.cpu(), 0, reference_list, options, expected_list);
          for (size_t i = 0; i < expected.size(); ++i) {
            EXPECT_TRUE(at::equal(own.narrow(0, int64_t(i), 1).cpu(), samples_of(expected[i]))) << "frame " << i;
          }
        }
      }
    }
  }
}

// As near as quantisation allows to the reference in fp32, which its own bf16 is not.
TEST_F(OpsGpu, WaveletColors) {
  const c10::InferenceMode guard;
  ASSERT_TRUE(has_kernel("flashvsr::wavelet_color"));
  struct Shape { int64_t frames, height, width, padded_height, padded_width; };
  for (const Shape& s : {Shape{1, 1, 1, 2, 8}, Shape{2, 37, 51, 40, 56}, Shape{1, 24, 300, 24, 304}}) {
    for (const auto dtype : {at::kBFloat16, at::kFloat}) {
      const int max_value = dtype == at::kFloat ? 255 : 1023;
      SCOPED_TRACE(testing::Message() << s.frames << " of " << s.width << "x" << s.height << " max " << max_value);
      // Smooth, as pictures are; drawn on the host, so that a card sees what the emulation has seen.
      const auto drawn = [&](double scale, double mean) {
        return at::avg_pool2d(at::randn({3 * s.frames, 1, s.padded_height + 6, s.padded_width + 6}), {7, 7}, {1, 1})
            .view({1, 3, s.frames, s.padded_height, s.padded_width}).mul_(scale).add_(mean).to(kDevice);
      };
      const at::Tensor frames = drawn(3, .2).to(dtype), style = drawn(2, -.3).to(at::kBFloat16);
      const PostprocessOptions options{ColorFix::kWavelet, Quantization::kNearest};
      const at::Tensor own = finish_frames(frames, style, s.height, s.width, max_value, options);
      const auto visible = [&](const at::Tensor& x) { return x.narrow(3, 0, s.height).narrow(4, 0, s.width).to(at::kFloat); };
      const at::Tensor exact = quantize(wavelet(visible(frames), visible(style)), max_value, Quantization::kNearest);
      ASSERT_EQ(own.sizes(), (at::IntArrayRef{s.frames, 3, s.height, s.width}));
      const at::Tensor difference = (own.to(at::kInt) - exact[0].transpose(0, 1).to(at::kInt)).abs();
      EXPECT_LE(difference.max().item<int>(), 1);
      EXPECT_LE(difference.sum().item<int64_t>(), 1 + difference.numel() / 500);
    }
  }
  EXPECT_THROW(finish_frames(random({1, 3, 1, 8, 8}), random({1, 3, 1, 8, 8}), 9, 8, 255, {ColorFix::kWavelet}), std::exception);
}

TEST_F(OpsGpu, Noise) {
  const c10::InferenceMode guard;
  const auto options = at::TensorOptions().device(kDevice).dtype(at::kFloat);
  at::Tensor own = at::empty({16, 2, 6, 11}, options), ref = at::empty({16, 2, 6, 11}, options);
  ops::philox_noise(own, 77, 6);
  reference::philox_noise(ref, 77, 6);
  EXPECT_TRUE(at::allclose(own, ref, 0, 1e-6));
}

TEST_F(OpsGpu, Projector) {
  const c10::InferenceMode guard;
  const at::Tensor x = random({1, 96, 10, 8, kWidth}), weight = random({136, 96, 4, 3, 3}, 0.02), bias = random({136}), none;
  const auto last = [](const at::Tensor& t) { return t.contiguous(at::MemoryFormat::ChannelsLast3d); };
  const at::Tensor past = last(random({1, 96, 2, 8, kWidth})), four = last(random({1, 96, 4, 8, kWidth}));
  EXPECT_CLOSE(ops::projector_conv(x, none, weight, bias), reference::projector_conv(x, none, weight, bias), 4e-3);
  const at::Tensor input = last(x);
  for (const at::Tensor& before : {none, past, input.narrow(2, 0, 1).expand({-1, -1, 2, -1, -1}), four}) {
    EXPECT_CLOSE(ops::projector_conv(input, before, weight, bias), reference::projector_conv(input, before, weight, bias), 4e-3);
  }
  const at::Tensor gamma = random({136, 1, 1, 1}, 0.2, 1);
  const at::Tensor y = ops::projector_conv(x, none, weight, bias);
  EXPECT_CLOSE(ops::channel_rms_norm_silu(y, gamma), reference::channel_rms_norm_silu(y, gamma), 5e-3);
}

// Steps that carry a border and room for a past, and views of them that must not be taken for such.
TEST_F(OpsGpu, ProjectorInput) {
  const c10::InferenceMode guard;
  ASSERT_TRUE(has_kernel("flashvsr::projector_input"));
  const at::Tensor weight = random({16, 768, 4, 3, 3}, 0.02), bias = random({16}), none;
  const at::Tensor memory = random({1, 3, 9, 48, 16 * 5});
  const at::Tensor past = random({1, 768, 2, 3, 5}).contiguous(at::MemoryFormat::ChannelsLast3d);
  for (const int64_t missing : {0, 3}) {
    for (const at::Tensor& frames : {memory.narrow(2, 1, 8), memory.transpose(3, 4).contiguous().transpose(3, 4), memory.narrow(2, 8, 1)}) {
      const at::Tensor own = ops::projector_input(frames, missing, 16), ref = reference::projector_input(frames, missing, 16);
      EXPECT_TRUE(at::equal(own, ref));
      EXPECT_EQ(own.stride(1), 1);
      const int64_t even = own.size(2) / 2 * 2;
      if (even < 4) continue;
      const at::Tensor steps = own.narrow(2, 0, even), same = ref.narrow(2, 0, even);
      const at::Tensor later = own.narrow(2, 2, 2), same_later = ref.narrow(2, 2, 2);
      EXPECT_CLOSE(ops::projector_conv(steps, none, weight, bias), reference::projector_conv(same, none, weight, bias), 4e-3);
      EXPECT_CLOSE(ops::projector_conv(steps, past, weight, bias), reference::projector_conv(same, past, weight, bias), 4e-3);
      EXPECT_CLOSE(ops::projector_conv(steps, later, weight, bias), reference::projector_conv(same, same_later, weight, bias), 4e-3);
      EXPECT_CLOSE(ops::projector_conv(later, past, weight, bias), reference::projector_conv(same_later, past, weight, bias), 4e-3);
      EXPECT_CLOSE(ops::projector_conv(later, later, weight, bias), reference::projector_conv(same_later, same_later, weight, bias), 4e-3);
      EXPECT_TRUE(at::equal(own, ref));  // nobody wrote there
    }
  }
}

TEST_F(OpsGpu, DecoderInput) {
  const c10::InferenceMode guard;
  ASSERT_TRUE(has_kernel("flashvsr::decoder_input"));
  const at::Tensor memory = random({1, 3, 12, 24, 8 * 19}, 3), none;
  for (const int64_t missing : {0, 3}) {
    for (const at::Tensor& frames : {memory.narrow(2, 4, 8 - missing), memory.transpose(3, 4).contiguous().transpose(3, 4).narrow(2, 0, 4 - missing)}) {
      const int64_t groups = (frames.size(2) + missing) / 4;
      const at::Tensor latents = random({1, 16, groups + 1, 3, 19}).narrow(2, 1, groups);
      for (const at::Tensor& behind : {latents, latents.transpose(1, 2).contiguous().transpose(1, 2), none}) {
        const at::Tensor own = ops::decoder_input(frames, behind, 16, missing, 8);
        EXPECT_TRUE(at::equal(own, reference::decoder_input(frames, behind, 16, missing, 8)));
        EXPECT_TRUE(own.is_contiguous(at::MemoryFormat::ChannelsLast));
      }
    }
  }
}

TEST_F(OpsGpu, Decoder) {
  const c10::InferenceMode guard;
  const auto last = [](const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); };
  for (const int64_t steps : {1, 2, 3}) {
    const at::Tensor x = last(random({steps, 128, kHeight, kWidth})), past = last(random({steps, 128, kHeight, kWidth}));
    const at::Tensor weight = last(random({128, 128, 3, 3}, 0.03)), weight2 = last(random({128, 256, 3, 3}, 0.03)),
                     bias = random({128}), none;
    EXPECT_CLOSE(ops::conv3x3(x, none, weight, bias, none, true, 1), reference::conv3x3(x, none, weight, bias, none, true, 1), 4e-3);
    EXPECT_CLOSE(ops::conv3x3(x, past, weight2, bias, none, true, 1), reference::conv3x3(x, past, weight2, bias, none, true, 1), 4e-3);
    EXPECT_CLOSE(ops::conv3x3(x, none, weight, bias, past, true, 1), reference::conv3x3(x, none, weight, bias, past, true, 1), 4e-3);
    // Folded taps are rounded once more than the reference's.
    EXPECT_CLOSE(ops::conv3x3(x, none, weight, none, none, false, 2), reference::conv3x3(x, none, weight, none, none, false, 2), 6e-3);
    // With and without the free step in front of x that own results carry.
    const at::Tensor memory = last(random({1, 128, kHeight, kWidth})), own = ops::conv3x3(x, none, weight, bias, past, true, 1, true);
    for (const at::Tensor& in : {x, own}) {
      for (const at::Tensor& before : {memory, none}) {
        const at::Tensor kept = in.clone(at::MemoryFormat::Preserve);
        EXPECT_CLOSE(ops::mem_conv(in, before, weight2, bias), reference::mem_conv(kept, before, weight2, bias), 4e-3);
        EXPECT_TRUE(at::equal(in, kept));
      }
    }
    // Strips of rows: steps that do not follow one another.
    const at::Tensor strip = x.narrow(2, 3, kHeight - 5);
    EXPECT_CLOSE(ops::conv3x3(strip, none, weight, none, none, true, 2), reference::conv3x3(strip, none, weight, none, none, true, 2), 6e-3);
    EXPECT_CLOSE(ops::conv3x3(strip, none, weight, bias, none, true, 1), reference::conv3x3(strip, none, weight, bias, none, true, 1), 4e-3);
    EXPECT_CLOSE(ops::mem_conv(strip, memory.narrow(2, 3, kHeight - 5), weight2, bias),
                 reference::mem_conv(strip, memory.narrow(2, 3, kHeight - 5), weight2, bias), 4e-3);
    const at::Tensor rgb = last(random({3, 128, 3, 3}, 0.03)), rgb_bias = random({3});
    EXPECT_CLOSE(ops::conv3x3(x, none, rgb, rgb_bias, none, false, 1), reference::conv3x3(x, none, rgb, rgb_bias, none, false, 1), 4e-3);
    const at::Tensor grow = last(random({256, 128, 1, 1}, 0.1));
    EXPECT_CLOSE(ops::time_grow(x, grow, 2), reference::time_grow(x, grow, 2), 4e-3);
    EXPECT_CLOSE(ops::time_grow(strip, grow, 2), reference::time_grow(strip, grow, 2), 4e-3);
#ifdef FLASHVSR_EMULATED
    if (steps > 1) continue;
#endif
    const at::Tensor in = last(random({steps, 784, 12, 8})), in_weight = last(random({512, 784, 3, 3}, 0.01));
    EXPECT_CLOSE(ops::conv3x3(in, none, in_weight, none, none, true, 1), reference::conv3x3(in, none, in_weight, none, none, true, 1), 4e-3);
  }
}

}  // namespace
}  // namespace flashvsr
