// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/ops_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "kernels/cpu/block_sparse_attention_cpu.h"

namespace flashvsr::cpu {
namespace {

bool is_plain(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && x.is_contiguous() &&
         reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0 &&
         !(at::GradMode::is_enabled() && x.requires_grad());
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
  static const CpuIsa isa = best_cpu_isa();
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

}  // namespace

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

}  // namespace flashvsr::cpu
