// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Keys and values of past chunks, per transformer block, one entry per slot (2 latent
// frames = L windows), oldest first:
//
//   key, value  [L, 128, D]  model dtype, window order, after norm and RoPE
//   key_mean    [L, D]       means over the windows' tokens, for the block mask
//
// Slots are never copied: `append` keeps views of the chunk's own tensors. After the
// attention of a chunk, `evict` drops the ONE oldest slot if more than `kv_chunks` are
// held, as the reference does: with kv_chunks 3, attention sees 3, 4, 4, ... slots.
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
  std::vector<at::Tensor> key, value, key_mean;

  int64_t slots() const { return static_cast<int64_t>(key.size()); }
};

class KvCache {
 public:
  // What attention of `layer` sees. Creates the layer's entry.
  const KvSlots& append(int64_t layer, const at::Tensor& key, const at::Tensor& value,
                        const at::Tensor& key_mean, int64_t windows_per_slot);
  void evict(int64_t layer, int64_t kv_chunks);

  const KvSlots& block(int64_t layer) const;
  bool empty() const { return blocks_.empty(); }
  int64_t bytes() const;

 private:
  std::vector<KvSlots> blocks_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_KV_CACHE_H_
