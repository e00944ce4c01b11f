// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Everything is computed transposed: S^T = K Q^T and O^T = V^T P^T, with 128 queries across the lanes. Keys and
// values are then broadcast from where they lie, in any order; only the query is transposed, once a row, and
// the output. A query's maximum and sum are lanes of a vector, so that nothing is summed across lanes.
//
// Words: the 32 bits that a lane multiplies at a time, one float or (kPairs) two bf16.
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace flashvsr {
namespace FLASHVSR_ISA {
namespace {

// kTileRows x kTileVectors accumulators stay in registers: 32, 16 and 16 of them.
constexpr int kTileRows = kLanes == 16 ? 8 : 4, kTileVectors = 2;
constexpr int kPanel = kLanes * kTileVectors;  // queries worked on at a time
constexpr int kPanels = kAttentionBlock / kPanel;
constexpr int kMostDim = 128;

// Memory that holds floats or pairs of bf16.
typedef uint32_t Word __attribute__((may_alias));

struct Floats {
  static constexpr bool kPairs = false;
  static FLASHVSR_INLINE Vec multiply_add(Vec sum, Word a, WordVec b) {
    float value;
    __builtin_memcpy(&value, &a, sizeof value);
    return sum + value * (Vec)b;
  }
};

#ifdef __AVX512BF16__
struct Pairs {
  static constexpr bool kPairs = true;
  static FLASHVSR_INLINE Vec multiply_add(Vec sum, Word a, WordVec b) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
  }
  // Lane i: (first[i], second[i]) as bf16, to nearest even.
  static FLASHVSR_INLINE WordVec join(Vec first, Vec second) {
    const __m512i order = (__m512i)(WordVec{0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007,
                                            0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f});
    return (WordVec)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
  }
};
#endif

// Exchanges rows and lanes.
FLASHVSR_INLINE void transpose(WordVec (&row)[kLanes]) {
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    IntVec low, high;
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
      low[lane] = lane & step ? kLanes + lane - step : lane;
      high[lane] = lane & step ? kLanes + lane : lane + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if ((i & step) == 0) {
        const WordVec a = row[i], b = row[i + step];
        row[i] = __builtin_shuffle(a, b, low);
        row[i + step] = __builtin_shuffle(a, b, high);
      }
    }
  }
}

// sum[r][v] = sum over s of a[r * row + s * step] * b[s][v]
template <class Math>
FLASHVSR_INLINE void multiply_tile(const Word* a, int64_t row, int64_t step, const Word* b, int steps,
                                   Vec (&sum)[kTileRows][kTileVectors]) {
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      sum[r][v] = Vec{};
    }
  }
  for (int s = 0; s < steps; ++s) {
    WordVec right[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      right[v] = load<WordVec>(b + s * kPanel + v * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const Word left = a[r * row + s * step];
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) {
        sum[r][v] = Math::multiply_add(sum[r][v], left, right[v]);
      }
    }
  }
}

struct Workspace {
  Word query[kPanels][kMostDim][kPanel];    // words of a query down, queries across
  float output[kPanels][kMostDim][kPanel];  // unnormalised
  Word key[kAttentionBlock * kMostDim];     // [128][head_dim], unless keys can be read in place
  Word value[kAttentionBlock * kMostDim];   // [128][head_dim]; Pairs: [64][head_dim] of keys 2n, 2n + 1
  Word weight[kAttentionBlock][kPanel];     // scores, then probabilities of the panel; Pairs: [64]
  float largest[kPanels][kPanel];
  float total[kPanels][kPanel];
};
static_assert(sizeof(Workspace) <= 280 * 1024, "block_sparse_attention_cpu.h promises this");

template <class Math, class Element>
FLASHVSR_INLINE WordVec load_words(const Element* from, int word) {
  if constexpr (Math::kPairs) {
    return load<WordVec>(from + 2 * word);
  } else {
    return load_floats(from + word);
  }
}

template <class Math, class Element>
void pack_query(const Element* query, int64_t pitch, int words, Workspace& w) {
  for (int first = 0; first < kAttentionBlock; first += kLanes) {
    for (int word = 0; word < words; word += kLanes) {
      WordVec tile[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        tile[i] = load_words<Math>(query + (first + i) * pitch, word);
      }
      transpose(tile);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        store(&w.query[first / kPanel][word + i][first % kPanel], tile[i]);
      }
    }
  }
}

// One window's rows of one head, as words.
template <class Element>
void widen_rows(const Element* from, int64_t pitch, int dim, Word* to) {
  for (int i = 0; i < kAttentionBlock; ++i) {
    for (int c = 0; c < dim; c += kLanes) {
      store(to + i * dim + c, load_floats(from + i * pitch + c));
    }
  }
}

#ifdef __AVX512BF16__
void pair_rows(const uint16_t* from, int64_t pitch, int dim, Word* to) {
  for (int i = 0; i < kAttentionBlock; i += 2) {
    const uint16_t* next = from + pitch;
    for (int c = 0; c < dim; c += kLanes) {
      store(to + c, __builtin_convertvector(load<HalfVec>(from + c), WordVec) | load_floats(next + c));
    }
    from = next + pitch;
    to += dim;
  }
}
#endif

// The panel's scores against one key block; returns each query's largest in `largest`.
template <class Math>
FLASHVSR_INLINE void score(const Word* key, int64_t pitch, int words, const Word* query, Workspace& w,
                           Vec (&largest)[kTileVectors]) {
  for (int j = 0; j < kAttentionBlock; j += kTileRows) {
    Vec sum[kTileRows][kTileVectors];
    multiply_tile<Math>(key + j * pitch, pitch, 1, query, words, sum);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) {
        store(&w.weight[j + r][v * kLanes], sum[r][v]);
        largest[v] = sum[r][v] > largest[v] ? sum[r][v] : largest[v];
      }
    }
  }
}

// Scores to probabilities of the panel's running maximum, in place; returns their sums.
template <class Math>
FLASHVSR_INLINE void exponentiate(Workspace& w, float scale, const Vec (&reference)[kTileVectors],
                                  Vec (&total)[kTileVectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < kTileVectors; ++v) {
    Vec even = {}, odd = {};
    const Vec shift = reference[v] * scale;
    for (int j = 0; j < kAttentionBlock; j += 2) {
      const Vec a = power_of_two(load<Vec>(&w.weight[j][v * kLanes]) * scale - shift);
      const Vec b = power_of_two(load<Vec>(&w.weight[j + 1][v * kLanes]) * scale - shift);
      even += a;
      odd += b;
      if constexpr (Math::kPairs) {
        store(&w.weight[j / 2][v * kLanes], Math::join(a, b));
      } else {
        store(&w.weight[j][v * kLanes], a);
        store(&w.weight[j + 1][v * kLanes], b);
      }
    }
    total[v] = even + odd;
  }
}

template <class Math, class Element>
void attend_block(const BlockSparseAttentionParamsOf<Element>& params, int64_t block, int64_t head, Workspace& w) {
  const int dim = params.head_dim;
  const int64_t pitch = int64_t{params.heads} * dim;
  const int64_t slot = params.slot_map[block / params.windows];
  const int64_t token =
      ((slot >= 0 ? slot : -1 - slot) * params.windows + block % params.windows) * kAttentionBlock;
  const int64_t offset = token * pitch + head * dim;
  const Element* key = (slot >= 0 ? params.key_ring : params.key_current) + offset;
  const Element* value = (slot >= 0 ? params.value_ring : params.value_current) + offset;

  const Word* keys = w.key;
  int64_t key_pitch = dim;
  int words = dim, pairs = kAttentionBlock;
  if constexpr (Math::kPairs) {
    keys = reinterpret_cast<const Word*>(key);
    key_pitch = pitch / 2;
    words = dim / 2;
    pairs = kAttentionBlock / 2;
#ifdef __AVX512BF16__
    pair_rows(value, pitch, dim, w.value);
#endif
  } else {
    widen_rows(key, pitch, dim, w.key);
    widen_rows(value, pitch, dim, w.value);
  }
  const float scale = params.softmax_scale * 1.44269504088896341f;  // to powers of two
  for (int panel = 0; panel < kPanels; ++panel) {
    Vec before[kTileVectors], reference[kTileVectors], fade[kTileVectors], total[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      reference[v] = before[v] = load<Vec>(&w.largest[panel][v * kLanes]);
    }
    score<Math>(keys, key_pitch, words, w.query[panel][0], w, reference);
    exponentiate<Math>(w, scale, reference, total);
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      fade[v] = power_of_two((before[v] - reference[v]) * scale);
      float* sum = &w.total[panel][v * kLanes];
      store(sum, load<Vec>(sum) * fade[v] + total[v]);
      store(&w.largest[panel][v * kLanes], reference[v]);
    }
    for (int c = 0; c < dim; c += kTileRows) {
      Vec sum[kTileRows][kTileVectors];
      multiply_tile<Math>(w.value + c, 1, dim, w.weight[0], pairs, sum);
#pragma GCC unroll 8
      for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) {
          float* out = &w.output[panel][c + r][v * kLanes];
          store(out, load<Vec>(out) * fade[v] + sum[r][v]);
        }
      }
    }
  }
}

// Row of the output, in tokens, of position p of query block q.
template <class Element>
int64_t output_token(const BlockSparseAttentionParamsOf<Element>& params, int64_t q, int64_t p) {
  if (!params.raster_output) {
    return q * kAttentionBlock + p;
  }
  const int64_t across = params.width / 8, per_slot = params.height / 8 * across;
  const int64_t t = q / per_slot * 2 + p / 64, y = q % per_slot / across * 8 + p / 8 % 8, x = q % across * 8 + p % 8;
  return (t * params.height + y) * params.width + x;
}

template <class Math, class Element>
void attend_row(const BlockSparseAttentionParamsOf<Element>& params, int64_t row, Workspace& w) {
  const int64_t head = row / params.q_blocks, q = row % params.q_blocks;
  const int dim = params.head_dim;
  const int64_t pitch = int64_t{params.heads} * dim;
  const AttentionRowSpan span = attention_row(params, head, q);
  Element* output = params.output + head * dim;
  if (span.begin == span.end) {
    for (int p = 0; p < kAttentionBlock; ++p) {
      Element* out = output + output_token(params, q, p) * pitch;
      for (int c = 0; c < dim; c += kLanes) {
        store_floats(out + c, Vec{});
      }
    }
    return;
  }
  pack_query<Math>(params.query + q * kAttentionBlock * pitch + head * dim, pitch, Math::kPairs ? dim / 2 : dim, w);
  for (int panel = 0; panel < kPanels; ++panel) {
    for (int v = 0; v < kPanel; v += kLanes) {
      store(&w.largest[panel][v], splat(-__builtin_inff()));
      store(&w.total[panel][v], Vec{});
      for (int c = 0; c < dim; ++c) {
        store(&w.output[panel][c][v], Vec{});
      }
    }
  }
  for (int32_t pair = span.begin; pair < span.end; ++pair) {
    attend_block<Math>(params, params.column[pair], head, w);
  }
  for (int first = 0; first < kAttentionBlock; first += kLanes) {
    const int panel = first / kPanel, lane = first % kPanel;
    const Vec inverse = 1.f / load<Vec>(&w.total[panel][lane]);
    for (int c = 0; c < dim; c += kLanes) {
      WordVec tile[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        tile[i] = (WordVec)(load<Vec>(&w.output[panel][c + i][lane]) * inverse);
      }
      transpose(tile);
      for (int i = 0; i < kLanes; ++i) {
        store_floats(output + output_token(params, q, first + i) * pitch + c, (Vec)tile[i]);
      }
    }
  }
}

template <class Math, class Element>
void attend_rows(const BlockSparseAttentionParamsOf<Element>& params, int64_t begin, int64_t end, void* workspace) {
  for (int64_t row = begin; row < end; ++row) {
    attend_row<Math>(params, row, *static_cast<Workspace*>(workspace));
  }
}

}  // namespace

void attention_rows(const BlockSparseAttentionParams& params, int64_t begin, int64_t end, void* workspace) {
#ifdef __AVX512BF16__
  attend_rows<Pairs>(params, begin, end, workspace);
#else
  attend_rows<Floats>(params, begin, end, workspace);
#endif
}

void attention_rows(const BlockSparseAttentionParamsF32& params, int64_t begin, int64_t end, void* workspace) {
  attend_rows<Floats>(params, begin, end, workspace);
}

}  // namespace FLASHVSR_ISA
}  // namespace flashvsr
