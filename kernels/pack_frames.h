// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the convolutions of projector and decoder read, made from frames in one pass.
//
// pack_frames: squares of u x u pixels become channels, `group` frames a step, `missing` copies of the first frame in
// front; latents, or zeros, as the last channels:
//   output[s][y][x][((c*group + t)*u + dy)*u + dx] = frames[c][max(0, s*group + t - missing)][y*u + dy][x*u + dx]
//   output[s][y][x][3*group*u*u + l]               = latents[l][s][y][x]
// `squash`: of each value v bf16(3 * bf16(tanh(bf16(v / 3)))). `border`: one more row and column on each side, copies of
// the outermost ones.
//
//   frames   bf16, strides in elements, multiples of 8, rows of dense pixels; 16-byte aligned
//   latents  bf16, any strides; null: zeros
//   output   [steps][height (+ 2)][width (+ 2)][channels] bf16, dense, 16-byte aligned; height, width: without border
//
// pad_steps: the border alone. input [steps][height][width][channels] bf16 with strides, multiples of 8, 0 allowed, channels
// dense; output [steps][height + 2][width + 2][channels], dense; both 16-byte aligned.
//
// Deterministic and exact: equal to the twins. No bf16 number's tanh lies nearer than 8e-6 (relative) to where rounding turns.
// Limits: u 8 or 16; channels and latent channels multiples of 8, pack_frames' up to 1528; 65535 steps and rows.
// Cost: memory bound. Errors: cudaErrorInvalidValue's value (1) for arguments, else what the launch said.
// Thread-safety: safe. Source: model.md 3, 6.
#ifndef FLASHVSR_KERNELS_PACK_FRAMES_H_
#define FLASHVSR_KERNELS_PACK_FRAMES_H_

#include <cstdint>

namespace flashvsr {

struct PackFramesParams {
  const uint16_t* frames = nullptr;
  const uint16_t* latents = nullptr;
  uint16_t* output = nullptr;
  int64_t plane_stride = 0, frame_stride = 0, row_stride = 0;
  int64_t latent_stride_c = 0, latent_stride_t = 0, latent_stride_y = 0, latent_stride_x = 0;
  int32_t steps = 0, height = 0, width = 0;
  int32_t unshuffle = 0, group = 1, missing = 0, latent_channels = 0;
  bool border = false, squash = false;
};

struct PadStepsParams {
  const uint16_t* input = nullptr;
  uint16_t* output = nullptr;
  int64_t in_stride_t = 0, in_stride_y = 0, in_stride_x = 0;
  int32_t steps = 0, height = 0, width = 0, channels = 0;
};

int launch_pack_frames(const PackFramesParams& params, void* stream);
int launch_pad_steps(const PadStepsParams& params, void* stream);
int pack_frames_ref(const PackFramesParams& params);
int pad_steps_ref(const PadStepsParams& params);
int check_pack_frames(const PackFramesParams& params);
int check_pad_steps(const PadStepsParams& params);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_PACK_FRAMES_H_
