// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/dataset.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/checkpoint.h"

namespace flashvsr::train {
namespace {

// Any of the eight symmetries of [F, H, W, 3]'s pictures.
at::Tensor random_symmetry(at::Tensor frames, Random& random) {
  if (random.chance(0.5)) frames = frames.flip(2);
  if (random.chance(0.5)) frames = frames.flip(1);
  if (random.chance(0.5)) frames = frames.transpose(1, 2);
  return frames;
}

struct Pair {
  at::Tensor hq, lq;  // [F, size, size, 3] uint8; lq undefined or [F, size/4, size/4, 3]
};

Pair sample_video(const Clip& clip, const SampleOptions& options, Random& random) {
  const int64_t length = clip.frames.size(0);
  const int64_t step = random.chance(options.double_speed) ? 2 : 1;
  const int64_t start = random.below(std::max<int64_t>(1, length - (options.frames - 1) * step));
  std::vector<int64_t> indices = mirrored_indices(length, start, step, options.frames);
  if (random.chance(options.reversed)) std::reverse(indices.begin(), indices.end());
  int64_t y = random.below(clip.frames.size(1) - options.size + 1);
  int64_t x = random.below(clip.frames.size(2) - options.size + 1);
  const bool is_flipped = random.chance(0.5);
  const at::Tensor index = at::tensor(indices, at::kLong).to(clip.frames.device(), /*non_blocking=*/true);
  const auto crop = [&](const at::Tensor& frames, int64_t top, int64_t left, int64_t size) {
    const at::Tensor part = frames.narrow(1, top, size).narrow(2, left, size).index_select(0, index);
    return is_flipped ? part.flip(2) : part;
  };
  Pair pair;
  if (clip.lq.defined() && random.chance(options.pair_share)) {
    const int64_t size = options.size / 4;
    y = std::min(y / 4, clip.lq.size(1) - size);
    x = std::min(x / 4, clip.lq.size(2) - size);
    pair.lq = crop(clip.lq, y, x, size);
    y *= 4;
    x *= 4;
  }
  pair.hq = crop(clip.frames, y, x, options.size);
  return pair;
}

// One strided view is the whole pan: frame t starts t * (vy rows + vx pixels) further on.
at::Tensor sample_still(const Clip& still, const SampleOptions& options, Random& random) {
  const int64_t height = still.frames.size(1), width = still.frames.size(2);
  const double most = std::min<double>(2.0, static_cast<double>(std::min(height, width)) / options.size);
  // Half of the stills at their own resolution, the others reduced.
  const double ratio = random.chance(0.5) ? 1.0 : random.uniform(1.0, most);
  const int64_t window = std::min({static_cast<int64_t>(std::lround(options.size * ratio)), height, width});
  const int64_t steps = std::max<int64_t>(1, options.frames - 1);
  const int64_t most_y = std::min<int64_t>(8, (height - window) / steps);
  const int64_t most_x = std::min<int64_t>(8, (width - window) / steps);
  int64_t speed_y = 0, speed_x = 0;
  if (!random.chance(0.1)) {
    speed_y = random.below(2 * most_y + 1) - most_y;
    speed_x = random.below(2 * most_x + 1) - most_x;
  }
  // Strides must not be negative: run such a pan backwards.
  const bool backwards = speed_y * width + speed_x < 0;
  if (backwards) {
    speed_y = -speed_y;
    speed_x = -speed_x;
  }
  const int64_t travel_y = std::abs(speed_y) * steps, travel_x = std::abs(speed_x) * steps;
  int64_t y = random.below(height - window - travel_y + 1);
  int64_t x = random.below(width - window - travel_x + 1);
  if (speed_y < 0) y += travel_y;
  if (speed_x < 0) x += travel_x;
  at::Tensor frames = still.frames.as_strided(
      {options.frames, window, window, 3}, {(speed_y * width + speed_x) * 3, width * 3, 3, 1},
      still.frames.storage_offset() + (y * width + x) * 3);
  if (backwards) frames = frames.flip(0);
  frames = random_symmetry(frames, random);
  if (window == options.size) return frames;
  at::Tensor planes = frames.permute({0, 3, 1, 2}).to(at::kFloat);
  planes = at::_upsample_bicubic2d_aa(planes.contiguous(), {options.size, options.size}, false);
  return planes.round().clamp(0, 255).to(at::kByte).permute({0, 2, 3, 1});
}

bool fits(const Clip& clip, int64_t size) {
  return clip.frames.size(1) >= size && clip.frames.size(2) >= size;
}

const Clip& pick(const std::vector<Clip>& clips, int64_t size, Random& random) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const Clip& clip = clips[random.below(static_cast<int64_t>(clips.size()))];
    if (fits(clip, size)) return clip;
  }
  throw Error(ErrorCode::kInvalidArgument, concat("dataset: nothing is at least ", size, " pixels wide and high"));
}

}  // namespace

std::vector<int64_t> mirrored_indices(int64_t length, int64_t start, int64_t step, int64_t count) {
  std::vector<int64_t> indices(count);
  const int64_t period = std::max<int64_t>(1, 2 * (length - 1));
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = (start + i * step) % period;
    if (at < 0) at += period;
    indices[i] = at < length ? at : period - at;
  }
  return indices;
}

at::Tensor to_model_range(const at::Tensor& frames) {
  return frames.permute({3, 0, 1, 2}).unsqueeze(0).to(at::kFloat).div_(127.5).sub_(1.0).contiguous();
}

Dataset::Dataset(std::vector<Clip> clips) {
  for (Clip& clip : clips) {
    const at::Tensor& frames = clip.frames;
    FLASHVSR_CHECK(frames.dim() == 4 && frames.size(3) == 3 && frames.size(0) >= 1 &&
                       frames.scalar_type() == at::kByte,
                   ErrorCode::kModelInvalid, "dataset: \"", clip.name, "\" is ", frames.scalar_type(), " ",
                   frames.sizes(), ", expected uint8 [F, H, W, 3]");
    FLASHVSR_CHECK(!clip.lq.defined() || (clip.lq.dim() == 4 && clip.lq.scalar_type() == at::kByte &&
                                          clip.lq.size(0) == frames.size(0) && clip.lq.size(1) == frames.size(1) / 8 * 2 &&
                                          clip.lq.size(2) == frames.size(2) / 8 * 2 && clip.lq.size(3) == 3),
                   ErrorCode::kModelInvalid, "dataset: the LQ side of \"", clip.name, "\" is ",
                   clip.lq.defined() ? clip.lq.sizes() : at::IntArrayRef(), ", the clip is ", frames.sizes(),
                   "; expected a quarter of its sizes cut to multiples of 8");
    clip.frames = frames.contiguous();
    (frames.size(0) == 1 ? stills_ : videos_).push_back(std::move(clip));
  }
}

Dataset Dataset::load(const std::vector<std::string>& shards, c10::Device device,
                      const std::vector<std::string>& lq_shards) {
  std::vector<Clip> clips;
  for (const std::string& shard : shards) {
    for (auto& [name, tensor] : read_file(shard).tensors) clips.push_back({name, tensor.to(device), {}});
  }
  for (const std::string& shard : lq_shards) {
    for (auto& [name, tensor] : read_file(shard).tensors) {
      const auto clip = std::find_if(clips.begin(), clips.end(), [&](const Clip& c) { return c.name == name; });
      FLASHVSR_CHECK(clip != clips.end(), ErrorCode::kInvalidArgument, shard, ": \"", name, "\" has no clip of that name");
      clip->lq = tensor.to(device);
    }
  }
  return Dataset(std::move(clips));
}

Samples Dataset::sample(const SampleOptions& options, Random& random) const {
  FLASHVSR_CHECK(!videos_.empty() || !stills_.empty(), ErrorCode::kInvalidArgument, "dataset: empty");
  std::vector<at::Tensor> hq;
  Samples samples;
  for (int64_t i = 0; i < options.batch; ++i) {
    const bool is_still = videos_.empty() || (!stills_.empty() && random.chance(options.still_share));
    Pair pair;
    if (is_still) {
      pair.hq = sample_still(pick(stills_, options.size, random), options, random);
    } else {
      pair = sample_video(pick(videos_, options.size, random), options, random);
    }
    hq.push_back(pair.hq);
    samples.lq.push_back(pair.lq.defined() ? to_model_range(pair.lq)[0] : at::Tensor());
  }
  samples.hq = at::stack(hq).permute({0, 4, 1, 2, 3}).to(at::kFloat).div_(127.5).sub_(1.0).contiguous();
  return samples;
}

}  // namespace flashvsr::train
