// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Keys and values of past chunks, per transformer block, token-major:
//
//   key, value   [slots * L, 128, D]   model dtype, window order, oldest slot first,
//                                      after norm and RoPE; undefined when empty
//
// A slot is 2 latent frames. `append` adds the windows of the chunk just attended
// and then drops the ONE oldest slot if more than `kv_chunks` are held, as the
// reference does: with kv_chunks 3, attention sees 3, 4, 4, ... slots.
//
// Thread-safety: unsafe.
// Source: model.md 4.4 items 4-6.
#ifndef FLASHVSR_MODEL_KV_CACHE_H_
#define FLASHVSR_MODEL_KV_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace flashvsr {

struct KvSlots {
  at::Tensor key;
  at::Tensor value;
};

class KvCache {
 public:
  // Slots held for a block: [slots * L, 128, D], or undefined tensors.
  const KvSlots& block(int64_t layer) const;

  // `key` and `value` are cached slots followed by the new ones (what attention saw).
  void update(int64_t layer, const at::Tensor& key, const at::Tensor& value, int64_t windows_per_slot,
              int64_t kv_chunks);

  bool empty() const { return blocks_.empty(); }
  int64_t bytes() const;

 private:
  std::vector<KvSlots> blocks_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_KV_CACHE_H_
