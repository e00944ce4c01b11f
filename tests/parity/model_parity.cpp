// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "io/json.h"
#include "io/weights.h"
#include "model/layers.h"
#include "model/rope3d.h"
#include "model/window.h"
#include "tests/parity/parity.h"

namespace flashvsr {
namespace {

std::string chunk_name(int64_t chunk) { return "chunk" + std::to_string(chunk); }

at::Tensor rows_of(const at::Tensor& x, const at::Tensor& rows) {
  return x.index_select(0, rows.to(x.device(), at::kLong));
}

at::Tensor every(const at::Tensor& x, int64_t step) { return x.slice(0, 0, c10::nullopt, step); }

// --- checkpoint files -------------------------------------------------------------------------

bool takes_checkpoint(const Fixture& f, bool bf16) { return !bf16 && std::filesystem::exists(f.folder() + "/tensors.json"); }

// Every value of every file: shape, sums and samples in row-major order.
void run_checkpoint(const ParityRun& run) {
  std::ifstream file(run.f().folder() + "/tensors.json");
  std::stringstream text;
  text << file.rdbuf();
  double worst = 0;
  const Json files = parse_json(text.str(), "tensors.json");
  for (const JsonMember& entry : files.members()) {
    const TensorMap tensors = read_tensors(run.f().folder() + "/" + entry.key);
    EXPECT_EQ(tensors.size(), entry.value.members().size()) << entry.key;
    for (const JsonMember& expected : entry.value.members()) {
      const auto it = tensors.find(expected.key);
      ASSERT_NE(it, tensors.end()) << entry.key << ": " << expected.key;
      std::vector<int64_t> shape;
      for (const Json& size : expected.value.at("shape").items()) shape.push_back(size.integer());
      ASSERT_EQ(it->second.sizes().vec(), shape) << expected.key;
      const at::Tensor values = it->second.to(at::kDouble).flatten();
      const auto compare = [&](double actual, double wanted, double tolerance) {
        const double error = std::abs(actual - wanted);
        worst = std::max(worst, error);
        EXPECT_TRUE(error <= tolerance) << entry.key << ": " << expected.key << ": " << actual << ", expected " << wanted;
      };
      const double squares = expected.value.at("sumsq").number();
      compare(values.square().sum().item<double>(), squares, 1e-9 * std::max(1.0, squares));
      compare(values.sum().item<double>(), expected.value.at("sum").number(), 1e-9 * std::max(1.0, squares));
      const auto& first = expected.value.at("first").items();
      for (size_t i = 0; i < first.size(); ++i) compare(values[static_cast<int64_t>(i)].item<double>(), first[i].number(), 0);
      compare(values[-1].item<double>(), expected.value.at("last").number(), 0);
    }
  }
  expect_at_most(run.name + ": sums and samples", worst, 1e-3);
}

// --- LQ projector ---------------------------------------------------------------------------

bool takes_lq_projector(const Fixture& f, bool) { return f.has("tokens_f32_chunk0"); }

void run_lq_projector(const ParityRun& run) {
  // Nothing but the folder's name says which.
  const bool is_v1 = std::filesystem::path(run.f().folder()).filename().string().find("v1_1") == std::string::npos;
  const auto model = checkpoint_of(run, is_v1 ? Version::kV1 : Version::kV1_1);
  // The input is stored once, in the v1 case.
  const at::Tensor lq = run.on(run.f().has("lq_u8") ? run.f().frames("lq_u8")
                                                    : Fixture(run.f().folder() + "/../v1").frames("lq_u8"));
  const std::string kind = run.is_bf16() ? "tokens_bf16_chunk" : "tokens_f32_chunk";
  const Tolerance tolerance = run.is_bf16() ? Tolerance{0.15, 0.01} : Tolerance{2e-4};
  LqCache cache;
  for (int64_t chunk = 0, begin = 0; run.f().has(kind + std::to_string(chunk)); ++chunk) {
    const int64_t frames = chunk == 0 ? 25 : 8;
    const at::Tensor tokens = model->lq_projector().forward(lq.narrow(2, begin, frames), cache);
    run.near("tokens " + chunk_name(chunk), tokens, run.f()[kind + std::to_string(chunk)], tolerance);
    begin += frames;
  }
  if (is_v1 || run.is_bf16()) return;
  // Clip by clip: the same tokens, and the caches as recorded.
  LqCache slow;
  EXPECT_EQ(model->lq_projector().forward(lq.narrow(2, 0, 1), slow).size(1), 0);
  run.near("conv1 cache after clip 0", slow.conv1, run.f()["clip0_cache_conv1"], tolerance);
  run.near("conv2 cache after clip 0", slow.conv2, run.f()["clip0_cache_conv2"], tolerance);
  std::vector<at::Tensor> tokens;
  for (int64_t clip = 1; clip <= 6; ++clip) {
    tokens.push_back(model->lq_projector().forward(lq.narrow(2, 4 * clip - 3, 4), slow));
    if (clip == 1) run.near("conv2 cache after clip 1", slow.conv2, run.f()["clip1_cache_conv2"], tolerance);
  }
  run.near("tokens clip by clip", at::cat(tokens, 1), run.f()["tokens_f32_chunk0"], tolerance);
}

// --- block mask and attention ---------------------------------------------------------------

bool takes_mask(const Fixture& f, bool) { return f.has("qbar_i8"); }

void run_mask(const ParityRun& run) {
  const Fixture& f = run.f();
  const auto integer = [&](const char* key) {
    return static_cast<int64_t>(f.number(std::string("config.") + key));
  };
  const BlockGrid grid{integer("nh"), integer("nw")};
  const auto scaled = [&](const char* tensor, const char* scale) {
    return run.on(f[tensor].to(at::kFloat) * f.number(std::string("config.") + scale));
  };
  EXPECT_EQ(block_topk(grid, f.number("config.sparse_ratio"), 60), integer("topk"));
  const at::Tensor mask =
      block_mask_from_means(scaled("qbar_i8", "qbar_scale"), scaled("kbar_i8", "kbar_scale"),
                            integer("heads"), grid, integer("local_range"), integer("topk"));
  run.equal("mask", mask, f[run.is_bf16() ? "mask_bf16" : "mask_f32"]);
}

bool takes_attention(const Fixture& f, bool bf16) { return !bf16 && f.has("chunk0_q_i8"); }

void run_attention(const ParityRun& run) {
  const Fixture& f = run.f();
  const auto config = [&](const char* key) { return f.number(std::string("config.") + key); };
  const auto integer = [&](const char* key) { return static_cast<int64_t>(config(key)); };
  const BlockGrid grid{integer("nh"), integer("nw")};
  const int64_t heads = integer("heads");
  run.equal("local mask", local_window_mask(grid, integer("local_range"), test_device()), f["local_mask"]);
  KvCache cache;
  for (int64_t chunk = 0; f.has(chunk_name(chunk) + "_q_i8"); ++chunk) {
    const std::string name = chunk_name(chunk);
    const auto load = [&](const char* tensor, const char* scale) {
      return run.on(f[name + tensor].to(at::kFloat) * config(scale));
    };
    const at::Tensor q = load("_q_i8", "q_scale"), k_new = load("_k_i8", "k_scale"),
                     v_new = load("_v_i8", "v_scale");
    const at::Tensor q_mean = q.mean(1);
    const int64_t slots = k_new.size(0) / grid.windows();
    const std::vector<int32_t> map = cache.slot_map(slots);
    const at::Tensor k_mean_new = k_new.mean(1);
    const at::Tensor k_mean = visible_slots(cache.layer(0).key_mean, k_mean_new.view({slots, grid.windows(), -1}), map);
    EXPECT_EQ(map.size(), f.number("config.kv_slots_visible." + std::to_string(chunk)));

    BlockMaskTrace trace;
    const at::Tensor mask = block_mask_from_means(q_mean, k_mean, heads, grid,
                                                  integer("local_range"), integer("topk"), &trace);
    run.near(name + " scores", trace.scores, f[name + "_scores"], {1e-5});
    run.near(name + " probabilities", trace.prob, f[name + "_prob"], {1e-5});
    run.near(name + " threshold", trace.threshold, f[name + "_tau"], {1e-5});
    run.equal(name + " mask", mask, f[name + "_mask"]);
    const BlockPairs pairs = ops::block_mask(q_mean, k_mean, heads, grid, integer("local_range"), integer("topk"));
    run.equal(name + " mask as pairs", pairs_to_mask(pairs, k_mean.size(0)), f[name + "_mask"]);

    const TokenGrid tokens{q.size(0) / grid.windows() * 2, grid.rows * 8, grid.columns * 8};
    const at::Tensor out = window_partition(
        ops::block_sparse_attention(q, {cache.layer(0).key, cache.layer(0).value, k_new, v_new},
                                    at::tensor(map, at::kInt).to(test_device()), pairs, heads, tokens),
        tokens.f, tokens.h, tokens.w).flatten(0, 1);
    run.near(name + " output", rows_of(out, f[name + "_out_rows"]), f[name + "_out_at_rows"], {2e-4});
    run.near(name + " output sums", out.sum(1), f[name + "_out_token_sums"], {2e-3});
    const auto kv_chunks = static_cast<int64_t>(config("kv_ratio"));
    cache.store(0, k_new, v_new, k_mean_new, slots, kv_chunks);
    cache.advance(slots, kv_chunks);
  }
}

// --- transformer ----------------------------------------------------------------------------

bool takes_constants(const Fixture& f, bool) { return f.has("t_mod_f32"); }

void run_constants(const ParityRun& run) {
  const auto model = checkpoint_of(run);
  const Fixture& f = run.f();
  const Dit& dit = model->dit();
  if (run.is_bf16()) {
    // 1-2 units in the last place of bf16 (2^-8 relative).
    const auto ulps = [&](const char* tensor) { return Tolerance{2 * f[tensor].abs().max().item<double>() / 128}; };
    run.near("sinusoid", dit.timestep_embedding(), f["sinusoid_bf16"], {0});
    run.near("t", dit.timestep(), f["t_bf16"], ulps("t_bf16"));
    run.near("t_mod", dit.timestep_modulation(), f["t_mod_bf16"], ulps("t_mod_bf16"));
    return;
  }
  run.near("sinusoid", dit.timestep_embedding(), f["sinusoid_f32"], {1e-4});
  run.near("t", dit.timestep(), f["t_f32"], {1e-4});
  run.near("t_mod", dit.timestep_modulation(), f["t_mod_f32"], {1e-4});
  run.near("prompt context", rows_of(dit.prompt_context().squeeze(0), f["ctx_rows"]), f["ctx_at_rows"], {1e-4});
  const CrossAttention& cross = dit.blocks()[1].cross_attn;
  run.near("cross K", rows_of(cross.key, f["ctx_rows"]), f["cross_k_block1_at_rows"], {1e-4});
  run.near("cross V", rows_of(cross.value, f["ctx_rows"]), f["cross_v_block1_at_rows"], {1e-4});
}

bool takes_rope(const Fixture& f, bool) { return f.has_field("config.t_positions.0") && f.has("out_f32"); }

void run_rope(const ParityRun& run) {
  const Fixture& f = run.f();
  const auto integer = [&](const std::string& key) { return static_cast<int64_t>(f.number("config." + key)); };
  const int64_t h = integer("h"), w = integer("w"), heads = integer("heads");
  const at::Tensor x = run.on(f["x"]).squeeze(0);
  std::vector<at::Tensor> rotated;
  for (int64_t i = 0; i < f.length("config.t_positions"); ++i) {
    const auto table = rope3d_table(integer("head_dim"), integer("t_positions." + std::to_string(i)), 1, h, w, test_device());
    rotated.push_back(rope3d(x.narrow(0, i * h * w, h * w), heads, table.first, table.second));
  }
  const at::Tensor out = at::cat(rotated, 0).unsqueeze(0);
  if (run.is_bf16()) {
    const at::Tensor expected = f["out_bf16"];
    const double flips = (out.cpu() != expected).to(at::kDouble).mean().item<double>();
    expect_at_most(run.name + ": share of flipped last bits", flips, 1e-3);
    run.near("rotation", out, expected, {0.04});
  } else {
    run.near("rotation", out, f["out_f32"], {2e-6});
  }
}

bool takes_windows(const Fixture& f, bool bf16) { return !bf16 && f.has("window_order"); }

void run_windows(const ParityRun& run) {
  const auto integer = [&](const char* key) {
    return static_cast<int64_t>(run.f().number(std::string("config.") + key));
  };
  const int64_t f = integer("f"), h = integer("h"), w = integer("w");
  const at::Tensor index = at::arange(f * h * w, at::TensorOptions().dtype(at::kInt).device(test_device())).unsqueeze(1);
  const at::Tensor windows = window_partition(index, f, h, w);
  run.equal("order", windows.squeeze(2), run.f()["window_order"]);
  run.equal("reverse", window_reverse(windows, f, h, w), index);
}

bool takes_patch_head(const Fixture& f, bool bf16) { return !bf16 && f.has("unpatchified"); }

void run_patch_head(const ParityRun& run) {
  const auto model = checkpoint_of(run);
  const Fixture& f = run.f();
  const at::Tensor latent = run.on(f["latent"]);
  const TokenGrid grid{latent.size(2), latent.size(3) / 2, latent.size(4) / 2};
  run.near("patchify", model->dit().patchify(latent).unsqueeze(0), f["tokens"], {1e-4});
  const at::Tensor values = model->dit().head(run.on(f["head_in"]).squeeze(0));
  run.near("head", values.unsqueeze(0), f["head_out"], {1e-4});
  run.near("unpatchify", model->dit().unpatchify(values, grid), f["unpatchified"], {1e-4});
}

bool takes_block(const Fixture& f, bool bf16) { return !bf16 && f.has("chunk0_ffn_out_at_rows4"); }

void run_block(const ParityRun& run) {
  const auto model = checkpoint_of(run);
  const Fixture& f = run.f();
  const auto integer = [&](const char* key) {
    return static_cast<int64_t>(f.number(std::string("config.") + key));
  };
  const int64_t h = integer("H") / 16, w = integer("W") / 16, layer = integer("block");
  const DitConfig& config = model->config().dit;
  const DitBlock& block = model->dit().blocks()[layer];
  AttentionOptions options;
  const BlockGrid blocks{h / 8, w / 8};
  options.topk = static_cast<int64_t>(static_cast<double>(blocks.windows() * blocks.windows()) * f.number("config.topk_ratio")) - 1;
  options.local_range = integer("local_range");
  options.kv_chunks = static_cast<int64_t>(f.number("config.kv_ratio"));
  KvCache cache;
  int64_t position = 0;
  for (int64_t chunk = 0; f.has(chunk_name(chunk) + "_x_i8"); ++chunk) {
    const std::string name = chunk_name(chunk);
    at::Tensor x = run.on(f[name + "_x_i8"].to(at::kFloat) / 16).squeeze(0);
    const TokenGrid grid{x.size(0) / (h * w), h, w};
    AttentionContext context = model->dit().make_context(grid, position, options, cache);
    BlockPairs pairs;
    int64_t key_blocks = 0;
    context.replace_mask = [&](int64_t, const BlockPairs& p, int64_t keys) -> const BlockPairs& {
      pairs = p;
      key_blocks = keys;
      return p;
    };

    // The block in one call, and its parts as the fixture records them.
    KvCache whole_cache = cache.clone();
    const at::Tensor rows = f[name + "_rows"], rows4 = every(rows, 4);
    run.near(name + " output", rows_of(block.forward(x, layer, context, config, whole_cache), rows),
             f[name + "_out_at_rows"], {5e-4});
    const auto part = [&](const char* what, const at::Tensor& actual) {
      run.near(name + " " + what, rows_of(actual, rows4), f[name + "_" + what + "_at_rows4"], {5e-4});
    };
    const at::Tensor a = ops::layer_norm_modulate(x, block.folded[1], block.folded[0], config.eps);
    part("self_attn_in", a);
    const WindowedQkv qkv = ops::norm_rope_window(block.self_attn.qkv(a), block.self_attn.norm_q,
                                                  block.self_attn.norm_k, config.eps, config.heads,
                                                  grid, context.cos, context.sin, {});
    run.near(name + " q of window 0", every(qkv.q[0], 5), f[name + "_q_win0"], {5e-4});
    run.near(name + " k of the last window", every(qkv.k[qkv.k.size(0) - 1], 5), f[name + "_k_last_win"], {5e-4});
    const at::Tensor self = block.self_attn.o(block.self_attn.attend(a, layer, context, config.heads, config.eps, cache));
    part("self_attn_out", self);
    run.equal(name + " mask", pairs_to_mask(pairs, key_blocks), f[name + "_mask"]);
    cache.advance(grid.f / 2, options.kv_chunks);
    const auto held = [&](const at::Tensor& ring) {
      return every(visible_slots(ring, {}, cache.slot_map(0)).flatten(0, 1), 29);
    };
    run.near(name + " K cache", held(cache.layer(layer).key), f[name + "_cache_k_rows29"], {5e-4});
    run.near(name + " V cache", held(cache.layer(layer).value), f[name + "_cache_v_rows29"], {5e-4});
    x = ops::gated_residual(x, self, block.folded[2]);
    const at::Tensor c = ops::layer_norm_affine(x, block.norm3_weight, block.norm3_bias, config.eps);
    part("cross_attn_in", c);
    const at::Tensor crossed = block.cross_attn.o(block.cross_attn.attend(c, config.heads, config.eps));
    part("cross_attn_out", crossed);
    x = x + crossed;
    const at::Tensor b = ops::layer_norm_modulate(x, block.folded[4], block.folded[3], config.eps);
    part("ffn_out", block.ffn2(ops::linear_gelu(b, block.ffn0.weight, block.ffn0.bias)));
    position += grid.f;
  }
}

bool takes_x0(const Fixture& f, bool) { return f.has("x0_f32_chunk0") && f.has("lq_tokens_i8_chunk0"); }

void run_x0(const ParityRun& run) {
  const auto model = checkpoint_of(run);
  const Fixture& f = run.f();
  AttentionOptions options;
  options.topk = static_cast<int64_t>(f.number("config.topk"));
  options.local_range = static_cast<int64_t>(f.number("config.local_range"));
  options.kv_chunks = static_cast<int64_t>(f.number("config.kv_ratio"));
  const at::Tensor noise = run.on(f["noise"]);
  KvCache cache;
  for (int64_t chunk = 0, begin = 0; f.has("x0_f32_" + chunk_name(chunk)); ++chunk) {
    const std::string name = chunk_name(chunk);
    const at::Tensor expected = f["x0_f32_" + name];
    const int64_t frames = expected.size(2);
    const at::Tensor chunk_noise = noise.narrow(2, begin, frames);
    model->dit().set_mask_hook([&](int64_t layer, const BlockPairs& pairs, int64_t key_blocks) -> const BlockPairs& {
      const std::string mask = "mask_" + name + "_block" + std::to_string(layer);
      // The masks of a bf16 run may differ (the choice of blocks is discrete).
      if (!run.is_bf16() && f.has(mask)) run.equal(name + " mask of block " + std::to_string(layer), pairs_to_mask(pairs, key_blocks), f[mask]);
      return pairs;
    });
    const at::Tensor x0 =
        chunk_noise - model->dit().forward(chunk_noise, run.on(f["lq_tokens_i8_" + name].to(at::kFloat) / 16),
                                           begin, options, cache);
    model->dit().set_mask_hook({});
    if (run.is_bf16()) {
      run.near("x0 " + name + " against fp32", x0, expected, {1e9, 0.02});
    } else {
      run.near("x0 " + name, x0, expected, {2e-3, 1e-4});
    }
    begin += frames;
  }
}

// --- decoders -------------------------------------------------------------------------------

bool takes_tc_decoder(const Fixture& f, bool) { return f.has("frames_f32_chunk0") && f.has("latents"); }

void run_tc_decoder(const ParityRun& run) {
  const auto model = checkpoint_of(run);
  const Fixture& f = run.f();
  const at::Tensor latents = run.on(f["latents"]), cond = run.on(f.frames("lq_u8"));
  DecoderMemory memory;
  for (int64_t chunk = 0; f.has("frames_f32_" + chunk_name(chunk)); ++chunk) {
    const auto range = [&](const char* key, int64_t dim, const at::Tensor& x) {
      const std::string path = std::string("config.") + key + "." + std::to_string(chunk);
      const int64_t begin = static_cast<int64_t>(f.number(path + ".0"));
      return x.narrow(dim, begin, static_cast<int64_t>(f.number(path + ".1")) - begin);
    };
    const at::Tensor frames = model->tc_decoder()
                                  .forward(range("latent_ranges", 2, latents), range("cond_ranges", 2, cond), memory)
                                  .squeeze(0);
    const std::string name = chunk_name(chunk);
    if (!run.is_bf16()) {
      run.near("frames " + name, frames, f["frames_f32_" + name], {2e-4});
      if (chunk == 0) {
        // Positions of the nine MemBlocks in the released layout.
        const int positions[9] = {5, 6, 7, 11, 12, 13, 17, 18, 19};
        for (int i = 0; i < 9; ++i) {
          const std::string tensor = "mem_after_chunk0_idx" + std::to_string(positions[i]);
          if (f.has(tensor)) run.near(tensor, memory.steps[i], f[tensor], {2e-4});
        }
        const at::Tensor padded = at::cat({cond.narrow(2, 0, 1).expand({-1, -1, 3, -1, -1}), cond.narrow(2, 0, 5)}, 2);
        const at::Tensor packed = pack_condition(padded, model->config().tc_decoder.cond_unshuffle);
        run.equal("packed condition, group 0", packed[0], f["cond_packed_chunk0_group0"]);
        run.equal("packed condition, group 1", every(packed[1], 37), f["cond_packed_chunk0_group1_ch"]);
      }
      continue;
    }
    const std::string tensor = "frames_bf16_" + name;
    if (!f.has(tensor)) continue;
    const at::Tensor index = chunk == 0 ? f["bf16_frame_index_chunk0"].to(at::kLong)
                                        : at::arange(0, 5, 4, at::kLong);  // frames 0 and 4
    run.near("frames " + name, frames.index_select(1, index.to(frames.device())), f[tensor], {0.12, 0.01});
  }
}

bool takes_vae_decoder(const Fixture& f, bool bf16) { return !bf16 && f.has("denormalised_latent0"); }

void run_vae_decoder(const ParityRun& run) {
  const auto model = checkpoint_of(run);
  const at::Tensor latents = run.on(run.f()["latents"]);
  const at::Tensor expected = run.f()["frames"];
  VaeMemory offline;
  run.near("offline", model->vae_decoder().forward(latents, offline).squeeze(0), expected, {3e-4});
  VaeMemory streaming;
  std::vector<at::Tensor> chunks;
  for (int64_t begin = 0; begin < latents.size(2);) {
    const int64_t count = std::min<int64_t>(begin == 0 ? 6 : 2, latents.size(2) - begin);
    chunks.push_back(model->vae_decoder().forward(latents.narrow(2, begin, count), streaming).squeeze(0));
    begin += count;
  }
  run.near("streaming", at::cat(chunks, 1), expected, {3e-4});
}

}  // namespace

std::vector<ParityStage> model_stages() {
  return {
      {"checkpoint", takes_checkpoint, run_checkpoint},
      {"lq_projector", takes_lq_projector, run_lq_projector},
      {"block_mask", takes_mask, run_mask},
      {"attention", takes_attention, run_attention},
      {"constants", takes_constants, run_constants},
      {"rope", takes_rope, run_rope},
      {"windows", takes_windows, run_windows},
      {"patch_head", takes_patch_head, run_patch_head},
      {"block", takes_block, run_block},
      {"x0", takes_x0, run_x0},
      {"tc_decoder", takes_tc_decoder, run_tc_decoder},
      {"vae_decoder", takes_vae_decoder, run_vae_decoder},
  };
}

}  // namespace flashvsr
