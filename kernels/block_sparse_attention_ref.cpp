// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/block_sparse_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace flashvsr {
namespace {

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue

double widen(float value) { return value; }

double widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

void narrow_to(float& out, double value) { out = static_cast<float>(value); }

// To nearest even. Goes through float: 53 -> 24 -> 8 bits can differ from 53 -> 8 by one ulp at a tie.
void narrow_to(uint16_t& out, double value) {
  const float narrow = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  out = std::isnan(narrow) ? uint16_t{0x7fff}
                           : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

bool misaligned(const void* pointer) { return (reinterpret_cast<uintptr_t>(pointer) & 15u) != 0; }

// Row of `output`, in tokens, of position p of query block q.
template <class Element>
int64_t output_row(const BlockSparseAttentionParamsOf<Element>& params, int64_t q, int64_t p) {
  if (!params.raster_output) {
    return q * kAttentionBlock + p;
  }
  const int64_t across = params.width / 8;
  const int64_t per_slot = (params.height / 8) * across;
  const int64_t t = q / per_slot * 2 + p / 64;
  const int64_t y = q % per_slot / across * 8 + p / 8 % 8;
  const int64_t x = q % across * 8 + p % 8;
  return (t * params.height + y) * params.width + x;
}

template <class Element>
int check(const BlockSparseAttentionParamsOf<Element>& params) {
  const int64_t rows = static_cast<int64_t>(params.heads) * params.q_blocks;
  if (params.heads <= 0 || params.q_blocks <= 0 || params.windows <= 0 || params.slots <= 0 ||
      params.ring_slots < 0 || params.current_slots < 0 ||
      params.ring_slots + params.current_slots <= 0 || rows >= (int64_t{1} << 30) ||
      (params.head_dim != 64 && params.head_dim != 128) || !(params.softmax_scale > 0.f)) {
    return kInvalidValue;
  }
  // Token indices are 32-bit on the device.
  const int64_t most_slots = std::max({params.ring_slots, params.current_slots, params.slots});
  if (most_slots * params.windows * kAttentionBlock >= (int64_t{1} << 31) ||
      static_cast<int64_t>(params.q_blocks) * kAttentionBlock >= (int64_t{1} << 31)) {
    return kInvalidValue;
  }
  if (params.query == nullptr || params.output == nullptr || params.slot_map == nullptr ||
      params.column == nullptr || misaligned(params.query) || misaligned(params.output)) {
    return kInvalidValue;
  }
  if (params.row_begin == nullptr &&
      (params.shared_columns <= 0 ||
       params.shared_columns > static_cast<int64_t>(params.slots) * params.windows)) {
    return kInvalidValue;
  }
  if (params.ring_slots > 0 && (params.key_ring == nullptr || params.value_ring == nullptr ||
                                misaligned(params.key_ring) || misaligned(params.value_ring))) {
    return kInvalidValue;
  }
  if (params.current_slots > 0 &&
      (params.key_current == nullptr || params.value_current == nullptr ||
       misaligned(params.key_current) || misaligned(params.value_current))) {
    return kInvalidValue;
  }
  if (params.raster_output) {
    if (params.frames <= 0 || params.height <= 0 || params.width <= 0 || params.frames % 2 != 0 ||
        params.height % 8 != 0 || params.width % 8 != 0 ||
        static_cast<int64_t>(params.frames / 2) * (params.height / 8) * (params.width / 8) !=
            params.q_blocks) {
      return kInvalidValue;
    }
  }
  return 0;
}

template <class Element>
int attend(const BlockSparseAttentionParamsOf<Element>& params) {
  if (const int status = check(params)) {
    return status;
  }
  const int64_t dim = params.head_dim;
  const int64_t pitch = params.heads * dim;
  std::vector<double> score;
  std::vector<const Element*> key_row;
  std::vector<const Element*> value_row;
  std::vector<double> sum(dim);
  for (int64_t head = 0; head < params.heads; ++head) {
    for (int64_t q = 0; q < params.q_blocks; ++q) {
      const AttentionRowSpan span = attention_row(params, head, q);
      key_row.clear();
      value_row.clear();
      for (int32_t pair = span.begin; pair < span.end; ++pair) {
        const int64_t slot = params.slot_map[params.column[pair] / params.windows];
        const int64_t window = params.column[pair] % params.windows;
        const bool in_ring = slot >= 0;
        const int64_t token =
            ((in_ring ? slot : -1 - slot) * params.windows + window) * kAttentionBlock;
        for (int64_t i = 0; i < kAttentionBlock; ++i) {
          const int64_t offset = (token + i) * pitch + head * dim;
          key_row.push_back((in_ring ? params.key_ring : params.key_current) + offset);
          value_row.push_back((in_ring ? params.value_ring : params.value_current) + offset);
        }
      }
      score.resize(key_row.size());
      for (int64_t p = 0; p < kAttentionBlock; ++p) {
        const Element* query = params.query + (q * kAttentionBlock + p) * pitch + head * dim;
        double largest = -INFINITY;
        for (size_t i = 0; i < score.size(); ++i) {
          double dot = 0;
          for (int64_t c = 0; c < dim; ++c) {
            dot += widen(query[c]) * widen(key_row[i][c]);
          }
          score[i] = dot * params.softmax_scale;
          largest = std::max(largest, score[i]);
        }
        std::fill(sum.begin(), sum.end(), 0.0);
        double total = 0;
        for (size_t i = 0; i < score.size(); ++i) {
          const double weight = std::exp(score[i] - largest);
          total += weight;
          for (int64_t c = 0; c < dim; ++c) {
            sum[c] += weight * widen(value_row[i][c]);
          }
        }
        Element* out = params.output + output_row(params, q, p) * pitch + head * dim;
        for (int64_t c = 0; c < dim; ++c) {
          narrow_to(out[c], total > 0 ? sum[c] / total : 0.0);
        }
      }
    }
  }
  return 0;
}

}  // namespace

int check_block_sparse_attention(const BlockSparseAttentionParams& params) { return check(params); }
int check_block_sparse_attention(const BlockSparseAttentionParamsF32& params) { return check(params); }

int block_sparse_attention_ref(const BlockSparseAttentionParams& params) { return attend(params); }
int block_sparse_attention_ref(const BlockSparseAttentionParamsF32& params) { return attend(params); }

}  // namespace flashvsr
