// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Bytes that live at once in the CUDA path, on host tensors: src/cuda/ops*.cpp with launchers that compute nothing, since
// only the tensors' sizes and lives matter. Prints them for every part of the released model in multiples of an
// output pixel's byte, which hold for any size split alike, and checks what api/plan.cpp counts with.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "base/error.h"
#include "kernels/block_mask.h"
#include "kernels/block_sparse_attention.h"
#include "kernels/conv_nhwc.h"
#include "kernels/conv_to_planes.h"
#include "kernels/layer_norm_modulate.h"
#include "kernels/linear.h"
#include "kernels/norm_rope_window.h"
#include "kernels/pack_frames.h"
#include "kernels/philox_noise.h"
#include "kernels/quantize_rows.h"
#include "kernels/resize_samples.h"
#include "model/upscaler.h"
#include "tests/support/counting_allocator.h"
#include "tests/support/random_weights.h"

namespace flashvsr {

int launch_pack_conv_weights(const PackConvWeightsParams&, void*) { return 0; }
int launch_conv_nhwc(const ConvNhwcParams&, void*) { return 0; }
int launch_conv_to_planes(const ConvToPlanesParams&, void*) { return 0; }
int launch_block_sparse_attention(const BlockSparseAttentionParams&, void*) { return 0; }
size_t block_sparse_attention_workspace_bytes(int32_t heads, int32_t q_blocks) { return size_t(heads) * q_blocks * 4; }
int launch_layer_norm_modulate(const LayerNormModulateParams&, void*) { return 0; }
int launch_linear(const LinearParams&, void*) { return 0; }
double linear_share(int64_t, int32_t) { return 1; }
int launch_norm_rope_window(const NormRopeWindowParams&, void*) { return 0; }
size_t norm_rope_window_workspace_bytes(const NormRopeWindowParams&) { return 256; }
int launch_block_mask(const BlockMaskParams&, void*) { return 0; }
size_t block_mask_workspace_bytes(const BlockMaskParams&) { return 256; }
int launch_pack_frames(const PackFramesParams&, void*) { return 0; }
int launch_pad_steps(const PadStepsParams&, void*) { return 0; }
int launch_philox_noise(const PhiloxNoiseParams&, void*) { return 0; }
int launch_quantize_rows(const QuantizeRowsParams&, void*) { return 0; }
int launch_resize_axis(const ResizeAxisParams&, void*) { return 0; }
int launch_normalize_samples(const NormalizeSamplesParams&, void*) { return 0; }

namespace {

const at::TensorOptions kBf16 = at::TensorOptions().dtype(at::kBFloat16);

template <typename Module>
void fill(Module& module, const std::string& prefix) {
  module.visit_parameters(prefix, [](const std::string&, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    tensor = at::zeros(shape, kBf16);
    if (tensor.dim() == 4) tensor = tensor.contiguous(at::MemoryFormat::ChannelsLast);
  });
}

void show(const char* what, int64_t bytes, int64_t pixels) {
  std::printf("%-58s %7.0f bytes a pixel\n", what, static_cast<double>(bytes) / static_cast<double>(pixels));
}

// The host's convolutions add in place, which the device's do not.
void as_on_a_device() { at::globalContext().setUserEnabledMkldnn(false); }

TEST(CudaMemory, Decoder) {
  const c10::InferenceMode guard;
  as_on_a_device();
  const TcDecoderConfig config;
  TcDecoder decoder(config);
  fill(decoder, "tc.");
  CountingAllocator& counter = CountingAllocator::get();
  const int64_t height = 576, width = 128, pixels = height * width;
  const TailSplit splits[] = {{2, 1, 1}, {1, 1, 2}, {1, 3, 3}};
  int64_t before = INT64_MAX;
  for (const TailSplit& split : splits) {
    decoder.set_tail_split(split);
    DecoderMemory memory;
    decoder.forward(at::zeros({1, 16, 2, height / 8, width / 8}, kBf16), at::zeros({1, 3, 5, height, width}, kBf16), memory);
    const at::Tensor latents = at::zeros({1, 16, 2, height / 8, width / 8}, kBf16);
    const at::Tensor cond = at::zeros({1, 3, 8, height, width}, kBf16);
    counter.restart();
    at::Tensor frames = decoder.forward(latents, cond, memory);
    const int64_t peak = counter.peak(), counted = tail_bytes(config, split, pixels, 2, 2) + int64_t{frames.numel()} * 2;
    const std::string name = concat("decoder, 2 latents, by ", split.steps, " steps, ", split.strips, "x", split.finish_strips, " strips");
    show(name.c_str(), peak, pixels);
    show("  counted", counted, pixels);
    EXPECT_LE(peak, counted + counted / 20);
    EXPECT_GE(peak, counted * 3 / 4);
    EXPECT_LT(peak, before);
    before = peak;
  }
}

// As 1536x2688 is split, on as many rows. This is where a chunk's memory peaks, the first one's with 13 frames more.
TEST(CudaMemory, DecoderOfLargePictures) {
  const c10::InferenceMode guard;
  as_on_a_device();
  const TcDecoderConfig config;
  TcDecoder decoder(config);
  fill(decoder, "tc.");
  decoder.set_tail_split(tail_split(config, 1536 * 2688, 2, 2));
  CountingAllocator& counter = CountingAllocator::get();
  const int64_t height = 1536, width = 64, pixels = height * width;
  const at::Tensor latents = at::zeros({1, 16, 2, height / 8, width / 8}, kBf16);
  DecoderMemory memory;
  decoder.forward(latents, at::zeros({1, 3, 5, height, width}, kBf16), memory);
  const at::Tensor cond = at::zeros({1, 3, 8, height, width}, kBf16);
  counter.restart();
  decoder.forward(latents, cond, memory);
  show("decoder, 2 latents, as 1536x2688 is split", counter.peak(), pixels);
  // The second stage's two steps, frames, and of a strip its frames before the last enlargement and two frames of a part
  // twice. One step more of the second stage would be 32.
  EXPECT_LE(counter.peak(), pixels * 316);
}

// One block and the first chunk's six latent frames: each block lives through the same.
TEST(CudaMemory, TransformerAndProjector) {
  const c10::InferenceMode guard;
  as_on_a_device();
  ModelConfig config;
  config.dit.layers = 2;
  config.dit.text_dim = 64;
  Dit dit(config.dit);
  fill(dit, "dit.");
  dit.fold_constants(at::zeros({1, 16, config.dit.text_dim}, kBf16));
  LqProjector projector(config.lq_projector);
  projector.visit_parameters("lq.", [](const std::string&, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    tensor = at::zeros(shape, kBf16);
  });
  CountingAllocator& counter = CountingAllocator::get();
  const int64_t side = 128, pixels = side * side;
  LqCache first;  // packs the weights
  projector.forward(at::zeros({1, 3, 25, side, side}, kBf16), first);
  for (const bool is_first : {true, false}) {
    const int64_t latents = is_first ? 6 : 2, tokens = latents * pixels / 256;
    StreamState state;
    if (!is_first) projector.forward(at::zeros({1, 3, 25, side, side}, kBf16), state.lq);
    const at::Tensor lq = at::zeros({1, 3, is_first ? 25 : 8, side, side}, kBf16);
    counter.restart();
    at::Tensor rows = projector.forward(lq, state.lq);
    show(is_first ? "projector, first chunk" : "projector, later chunks", counter.peak(), pixels);
    const int64_t hidden = config.lq_projector.hidden1, steps = is_first ? 14 : 6;
    // a convolution's input, the same with its border and the result
    EXPECT_LE(counter.peak(), pixels / 256 * 2 * (2 * steps * hidden * 2 + 6 * config.lq_projector.hidden2) * 3 / 2);

    AttentionOptions options;
    options.topk = 1;
    state.kv.reserve(config.dit.layers, pixels / 16384, config.dit.dim, options.kv_chunks, kBf16);
    const at::Tensor noise = at::zeros({1, 16, latents, side / 8, side / 8}, kBf16);
    rows = at::zeros(rows.sizes(), kBf16);
    const int64_t row_bytes = tokens * config.dit.dim * 2;
    counter.restart();
    dit.forward(noise, std::move(rows), 0, options, state.kv);
    const double widths = static_cast<double>(counter.peak()) / static_cast<double>(row_bytes);
    show(is_first ? "transformer, first chunk" : "transformer, later chunks", counter.peak(), pixels);
    std::printf("  %.2f times [tokens, dim]\n", widths);
    // sum, normed rows, hidden rows and result; the tables of RoPE
    EXPECT_LE(widths, 3 + static_cast<double>(config.dit.ffn_dim) / config.dit.dim + 0.6);
  }
}

}  // namespace
}  // namespace flashvsr
