// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Image stages and whole pipelines: LR bytes in, HR bytes out.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

#include "base/error.h"
#include "image/bicubic.h"
#include "image/color_fix.h"
#include "image/postprocess.h"
#include "image/preprocess.h"
#include "io/sha256.h"
#include "io/weights.h"
#include "tests/parity/parity.h"

namespace flashvsr {
namespace {

// bytes [H, W, 3]
PlanarImage to_image(const at::Tensor& bytes) {
  PlanarImage image(static_cast<int>(bytes.size(1)), static_cast<int>(bytes.size(0)), 8, false);
  const at::Tensor planar = bytes.permute({2, 0, 1}).contiguous();
  std::memcpy(image.plane<uint8_t>(0), planar.data_ptr(), planar.nbytes());
  return image;
}

at::Tensor to_bytes(const PlanarImage& image) {
  at::Tensor planar = at::empty({3, image.height(), image.width()}, at::kByte);
  std::memcpy(planar.data_ptr(), image.plane<uint8_t>(0), planar.nbytes());
  return planar.permute({1, 2, 0}).contiguous();
}

PlanarImage enlarge(const at::Tensor& bytes, double scale) {
  const PlanarImage in = to_image(bytes);
  const BicubicResizer resizer(in.width(), in.height(), static_cast<int>(reference_scaled_size(in.width(), scale)),
                               static_cast<int>(reference_scaled_size(in.height(), scale)), 8);
  PlanarImage out;
  resizer.resize(in, out, false);
  return reference_crop(out, 128);
}

bool takes_upscale(const Fixture& f, bool bf16) { return !bf16 && f.has("c0_lr"); }

void run_upscale(const ParityRun& run) {
  const Fixture& f = run.f();
  for (int64_t i = 0; i < f.length("config.cases"); ++i) {
    const std::string name = "c" + std::to_string(i);
    const double scale = f.number("config.cases." + std::to_string(i) + ".scale");
    run.equal(name, to_bytes(enlarge(f[name + "_lr"], scale)), f[name + "_hr"]);
  }
  PlanarImage ramp(256, 1, 8, false);
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < 256; ++i) ramp.plane<uint8_t>(c)[i] = static_cast<uint8_t>(i);
  }
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor values = images_to_tensor({&ramp}, 1, 256, test_device(), dtype);
    run.equal(dtype == at::kFloat ? "value scaling fp32" : "value scaling bf16", values[0][0][0][0],
              f[dtype == at::kFloat ? "ramp_f32" : "ramp_bf16"]);
  }
  const at::Tensor in = f["out_quant_in"].to(test_device());
  run.equal("quantisation", quantize(in, 255, Quantization::kTruncate), f["out_quant_u8"]);
  run.equal("quantisation of bf16", quantize(in.to(at::kBFloat16), 255, Quantization::kTruncate), f["out_quant_bf16_u8"]);
}

bool takes_color(const Fixture& f, bool) { return f.has("adain_f32"); }

void run_color(const ParityRun& run) {
  const Fixture& f = run.f();
  const at::Tensor content = run.on(f["hq"]), style = run.on(f.frames("lq_u8"));
  if (run.is_bf16()) {
    run.near("AdaIN", adain(content, style), f["adain_bf16"], {0.02, 0.002});
    run.near("wavelet", wavelet(content, style), f["wavelet_bf16"], {0.06});
  } else {
    run.near("AdaIN", adain(content, style), f["adain_f32"], {2e-5});
    run.near("wavelet", wavelet(content, style), f["wavelet_f32"], {2e-5});
  }
}

bool takes_end_to_end(const Fixture& f, bool) { return f.has("hr_u8") && f.has("lr_u8"); }

void run_end_to_end(const ParityRun& run) {
  const Fixture& f = run.f();
  const bool is_vae = f.text("config.pipeline") == "full";
  const auto model = checkpoint_of(run, f.text("config.version") == "v1" ? Version::kV1 : Version::kV1_1);
  const auto integer = [&](const char* key) { return static_cast<int64_t>(f.number(std::string("config.") + key)); };
  const int64_t inputs = integer("N"), frames = integer("F"), height = integer("H"), width = integer("W");

  // The reference repeats the last frame and keeps 8n+1.
  std::vector<PlanarImage> lq;
  Sha256 sha;
  for (int64_t i = 0; i < frames; ++i) {
    lq.push_back(enlarge(f["lr_u8"][std::min(i, inputs - 1)], f.number("config.scale")));
    const at::Tensor bytes = to_bytes(lq.back());
    sha.update(bytes.data_ptr(), bytes.nbytes());
  }
  ASSERT_EQ(lq[0].height(), height);
  ASSERT_EQ(lq[0].width(), width);
  EXPECT_EQ(sha.hex(), f.text("lq_u8_sha256"));

  RunOptions options;
  options.topk = integer("topk");
  options.kv_chunks = static_cast<int64_t>(f.number("config.kv_ratio"));
  options.local_range = integer("local_range");
  options.decoder = is_vae ? DecoderKind::kVae : DecoderKind::kTc;
  StreamState state, parts;
  const at::Tensor noise = run.on(f["noise"]);
  std::vector<at::Tensor> latents_of_parts;
  std::vector<at::Tensor> decoded, hr;
  std::map<std::string, at::Tensor> masks;
  for (int64_t chunk = 0; chunk < integer("chunks"); ++chunk) {
    const int64_t first_input = chunk == 0 ? 0 : 8 * chunk + 13, count = Upscaler::inputs_of_run(state);
    std::vector<const PlanarImage*> pictures;
    for (int64_t i = 0; i < count; ++i) pictures.push_back(&lq[first_input + i]);
    const at::Tensor input = images_to_tensor(pictures, height, width, test_device(), run.dtype);
    model->dit().set_mask_hook([&](int64_t layer, const BlockPairs& pairs, int64_t key_blocks) -> const BlockPairs& {
      const std::string key = "mask_chunk" + std::to_string(chunk) + "_block" + std::to_string(layer);
      if (!run.is_bf16() && f.has(key)) run.equal(key, pairs_to_mask(pairs, key_blocks), f[key]);
      return pairs;
    });
    const int64_t latents = chunk == 0 ? 6 : 2;
    const at::Tensor out = model->run(input, options, state, noise.narrow(2, chunk == 0 ? 0 : 2 * chunk + 4, latents));
    decoded.push_back(out);
    if (!run.is_bf16()) {
      // The same chunk in parts, for what lies between the bytes.
      model->dit().set_mask_hook({});
      const at::Tensor tokens = model->lq_projector().forward(chunk == 0 ? input : input.narrow(2, 4, 8), parts.lq);
      const bool is_last = chunk == integer("chunks") - 1;
      if (chunk == 0 || is_last) {
        run.near(is_last ? "LQ tokens of the last chunk" : "LQ tokens of chunk 0",
                 tokens.squeeze(0).slice(0, 0, c10::nullopt, 7),
                 f[is_last ? "lq_tokens_last_every7" : "lq_tokens_chunk0_every7"], {2e-4});
      }
      const int64_t begin = chunk == 0 ? 0 : 2 * chunk + 4;
      const at::Tensor part = noise.narrow(2, begin, latents);
      latents_of_parts.push_back(part - model->dit().forward(part, tokens, begin, {options.topk, options.local_range, options.kv_chunks}, parts.kv));
    }
    hr.push_back(quantize(adain(out, input.narrow(2, 0, out.size(2))), 255, Quantization::kTruncate));
  }
  model->dit().set_mask_hook({});

  const at::Tensor raw = at::cat(decoded, 2).squeeze(0).transpose(0, 1).cpu();          // [n, 3, H, W]
  const at::Tensor bytes = at::cat(hr, 2).squeeze(0).permute({1, 2, 3, 0}).cpu();       // [n, H, W, 3]
  ASSERT_EQ(bytes.size(0), frames - 4);
  const at::Tensor shown = bytes.index_select(0, f["hr_index"].to(at::kLong));
  const at::Tensor difference = (shown.to(at::kInt) - f["hr_u8"].to(at::kInt)).abs();
  if (!run.is_bf16()) {
    const at::Tensor rows = raw.index_select(0, f["raw_index"].to(at::kLong)).slice(2, 0, c10::nullopt, 8);
    run.near("x0", at::cat(latents_of_parts, 2), f["x0"], {2e-3});
    run.near("frames before colour correction", rows, f["raw_frames_rows"], {is_vae ? 1e-3 : 2e-3});
    Sha256 all;
    const at::Tensor every_byte = bytes.contiguous();
    all.update(every_byte.data_ptr(), every_byte.nbytes());
    std::printf("%s: sha256 of all frames %s the recorded one (bytes may differ by 1)\n", run.name.c_str(),
                all.hex() == f.text("hr_u8_sha256_all_frames") ? "is" : "is not");
    expect_at_most(run.name + ": largest byte difference", difference.max().item<double>(), 1);
    expect_at_most(run.name + ": share of different bytes", (difference != 0).to(at::kDouble).mean().item<double>(), 0.01);
    run.near("mean of every frame", bytes.to(at::kDouble).mean({1, 2}), f["hr_mean"].to(at::kDouble), {0.02});
    return;
  }
  const double mse = difference.to(at::kDouble).square().mean().item<double>();
  const double psnr = 10 * std::log10(255.0 * 255.0 / std::max(mse, 1e-12));
  const double reference = f.number("bf16_run_of_the_reference_against_hr_u8.psnr_db_all_frames");
  expect_at_most(run.name + ": dB below the reference's own bf16 run", reference - psnr, 3);
}

}  // namespace

std::shared_ptr<Upscaler> checkpoint_of(const ParityRun& run, Version version) {
  const std::string weights = run.f().text("config.weights");
  std::string folder = run.f().folder() + "/" + weights;
  // Some cases name one file of the checkpoint.
  if (folder.find('.', folder.rfind('/')) != std::string::npos) folder = folder.substr(0, folder.rfind('/'));
  Checkpoint checkpoint = open_checkpoint(folder, version, /*with_vae=*/true);
  auto model = std::make_shared<Upscaler>(checkpoint.config);
  assign_checkpoint([&](const ParameterVisitor& visit) { model->visit_parameters(visit, true); }, checkpoint);
  model->prepare(test_device(), run.dtype, checkpoint.prompt, true);
  return model;
}

std::vector<ParityStage> pipeline_stages() {
  return {
      {"upscale", takes_upscale, run_upscale},
      {"color", takes_color, run_color},
      {"end_to_end", takes_end_to_end, run_end_to_end},
  };
}

}  // namespace flashvsr
