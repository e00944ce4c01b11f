// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Clips and stills in memory, and random training samples from them.
//
//   shard     a safetensors file; each tensor is one clip, uint8 [F, H, W, 3], RGB;
//             F = 1 is a still. Made by flashvsr-dataset or tools/make_shards.py.
//   sample    [B, 3, F, size, size]  fp32 in [-1, 1], on the dataset's device
//   pair      a clip may have its low-quality side in another shard, under the same name:
//             coded by a real encoder, which training cannot do. Crops then begin at multiples
//             of 4 and both sides go through the same steps.
//
// A clip shorter than the window is mirrored in time. A still becomes a clip by a
// constant integer pan at its own resolution, then reduced by 1 .. 2, which gives
// sub-pixel motion. Which samples come out depends on `random` alone.
//
// Errors: throws Error (kModelInvalid) for tensors of another shape or dtype, or
// when nothing is large enough for a crop.
// Thread-safety: immutable after loading.
#ifndef FLASHVSR_TRAIN_DATASET_H_
#define FLASHVSR_TRAIN_DATASET_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "train/random.h"

namespace flashvsr::train {

struct Clip {
  std::string name;
  at::Tensor frames;  // [F, H, W, 3] uint8
  at::Tensor lq;      // [F, H/8*2, W/8*2, 3] uint8 (integer division): the same frames after a real codec; or undefined
};

struct Samples {
  at::Tensor hq;                // [B, 3, F, size, size]
  std::vector<at::Tensor> lq;   // per sample [3, F, size/4, size/4], or undefined where it is to be made
};

struct SampleOptions {
  int64_t batch = 8;
  int64_t frames = 21;
  int64_t size = 256;           // pixels, HQ
  double still_share = 0.35;    // of the samples, when there are stills
  double double_speed = 0.15;   // of the clips
  double reversed = 0.3;
  double pair_share = 0.6;      // of the clips that have their LQ side: how often it is used
};

class Dataset {
 public:
  // Reads every shard and puts it on `device`. Clips of `lq_shards` must name clips of `shards`.
  static Dataset load(const std::vector<std::string>& shards, c10::Device device,
                      const std::vector<std::string>& lq_shards = {});
  explicit Dataset(std::vector<Clip> clips);

  Samples sample(const SampleOptions& options, Random& random) const;

  const std::vector<Clip>& videos() const { return videos_; }
  const std::vector<Clip>& stills() const { return stills_; }

 private:
  std::vector<Clip> videos_;
  std::vector<Clip> stills_;
};

// Indices of `count` frames from `start` in steps of `step` (either sign), reflected
// at both ends of a clip of `length` frames without repeating the end frame.
std::vector<int64_t> mirrored_indices(int64_t length, int64_t start, int64_t step, int64_t count);

// [F, H, W, 3] uint8 -> [1, 3, F, H, W] fp32 in [-1, 1].
at::Tensor to_model_range(const at::Tensor& frames);

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_DATASET_H_
