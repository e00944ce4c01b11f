// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Times block-sparse attention on the CPU and prints one JSON line a shape and type: the own kernel, the ATen
// reference, and as the peer at::scaled_dot_product_attention, dense over each row's kept keys, which lie side by
// side before its clock runs. The three take turns; figures are the least of all turns, in wall time.
//
//   cpu_attention_bench [--turns 7] [--commit HASH]        FLASHVSR_CPU_ISA: see model/ops_cpu.h
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "model/block_mask.h"
#include "model/ops.h"
#include "model/window.h"

namespace flashvsr {
namespace {

struct Shape {
  const char* name;
  int64_t heads, head_dim, blocks_per_query;
  BlockGrid grid;
  int64_t query_slots, ring_slots;
};

double milliseconds(const std::function<void()>& run) {
  const auto begin = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

// Kept keys and values of one row, side by side, as scaled_dot_product_attention takes them.
struct Row {
  at::Tensor query, key, value;  // [1, 1, tokens, head_dim]
};

void run(const Shape& shape, c10::ScalarType dtype, int turns, const std::string& commit) {
  const auto options = at::TensorOptions().dtype(dtype);
  const int64_t windows = shape.grid.windows(), dim = shape.heads * shape.head_dim;
  const int64_t q_blocks = shape.query_slots * windows, slots = shape.ring_slots + shape.query_slots;
  const auto random = [&](int64_t blocks) { return at::randn({blocks, 128, dim}, options); };
  const at::Tensor q = random(q_blocks);
  AttentionKv kv;
  kv.key_now = random(q_blocks);
  kv.value_now = random(q_blocks);
  std::vector<int32_t> map;
  for (int64_t i = 0; i < shape.ring_slots; ++i) map.push_back(static_cast<int32_t>(i));
  for (int64_t i = 0; i < shape.query_slots; ++i) map.push_back(static_cast<int32_t>(-1 - i));
  if (shape.ring_slots > 0) {
    kv.key_ring = random(shape.ring_slots * windows).view({shape.ring_slots, windows, 128, dim});
    kv.value_ring = random(shape.ring_slots * windows).view({shape.ring_slots, windows, 128, dim});
  }
  // Pooled scores of standard deviation 1.5, as pipeline_bench's; the model's own rule.
  const double sigma = std::sqrt(1.5);
  const at::Tensor mask = block_mask_from_means(at::randn({q_blocks, dim}) * sigma, at::randn({slots * windows, dim}) * sigma,
                                                shape.heads, shape.grid, 11,
                                                block_topk(shape.grid, 2.0, shape.blocks_per_query));
  const BlockPairs pairs = mask_to_pairs(mask);
  const at::Tensor slot_map = at::tensor(map, at::kInt);
  const TokenGrid grid{shape.query_slots * 2, shape.grid.rows * 8, shape.grid.columns * 8};

  const auto visible = [&](const at::Tensor& ring, const at::Tensor& now) {
    return visible_slots(ring, now.view({-1, windows, 128, dim}), map).view({-1, 128, shape.heads, shape.head_dim});
  };
  const at::Tensor keys = visible(kv.key_ring, kv.key_now), values = visible(kv.value_ring, kv.value_now);
  std::vector<Row> rows;
  for (int64_t head = 0; head < shape.heads; ++head) {
    for (int64_t i = 0; i < q_blocks; ++i) {
      const at::Tensor kept = at::nonzero(mask[head][i]).squeeze(1);
      const auto side_by_side = [&](const at::Tensor& x) {
        return x.select(2, head).index_select(0, kept).reshape({1, 1, -1, shape.head_dim}).contiguous();
      };
      const at::Tensor query = q.view({q_blocks, 128, shape.heads, shape.head_dim})[i].select(1, head);
      rows.push_back({query.reshape({1, 1, 128, shape.head_dim}).contiguous(), side_by_side(keys), side_by_side(values)});
    }
  }

  at::Tensor own, reference;
  double own_ms = 1e30, reference_ms = 1e30, peer_ms = 1e30;
  for (int turn = 0; turn < turns; ++turn) {
    own_ms = std::min(own_ms, milliseconds([&] { own = ops::block_sparse_attention(q, kv, slot_map, pairs, shape.heads, grid); }));
    reference_ms = std::min(reference_ms, milliseconds([&] {
      reference = reference::block_sparse_attention(q, kv, slot_map, pairs, shape.heads, grid);
    }));
    peer_ms = std::min(peer_ms, milliseconds([&] {
      at::parallel_for(0, static_cast<int64_t>(rows.size()), 1, [&](int64_t begin, int64_t end) {
        const c10::InferenceMode guard;
        for (int64_t i = begin; i < end; ++i) at::scaled_dot_product_attention(rows[i].query, rows[i].key, rows[i].value);
      });
    }));
  }
  const double kept = mask.sum().item<double>(), flop = kept * 4 * 128 * 128 * static_cast<double>(shape.head_dim);
  const at::Tensor wide = reference.to(at::kDouble);
  const double difference = (own.to(at::kDouble) - wide).norm().item<double>() / wide.norm().item<double>();
  const char* isa = std::getenv("FLASHVSR_CPU_ISA");
  std::printf("{\"bench\":\"cpu_attention\",\"shape\":\"%s\",\"dtype\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"density\":%.3f,"
              "\"gflop\":%.2f,\"ms\":%.2f,\"gflops\":%.0f,\"reference_ms\":%.2f,\"sdpa_ms\":%.2f,\"times_reference\":%.2f,"
              "\"times_sdpa\":%.2f,\"difference\":%.1e,\"commit\":\"%s\"}\n",
              shape.name, dtype == at::kFloat ? "fp32" : "bf16", isa != nullptr ? isa : "best", at::get_num_threads(),
              kept / static_cast<double>(mask.numel()), flop * 1e-9, own_ms, flop / own_ms * 1e-6, reference_ms, peer_ms,
              reference_ms / own_ms, peer_ms / own_ms, difference, commit.c_str());
  std::fflush(stdout);
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  int turns = 7;
  std::string commit = "unknown";
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--turns" && i + 1 < argc) turns = std::max(1, std::atoi(argv[++i]));
    else if (arg == "--commit" && i + 1 < argc) commit = argv[++i];
    else {
      std::fprintf(stderr, "usage: %s [--turns 7] [--commit HASH]\n", argv[0]);
      return 2;
    }
  }
  const c10::InferenceMode guard;
  at::manual_seed(20261128);
  const flashvsr::Shape shapes[] = {
      {"nano 384x640 steady", 3, 64, 6, {3, 5}, 1, 3},
      {"nano 384x640 first", 3, 64, 6, {3, 5}, 3, 0},
      {"nano 768x1280 steady", 3, 64, 6, {6, 10}, 1, 3},
      {"released 384x640 steady", 12, 128, 60, {3, 5}, 1, 3},
  };
  for (const flashvsr::Shape& shape : shapes) {
    for (const auto dtype : {at::kBFloat16, at::kFloat}) flashvsr::run(shape, dtype, turns, commit);
  }
  return 0;
}
