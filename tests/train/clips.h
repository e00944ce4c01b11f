// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Small moving pictures for the trainer's tests, made of sine waves: detail that
// survives a reduction in part, so that there is something to learn.
#ifndef FLASHVSR_TESTS_TRAIN_CLIPS_H_
#define FLASHVSR_TESTS_TRAIN_CLIPS_H_

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "train/dataset.h"

namespace flashvsr::train {

// [frames, height, width, 3] uint8, moving by (0.5, 1.5) pixels per frame.
inline at::Tensor wave_clip(int64_t frames, int64_t height, int64_t width, double pitch = 0.9) {
  const at::Tensor t = at::arange(frames, at::kDouble).reshape({-1, 1, 1, 1});
  const at::Tensor y = at::arange(height, at::kDouble).reshape({1, -1, 1, 1}) + t * 0.5;
  const at::Tensor x = at::arange(width, at::kDouble).reshape({1, 1, -1, 1}) + t * 1.5;
  const at::Tensor c = at::arange(3, at::kDouble).reshape({1, 1, 1, -1});
  const at::Tensor value = at::sin(x * pitch + c) * at::cos(y * pitch * 0.3) * 70 + at::sin((x + y) * 0.11) * 40 + 128;
  return value.round().clamp(0, 255).to(at::kByte);
}

inline Dataset wave_dataset() {
  std::vector<Clip> clips = {{"a", wave_clip(12, 80, 96), {}}, {"b", wave_clip(9, 72, 72, 0.7), {}}};
  clips.push_back({"still", wave_clip(1, 128, 128, 0.8), {}});
  return Dataset(std::move(clips));
}

}  // namespace flashvsr::train

#endif  // FLASHVSR_TESTS_TRAIN_CLIPS_H_
