// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Every dimension of a FlashVSR model. The released FlashVSR and the embedded
// student are the same modules with different numbers here; nothing else in the
// code knows which one it runs.
//
// Letters used in comments everywhere: B batch (1), C channels, F video frames,
// f latent frames, H W output pixels, h w tokens (H/16, W/16), L windows per
// slot (h/8 * w/8), D dim, N heads, d head_dim, S = 128 tokens per window.
//
// Units: "model pixels" are the pixels that the projector and the decoder's
// condition see: output pixels for the released models (which see a bicubic
// pre-enlargement, input_scale 1), LQ pixels for the student (input_scale 4).
// A latent cell is 8x8 output pixels, a token 16x16, a block (window) 128x128.
//
// Thread-safety: immutable after construction.
// Source: model.md sections 1.3-1.8; nano_recipe.md section 2 for the student.
#ifndef FLASHVSR_MODEL_CONFIG_H_
#define FLASHVSR_MODEL_CONFIG_H_

#include <array>
#include <cstdint>
#include <string>

namespace flashvsr {

// Cache semantics of the LQ projector; keys and shapes are the same.
enum class Version { kV1, kV1_1 };

struct DitConfig {
  int64_t dim = 1536;
  int64_t heads = 12;  // head_dim = dim / heads: 128 in the released files, 64 in the student
  int64_t layers = 30;
  int64_t ffn_dim = 8960;
  int64_t freq_dim = 256;
  int64_t text_dim = 4096;
  int64_t latent_channels = 16;
  bool has_text = true;  // cross-attention to the fixed prompt
  double eps = 1e-6;

  int64_t head_dim() const { return dim / heads; }
};

struct LqProjectorConfig {
  int64_t unshuffle = 16;  // model pixels per token side: 16 / input_scale
  int64_t hidden1 = 2048;
  int64_t hidden2 = 3072;
  int64_t out_dim = 1536;
  Version version = Version::kV1_1;
};

// Three stages joined by (nearest xup, TGrow xgrow, 3x3 conv), then a last conv.
struct TcDecoderConfig {
  int64_t latent_channels = 16;
  int64_t cond_unshuffle = 8;  // model pixels per latent cell side: 8 / input_scale
  // Output channels of conv 1 and of the three transition convs. 0 as the last: no third transition
  // (up[2] and grow[2] are 1 then), stage 3 feeds the last conv.
  std::array<int64_t, 4> channels = {512, 256, 128, 128};
  std::array<int64_t, 3> mem_blocks = {3, 3, 3};
  std::array<int64_t, 3> up = {2, 2, 2};    // nearest enlargement after each stage
  std::array<int64_t, 3> grow = {1, 2, 2};  // time growth after each stage; the product is 4
  bool deepen = true;          // the two inserted 3x3 convolutions (after conv 1 and before the last)
  int64_t final_shuffle = 1;   // pixel shuffle after the last conv: output pixels per decoder pixel
  bool skip = false;           // 3x3 conv of the LQ frame added before stage 3 (student)
  bool residual = false;       // output = bicubic enlargement + decoder (student)

  // Latent grid to output pixels: up[0] * up[1] * up[2] * final_shuffle = 8.
};

struct VaeConfig {
  int64_t dim = 96;  // base width; 384 = 4 * dim
  int64_t latent_channels = 16;
};

struct ModelConfig {
  std::string name = "FlashVSR";
  DitConfig dit;
  LqProjectorConfig lq_projector;
  TcDecoderConfig tc_decoder;
  VaeConfig vae;
  int64_t input_scale = 1;     // output pixels per model pixel: 1, or 4 for the student
  bool has_transformer = true; // false: the decoder was trained alone, latents are zero
  double noise_scale = 1.0;    // x0 = noise_scale * noise - v; 0 for the student
  int64_t blocks_per_query = 60;
  double sparse_ratio = 2.0;
  int64_t kv_chunks = 3;
  int64_t local_range = 11;

  // Output sizes are padded to a multiple of this: 128 with a transformer,
  // else one latent cell.
  int64_t size_multiple() const { return has_transformer ? 128 : 8; }
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_CONFIG_H_
