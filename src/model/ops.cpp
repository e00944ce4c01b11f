// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <cmath>
#include <cstdlib>
#include <optional>
#include <mutex>
#include <set>
#include <string>
#include <tuple>

#include "base/error.h"
#include "base/log.h"
#include "model/layers.h"
#include "model/ops_cpu.h"
#include "model/philox.h"
#include "model/rope3d.h"
#include "model/window.h"

namespace flashvsr {

at::Tensor visible_slots(const at::Tensor& ring, const at::Tensor& now,
                         const std::vector<int32_t>& slot_map) {
  std::vector<at::Tensor> slots;
  for (const int32_t place : slot_map) slots.push_back(place >= 0 ? ring[place] : now[-1 - place]);
  return at::cat(slots, 0);
}

namespace reference {

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1,
                               const at::Tensor& shift, double eps) {
  return at::layer_norm(x, {x.size(-1)}, {}, {}, eps) * scale1 + shift;
}

at::Tensor layer_norm_affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             double eps) {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate) {
  return x + gate * y;
}

std::tuple<at::Tensor, at::Tensor> residual_norm(const at::Tensor& x, const at::Tensor& y,
                                                 const at::Tensor& gate, const at::Tensor& scale,
                                                 const at::Tensor& shift, double eps, bool affine) {
  const at::Tensor sum = gate.defined() ? gated_residual(x, y, gate) : x + y;
  return {sum, affine ? layer_norm_affine(sum, scale, shift, eps)
                      : layer_norm_modulate(sum, scale, shift, eps)};
}

std::tuple<at::Tensor, at::Tensor> linear_residual_norm(const at::Tensor& a, const at::Tensor& weight, const at::Tensor& bias,
                                                        const at::Tensor& x, const at::Tensor& gate, const at::Tensor& scale,
                                                        const at::Tensor& shift, double eps, bool affine) {
  return residual_norm(x, at::linear(a, weight, bias), gate, scale, shift, eps, affine);
}

WindowedQkv norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight,
                             const at::Tensor& k_weight, double eps, int64_t heads,
                             const TokenGrid& grid, const at::Tensor& cos, const at::Tensor& sin,
                             const KvPlace& place) {
  const auto parts = qkv.chunk(3, 1);
  const at::Tensor q = rope3d(rms_norm(parts[0], q_weight, eps), heads, cos, sin);
  const at::Tensor k = rope3d(rms_norm(parts[1], k_weight, eps), heads, cos, sin);
  WindowedQkv out;
  out.q = window_partition(q, grid.f, grid.h, grid.w);
  out.k = window_partition(k, grid.f, grid.h, grid.w);
  out.v = window_partition(parts[2].contiguous(), grid.f, grid.h, grid.w);
  out.q_mean = out.q.mean(1);
  out.k_mean = out.k.mean(1);
  if (place.key.defined()) {
    place.key.copy_(out.k);
    place.value.copy_(out.v);
    out.k = place.key;
    out.v = place.value;
  }
  return out;
}

WindowedQkv qkv_window(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& q_weight,
                       const at::Tensor& k_weight, double eps, int64_t heads, const TokenGrid& grid, const at::Tensor& cos,
                       const at::Tensor& sin, const KvPlace& place) {
  return norm_rope_window(at::linear(x, weight, bias), q_weight, k_weight, eps, heads, grid, cos, sin, place);
}

std::tuple<at::Tensor, at::Tensor> quantize_rows(const at::Tensor& x, bool gelu) {
  const at::Tensor v = (gelu ? at::gelu(x, "tanh") : x).to(at::kFloat);
  const at::Tensor top = v.abs().amax(-1);
  const at::Tensor scale = at::where(top > 0, top / 448, at::ones_like(top));
  return {(v / scale.unsqueeze(-1)).clamp(-448, 448).to(at::kFloat8_e4m3fn), scale};
}

at::Tensor scaled_linear(const at::Tensor& x, const at::Tensor& x_scale, const at::Tensor& weight,
                         const at::Tensor& weight_scale, const at::Tensor& bias) {
  const auto widen = [](const at::Tensor& v, const at::Tensor& scale) {
    return v.to(at::kFloat) * scale.unsqueeze(-1);
  };
  return at::linear(widen(x, x_scale), widen(weight, weight_scale), bias.to(at::kFloat))
      .to(bias.scalar_type());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> residual_norm8(
    const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate, const at::Tensor& scale,
    const at::Tensor& shift, double eps, bool affine) {
  const at::Tensor sum = !y.defined() ? x : gate.defined() ? gated_residual(x, y, gate) : x + y;
  const auto [values, row_scale] =
      quantize_rows(affine ? layer_norm_affine(sum, scale, shift, eps)
                           : layer_norm_modulate(sum, scale, shift, eps), false);
  return {sum, values, row_scale};
}

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::gelu(at::linear(x, weight, bias), "tanh");
}

at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return rms_norm(x, weight, eps);
}

BlockPairs block_mask(const at::Tensor& q_mean, const at::Tensor& k_mean, int64_t heads,
                      const BlockGrid& grid, int64_t local_range, int64_t topk) {
  return mask_to_pairs(
      block_mask_from_means(q_mean, k_mean, heads, grid, local_range, topk));
}

namespace {

// One query block of one head: q [128, d], k and v [n*128, d] in fp32; p is rounded to `dtype`.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                  c10::ScalarType dtype) {
  at::Tensor s = at::matmul(q, k.transpose(-1, -2)).mul_(scale);
  s.sub_(s.amax(-1, /*keepdim=*/true)).exp_();
  const at::Tensor sum = s.sum(-1, /*keepdim=*/true);
  if (dtype != at::kFloat) s = s.to(dtype).to(at::kFloat);
  return at::matmul(s, v).div_(sum);
}

}  // namespace

at::Tensor block_sparse_attention(const at::Tensor& q, const AttentionKv& kv,
                                  const at::Tensor& slot_map, const BlockPairs& pairs,
                                  int64_t heads, const TokenGrid& grid) {
  const int64_t windows = grid.blocks().windows();
  const at::Tensor host_map = slot_map.cpu();
  const std::vector<int32_t> map(host_map.data_ptr<int32_t>(), host_map.data_ptr<int32_t>() + host_map.numel());
  const auto gathered = [&](const at::Tensor& ring, const at::Tensor& now) {
    return visible_slots(ring, now.view({-1, windows, now.size(1), now.size(2)}), map);
  };
  const at::Tensor k = gathered(kv.key_ring, kv.key_now), v = gathered(kv.value_ring, kv.value_now);
  const int64_t q_blocks = q.size(0), dim = q.size(2), head_dim = dim / heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  const at::Tensor begin = pairs.row_begin.cpu();
  const auto b = begin.accessor<int32_t, 2>();
  const at::Tensor column = pairs.column.to(at::kLong);
  at::Tensor out = at::zeros_like(q);
  const auto split = [&](const at::Tensor& x) {
    return x.view({x.size(0), kWindowTokens, heads, head_dim});
  };
  const at::Tensor qs = split(q), ks = split(k), vs = split(v), os = split(out);
  const auto one = [&](int64_t head, int64_t row) {
    const int64_t first = b[head][row], count = b[head][row + 1] - first;
    if (count == 0) return;
    const at::Tensor blocks = column.narrow(0, first, count);
    const auto gather = [&](const at::Tensor& x) {
      return x.select(2, head).index_select(0, blocks).view({count * kWindowTokens, head_dim}).to(at::kFloat);
    };
    os.select(0, row).select(1, head).copy_(
        attend(qs.select(0, row).select(1, head).to(at::kFloat), gather(ks), gather(vs), scale,
               q.scalar_type()));
  };
  if (q.is_cpu() && !at::GradMode::is_enabled()) {
    at::parallel_for(0, heads * q_blocks, 1, [&](int64_t from, int64_t to) {
      const c10::InferenceMode guard;
      for (int64_t i = from; i < to; ++i) one(i / q_blocks, i % q_blocks);
    });
  } else {
    for (int64_t i = 0; i < heads * q_blocks; ++i) one(i / q_blocks, i % q_blocks);
  }
  return window_reverse(out, grid.f, grid.h, grid.w);
}

at::Tensor cross_attention(const at::Tensor& q, const at::Tensor& key, const at::Tensor& value, int64_t heads) {
  const auto by_head = [&](const at::Tensor& x) {
    return x.view({1, x.size(0), heads, x.size(1) / heads}).transpose(1, 2);
  };
  const at::Tensor attended = at::scaled_dot_product_attention(by_head(q), by_head(key), by_head(value));
  return attended.transpose(1, 2).reshape(q.sizes());
}

at::Tensor projector_input(const at::Tensor& frames, int64_t missing, int64_t u) {
  const at::Tensor all = repeat_first(frames, missing);
  const int64_t steps = all.size(2), h = all.size(3) / u, w = all.size(4) / u;
  return all.reshape({3, steps, h, u, w, u})
      .permute({1, 2, 4, 0, 3, 5})
      .reshape({1, steps, h, w, 3 * u * u})
      .permute({0, 4, 1, 2, 3});
}

at::Tensor projector_conv(const at::Tensor& x, const at::Tensor& past, const at::Tensor& weight,
                          const at::Tensor& bias) {
  const at::Tensor all = past.defined() ? at::cat({past, x}, 2) : x;
  return at::conv3d(at::replication_pad3d(all, {1, 1, 1, 1, 0, 0}), weight.to(x.device()), bias, {2, 1, 1});
}

at::Tensor channel_rms_norm_silu(const at::Tensor& x, const at::Tensor& gamma) {
  return at::silu(channel_rms_norm(x, gamma));
}

void philox_noise(at::Tensor& out, uint64_t seed, int64_t first_frame) {
  const at::Tensor host = at::empty(out.sizes(), at::kFloat);
  float* values = host.data_ptr<float>();
  const int64_t frames = out.size(1), height = out.size(2), width = out.size(3);
  at::parallel_for(0, out.size(0) * frames * height, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto y = static_cast<uint32_t>(row % height),
                 frame = static_cast<uint32_t>(first_frame + row / height % frames),
                 channel = static_cast<uint32_t>(row / height / frames);
      for (int64_t x = 0; x < width; ++x) {
        values[row * width + x] =
            philox_normal(seed, {frame, channel, y, static_cast<uint32_t>(x)});
      }
    }
  });
  out.copy_(host);
}

at::Tensor decoder_input(const at::Tensor& frames, const at::Tensor& latents, int64_t latent_channels,
                         int64_t missing, int64_t unshuffle) {
  at::Tensor packed = pack_condition(repeat_first(frames, missing), unshuffle);
  at::Tensor z = latents.defined() ? latents.transpose(1, 2).flatten(0, 1)
                                   : at::zeros({packed.size(0), latent_channels, packed.size(2), packed.size(3)},
                                               packed.options());
  const at::Tensor x = at::cat({packed, z}, 1).contiguous(at::MemoryFormat::ChannelsLast);
  packed.reset();
  z.reset();
  return at::tanh(x / 3) * 3;
}

namespace {

at::Tensor conv_input(const at::Tensor& x, const at::Tensor& past, int64_t up) {
  const at::Tensor in = past.defined() ? at::cat({x, past}, 1) : x;
  return up > 1 ? at::upsample_nearest2d(in, {in.size(2) * up, in.size(3) * up}) : in;
}

at::Tensor one_step_earlier(const at::Tensor& x, const at::Tensor& memory) {
  const at::Tensor first = memory.defined() ? memory : at::zeros_like(x.narrow(0, 0, 1));
  const int64_t steps = x.size(0);
  return steps == 1 ? first : at::cat({first, x.narrow(0, 0, steps - 1)}, 0);
}

}  // namespace

at::Tensor conv3x3(const at::Tensor& x, const at::Tensor& past, const at::Tensor& weight,
                   const at::Tensor& bias, const at::Tensor& add, bool relu, int64_t up, bool) {
  at::Tensor y = at::conv2d(conv_input(x, past, up), weight.to(x.device()), bias, 1, {1, 1});
  if (add.defined()) y = y + add;
  return relu ? at::relu(y) : y;
}

at::Tensor mem_conv(const at::Tensor& x, const at::Tensor& memory, const at::Tensor& weight,
                    const at::Tensor& bias) {
  return conv3x3(x, one_step_earlier(x, memory), weight, bias, {}, /*relu=*/true, 1);
}

at::Tensor time_grow(const at::Tensor& x, const at::Tensor& weight, int64_t grow) {
  const at::Tensor y = at::conv2d(x, weight.to(x.device()));
  if (grow == 1) return y;
  const int64_t steps = y.size(0), channels = y.size(1) / grow, height = y.size(2), width = y.size(3);
  // In the order of the result's memory, so that one copy makes it.
  if (x.suggest_memory_format() == at::MemoryFormat::ChannelsLast) {
    return y.view({steps, grow, channels, height, width})
        .permute({0, 1, 3, 4, 2})
        .reshape({steps * grow, height, width, channels})
        .permute({0, 3, 1, 2});
  }
  return y.reshape({steps * grow, channels, height, width});
}

}  // namespace reference

// --- dispatch -------------------------------------------------------------------------------
// Operator schemas know tensors, integers and floats only; structs are unpacked here. An
// undefined tensor is an absent `Tensor?`.

namespace {

using Maybe = std::optional<at::Tensor>;
using NormRopeWindowResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using PairsResult = std::tuple<at::Tensor, at::Tensor>;

Maybe maybe(const at::Tensor& x) { return x.defined() ? Maybe(x) : Maybe(); }

NormRopeWindowResult op_norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight,
                                         const at::Tensor& k_weight, double eps, int64_t heads,
                                         int64_t f, int64_t h, int64_t w, const at::Tensor& cos,
                                         const at::Tensor& sin, const Maybe& key_place,
                                         const Maybe& value_place) {
  const auto run = cpu::takes_norm_rope_window(qkv, q_weight, k_weight, heads, cos, sin)
                       ? cpu::norm_rope_window
                       : reference::norm_rope_window;
  const at::Tensor none;
  WindowedQkv r = run(qkv, q_weight, k_weight, eps, heads, {f, h, w}, cos, sin,
                      {key_place.value_or(none), value_place.value_or(none)});
  return {r.q, r.k, r.v, r.q_mean, r.k_mean};
}

NormRopeWindowResult op_qkv_window(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                   const at::Tensor& q_weight, const at::Tensor& k_weight, double eps, int64_t heads,
                                   int64_t f, int64_t h, int64_t w, const at::Tensor& cos, const at::Tensor& sin,
                                   const Maybe& key_place, const Maybe& value_place) {
  return op_norm_rope_window(at::linear(x, weight, bias), q_weight, k_weight, eps, heads, f, h, w, cos, sin, key_place,
                             value_place);
}

PairsResult op_block_mask(const at::Tensor& q_mean, const at::Tensor& k_mean, int64_t heads,
                          int64_t rows, int64_t columns, int64_t local_range, int64_t topk) {
  BlockPairs r = reference::block_mask(q_mean, k_mean, heads, {rows, columns}, local_range, topk);
  return {r.row_begin, r.column};
}

at::Tensor op_block_sparse_attention(const at::Tensor& q, const Maybe& key_ring,
                                     const Maybe& value_ring, const at::Tensor& key_now,
                                     const at::Tensor& value_now, const at::Tensor& slot_map,
                                     const at::Tensor& row_begin, const at::Tensor& column,
                                     int64_t heads, int64_t f, int64_t h, int64_t w) {
  const at::Tensor none;
  const AttentionKv kv{key_ring.value_or(none), value_ring.value_or(none), key_now, value_now};
  const auto run = cpu::takes_attention(q, kv, heads) ? cpu::block_sparse_attention
                                                      : reference::block_sparse_attention;
  return run(q, kv, slot_map, {row_begin, column}, heads, {f, h, w});
}

// Schemas have signed integers only; the bits are the seed's.
void op_philox_noise(at::Tensor& out, int64_t seed, int64_t first_frame) {
  reference::philox_noise(out, static_cast<uint64_t>(seed), first_frame);
}

at::Tensor op_conv3x3(const at::Tensor& x, const Maybe& past, const at::Tensor& weight,
                      const Maybe& bias, const Maybe& add, bool relu, int64_t up, bool) {
  const at::Tensor none;
  if (relu && !add) {
    const at::Tensor in = reference::conv_input(x, past.value_or(none), up);
    if (cpu::takes_conv3x3(in, weight, bias.value_or(none))) return cpu::conv3x3_relu(in, weight, bias.value_or(none));
    return reference::conv3x3(in, none, weight, bias.value_or(none), none, relu, 1);
  }
  return reference::conv3x3(x, past.value_or(none), weight, bias.value_or(none), add.value_or(none),
                            relu, up);
}

at::Tensor op_projector_conv(const at::Tensor& x, const Maybe& past, const at::Tensor& weight,
                             const at::Tensor& bias) {
  return reference::projector_conv(x, past.value_or(at::Tensor()), weight, bias);
}

at::Tensor op_decoder_input(const at::Tensor& frames, const Maybe& latents, int64_t latent_channels,
                            int64_t missing, int64_t unshuffle) {
  return reference::decoder_input(frames, latents.value_or(at::Tensor()), latent_channels, missing, unshuffle);
}

at::Tensor op_mem_conv(const at::Tensor& x, const Maybe& memory, const at::Tensor& weight,
                       const at::Tensor& bias) {
  return op_conv3x3(x, reference::one_step_earlier(x, memory.value_or(at::Tensor())), weight, bias, {}, /*relu=*/true, 1,
                    /*feeds_memory=*/false);
}

using ResidualNormResult = std::tuple<at::Tensor, at::Tensor>;

ResidualNormResult op_residual_norm(const at::Tensor& x, const at::Tensor& y, const Maybe& gate,
                                    const at::Tensor& scale, const at::Tensor& shift, double eps,
                                    bool affine) {
  const at::Tensor factor = gate.value_or(at::Tensor());
  const auto run = cpu::takes_rows({&x, &y, &factor, &scale, &shift}) ? cpu::residual_norm
                                                                      : reference::residual_norm;
  return run(x, y, factor, scale, shift, eps, affine);
}

ResidualNormResult op_linear_residual_norm(const at::Tensor& a, const at::Tensor& weight, const at::Tensor& bias,
                                           const at::Tensor& x, const Maybe& gate, const at::Tensor& scale,
                                           const at::Tensor& shift, double eps, bool affine) {
  return op_residual_norm(x, at::linear(a, weight, bias), gate, scale, shift, eps, affine);
}

at::Tensor op_layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1, const at::Tensor& shift, double eps) {
  const auto run = cpu::takes_rows({&x, &scale1, &shift}) ? cpu::layer_norm_modulate : reference::layer_norm_modulate;
  return run(x, scale1, shift, eps);
}

at::Tensor op_layer_norm_affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const auto run = cpu::takes_rows({&x, &weight, &bias}) ? cpu::layer_norm_affine : reference::layer_norm_affine;
  return run(x, weight, bias, eps);
}

at::Tensor op_rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto run = cpu::takes_rows({&x, &weight}) ? cpu::rms_norm_rows : reference::rms_norm_rows;
  return run(x, weight, eps);
}

at::Tensor op_gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate) {
  const auto run = cpu::takes_rows({&x, &y, &gate}) ? cpu::gated_residual : reference::gated_residual;
  return run(x, y, gate);
}

at::Tensor op_linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto run = cpu::takes_rows({&x, &weight, &bias}) ? cpu::linear_gelu : reference::linear_gelu;
  return run(x, weight, bias);
}

using ResidualNorm8Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

ResidualNorm8Result op_residual_norm8(const at::Tensor& x, const Maybe& y, const Maybe& gate,
                                      const at::Tensor& scale, const at::Tensor& shift, double eps,
                                      bool affine) {
  const at::Tensor none;
  return reference::residual_norm8(x, y.value_or(none), gate.value_or(none), scale, shift, eps, affine);
}

bool environment_is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && value[0] != '\0' && std::string(value) != "0";
}

// Says once, or refuses under FLASHVSR_STRICT, that a CUDA tensor meets the reference.
void note_fallback(const char* name, const c10::OperatorHandle& op, const at::Tensor& x) {
  if (!x.is_cuda() || op.hasKernelForDispatchKey(c10::DispatchKey::CUDA)) return;
  FLASHVSR_CHECK(!ops::is_strict(), ErrorCode::kInternal, name,
                 ": no own CUDA kernel is loaded and FLASHVSR_STRICT is set");
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard<std::mutex> lock(mutex);
  if (said.insert(name).second) {
    log(LogLevel::kInfo, name, ": no own CUDA kernel is loaded, running the ATen reference");
  }
}

c10::OperatorHandle find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow((std::string("flashvsr::") + name).c_str(), "");
}

}  // namespace

TORCH_LIBRARY(flashvsr, m) {
  m.def("layer_norm_modulate(Tensor x, Tensor scale1, Tensor shift, float eps) -> Tensor");
  m.def("layer_norm_affine(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor");
  m.def("residual_norm(Tensor x, Tensor y, Tensor? gate, Tensor scale, Tensor shift, float eps, bool "
        "affine) -> (Tensor, Tensor)");
  m.def("linear_residual_norm(Tensor a, Tensor weight, Tensor bias, Tensor x, Tensor? gate, Tensor scale, Tensor shift, "
        "float eps, bool affine) -> (Tensor, Tensor)");
  m.def("quantize_rows(Tensor x, bool gelu) -> (Tensor, Tensor)");
  m.def("scaled_linear(Tensor x, Tensor x_scale, Tensor weight, Tensor weight_scale, Tensor bias) -> Tensor");
  m.def("residual_norm8(Tensor x, Tensor? y, Tensor? gate, Tensor scale, Tensor shift, float eps, bool "
        "affine) -> (Tensor, Tensor, Tensor)");
  m.def("gated_residual(Tensor x, Tensor y, Tensor gate) -> Tensor");
  m.def("linear_gelu(Tensor x, Tensor weight, Tensor bias) -> Tensor");
  m.def("norm_rope_window(Tensor qkv, Tensor q_weight, Tensor k_weight, float eps, int heads, int f, "
        "int h, int w, Tensor cos, Tensor sin, Tensor(a!)? key_place, Tensor(b!)? value_place) -> (Tensor, Tensor, "
        "Tensor, Tensor, Tensor)");
  m.def("qkv_window(Tensor x, Tensor weight, Tensor bias, Tensor q_weight, Tensor k_weight, float eps, int heads, int f, "
        "int h, int w, Tensor cos, Tensor sin, Tensor(a!)? key_place, Tensor(b!)? value_place) -> (Tensor, Tensor, "
        "Tensor, Tensor, Tensor)");
  m.def("rms_norm_rows(Tensor x, Tensor weight, float eps) -> Tensor");
  m.def("block_mask(Tensor q_mean, Tensor k_mean, int heads, int rows, int columns, int local_range, "
        "int topk) -> (Tensor, Tensor)");
  m.def("block_sparse_attention(Tensor q, Tensor? key_ring, Tensor? value_ring, Tensor key_now, Tensor "
        "value_now, Tensor slot_map, Tensor row_begin, Tensor column, int heads, int f, int h, int w) -> "
        "Tensor");
  m.def("cross_attention(Tensor q, Tensor key, Tensor value, int heads) -> Tensor");
  m.def("projector_input(Tensor frames, int missing, int unshuffle) -> Tensor");
  m.def("projector_conv(Tensor x, Tensor? past, Tensor weight, Tensor bias) -> Tensor");
  m.def("decoder_input(Tensor frames, Tensor? latents, int latent_channels, int missing, int unshuffle) -> Tensor");
  m.def("channel_rms_norm_silu(Tensor x, Tensor gamma) -> Tensor");
  m.def("conv3x3(Tensor x, Tensor? past, Tensor weight, Tensor? bias, Tensor? add, bool relu, int up, "
        "bool feeds_memory) -> Tensor");
  m.def("philox_noise(Tensor(a!) out, int seed, int first_frame) -> ()");
  m.def("mem_conv(Tensor x, Tensor? memory, Tensor weight, Tensor bias) -> Tensor");
  m.def("time_grow(Tensor x, Tensor weight, int grow) -> Tensor");
}

// Composite: made of ATen calls, so any device runs them and autograd sees through. Where there is a
// kernel for the CPU, op_ takes it for tensors that it takes: under a dispatch key of its own it would
// hide the reference from autograd.
TORCH_LIBRARY_IMPL(flashvsr, CompositeImplicitAutograd, m) {
  m.impl("layer_norm_modulate", op_layer_norm_modulate);
  m.impl("layer_norm_affine", op_layer_norm_affine);
  m.impl("residual_norm", op_residual_norm);
  m.impl("linear_residual_norm", op_linear_residual_norm);
  m.impl("quantize_rows", reference::quantize_rows);
  m.impl("scaled_linear", reference::scaled_linear);
  m.impl("residual_norm8", op_residual_norm8);
  m.impl("gated_residual", op_gated_residual);
  m.impl("linear_gelu", op_linear_gelu);
  m.impl("norm_rope_window", op_norm_rope_window);
  m.impl("qkv_window", op_qkv_window);
  m.impl("rms_norm_rows", op_rms_norm_rows);
  m.impl("block_mask", op_block_mask);
  m.impl("block_sparse_attention", op_block_sparse_attention);
  m.impl("cross_attention", reference::cross_attention);
  m.impl("projector_input", reference::projector_input);
  m.impl("projector_conv", op_projector_conv);
  m.impl("decoder_input", op_decoder_input);
  m.impl("channel_rms_norm_silu", reference::channel_rms_norm_silu);
  m.impl("conv3x3", op_conv3x3);
  m.impl("philox_noise", op_philox_noise);
  m.impl("mem_conv", op_mem_conv);
  m.impl("time_grow", reference::time_grow);
}

namespace ops {

namespace {
thread_local int g_reference_guards = 0;
}  // namespace

ReferenceGuard::ReferenceGuard() { ++g_reference_guards; }
ReferenceGuard::~ReferenceGuard() { --g_reference_guards; }

bool wants_reference() {
  static const bool wanted = environment_is_set("FLASHVSR_REFERENCE");
  return wanted || g_reference_guards > 0;
}

bool is_strict() {
  static const bool strict = environment_is_set("FLASHVSR_STRICT");
  return strict;
}

// `signature` is the operator's C++ type, looked up once; `x` decides whether a fallback is noted.
#define FLASHVSR_CALL(name, signature, x, ...)                               \
  static const c10::OperatorHandle handle = find_op(#name);                  \
  static const auto call = handle.typed<signature>();                        \
  note_fallback(#name, handle, x);                                           \
  return call.call(__VA_ARGS__)

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1,
                               const at::Tensor& shift, double eps) {
  if (wants_reference()) return reference::layer_norm_modulate(x, scale1, shift, eps);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double);
  FLASHVSR_CALL(layer_norm_modulate, Signature, x, x, scale1, shift, eps);
}

at::Tensor layer_norm_affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             double eps) {
  if (wants_reference()) return reference::layer_norm_affine(x, weight, bias, eps);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double);
  FLASHVSR_CALL(layer_norm_affine, Signature, x, x, weight, bias, eps);
}

at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate) {
  if (wants_reference()) return reference::gated_residual(x, y, gate);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&);
  FLASHVSR_CALL(gated_residual, Signature, x, x, y, gate);
}

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (wants_reference()) return reference::linear_gelu(x, weight, bias);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&);
  FLASHVSR_CALL(linear_gelu, Signature, x, x, weight, bias);
}

WindowedQkv norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight,
                             const at::Tensor& k_weight, double eps, int64_t heads,
                             const TokenGrid& grid, const at::Tensor& cos, const at::Tensor& sin,
                             const KvPlace& place) {
  if (wants_reference()) {
    return reference::norm_rope_window(qkv, q_weight, k_weight, eps, heads, grid, cos, sin, place);
  }
  const auto call = [&]() -> NormRopeWindowResult {
    using Signature = NormRopeWindowResult(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                           double, int64_t, int64_t, int64_t, int64_t,
                                           const at::Tensor&, const at::Tensor&, const Maybe&, const Maybe&);
    FLASHVSR_CALL(norm_rope_window, Signature, qkv, qkv, q_weight, k_weight, eps, heads, grid.f,
                  grid.h, grid.w, cos, sin, maybe(place.key), maybe(place.value));
  };
  auto [q, k, v, q_mean, k_mean] = call();
  return {q, k, v, q_mean, k_mean};
}

WindowedQkv qkv_window(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& q_weight,
                       const at::Tensor& k_weight, double eps, int64_t heads, const TokenGrid& grid, const at::Tensor& cos,
                       const at::Tensor& sin, const KvPlace& place) {
  if (wants_reference()) {
    return reference::qkv_window(x, weight, bias, q_weight, k_weight, eps, heads, grid, cos, sin, place);
  }
  const auto call = [&]() -> NormRopeWindowResult {
    using Signature = NormRopeWindowResult(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                           const at::Tensor&, double, int64_t, int64_t, int64_t, int64_t,
                                           const at::Tensor&, const at::Tensor&, const Maybe&, const Maybe&);
    FLASHVSR_CALL(qkv_window, Signature, x, x, weight, bias, q_weight, k_weight, eps, heads, grid.f, grid.h, grid.w, cos,
                  sin, maybe(place.key), maybe(place.value));
  };
  auto [q, k, v, q_mean, k_mean] = call();
  return {q, k, v, q_mean, k_mean};
}

at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (wants_reference()) return reference::rms_norm_rows(x, weight, eps);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, double);
  FLASHVSR_CALL(rms_norm_rows, Signature, x, x, weight, eps);
}

BlockPairs block_mask(const at::Tensor& q_mean, const at::Tensor& k_mean, int64_t heads,
                      const BlockGrid& grid, int64_t local_range, int64_t topk) {
  if (wants_reference()) return reference::block_mask(q_mean, k_mean, heads, grid, local_range, topk);
  const auto call = [&]() -> PairsResult {
    using Signature = PairsResult(const at::Tensor&, const at::Tensor&, int64_t, int64_t, int64_t,
                                  int64_t, int64_t);
    FLASHVSR_CALL(block_mask, Signature, q_mean, q_mean, k_mean, heads, grid.rows, grid.columns,
                  local_range, topk);
  };
  auto [row_begin, column] = call();
  return {row_begin, column};
}

at::Tensor block_sparse_attention(const at::Tensor& q, const AttentionKv& kv,
                                  const at::Tensor& slot_map, const BlockPairs& pairs,
                                  int64_t heads, const TokenGrid& grid) {
  if (wants_reference()) return reference::block_sparse_attention(q, kv, slot_map, pairs, heads, grid);
  using Signature = at::Tensor(const at::Tensor&, const Maybe&, const Maybe&, const at::Tensor&,
                               const at::Tensor&, const at::Tensor&, const at::Tensor&,
                               const at::Tensor&, int64_t, int64_t, int64_t, int64_t);
  FLASHVSR_CALL(block_sparse_attention, Signature, q, q, maybe(kv.key_ring), maybe(kv.value_ring),
                kv.key_now, kv.value_now, slot_map, pairs.row_begin, pairs.column, heads, grid.f,
                grid.h, grid.w);
}

at::Tensor cross_attention(const at::Tensor& q, const at::Tensor& key, const at::Tensor& value, int64_t heads) {
  if (wants_reference()) return reference::cross_attention(q, key, value, heads);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t);
  FLASHVSR_CALL(cross_attention, Signature, q, q, key, value, heads);
}

at::Tensor projector_input(const at::Tensor& frames, int64_t missing, int64_t unshuffle) {
  if (wants_reference()) return reference::projector_input(frames, missing, unshuffle);
  using Signature = at::Tensor(const at::Tensor&, int64_t, int64_t);
  FLASHVSR_CALL(projector_input, Signature, frames, frames, missing, unshuffle);
}

at::Tensor projector_conv(const at::Tensor& x, const at::Tensor& past, const at::Tensor& weight,
                          const at::Tensor& bias) {
  if (wants_reference()) return reference::projector_conv(x, past, weight, bias);
  using Signature = at::Tensor(const at::Tensor&, const Maybe&, const at::Tensor&, const at::Tensor&);
  FLASHVSR_CALL(projector_conv, Signature, x, x, maybe(past), weight, bias);
}

at::Tensor decoder_input(const at::Tensor& frames, const at::Tensor& latents, int64_t latent_channels,
                         int64_t missing, int64_t unshuffle) {
  if (wants_reference()) return reference::decoder_input(frames, latents, latent_channels, missing, unshuffle);
  using Signature = at::Tensor(const at::Tensor&, const Maybe&, int64_t, int64_t, int64_t);
  FLASHVSR_CALL(decoder_input, Signature, frames, frames, maybe(latents), latent_channels, missing, unshuffle);
}

at::Tensor channel_rms_norm_silu(const at::Tensor& x, const at::Tensor& gamma) {
  if (wants_reference()) return reference::channel_rms_norm_silu(x, gamma);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&);
  FLASHVSR_CALL(channel_rms_norm_silu, Signature, x, x, gamma);
}

at::Tensor conv3x3(const at::Tensor& x, const at::Tensor& past, const at::Tensor& weight,
                   const at::Tensor& bias, const at::Tensor& add, bool relu, int64_t up, bool feeds_memory) {
  if (wants_reference()) return reference::conv3x3(x, past, weight, bias, add, relu, up);
  using Signature = at::Tensor(const at::Tensor&, const Maybe&, const at::Tensor&, const Maybe&,
                               const Maybe&, bool, int64_t, bool);
  FLASHVSR_CALL(conv3x3, Signature, x, x, maybe(past), weight, maybe(bias), maybe(add), relu, up, feeds_memory);
}

at::Tensor conv3x3_onto(at::Tensor add, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool relu,
                        bool feeds_memory) {
  if (wants_reference() || !cpu::takes_conv3x3(x, weight, bias) || !cpu::takes_conv3x3(add, weight, bias)) {
    return conv3x3(x, {}, weight, bias, add, relu, 1, feeds_memory);
  }
  cpu::add_conv3x3(add, x, weight, bias, relu);
  return add;
}

at::Tensor mem_conv(const at::Tensor& x, const at::Tensor& memory, const at::Tensor& weight,
                    const at::Tensor& bias) {
  if (wants_reference()) return reference::mem_conv(x, memory, weight, bias);
  using Signature = at::Tensor(const at::Tensor&, const Maybe&, const at::Tensor&, const at::Tensor&);
  FLASHVSR_CALL(mem_conv, Signature, x, x, maybe(memory), weight, bias);
}

std::tuple<at::Tensor, at::Tensor> quantize_rows(const at::Tensor& x, bool gelu) {
  if (wants_reference()) return reference::quantize_rows(x, gelu);
  using Signature = ResidualNormResult(const at::Tensor&, bool);
  FLASHVSR_CALL(quantize_rows, Signature, x, x, gelu);
}

at::Tensor scaled_linear(const at::Tensor& x, const at::Tensor& x_scale, const at::Tensor& weight,
                         const at::Tensor& weight_scale, const at::Tensor& bias) {
  if (wants_reference()) return reference::scaled_linear(x, x_scale, weight, weight_scale, bias);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                               const at::Tensor&, const at::Tensor&);
  FLASHVSR_CALL(scaled_linear, Signature, x, x, x_scale, weight, weight_scale, bias);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> residual_norm8(
    const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate, const at::Tensor& scale,
    const at::Tensor& shift, double eps, bool affine) {
  if (wants_reference()) return reference::residual_norm8(x, y, gate, scale, shift, eps, affine);
  using Signature = ResidualNorm8Result(const at::Tensor&, const Maybe&, const Maybe&,
                                        const at::Tensor&, const at::Tensor&, double, bool);
  FLASHVSR_CALL(residual_norm8, Signature, x, x, maybe(y), maybe(gate), scale, shift, eps, affine);
}

std::tuple<at::Tensor, at::Tensor> residual_norm(const at::Tensor& x, const at::Tensor& y,
                                                 const at::Tensor& gate, const at::Tensor& scale,
                                                 const at::Tensor& shift, double eps, bool affine) {
  if (wants_reference()) return reference::residual_norm(x, y, gate, scale, shift, eps, affine);
  using Signature = ResidualNormResult(const at::Tensor&, const at::Tensor&, const Maybe&,
                                       const at::Tensor&, const at::Tensor&, double, bool);
  FLASHVSR_CALL(residual_norm, Signature, x, x, y, maybe(gate), scale, shift, eps, affine);
}

std::tuple<at::Tensor, at::Tensor> linear_residual_norm(const at::Tensor& a, const at::Tensor& weight, const at::Tensor& bias,
                                                        const at::Tensor& x, const at::Tensor& gate, const at::Tensor& scale,
                                                        const at::Tensor& shift, double eps, bool affine) {
  if (wants_reference()) return reference::linear_residual_norm(a, weight, bias, x, gate, scale, shift, eps, affine);
  using Signature = ResidualNormResult(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                       const Maybe&, const at::Tensor&, const at::Tensor&, double, bool);
  FLASHVSR_CALL(linear_residual_norm, Signature, x, a, weight, bias, x, maybe(gate), scale, shift, eps, affine);
}

at::Tensor time_grow(const at::Tensor& x, const at::Tensor& weight, int64_t grow) {
  if (wants_reference()) return reference::time_grow(x, weight, grow);
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t);
  FLASHVSR_CALL(time_grow, Signature, x, x, weight, grow);
}

void philox_noise(at::Tensor& out, uint64_t seed, int64_t first_frame) {
  if (wants_reference()) return reference::philox_noise(out, seed, first_frame);
  using Signature = void(at::Tensor&, int64_t, int64_t);
  FLASHVSR_CALL(philox_noise, Signature, out, out, static_cast<int64_t>(seed), first_frame);
}

#undef FLASHVSR_CALL

}  // namespace ops
}  // namespace flashvsr
