// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Registers the CUDA kernels for the operations of model/ops.h (those on pictures: ops_pictures.cpp): takes tensors
// apart into the kernels' parameter structs, on the current stream, without waiting for the device. What a kernel does
// not take (another dtype, a shape beyond its limits) goes to the reference and is said once; FLASHVSR_STRICT=1 makes it
// an error.
#include "model/ops.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "base/error.h"
#include "base/log.h"
#include "cuda/glue.cuh"
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

namespace flashvsr {
namespace {

// The kernels compute in bf16 and have no gradients.
bool is_plain_bf16(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 && !(at::GradMode::is_enabled() && x.requires_grad());
}

void note_reference(const char* name, const at::Tensor& x) {
  // fp32 has no kernels by design: the reference is the implementation there.
  FLASHVSR_CHECK(!ops::is_strict() || x.scalar_type() != at::kBFloat16, ErrorCode::kInternal, name, ": no kernel takes ",
                 x.sizes(), ", and FLASHVSR_STRICT is set");
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard<std::mutex> lock(mutex);
  if (said.insert(name).second) log(LogLevel::kInfo, name, ": no kernel takes ", x.sizes(), ", running the reference");
}

// --- constants made from weights, kept as long as the weight lives ----------------------------------------------

class DerivedWeights {
 public:
  template <typename Make>
  at::Tensor get(const at::Tensor& weight, int64_t variant, const Make& make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Key key{weight.unsafeGetTensorImpl(), variant};
    const auto found = entries_.find(key);
    if (found != entries_.end()) {
      if (!found->second.source.expired() && found->second.data == weight.data_ptr()) return found->second.derived;
      entries_.erase(found);
    }
    for (auto it = entries_.begin(); it != entries_.end();) {
      it = it->second.source.expired() ? entries_.erase(it) : std::next(it);
    }
    at::Tensor derived = make();
    entries_.emplace(key, Entry{c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>(weight.getIntrusivePtr()),
                                weight.data_ptr(), derived});
    return derived;
  }

 private:
  using Key = std::pair<const void*, int64_t>;
  struct Entry {
    c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> source;
    const void* data;
    at::Tensor derived;
  };
  std::mutex mutex_;
  std::map<Key, Entry> entries_;
};

// Variants below this one are packed_weight's.
constexpr int64_t kPromptPlaces = 8;

DerivedWeights& derived_weights() {
  static DerivedWeights* weights = new DerivedWeights;  // outlives every tensor
  return *weights;
}

at::Tensor float_bias(const at::Tensor& bias) {
  return derived_weights().get(bias, 0, [&] { return bias.to(at::kFloat).contiguous(); });
}

// weight [O, C*past, dt, 3, 3] or [O, C, k, k]; two_steps: input channels are [now, past].
// On the device of `x`; the weight may be on the host.
at::Tensor packed_weight(const at::Tensor& weight, bool two_steps, bool folded, const at::Tensor& x) {
  return derived_weights().get(weight, 1 + (two_steps ? 2 : 0) + (folded ? 4 : 0), [&] {
    PackConvWeightsParams p;
    const bool is_3d = weight.dim() == 5;
    at::Tensor source = weight.to(x.device());
    const int64_t kernel = weight.size(-1);
    // dy and dx must share a stride.
    if (source.stride(-2) != kernel * source.stride(-1)) source = source.contiguous();
    p.out_channels = static_cast<int32_t>(source.size(0));
    p.in_channels = static_cast<int32_t>(source.size(1) / (two_steps ? 2 : 1));
    p.kernel_t = is_3d ? static_cast<int32_t>(source.size(2)) : two_steps ? 2 : 1;
    p.kernel_xy = static_cast<int32_t>(kernel);
    p.folded = folded;
    p.stride_o = source.stride(0);
    p.stride_c = source.stride(1);
    p.stride_xy = source.stride(-1);
    p.stride_t = is_3d ? source.stride(2) : 0;
    p.source = bits(source);
    if (two_steps) {
      p.source += p.in_channels * p.stride_c;
      p.stride_t = -p.in_channels * p.stride_c;
    }
    at::Tensor packed = at::empty({conv_weight_elements(p)}, source.options());
    p.packed = mutable_bits(packed);
    check(launch_pack_conv_weights(p, stream()), "pack_conv_weights");
    return packed;
  });
}

// --- transformer ------------------------------------------------------------------------------------------------

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
  const at::Tensor out = at::empty({f * h * w, dim}, q.options());
  BlockSparseAttentionParams p;
  p.query = bits(q);
  p.key_ring = bits(key_ring);
  p.value_ring = bits(value_ring);
  p.key_current = bits(key_now);
  p.value_current = bits(value_now);
  p.slot_map = slot_map.data_ptr<int32_t>();
  p.row_begin = row_begin.data_ptr<int32_t>();
  p.column = column.data_ptr<int32_t>();
  p.output = mutable_bits(out);
  p.heads = static_cast<int32_t>(heads);
  p.head_dim = static_cast<int32_t>(head_dim);
  p.q_blocks = static_cast<int32_t>(q.size(0));
  p.windows = static_cast<int32_t>(windows);
  p.ring_slots = key_ring ? static_cast<int32_t>(key_ring->size(0)) : 0;
  p.current_slots = static_cast<int32_t>(key_now.size(0) / windows);
  p.slots = static_cast<int32_t>(slot_map.size(0));
  p.softmax_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  p.raster_output = true;
  p.frames = static_cast<int32_t>(f);
  p.height = static_cast<int32_t>(h);
  p.width = static_cast<int32_t>(w);
  const at::Tensor workspace =
      at::empty({static_cast<int64_t>(block_sparse_attention_workspace_bytes(p.heads, p.q_blocks))},
                q.options().dtype(at::kByte));
  p.workspace = workspace.data_ptr();
  check(launch_block_sparse_attention(p, stream()), "block_sparse_attention");
  return out;
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
  const at::Tensor out = at::empty_like(q);
  BlockSparseAttentionParams p;
  p.query = bits(q);
  p.key_current = bits(key);
  p.value_current = bits(value);
  p.slot_map = places.data_ptr<int32_t>();
  p.column = places.data_ptr<int32_t>() + 1;
  p.shared_columns = static_cast<int32_t>(blocks);
  p.output = mutable_bits(out);
  p.heads = static_cast<int32_t>(heads);
  p.head_dim = static_cast<int32_t>(head_dim);
  p.q_blocks = static_cast<int32_t>(tokens / kAttentionBlock);
  p.windows = static_cast<int32_t>(blocks);
  p.current_slots = 1;
  p.slots = 1;
  p.softmax_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const at::Tensor workspace =
      at::empty({static_cast<int64_t>(block_sparse_attention_workspace_bytes(p.heads, p.q_blocks))},
                q.options().dtype(at::kByte));
  p.workspace = workspace.data_ptr();
  check(launch_block_sparse_attention(p, stream()), "cross_attention");
  return out;
}

// Storages that have free room at known places, as long as they live.
class NotedStorages {
 public:
  void note(const at::Tensor& x) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = storages_.begin(); it != storages_.end();) {
      it = it->second.expired() ? storages_.erase(it) : std::next(it);
    }
    c10::StorageImpl* const storage = x.storage().unsafeGetStorageImpl();
    storages_.insert_or_assign(storage, Weak(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(storage)));
  }
  bool has(const at::Tensor& x) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = storages_.find(x.storage().unsafeGetStorageImpl());
    return found != storages_.end() && !found->second.expired();
  }

 private:
  using Weak = c10::weak_intrusive_ptr<c10::StorageImpl>;
  std::mutex mutex_;
  std::map<const c10::StorageImpl*, Weak> storages_;
};

// --- projector --------------------------------------------------------------------------------------------------

// Steps with their borders and two free steps in front, for the past, lie in storages noted here.
NotedStorages& bordered_storages() {
  static NotedStorages* storages = new NotedStorages;
  return *storages;
}

// x [1, C, T, h, w] lies inside such a storage, at its first steps: all of it with the two in front, [T + 2, h + 2, w + 2,
// C]; else undefined.
at::Tensor with_border(const at::Tensor& x) {
  const int64_t channels = x.size(1), line = (x.size(4) + 2) * channels, step = (x.size(3) + 2) * line;
  if (!bordered_storages().has(x) || x.stride(1) != 1 || x.stride(4) != channels || x.stride(3) != line ||
      x.stride(2) != step || x.storage_offset() != 2 * step + line + channels ||
      static_cast<int64_t>(x.storage().nbytes()) < (x.size(2) + 2) * step * 2) {
    return {};
  }
  return x.as_strided({x.size(2) + 2, x.size(3) + 2, x.size(4) + 2, channels}, {step, line, channels, 1}, 0);
}

bool is_aligned(const at::Tensor& x) { return reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0; }

// x [1, C, T, h, w] with a border of its outermost pixels to `padded` [T, h + 2, w + 2, C].
void pad_steps(const at::Tensor& x, const at::Tensor& padded) {
  at::Tensor inside = x.select(0, 0).permute({1, 2, 3, 0});
  const auto fits = [](int64_t stride) { return stride % 8 == 0; };
  if (inside.stride(3) != 1 || !fits(inside.stride(0)) || !fits(inside.stride(1)) || !fits(inside.stride(2)) ||
      !is_aligned(inside)) {
    inside = inside.clone(at::MemoryFormat::Contiguous);
  }
  PadStepsParams p;
  p.input = bits(inside);
  p.output = mutable_bits(padded);
  p.in_stride_t = inside.stride(0);
  p.in_stride_y = inside.stride(1);
  p.in_stride_x = inside.stride(2);
  p.steps = static_cast<int32_t>(inside.size(0));
  p.height = static_cast<int32_t>(inside.size(1));
  p.width = static_cast<int32_t>(inside.size(2));
  p.channels = static_cast<int32_t>(inside.size(3));
  check(launch_pad_steps(p, stream()), "pad_steps");
}

// What projector and decoder have in common; output, latents and what is wanted of them are the caller's.
PackFramesParams frames_to_pack(const at::Tensor& frames, int64_t missing, int64_t unshuffle) {
  PackFramesParams p;
  p.frames = bits(frames);
  p.plane_stride = frames.stride(1);
  p.frame_stride = frames.size(2) == 1 ? 0 : frames.stride(2);
  p.row_stride = frames.stride(3);
  p.height = static_cast<int32_t>(frames.size(3) / unshuffle);
  p.width = static_cast<int32_t>(frames.size(4) / unshuffle);
  p.unshuffle = static_cast<int32_t>(unshuffle);
  p.missing = static_cast<int32_t>(missing);
  return p;
}

bool can_pack(const at::Tensor& frames, int64_t unshuffle, int64_t channels) {
  return is_plain_bf16(frames) && frames.size(0) == 1 && frames.size(1) == 3 && (unshuffle == 8 || unshuffle == 16) &&
         channels % 8 == 0 && channels <= 1528;
}

// Planes and frames may lie anywhere, pixels of a row side by side.
at::Tensor with_dense_rows(const at::Tensor& frames) {
  const bool fits = frames.stride(4) == 1 && frames.stride(3) % 8 == 0 && frames.stride(1) % 8 == 0 &&
                    (frames.size(2) == 1 || frames.stride(2) % 8 == 0) && is_aligned(frames);
  return fits ? frames : frames.clone(at::MemoryFormat::Contiguous);
}

at::Tensor projector_input(const at::Tensor& frames, int64_t missing, int64_t unshuffle) {
  const int64_t channels = 3 * unshuffle * unshuffle;
  if (!can_pack(frames, unshuffle, channels)) {
    note_reference("projector_input", frames);
    return reference::projector_input(frames, missing, unshuffle);
  }
  const CUDAGuard guard(frames.device());
  const at::Tensor source = with_dense_rows(frames);
  PackFramesParams p = frames_to_pack(source, missing, unshuffle);
  p.steps = static_cast<int32_t>(missing + frames.size(2));
  p.border = true;
  const at::Tensor whole = at::empty({p.steps + 2, p.height + 2, p.width + 2, channels}, frames.options());
  const at::Tensor steps = whole.narrow(0, 2, p.steps);
  p.output = mutable_bits(steps);
  check(launch_pack_frames(p, stream()), "projector_input");
  bordered_storages().note(whole);
  return steps.narrow(1, 1, p.height).narrow(2, 1, p.width).permute({3, 0, 1, 2}).unsqueeze(0);
}

at::Tensor projector_conv(const at::Tensor& x, const Maybe& past, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t before = past ? past->size(2) : 0, steps = before + x.size(2);
  const int64_t channels = x.size(1), h = x.size(3), w = x.size(4), out_channels = weight.size(0);
  if (!is_plain_bf16(x) || x.size(0) != 1 || channels % 8 || out_channels % 8 || steps % 2 || steps < 4) {
    note_reference("projector_conv", x);
    return reference::projector_conv(x, past.value_or(at::Tensor()), weight, bias);
  }
  const CUDAGuard guard(x.device());
  // Replicated borders become data: one more row and column on each side, channels last.
  at::Tensor padded = with_border(x);
  if (!padded.defined() || (past && before != 2)) {
    padded = at::empty({steps, h + 2, w + 2, channels}, x.options());
    pad_steps(x, padded.narrow(0, before, x.size(2)));
  } else if (!past) {
    padded = padded.narrow(0, 2, steps);
  }
  if (past) pad_steps(*past, padded.narrow(0, 0, before));

  const int64_t out_steps = (steps - 2) / 2;
  const at::Tensor out = at::empty({out_steps, h, w, out_channels}, x.options());
  const at::Tensor packed = packed_weight(weight, false, false, x), bias32 = float_bias(bias);
  ConvNhwcParams p;
  p.input = bits(padded);
  p.weights = bits(packed);
  p.bias = bias32.data_ptr<float>();
  p.output = mutable_bits(out);
  p.in_stride_t = padded.stride(0);
  p.in_stride_y = padded.stride(1);
  p.in_stride_x = padded.stride(2);
  p.out_stride_t = out.stride(0);
  p.out_stride_y = out.stride(1);
  p.out_stride_x = out.stride(2);
  p.in_channels = static_cast<int32_t>(channels);
  p.in_frames = static_cast<int32_t>(steps);
  p.in_height = static_cast<int32_t>(h + 2);
  p.in_width = static_cast<int32_t>(w + 2);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(out_steps);
  p.kernel_t = 4;
  p.stride_t = 2;
  p.kernel_xy = 3;
  p.pad = 0;
  check(launch_conv_nhwc(p, stream()), "projector_conv");
  return out.permute({3, 0, 1, 2}).unsqueeze(0);
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

// --- TC decoder -------------------------------------------------------------------------------------------------

// Each step dense; the steps may lie farther apart, as in a strip of rows.
bool is_channels_last(const at::Tensor& x) {
  return x.dim() == 4 && x.stride(1) == 1 && x.stride(3) == x.size(1) && x.stride(2) == x.size(3) * x.stride(3) &&
         (x.size(0) == 1 || (x.stride(0) >= x.size(2) * x.stride(2) && x.stride(0) % 8 == 0));
}

bool are_steps_dense(const at::Tensor& x) { return x.size(0) == 1 || x.stride(0) == x.size(2) * x.stride(2); }

// Pictures that a MemBlock will read are made with one free step in front, for the memory: the two steps of its
// first convolution then lie side by side and nothing is concatenated. Only storages noted here have that step.
class FrontSteps {
 public:
  at::Tensor empty(int64_t t, int64_t c, int64_t h, int64_t w, const at::Tensor& like) {
    const at::Tensor whole = at::empty({t + 1, c, h, w}, like.options(), at::MemoryFormat::ChannelsLast);
    storages_.note(whole);
    return whole.narrow(0, 1, t);
  }
  // The step in front of all of x's, or undefined.
  at::Tensor front(const at::Tensor& x) {
    const int64_t step = x.size(1) * x.size(2) * x.size(3);
    if (!storages_.has(x) || x.storage_offset() != step ||
        static_cast<int64_t>(x.storage().nbytes()) < (x.size(0) + 1) * step * 2) {
      return {};
    }
    return x.as_strided({1, x.size(1), x.size(2), x.size(3)}, {step, 1, x.size(3) * x.size(1), x.size(1)}, 0);
  }

 private:
  NotedStorages storages_;
};

FrontSteps& front_steps() {
  static FrontSteps* steps = new FrontSteps;
  return *steps;
}

at::Tensor empty_channels_last(int64_t t, int64_t c, int64_t h, int64_t w, const at::Tensor& like) {
  return at::empty({t, c, h, w}, like.options(), at::MemoryFormat::ChannelsLast);
}

at::Tensor decoder_input(const at::Tensor& frames, const Maybe& latents, int64_t latent_channels, int64_t missing,
                         int64_t unshuffle) {
  const int64_t channels = 3 * 4 * unshuffle * unshuffle + latent_channels;
  if (!can_pack(frames, unshuffle, channels) || latent_channels % 8 || (latents && !is_plain_bf16(*latents))) {
    note_reference("decoder_input", frames);
    return reference::decoder_input(frames, latents.value_or(at::Tensor()), latent_channels, missing, unshuffle);
  }
  const CUDAGuard guard(frames.device());
  const at::Tensor source = with_dense_rows(frames);
  PackFramesParams p = frames_to_pack(source, missing, unshuffle);
  p.steps = static_cast<int32_t>((missing + frames.size(2)) / 4);
  p.group = 4;
  p.squash = true;
  p.latents = bits(latents);
  p.latent_channels = static_cast<int32_t>(latent_channels);
  if (latents) {
    p.latent_stride_c = latents->stride(1);
    p.latent_stride_t = latents->stride(2);
    p.latent_stride_y = latents->stride(3);
    p.latent_stride_x = latents->stride(4);
  }
  const at::Tensor out = empty_channels_last(p.steps, channels, p.height, p.width, frames);
  p.output = mutable_bits(out);
  check(launch_pack_frames(p, stream()), "decoder_input");
  return out;
}

// Sizes and strides of a channels-last picture, whatever its stride says where the size is 1.
void set_input(ConvNhwcParams& p, const at::Tensor& x) {
  p.input = bits(x);
  p.in_channels = static_cast<int32_t>(x.size(1));
  p.in_frames = static_cast<int32_t>(x.size(0));
  p.in_height = static_cast<int32_t>(x.size(2));
  p.in_width = static_cast<int32_t>(x.size(3));
  p.in_stride_x = x.size(1);
  p.in_stride_y = p.in_stride_x * x.size(3);
  p.in_stride_t = x.size(0) == 1 ? p.in_stride_y * x.size(2) : x.stride(0);
}

at::Tensor conv3x3(const at::Tensor& x, const Maybe& past, const at::Tensor& weight, const Maybe& bias, const Maybe& add,
                   bool relu, int64_t up, bool feeds_memory) {
  const int64_t channels = x.size(1), out_channels = weight.size(0);
  const bool plain = is_plain_bf16(x) && !(at::GradMode::is_enabled() && weight.requires_grad()) && weight.size(2) == 3 &&
                     is_channels_last(x) && (!past || (is_channels_last(*past) && are_steps_dense(x) && are_steps_dense(*past))) &&
                     (!add || (is_channels_last(*add) && are_steps_dense(*add)));
  const bool tiles = plain && channels % 8 == 0 && out_channels % 8 == 0 && (up == 1 || (up == 2 && out_channels % 128 == 0));
  const bool planes = plain && are_steps_dense(x) && out_channels == 3 && channels % 32 == 0 && channels <= 128 && up == 1 && !past && !add &&
                      !relu;
  if (!tiles && !planes) {
    note_reference("conv3x3", x);
    const at::Tensor none;
    return reference::conv3x3(x, past.value_or(none), weight, bias.value_or(none), add.value_or(none), relu, up);
  }
  const CUDAGuard guard(x.device());
  const at::Tensor bias32 = bias ? float_bias(*bias) : at::Tensor();
  if (planes) {
    const at::Tensor source = weight.stride(2) == 3 * weight.stride(3) ? weight : weight.contiguous();
    const at::Tensor out = at::empty({3, x.size(0), x.size(2), x.size(3)}, x.options());
    ConvToPlanesParams p;
    p.input = bits(x);
    p.weight = bits(source);
    p.bias = bias ? bias32.data_ptr<float>() : nullptr;
    p.output = mutable_bits(out);
    p.plane_stride = out.stride(0);
    p.frame_stride = out.stride(1);
    p.stride_o = source.stride(0);
    p.stride_c = source.stride(1);
    p.stride_xy = source.stride(3);
    p.channels = static_cast<int32_t>(channels);
    p.frames = static_cast<int32_t>(x.size(0));
    p.height = static_cast<int32_t>(x.size(2));
    p.width = static_cast<int32_t>(x.size(3));
    check(launch_conv_to_planes(p, stream()), "conv_to_planes");
    return out.transpose(0, 1);
  }
  const at::Tensor packed = packed_weight(weight, past.has_value(), up == 2, x);
  const at::Tensor out = feeds_memory && x.size(0) <= 8 ? front_steps().empty(x.size(0), out_channels, x.size(2) * up, x.size(3) * up, x)
                                      : empty_channels_last(x.size(0), out_channels, x.size(2) * up, x.size(3) * up, x);
  ConvNhwcParams p;
  set_input(p, x);
  p.past = bits(past);
  p.weights = bits(packed);
  p.bias = bias ? bias32.data_ptr<float>() : nullptr;
  p.residual = bits(add);
  p.output = mutable_bits(out);
  p.out_stride_x = out_channels;
  p.out_stride_y = p.out_stride_x * out.size(3);
  p.out_stride_t = p.out_stride_y * out.size(2);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(x.size(0));
  p.kernel_t = past ? 2 : 1;
  p.upsample = static_cast<int32_t>(up);
  p.folded = up == 2;
  p.relu = relu;
  check(launch_conv_nhwc(p, stream()), "conv3x3");
  return out;
}

at::Tensor mem_conv(const at::Tensor& x, const Maybe& memory, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t steps = x.size(0), channels = x.size(1), out_channels = weight.size(0);
  const bool fits = is_plain_bf16(x) && !(at::GradMode::is_enabled() && weight.requires_grad()) && weight.size(2) == 3 &&
                    is_channels_last(x) && are_steps_dense(x) && channels % 8 == 0 && out_channels % 8 == 0;
  const at::Tensor front = fits ? front_steps().front(x) : at::Tensor();
  if (!front.defined()) {
    const at::Tensor first = memory ? *memory : at::zeros_like(x.narrow(0, 0, 1));
    const at::Tensor past = steps == 1 ? first : at::cat({first, x.narrow(0, 0, steps - 1)}, 0);
    return conv3x3(x, past.contiguous(at::MemoryFormat::ChannelsLast), weight, bias, {}, /*relu=*/true, 1,
                   /*feeds_memory=*/false);
  }
  const CUDAGuard guard(x.device());
  if (memory) {
    front.copy_(*memory);
  } else {
    front.zero_();
  }
  const at::Tensor packed = packed_weight(weight, true, false, x), bias32 = float_bias(bias);
  const at::Tensor out = empty_channels_last(steps, out_channels, x.size(2), x.size(3), x);
  ConvNhwcParams p;
  set_input(p, x);
  p.input -= p.in_stride_t;
  p.in_frames += 1;
  p.weights = bits(packed);
  p.bias = bias32.data_ptr<float>();
  p.output = mutable_bits(out);
  p.out_stride_x = out_channels;
  p.out_stride_y = p.out_stride_x * out.size(3);
  p.out_stride_t = p.out_stride_y * out.size(2);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(steps);
  p.kernel_t = 2;
  p.relu = true;
  check(launch_conv_nhwc(p, stream()), "mem_conv");
  return out;
}

at::Tensor time_grow(const at::Tensor& x, const at::Tensor& weight, int64_t grow) {
  const int64_t out_channels = weight.size(0);
  const bool fits = is_plain_bf16(x) && !(at::GradMode::is_enabled() && weight.requires_grad()) && is_channels_last(x) &&
                    x.size(1) % 8 == 0 && out_channels % 8 == 0 &&
                    (grow == 1 || (grow == 2 && out_channels % 256 == 0));
  if (!fits) {
    note_reference("time_grow", x);
    return reference::time_grow(x, weight, grow);
  }
  const CUDAGuard guard(x.device());
  const at::Tensor packed = packed_weight(weight, false, false, x);
  const at::Tensor out = empty_channels_last(x.size(0) * grow, out_channels / grow, x.size(2), x.size(3), x);
  ConvNhwcParams p;
  set_input(p, x);
  p.weights = bits(packed);
  p.output = mutable_bits(out);
  p.out_stride_x = out.size(1);
  p.out_stride_y = p.out_stride_x * out.size(3);
  p.out_stride_t = p.out_stride_y * out.size(2);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(x.size(0));
  p.kernel_xy = 1;
  p.pad = 0;
  p.grow = static_cast<int32_t>(grow);
  check(launch_conv_nhwc(p, stream()), "time_grow");
  return out;
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
  m.impl("projector_input", projector_input);
  m.impl("projector_conv", projector_conv);
  m.impl("decoder_input", decoder_input);
  m.impl("channel_rms_norm_silu", channel_rms_norm_silu);
  m.impl("philox_noise", philox_noise);
  m.impl("conv3x3", conv3x3);
  m.impl("mem_conv", mem_conv);
  m.impl("time_grow", time_grow);
}

}  // namespace flashvsr
