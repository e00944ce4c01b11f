// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/ops_cpu.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "kernels/cpu/block_sparse_attention_cpu.h"
#include "kernels/cpu/rows_cpu.h"

namespace flashvsr::cpu {
namespace {

bool is_plain(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && x.is_contiguous() &&
         reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0 &&
         !(at::GradMode::is_enabled() && x.requires_grad());
}

CpuIsa chosen_isa() {
  const char* name = std::getenv("FLASHVSR_CPU_ISA");
  if (name == nullptr || name[0] == '\0') return best_cpu_isa();
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    if (std::strcmp(name, name_of(isa)) == 0 && runs_here(isa)) return isa;
  }
  throw Error(ErrorCode::kInvalidArgument, std::string("FLASHVSR_CPU_ISA=") + name + " is not known or does not run here");
}

CpuIsa isa_here() {
  static const CpuIsa isa = chosen_isa();
  return isa;
}

void* attention_workspace() {
  struct Free {
    void operator()(void* bytes) const { std::free(bytes); }
  };
  thread_local const std::unique_ptr<void, Free> workspace(std::aligned_alloc(64, kCpuAttentionWorkspace));
  return workspace.get();
}

template <class Element>
void attend(const at::Tensor& q, const AttentionKv& kv, const at::Tensor& slot_map, const BlockPairs& pairs,
            int64_t heads, const TokenGrid& grid, const at::Tensor& out) {
  const auto elements = [](const at::Tensor& x) {
    return x.defined() ? static_cast<const Element*>(x.const_data_ptr()) : nullptr;
  };
  static const int32_t kNoColumn = 0;
  BlockSparseAttentionParamsOf<Element> p;
  p.query = elements(q);
  p.key_ring = elements(kv.key_ring);
  p.value_ring = elements(kv.value_ring);
  p.key_current = elements(kv.key_now);
  p.value_current = elements(kv.value_now);
  p.slot_map = slot_map.const_data_ptr<int32_t>();
  p.row_begin = pairs.row_begin.const_data_ptr<int32_t>();
  p.column = pairs.column.numel() > 0 ? pairs.column.const_data_ptr<int32_t>() : &kNoColumn;
  p.output = static_cast<Element*>(out.mutable_data_ptr());
  p.heads = static_cast<int32_t>(heads);
  p.head_dim = static_cast<int32_t>(q.size(2) / heads);
  p.q_blocks = static_cast<int32_t>(q.size(0));
  p.windows = static_cast<int32_t>(grid.blocks().windows());
  p.ring_slots = kv.key_ring.defined() ? static_cast<int32_t>(kv.key_ring.size(0)) : 0;
  p.current_slots = static_cast<int32_t>(kv.key_now.size(0) / p.windows);
  p.slots = static_cast<int32_t>(slot_map.numel());
  p.softmax_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.head_dim)));
  p.raster_output = true;
  p.frames = static_cast<int32_t>(grid.f);
  p.height = static_cast<int32_t>(grid.h);
  p.width = static_cast<int32_t>(grid.w);

  // Rows differ in length and threads in speed: each takes the next row that is left.
  const CpuIsa isa = isa_here();
  const int64_t rows = heads * p.q_blocks;
  std::atomic<int64_t> next{0};
  std::atomic<int> status{0};
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), rows), 1, [&](int64_t, int64_t) {
    for (int64_t row = next++; row < rows; row = next++) {
      if (const int bad = block_sparse_attention_cpu(p, isa, row, row + 1, attention_workspace())) status = bad;
    }
  });
  FLASHVSR_CHECK(status == 0, ErrorCode::kInternal, "block_sparse_attention: the CPU kernel refused ", q.sizes());
}

const uint16_t* bits(const at::Tensor& x) {
  return x.defined() ? static_cast<const uint16_t*>(x.const_data_ptr()) : nullptr;
}
uint16_t* mutable_bits(const at::Tensor& x) { return static_cast<uint16_t*>(x.mutable_data_ptr()); }

// Calls kernel(begin, end) on parts of [0, count).
template <class Kernel>
void split(const char* name, int64_t count, int64_t grain, const Kernel& kernel) {
  std::atomic<int> status{0};
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    if (const int bad = kernel(begin, end)) status = bad;
  });
  FLASHVSR_CHECK(status == 0, ErrorCode::kInternal, name, ": the CPU kernel refused its arguments");
}

void run_rows(LayerNormModulateParams& p, const at::Tensor& x, const char* name) {
  p.x = bits(x);
  p.rows = x.size(0);
  p.dim = static_cast<int32_t>(x.size(1));
  split(name, p.rows, 64, [&](int64_t begin, int64_t end) { return layer_norm_modulate_cpu(p, isa_here(), begin, end); });
}

at::Tensor norm_rows(const at::Tensor& x, const at::Tensor& scale1, const at::Tensor& shift, double eps, RowNorm norm,
                     const char* name) {
  const at::Tensor out = at::empty_like(x);
  LayerNormModulateParams p;
  p.scale1 = bits(scale1);
  p.shift = bits(shift);
  p.out = mutable_bits(out);
  p.eps = static_cast<float>(eps);
  p.norm = norm;
  run_rows(p, x, name);
  return out;
}

// LibTorch has them for its own compiler's use: no header declares them.
template <class Signature>
c10::TypedOperatorHandle<Signature> operator_of(const char* name, const char* overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

constexpr std::array<int64_t, 2> kOnes{1, 1};  // padding, stride and dilation
using Maybe = std::optional<at::Tensor>;
using MaybeText = std::optional<std::string_view>;
using Scalars = c10::List<std::optional<at::Scalar>>;

}  // namespace

bool takes_rows(std::initializer_list<const at::Tensor*> rows) {
  for (const at::Tensor* x : rows) {
    if (x->defined() && !(is_plain(*x) && x->scalar_type() == at::kBFloat16 && x->numel() > 0 &&
                          x->size(-1) % 16 == 0 && x->size(-1) <= 3072 && x->dim() <= 2)) {
      return false;
    }
  }
  return true;
}

at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1, const at::Tensor& shift, double eps) {
  return norm_rows(x, scale1, shift, eps, RowNorm::kModulate, "layer_norm_modulate");
}

at::Tensor layer_norm_affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return norm_rows(x, weight, bias, eps, RowNorm::kAffine, "layer_norm_affine");
}

at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return norm_rows(x, weight, {}, eps, RowNorm::kRms, "rms_norm_rows");
}

at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate) {
  const at::Tensor sum = at::empty_like(x);
  LayerNormModulateParams p;
  p.y = bits(y);
  p.gate = bits(gate);
  p.sum = mutable_bits(sum);
  p.norm = RowNorm::kNone;
  run_rows(p, x, "gated_residual");
  return sum;
}

std::tuple<at::Tensor, at::Tensor> residual_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                                                 const at::Tensor& scale, const at::Tensor& shift, double eps,
                                                 bool affine) {
  const at::Tensor sum = at::empty_like(x), out = at::empty_like(x);
  LayerNormModulateParams p;
  p.y = bits(y);
  p.gate = bits(gate);
  p.scale1 = bits(scale);
  p.shift = bits(shift);
  p.sum = mutable_bits(sum);
  p.out = mutable_bits(out);
  p.eps = static_cast<float>(eps);
  p.norm = affine ? RowNorm::kAffine : RowNorm::kModulate;
  run_rows(p, x, "residual_norm");
  return {sum, out};
}

at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor out = at::linear(x, weight, bias);
  uint16_t* const values = mutable_bits(out);
  split("gelu", out.numel() / 16, 1024,
        [&](int64_t begin, int64_t end) { return gelu_cpu(values, isa_here(), begin * 16, end * 16); });
  return out;
}

bool takes_norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight, const at::Tensor& k_weight,
                            int64_t heads, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t dim = q_weight.size(0), head_dim = dim / heads;
  const auto is_table = [](const at::Tensor& x) {
    return x.is_cpu() && x.scalar_type() == at::kDouble && x.is_contiguous();
  };
  return is_plain(qkv) && qkv.scalar_type() == at::kBFloat16 && qkv.size(0) > 0 && takes_rows({&q_weight, &k_weight}) &&
         (head_dim == 64 || head_dim == 128) && dim <= 1536 && is_table(cos) && is_table(sin);
}

WindowedQkv norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight, const at::Tensor& k_weight, double eps,
                             int64_t heads, const TokenGrid& grid, const at::Tensor& cos, const at::Tensor& sin,
                             const KvPlace& place) {
  const int64_t dim = qkv.size(1) / 3, windows = grid.tokens() / kAttentionBlock;
  WindowedQkv out;
  out.q = at::empty({windows, kAttentionBlock, dim}, qkv.options());
  out.k = place.key.defined() ? place.key : at::empty_like(out.q);
  out.v = place.value.defined() ? place.value : at::empty_like(out.q);
  out.q_mean = at::empty({windows, dim}, qkv.options());
  out.k_mean = at::empty_like(out.q_mean);
  NormRopeWindowParams p;
  p.qkv = bits(qkv);
  p.q_weight = bits(q_weight);
  p.k_weight = bits(k_weight);
  p.cosine = cos.const_data_ptr<double>();
  p.sine = sin.const_data_ptr<double>();
  p.q = mutable_bits(out.q);
  p.k = mutable_bits(out.k);
  p.v = mutable_bits(out.v);
  p.q_mean = mutable_bits(out.q_mean);
  p.k_mean = mutable_bits(out.k_mean);
  p.frames = static_cast<int32_t>(grid.f);
  p.height = static_cast<int32_t>(grid.h);
  p.width = static_cast<int32_t>(grid.w);
  p.dim = static_cast<int32_t>(dim);
  p.head_dim = static_cast<int32_t>(dim / heads);
  p.eps = static_cast<float>(eps);
  split("norm_rope_window", windows, 1,
        [&](int64_t begin, int64_t end) { return norm_rope_window_cpu(p, isa_here(), begin, end); });
  return out;
}

bool takes_attention(const at::Tensor& q, const AttentionKv& kv, int64_t heads) {
  const int64_t head_dim = q.size(2) / heads;
  for (const at::Tensor* x : {&q, &kv.key_now, &kv.value_now, &kv.key_ring, &kv.value_ring}) {
    if (x->defined() && !(is_plain(*x) && x->scalar_type() == q.scalar_type())) return false;
  }
  return head_dim == 64 || head_dim == 128;
}

at::Tensor block_sparse_attention(const at::Tensor& q, const AttentionKv& kv, const at::Tensor& slot_map,
                                  const BlockPairs& pairs, int64_t heads, const TokenGrid& grid) {
  const at::Tensor out = at::empty({grid.tokens(), q.size(2)}, q.options());
  if (q.scalar_type() == at::kFloat) {
    attend<float>(q, kv, slot_map, pairs, heads, grid, out);
  } else {
    attend<uint16_t>(q, kv, slot_map, pairs, heads, grid, out);
  }
  return out;
}

bool takes_conv3x3(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  for (const at::Tensor* t : {&x, &weight, &bias}) {
    if (!t->defined()) continue;
    const bool wants_gradient = at::GradMode::is_enabled() && t->requires_grad();
    if (!t->is_cpu() || t->scalar_type() != x.scalar_type() || wants_gradient) return false;
  }
  const bool runs = x.scalar_type() == at::kBFloat16 ? isa_here() >= CpuIsa::kAvx512
                                                     : x.scalar_type() == at::kFloat && isa_here() >= CpuIsa::kAvx2;
  return runs && at::hasMKLDNN() && at::globalContext().userEnabledMkldnn() && x.numel() > 0 &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast) && weight.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor conv3x3_relu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const Maybe&, at::IntArrayRef, at::IntArrayRef,
                               at::IntArrayRef, int64_t, std::string_view, Scalars, MaybeText);
  static const auto convolution = operator_of<Signature>("mkldnn::_convolution_pointwise", "");
  return convolution.call(x, weight, bias.defined() ? Maybe(bias) : Maybe(), kOnes, kOnes, kOnes, /*groups=*/1, "relu",
                          Scalars(), /*algorithm=*/{});
}

void add_conv3x3(at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool relu) {
  using Signature = at::Tensor&(at::Tensor&, const at::Tensor&, const at::Tensor&, const Maybe&, at::IntArrayRef,
                                at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view, std::optional<at::Scalar>,
                                MaybeText, Scalars, MaybeText);
  static const auto convolution = operator_of<Signature>("mkldnn::_convolution_pointwise_", "binary");
  convolution.call(sum, x, weight, bias.defined() ? Maybe(bias) : Maybe(), kOnes, kOnes, kOnes, /*groups=*/1, "add",
                   at::Scalar(1.0), relu ? MaybeText("relu") : MaybeText(), Scalars(), /*unary_algorithm=*/{});
}

}  // namespace flashvsr::cpu
