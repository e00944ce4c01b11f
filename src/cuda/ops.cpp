// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Registers the CUDA kernels for the operations of model/ops.h (projector and decoder: ops_convolutions.cpp; pictures:
// ops_pictures.cpp): takes tensors apart into the kernels' parameter structs, on the current stream, without waiting for
// the device. What a kernel does not take (another dtype, a shape beyond its limits) goes to the reference and is said
// once; FLASHVSR_STRICT=1 makes it an error.
#include "model/ops.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "cuda/glue.cuh"
#include "cuda/operands.h"
#include "kernels/block_mask.h"
#include "kernels/block_sparse_attention.h"
#include "kernels/layer_norm_modulate.h"
#include "kernels/linear.h"
#include "kernels/norm_rope_window.h"
#include "kernels/philox_noise.h"
#include "kernels/quantize_rows.h"

namespace flashvsr {
namespace {

// What cross_attention derives from its keys.
constexpr int64_t kPromptPlaces = 0;

bool rows_fit(const at::Tensor& x) {
  return is_plain_bf16(x) && x.dim() == 2 && x.is_contiguous() && x.size(0) > 0 && x.size(1) % 8 == 0 &&
         x.size(1) <= 3072;
}

at::Tensor row_norm(const at::Tensor& x, const at::Tensor& scale1, const at::Tensor* shift, double eps, RowNorm norm) {
  const CUDAGuard guard(x.device());
  at::Tensor out = at::empty_like(x);
  LayerNormModulateParams p;
  p.x = bits(x);
  p.scale1 = bits(scale1);
  p.shift = shift ? bits(*shift) : nullptr;
  p.out = mutable_bits(out);
  p.rows = x.size(0);
  p.dim = static_cast<int32_t>(x.size(1));
  p.eps = static_cast<float>(eps);
  p.norm = norm;
  check(launch_layer_norm_modulate(p, stream()), "layer_norm_modulate");
  return out;
}

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1, const at::Tensor& shift, double eps) {
  if (!rows_fit(x)) {
    note_reference("layer_norm_modulate", x);
    return reference::layer_norm_modulate(x, scale1, shift, eps);
  }
  return row_norm(x, scale1, &shift, eps, RowNorm::kModulate);
}

at::Tensor layer_norm_affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  if (!rows_fit(x)) {
    note_reference("layer_norm_affine", x);
    return reference::layer_norm_affine(x, weight, bias, eps);
  }
  return row_norm(x, weight, &bias, eps, RowNorm::kAffine);
}

at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!rows_fit(x)) {
    note_reference("rms_norm_rows", x);
    return reference::rms_norm_rows(x, weight, eps);
  }
  return row_norm(x, weight, nullptr, eps, RowNorm::kRms);
}

at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate) {
  if (!rows_fit(x) || !is_plain_bf16(y) || !y.is_contiguous()) {
    note_reference("gated_residual", x);
    return reference::gated_residual(x, y, gate);
  }
  const CUDAGuard guard(x.device());
  at::Tensor sum = at::empty_like(x);
  LayerNormModulateParams p;
  p.x = bits(x);
  p.y = bits(y);
  p.gate = bits(gate);
  p.sum = mutable_bits(sum);
  p.rows = x.size(0);
  p.dim = static_cast<int32_t>(x.size(1));
  p.norm = RowNorm::kNone;
  check(launch_layer_norm_modulate(p, stream()), "gated_residual");
  return sum;
}

std::tuple<at::Tensor, at::Tensor> residual_norm(const at::Tensor& x, const at::Tensor& y, const Maybe& gate,
                                                 const at::Tensor& scale, const at::Tensor& shift, double eps,
                                                 bool affine) {
  if (!rows_fit(x) || !is_plain_bf16(y) || !y.is_contiguous()) {
    note_reference("residual_norm", x);
    return reference::residual_norm(x, y, gate.value_or(at::Tensor()), scale, shift, eps, affine);
  }
  const CUDAGuard guard(x.device());
  at::Tensor sum = at::empty_like(x), out = at::empty_like(x);
  LayerNormModulateParams p;
  p.x = bits(x);
  p.y = bits(y);
  p.gate = bits(gate);
  p.scale1 = bits(scale);
  p.shift = bits(shift);
  p.sum = mutable_bits(sum);
  p.out = mutable_bits(out);
  p.rows = x.size(0);
  p.dim = static_cast<int32_t>(x.size(1));
  p.eps = static_cast<float>(eps);
  p.norm = affine ? RowNorm::kAffine : RowNorm::kModulate;
  check(launch_layer_norm_modulate(p, stream()), "residual_norm");
  return {sum, out};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> residual_norm8(const at::Tensor& x, const Maybe& y, const Maybe& gate,
                                                             const at::Tensor& scale, const at::Tensor& shift,
                                                             double eps, bool affine) {
  if (!rows_fit(x) || (y && !(is_plain_bf16(*y) && y->is_contiguous()))) {
    note_reference("residual_norm8", x);
    const at::Tensor none;
    return reference::residual_norm8(x, y.value_or(none), gate.value_or(none), scale, shift, eps, affine);
  }
  const CUDAGuard guard(x.device());
  const at::Tensor sum = y ? at::empty_like(x) : x;
  const at::Tensor values = at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn));
  const at::Tensor row_scale = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  LayerNormModulateParams p;
  p.x = bits(x);
  p.y = bits(y);
  p.gate = bits(gate);
  p.scale1 = bits(scale);
  p.shift = bits(shift);
  p.sum = y ? mutable_bits(sum) : nullptr;
  p.out8 = static_cast<uint8_t*>(values.data_ptr());
  p.scale = row_scale.data_ptr<float>();
  p.rows = x.size(0);
  p.dim = static_cast<int32_t>(x.size(1));
  p.eps = static_cast<float>(eps);
  p.norm = affine ? RowNorm::kAffine : RowNorm::kModulate;
  check(launch_layer_norm_modulate(p, stream()), "residual_norm8");
  return {sum, values, row_scale};
}

std::tuple<at::Tensor, at::Tensor> quantize_rows(const at::Tensor& x, bool gelu) {
  if (!is_plain_bf16(x) || x.dim() != 2 || !x.is_contiguous() || x.size(1) % 8 || x.size(1) > 16384) {
    note_reference("quantize_rows", x);
    return reference::quantize_rows(x, gelu);
  }
  const CUDAGuard guard(x.device());
  const at::Tensor values = at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn));
  const at::Tensor scale = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  QuantizeRowsParams p;
  p.x = bits(x);
  p.output = static_cast<uint8_t*>(values.data_ptr());
  p.scale = scale.data_ptr<float>();
  p.rows = x.size(0);
  p.dim = static_cast<int32_t>(x.size(1));
  p.gelu = gelu;
  check(launch_quantize_rows(p, stream()), "quantize_rows");
  return {values, scale};
}

at::Tensor scaled_linear(const at::Tensor& x, const at::Tensor& x_scale, const at::Tensor& weight,
                         const at::Tensor& weight_scale, const at::Tensor& bias) {
  return at::_scaled_mm(x, weight.t(), x_scale.unsqueeze(1), weight_scale.unsqueeze(0), bias, std::nullopt,
                        at::kBFloat16, /*use_fast_accum=*/true);
}

// Below this share of useful work cuBLASLt is quicker: 8448 x 1536 has 1.0, 1920 x 8960 .80 (and takes a tenth longer).
constexpr double kLinearShare = 0.88;

// Whether kernels/linear takes these rows here; what it does not take is cuBLASLt's, which is no fallback to the reference.
bool linear_fits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return x.dim() == 2 && x.is_contiguous() && weight.is_contiguous() && weight.scalar_type() == at::kBFloat16 &&
         bias.scalar_type() == at::kBFloat16 && !(at::GradMode::is_enabled() && weight.requires_grad()) && x.size(0) > 0 &&
         x.size(1) > 0 && x.size(1) % 64 == 0 && weight.size(0) % 8 == 0 &&
         linear_share(x.size(0), static_cast<int32_t>(weight.size(0))) >= kLinearShare;
}

LinearParams linear_params(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  LinearParams p;
  p.x = bits(x);
  p.weight = bits(weight);
  p.bias = bits(bias);
  p.rows = x.size(0);
  p.in = static_cast<int32_t>(x.size(1));
  p.out = static_cast<int32_t>(weight.size(0));
  return p;
}

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!is_plain_bf16(x) || x.dim() != 2) {
    note_reference("linear_gelu", x);
    return reference::linear_gelu(x, weight, bias);
  }
  const CUDAGuard guard(x.device());
  if (linear_fits(x, weight, bias)) {
    const at::Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
    LinearParams p = linear_params(x, weight, bias);
    p.output = mutable_bits(out);
    p.gelu = true;
    check(launch_linear(p, stream()), "linear_gelu");
    return out;
  }
  // cuBLASLt with its GELU epilogue, which is the tanh form.
  return at::_addmm_activation(bias, x, weight.t(), 1, 1, /*use_gelu=*/true);
}

std::tuple<at::Tensor, at::Tensor> linear_residual_norm(const at::Tensor& a, const at::Tensor& weight, const at::Tensor& bias,
                                                        const at::Tensor& x, const Maybe& gate, const at::Tensor& scale,
                                                        const at::Tensor& shift, double eps, bool affine) {
  const CUDAGuard guard(x.device());
  if (!rows_fit(x) || !is_plain_bf16(a) || !linear_fits(a, weight, bias)) {
    return residual_norm(x, at::linear(a, weight, bias), gate, scale, shift, eps, affine);
  }
  const at::Tensor sum = at::empty_like(x);
  LinearParams p = linear_params(a, weight, bias);
  p.residual = bits(x);
  p.gate = bits(gate);
  p.output = mutable_bits(sum);
  check(launch_linear(p, stream()), "linear_residual_norm");
  return {sum, row_norm(sum, scale, &shift, eps, affine ? RowNorm::kAffine : RowNorm::kModulate)};
}

using Windowed = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

bool rope_fits(const at::Tensor& x, int64_t dim, int64_t heads, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t head_dim = dim / heads;
  return is_plain_bf16(x) && x.is_contiguous() && (head_dim == 64 || head_dim == 128) && dim <= 1536 &&
         cos.scalar_type() == at::kDouble && cos.is_contiguous() && sin.is_contiguous();
}

// qkv [S, 3D], or [S, 2D] when `value` is there already.
Windowed rope_window(const at::Tensor& qkv, const Maybe& value, const at::Tensor& q_weight, const at::Tensor& k_weight, double eps,
                     int64_t heads, const TokenGrid& grid, const at::Tensor& cos, const at::Tensor& sin, const Maybe& key_place,
                     const Maybe& value_place) {
  const int64_t dim = q_weight.size(0), windows = grid.tokens() / kAttentionBlock;
  const at::Tensor q = at::empty({windows, kAttentionBlock, dim}, qkv.options());
  const at::Tensor k = key_place ? *key_place : at::empty_like(q);
  const at::Tensor v = value ? *value : value_place ? *value_place : at::empty_like(q);
  const at::Tensor q_mean = at::empty({windows, dim}, qkv.options()), k_mean = at::empty_like(q_mean);
  NormRopeWindowParams p;
  p.frames = static_cast<int32_t>(grid.f);
  p.height = static_cast<int32_t>(grid.h);
  p.width = static_cast<int32_t>(grid.w);
  p.dim = static_cast<int32_t>(dim);
  p.head_dim = static_cast<int32_t>(dim / heads);
  p.eps = static_cast<float>(eps);
  const at::Tensor workspace = at::empty({static_cast<int64_t>(norm_rope_window_workspace_bytes(p))},
                                         qkv.options().dtype(at::kByte));
  p.qkv = bits(qkv);
  p.q_weight = bits(q_weight);
  p.k_weight = bits(k_weight);
  p.cosine = cos.data_ptr<double>();
  p.sine = sin.data_ptr<double>();
  p.q = mutable_bits(q);
  p.k = mutable_bits(k);
  p.v = value ? nullptr : mutable_bits(v);
  p.q_mean = mutable_bits(q_mean);
  p.k_mean = mutable_bits(k_mean);
  p.workspace = workspace.data_ptr();
  check(launch_norm_rope_window(p, stream()), "norm_rope_window");
  return {q, k, v, q_mean, k_mean};
}

Windowed norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight, const at::Tensor& k_weight, double eps, int64_t heads,
                          int64_t f, int64_t h, int64_t w, const at::Tensor& cos, const at::Tensor& sin, const Maybe& key_place,
                          const Maybe& value_place) {
  if (!rope_fits(qkv, q_weight.size(0), heads, cos, sin)) {
    note_reference("norm_rope_window", qkv);
    const at::Tensor none;
    WindowedQkv r = reference::norm_rope_window(qkv, q_weight, k_weight, eps, heads, {f, h, w}, cos, sin,
                                                {key_place.value_or(none), value_place.value_or(none)});
    return {r.q, r.k, r.v, r.q_mean, r.k_mean};
  }
  const CUDAGuard guard(qkv.device());
  return rope_window(qkv, {}, q_weight, k_weight, eps, heads, {f, h, w}, cos, sin, key_place, value_place);
}

// Values go from the product to their places at once; queries and keys by way of their norms.
Windowed qkv_window(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& q_weight,
                    const at::Tensor& k_weight, double eps, int64_t heads, int64_t f, int64_t h, int64_t w, const at::Tensor& cos,
                    const at::Tensor& sin, const Maybe& key_place, const Maybe& value_place) {
  const int64_t dim = q_weight.size(0);
  const CUDAGuard guard(x.device());
  if (!rope_fits(x, dim, heads, cos, sin) || !linear_fits(x, weight, bias)) {
    return norm_rope_window(at::linear(x, weight, bias), q_weight, k_weight, eps, heads, f, h, w, cos, sin, key_place, value_place);
  }
  const at::Tensor qk = at::empty({x.size(0), 2 * dim}, x.options());
  const at::Tensor v = value_place ? *value_place : at::empty({x.size(0) / kAttentionBlock, kAttentionBlock, dim}, x.options());
  LinearParams p = linear_params(x, weight, bias);
  p.output = mutable_bits(qk);
  p.windowed = mutable_bits(v);
  p.split = static_cast<int32_t>(2 * dim);
  p.frames = static_cast<int32_t>(f);
  p.height = static_cast<int32_t>(h);
  p.width = static_cast<int32_t>(w);
  check(launch_linear(p, stream()), "qkv_window");
  return rope_window(qk, v, q_weight, k_weight, eps, heads, {f, h, w}, cos, sin, key_place, {});
}

std::tuple<at::Tensor, at::Tensor> block_mask(const at::Tensor& q_mean, const at::Tensor& k_mean, int64_t heads,
                                              int64_t rows, int64_t columns, int64_t local_range, int64_t topk) {
  const int64_t windows = rows * columns, q_blocks = q_mean.size(0), k_blocks = k_mean.size(0);
  const int64_t head_dim = q_mean.size(1) / heads, pairs = heads * q_blocks * k_blocks;
  const bool fits = is_plain_bf16(q_mean) && q_mean.is_contiguous() && k_mean.is_contiguous() && head_dim <= 128 &&
                    head_dim % 8 == 0 && k_blocks / windows <= kBlockMaskSlots && k_blocks <= 6144 && pairs < (int64_t{1} << 31) &&
                    topk >= 0;
  if (!fits) {
    note_reference("block_mask", q_mean);
    BlockPairs r = reference::block_mask(q_mean, k_mean, heads, {rows, columns}, local_range, topk);
    return {r.row_begin, r.column};
  }
  const CUDAGuard guard(q_mean.device());
  const auto options = q_mean.options().dtype(at::kInt);
  const at::Tensor row_begin = at::empty({heads, q_blocks + 1}, options), column = at::empty({pairs}, options);
  BlockMaskParams p;
  p.q_mean = bits(q_mean);
  p.heads = static_cast<int32_t>(heads);
  p.head_dim = static_cast<int32_t>(head_dim);
  p.rows = static_cast<int32_t>(rows);
  p.columns = static_cast<int32_t>(columns);
  p.q_slots = static_cast<int32_t>(q_blocks / windows);
  p.k_slots = static_cast<int32_t>(k_blocks / windows);
  p.local_range = static_cast<int32_t>(local_range);
  p.topk = topk;
  for (int32_t i = 0; i < p.k_slots; ++i) p.k_mean[i] = bits(k_mean) + i * windows * k_mean.size(1);
  const at::Tensor workspace = at::empty({static_cast<int64_t>(block_mask_workspace_bytes(p))},
                                         options.dtype(at::kByte));
  p.row_begin = row_begin.data_ptr<int32_t>();
  p.column = column.data_ptr<int32_t>();
  p.workspace = workspace.data_ptr();
  check(launch_block_mask(p, stream()), "block_mask");
  return {row_begin, column};
}

// What both attentions have in common; keys, values, rows and the output's order are the caller's. q: blocks of 128 rows of D.
at::Tensor attend(BlockSparseAttentionParams p, const at::Tensor& q, at::IntArrayRef result, int64_t heads, const char* name) {
  const int64_t dim = q.size(-1), head_dim = dim / heads;
  const at::Tensor out = at::empty(result, q.options());
  p.query = bits(q);
  p.output = mutable_bits(out);
  p.heads = static_cast<int32_t>(heads);
  p.head_dim = static_cast<int32_t>(head_dim);
  p.q_blocks = static_cast<int32_t>(q.numel() / dim / kAttentionBlock);
  p.softmax_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const at::Tensor workspace =
      at::empty({static_cast<int64_t>(block_sparse_attention_workspace_bytes(p.heads, p.q_blocks))},
                q.options().dtype(at::kByte));
  p.workspace = workspace.data_ptr();
  check(launch_block_sparse_attention(p, stream()), name);
  return out;
}

at::Tensor block_sparse_attention(const at::Tensor& q, const Maybe& key_ring, const Maybe& value_ring,
                                  const at::Tensor& key_now, const at::Tensor& value_now, const at::Tensor& slot_map,
                                  const at::Tensor& row_begin, const at::Tensor& column, int64_t heads, int64_t f,
                                  int64_t h, int64_t w) {
  const int64_t dim = q.size(2), head_dim = dim / heads, windows = (h / 8) * (w / 8);
  const auto dense = [](const Maybe& x) { return !x || x->is_contiguous(); };
  if (!is_plain_bf16(q) || !q.is_contiguous() || !key_now.is_contiguous() || !value_now.is_contiguous() ||
      !dense(key_ring) || !dense(value_ring) || (head_dim != 64 && head_dim != 128)) {
    note_reference("block_sparse_attention", q);
    const at::Tensor none;
    return reference::block_sparse_attention(
        q, {key_ring.value_or(none), value_ring.value_or(none), key_now, value_now}, slot_map, {row_begin, column},
        heads, {f, h, w});
  }
  const CUDAGuard guard(q.device());
  BlockSparseAttentionParams p;
  p.key_ring = bits(key_ring);
  p.value_ring = bits(value_ring);
  p.key_current = bits(key_now);
  p.value_current = bits(value_now);
  p.slot_map = slot_map.data_ptr<int32_t>();
  p.row_begin = row_begin.data_ptr<int32_t>();
  p.column = column.data_ptr<int32_t>();
  p.windows = static_cast<int32_t>(windows);
  p.ring_slots = key_ring ? static_cast<int32_t>(key_ring->size(0)) : 0;
  p.current_slots = static_cast<int32_t>(key_now.size(0) / windows);
  p.slots = static_cast<int32_t>(slot_map.size(0));
  p.raster_output = true;
  p.frames = static_cast<int32_t>(f);
  p.height = static_cast<int32_t>(h);
  p.width = static_cast<int32_t>(w);
  return attend(p, q, {f * h * w, dim}, heads, "block_sparse_attention");
}

// Whole blocks of queries and of prompt go through the block-sparse kernel, each row listing all of the prompt. Others
// are LibTorch's SDPA's, which is no fallback in bf16.
at::Tensor cross_attention(const at::Tensor& q, const at::Tensor& key, const at::Tensor& value, int64_t heads) {
  const int64_t tokens = q.size(0), prompt = key.size(0), head_dim = q.size(1) / heads;
  if (!is_plain_bf16(q) || !q.is_contiguous() || !key.is_contiguous() || !value.is_contiguous() ||
      tokens % kAttentionBlock != 0 || prompt % kAttentionBlock != 0 || (head_dim != 64 && head_dim != 128)) {
    if (!is_plain_bf16(q)) note_reference("cross_attention", q);
    return reference::cross_attention(q, key, value, heads);
  }
  const CUDAGuard guard(q.device());
  const int64_t blocks = prompt / kAttentionBlock;
  // The one slot lies in `key`; its blocks in order.
  const at::Tensor places = derived_weights().get(key, kPromptPlaces, [&] {
    std::vector<int32_t> values{-1};
    for (int64_t i = 0; i < blocks; ++i) values.push_back(static_cast<int32_t>(i));
    return at::tensor(values, at::kInt).to(key.device());
  });
  BlockSparseAttentionParams p;
  p.key_current = bits(key);
  p.value_current = bits(value);
  p.slot_map = places.data_ptr<int32_t>();
  p.column = places.data_ptr<int32_t>() + 1;
  p.shared_columns = static_cast<int32_t>(blocks);
  p.windows = static_cast<int32_t>(blocks);
  p.current_slots = 1;
  p.slots = 1;
  return attend(p, q, q.sizes(), heads, "cross_attention");
}

at::Tensor channel_rms_norm_silu(const at::Tensor& x, const at::Tensor& gamma) {
  const int64_t channels = x.size(1);
  if (!is_plain_bf16(x) || x.size(0) != 1 || channels % 8 || channels > 3072) {
    note_reference("channel_rms_norm_silu", x);
    return reference::channel_rms_norm_silu(x, gamma);
  }
  const at::Tensor rows = x.select(0, 0).permute({1, 2, 3, 0}).contiguous();  // already so after projector_conv
  const at::Tensor flat = row_norm(rows.view({-1, channels}), gamma.view({channels}), nullptr, 0, RowNorm::kChannelRms);
  return flat.view(rows.sizes()).permute({3, 0, 1, 2}).unsqueeze(0);
}

void philox_noise(at::Tensor& out, int64_t seed, int64_t first_frame) {
  FLASHVSR_CHECK(out.scalar_type() == at::kFloat && out.is_contiguous() && out.dim() == 4, ErrorCode::kInternal,
                 "philox_noise: output is ", out.sizes(), ", expected dense fp32 [C, f, H, W]");
  const CUDAGuard guard(out.device());
  PhiloxNoiseParams p;
  p.output = out.data_ptr<float>();
  p.seed = static_cast<uint64_t>(seed);
  p.first_frame = first_frame;
  p.channels = static_cast<int32_t>(out.size(0));
  p.frames = static_cast<int32_t>(out.size(1));
  p.height = static_cast<int32_t>(out.size(2));
  p.width = static_cast<int32_t>(out.size(3));
  check(launch_philox_noise(p, stream()), "philox_noise");
}

}  // namespace

TORCH_LIBRARY_IMPL(flashvsr, FLASHVSR_KERNEL_DEVICE, m) {
  m.impl("layer_norm_modulate", layer_norm_modulate);
  m.impl("layer_norm_affine", layer_norm_affine);
  m.impl("gated_residual", gated_residual);
  m.impl("residual_norm", residual_norm);
  m.impl("linear_residual_norm", linear_residual_norm);
  m.impl("residual_norm8", residual_norm8);
  m.impl("quantize_rows", quantize_rows);
  m.impl("scaled_linear", scaled_linear);
  m.impl("linear_gelu", linear_gelu);
  m.impl("norm_rope_window", norm_rope_window);
  m.impl("qkv_window", qkv_window);
  m.impl("rms_norm_rows", rms_norm_rows);
  m.impl("block_mask", block_mask);
  m.impl("block_sparse_attention", block_sparse_attention);
  m.impl("cross_attention", cross_attention);
  m.impl("channel_rms_norm_silu", channel_rms_norm_silu);
  m.impl("philox_noise", philox_noise);
}

}  // namespace flashvsr
