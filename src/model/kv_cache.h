// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Keys and values of past chunks: per transformer block a ring of slots (a slot is 2
// latent frames, L windows):
//
//   key, value  [capacity, L, 128, D]  model dtype, window order, after norm and RoPE
//   key_mean    [capacity, L, D]       means over the windows' tokens, for the block mask
//
// A chunk attends to the held slots, oldest first, then to its own. Afterwards `store`
// writes each layer's new slots into the ring and `advance` moves it: the ONE oldest slot
// goes if more than `kv_chunks` were seen, as in the reference. With kv_chunks 3 attention
// sees 3, 4, 4, ... slots; capacity is max(kv_chunks, 2). Memory is taken at the first store or by `reserve`.
//
//     const std::vector<int32_t> map = cache.slot_map(new_slots);
//     for each layer: attend(cache.layer(n), now, map); cache.store(n, now..., kv_chunks);
//     cache.advance(new_slots, kv_chunks);
//
// Where memory is short the rings are kept in another form, and `layer` makes one layer's anew:
//
//   kFp8      key and value in e4m3 with a scale for each token and 64 channels (all of them where
//             64 do not divide D). Scales are powers of two: making a value anew does not round.
//             About half the memory of bf16; relative error of a value at most 1/16.
//   kHost     in host memory; nothing is lost. Every chunk copies the ring to the device and its newest
//             slot back: on a stream of the cache's own, a layer ahead of the one at work, so that it takes its
//             time beside the computation where the bus is fast enough. Two layers' rings are on the device.
//   kHostFp8  both
//
// Thread-safety: unsafe.
// Source: model.md 4.4 items 4-6.
#ifndef FLASHVSR_MODEL_KV_CACHE_H_
#define FLASHVSR_MODEL_KV_CACHE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/ops.h"

namespace flashvsr {

struct KvRing {
  at::Tensor key, value, key_mean;  // undefined while nothing is held
};

enum class CacheStorage { kDevice, kFp8, kHost, kHostFp8 };

constexpr bool is_in_8_bits(CacheStorage s) { return s == CacheStorage::kFp8 || s == CacheStorage::kHostFp8; }
constexpr bool is_in_host(CacheStorage s) { return s == CacheStorage::kHost || s == CacheStorage::kHostFp8; }

class KvCache {
 public:
  KvCache() = default;
  explicit KvCache(CacheStorage storage) : storage_(storage) {}

  // Where each visible slot lies, oldest first: r >= 0 is ring slot r, r < 0 the chunk's own
  // slot -1 - r.
  std::vector<int32_t> slot_map(int64_t new_slots) const;

  // Takes the memory of the first `layers` rings ahead of their first store, as that would: the rings of
  // `windows` windows a slot, `dim` wide, in `options`' type. Nothing where memory is taken already.
  void reserve(int64_t layers, int64_t windows, int64_t dim, int64_t kv_chunks, const at::TensorOptions& options);

  // The ring's own memory [new_slots * L, 128, D] where a chunk's keys and values may be written before it is
  // attended: those of a stream's first chunk that fills the ring, whose memory is taken. Else undefined.
  KvPlace place(int64_t index, int64_t new_slots) const;

  // kHost: asks for the first layer's copy, ahead of `layer`.
  void fetch_first();
  // kHost: gives the copies' memory on the device back, until the next chunk.
  void rest();

  // kDevice: the ring itself; else a copy on the device and in the type of what was stored, valid until the
  // next layer's (kHost: the next but one).
  KvRing layer(int64_t index);

  // key, value [new_slots * L, 128, D], key_mean [new_slots * L, D] of the chunk just attended. What is in its
  // `place` already stays there.
  void store(int64_t index, const at::Tensor& key, const at::Tensor& value,
             const at::Tensor& key_mean, int64_t new_slots, int64_t kv_chunks);
  void advance(int64_t new_slots, int64_t kv_chunks);

  // A copy with rings of its own; plain copies share them.
  KvCache clone() const;

  // What advance moves.
  struct Position {
    int64_t head, held;
  };
  Position position() const { return {head_, held_}; }
  void rewind(const Position& position) {
    head_ = position.head;
    held_ = position.held;
  }

  int64_t held() const { return held_; }
  // Which ring slot is the oldest; and whether every chunk of so many slots takes the place of as many.
  int64_t phase() const { return head_; }
  bool is_full(int64_t new_slots, int64_t kv_chunks) const { return dropped(held_ + new_slots, kv_chunks) == new_slots; }
  int64_t bytes() const;         // wherever they are
  int64_t device_bytes() const;  // of them on the keys' device
  CacheStorage storage() const { return storage_; }

 private:
  // [capacity, L, 128, D]
  struct Stored {
    at::Tensor values;
    at::Tensor scale;  // [capacity, L, 128, D / 64], 8 bits only
    void put(int64_t place, const at::Tensor& slot);
    at::Tensor get(const at::TensorOptions& options) const;
    void copy_to(Stored& device) const;  // without waiting for it
    int64_t bytes() const;
  };
  struct Layer {
    Stored key, value;
    at::Tensor key_mean;
  };
  // Where layers kept in host memory come to on a device, in turns.
  struct Landing {
    explicit Landing(c10::Device device);
    ~Landing();  // waits: host memory may go after this
    Landing(const Landing&) = delete;
    Landing& operator=(const Landing&) = delete;
    c10::Stream stream;
    struct Place {
      int64_t layer = -1;  // whose ring is there or on its way
      Stored key, value;
      c10::Event arrived;
    };
    std::array<Place, 2> places;
    c10::Event stored;  // behind the newest store
    size_t at_work = 1;  // which of them `layer` returned last
  };
  // The place that layer `index` has or gets; its copy is asked for once.
  Landing::Place& fetch(int64_t index);
  int64_t landing_bytes() const;
  Stored make_store(int64_t windows, int64_t dim, const at::TensorOptions& options) const;
  void take_memory(Layer& layer, int64_t windows, int64_t dim, const at::TensorOptions& options);

  static int64_t dropped(int64_t seen, int64_t kv_chunks) { return seen > kv_chunks ? 1 : 0; }

  CacheStorage storage_ = CacheStorage::kDevice;
  std::vector<Layer> layers_;
  std::shared_ptr<Landing> landing_;
  int64_t capacity_ = 0;
  int64_t head_ = 0;  // ring slot of the oldest held
  int64_t held_ = 0;
};

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_KV_CACHE_H_
