// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Registers the CUDA kernels for the projector's and the TC decoder's operations of model/ops.h, in the way of ops.cpp.
#include "model/ops.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <optional>

#include "base/error.h"
#include "cuda/glue.cuh"
#include "cuda/operands.h"
#include "kernels/conv_nhwc.h"
#include "kernels/conv_to_planes.h"
#include "kernels/pack_frames.h"

namespace flashvsr {
namespace {

at::Tensor float_bias(const at::Tensor& bias) {
  return derived_weights().get(bias, 0, [&] { return bias.to(at::kFloat).contiguous(); });
}

// weight [O, C*past, dt, 3, 3] or [O, C, k, k]; two_steps: input channels are [now, past].
// On the device of `x`; the weight may be on the host.
at::Tensor packed_weight(const at::Tensor& weight, bool two_steps, bool folded, const at::Tensor& x) {
  return derived_weights().get(weight, 1 + (two_steps ? 2 : 0) + (folded ? 4 : 0), [&] {
    PackConvWeightsParams p;
    const bool is_3d = weight.dim() == 5;
    at::Tensor source = weight.to(x.device());
    const int64_t kernel = weight.size(-1);
    // dy and dx must share a stride.
    if (source.stride(-2) != kernel * source.stride(-1)) source = source.contiguous();
    p.out_channels = static_cast<int32_t>(source.size(0));
    p.in_channels = static_cast<int32_t>(source.size(1) / (two_steps ? 2 : 1));
    p.kernel_t = is_3d ? static_cast<int32_t>(source.size(2)) : two_steps ? 2 : 1;
    p.kernel_xy = static_cast<int32_t>(kernel);
    p.folded = folded;
    p.stride_o = source.stride(0);
    p.stride_c = source.stride(1);
    p.stride_xy = source.stride(-1);
    p.stride_t = is_3d ? source.stride(2) : 0;
    p.source = bits(source);
    if (two_steps) {
      p.source += p.in_channels * p.stride_c;
      p.stride_t = -p.in_channels * p.stride_c;
    }
    at::Tensor packed = at::empty({conv_weight_elements(p)}, source.options());
    p.packed = mutable_bits(packed);
    check(launch_pack_conv_weights(p, stream()), "pack_conv_weights");
    return packed;
  });
}

// Storages that have free room at known places, as long as they live.
class NotedStorages {
 public:
  void note(const at::Tensor& x) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = storages_.begin(); it != storages_.end();) {
      it = it->second.expired() ? storages_.erase(it) : std::next(it);
    }
    c10::StorageImpl* const storage = x.storage().unsafeGetStorageImpl();
    storages_.insert_or_assign(storage, Weak(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(storage)));
  }
  bool has(const at::Tensor& x) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = storages_.find(x.storage().unsafeGetStorageImpl());
    return found != storages_.end() && !found->second.expired();
  }

 private:
  using Weak = c10::weak_intrusive_ptr<c10::StorageImpl>;
  std::mutex mutex_;
  std::map<const c10::StorageImpl*, Weak> storages_;
};

// --- projector --------------------------------------------------------------------------------------------------

// Steps with their borders and two free steps in front, for the past, lie in storages noted here.
NotedStorages& bordered_storages() {
  static NotedStorages* storages = new NotedStorages;
  return *storages;
}

// x [1, C, T, h, w] lies inside such a storage, at its first steps: all of it with the two in front, [T + 2, h + 2, w + 2,
// C]; else undefined.
at::Tensor with_border(const at::Tensor& x) {
  const int64_t channels = x.size(1), line = (x.size(4) + 2) * channels, step = (x.size(3) + 2) * line;
  if (!bordered_storages().has(x) || x.stride(1) != 1 || x.stride(4) != channels || x.stride(3) != line ||
      x.stride(2) != step || x.storage_offset() != 2 * step + line + channels ||
      static_cast<int64_t>(x.storage().nbytes()) < (x.size(2) + 2) * step * 2) {
    return {};
  }
  return x.as_strided({x.size(2) + 2, x.size(3) + 2, x.size(4) + 2, channels}, {step, line, channels, 1}, 0);
}

bool is_aligned(const at::Tensor& x) { return reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0; }

// x [1, C, T, h, w] with a border of its outermost pixels to `padded` [T, h + 2, w + 2, C].
void pad_steps(const at::Tensor& x, const at::Tensor& padded) {
  at::Tensor inside = x.select(0, 0).permute({1, 2, 3, 0});
  const auto fits = [](int64_t stride) { return stride % 8 == 0; };
  if (inside.stride(3) != 1 || !fits(inside.stride(0)) || !fits(inside.stride(1)) || !fits(inside.stride(2)) ||
      !is_aligned(inside)) {
    inside = inside.clone(at::MemoryFormat::Contiguous);
  }
  PadStepsParams p;
  p.input = bits(inside);
  p.output = mutable_bits(padded);
  p.in_stride_t = inside.stride(0);
  p.in_stride_y = inside.stride(1);
  p.in_stride_x = inside.stride(2);
  p.steps = static_cast<int32_t>(inside.size(0));
  p.height = static_cast<int32_t>(inside.size(1));
  p.width = static_cast<int32_t>(inside.size(2));
  p.channels = static_cast<int32_t>(inside.size(3));
  check(launch_pad_steps(p, stream()), "pad_steps");
}

// What projector and decoder have in common; output, latents and what is wanted of them are the caller's.
PackFramesParams frames_to_pack(const at::Tensor& frames, int64_t missing, int64_t unshuffle) {
  PackFramesParams p;
  p.frames = bits(frames);
  p.plane_stride = frames.stride(1);
  p.frame_stride = frames.size(2) == 1 ? 0 : frames.stride(2);
  p.row_stride = frames.stride(3);
  p.height = static_cast<int32_t>(frames.size(3) / unshuffle);
  p.width = static_cast<int32_t>(frames.size(4) / unshuffle);
  p.unshuffle = static_cast<int32_t>(unshuffle);
  p.missing = static_cast<int32_t>(missing);
  return p;
}

bool can_pack(const at::Tensor& frames, int64_t unshuffle, int64_t channels) {
  return is_plain_bf16(frames) && frames.size(0) == 1 && frames.size(1) == 3 && (unshuffle == 8 || unshuffle == 16) &&
         channels % 8 == 0 && channels <= 1528;
}

// Planes and frames may lie anywhere, pixels of a row side by side.
at::Tensor with_dense_rows(const at::Tensor& frames) {
  const bool fits = frames.stride(4) == 1 && frames.stride(3) % 8 == 0 && frames.stride(1) % 8 == 0 &&
                    (frames.size(2) == 1 || frames.stride(2) % 8 == 0) && is_aligned(frames);
  return fits ? frames : frames.clone(at::MemoryFormat::Contiguous);
}

at::Tensor projector_input(const at::Tensor& frames, int64_t missing, int64_t unshuffle) {
  const int64_t channels = 3 * unshuffle * unshuffle;
  if (!can_pack(frames, unshuffle, channels)) {
    note_reference("projector_input", frames);
    return reference::projector_input(frames, missing, unshuffle);
  }
  const CUDAGuard guard(frames.device());
  const at::Tensor source = with_dense_rows(frames);
  PackFramesParams p = frames_to_pack(source, missing, unshuffle);
  p.steps = static_cast<int32_t>(missing + frames.size(2));
  p.border = true;
  const at::Tensor whole = at::empty({p.steps + 2, p.height + 2, p.width + 2, channels}, frames.options());
  const at::Tensor steps = whole.narrow(0, 2, p.steps);
  p.output = mutable_bits(steps);
  check(launch_pack_frames(p, stream()), "projector_input");
  bordered_storages().note(whole);
  return steps.narrow(1, 1, p.height).narrow(2, 1, p.width).permute({3, 0, 1, 2}).unsqueeze(0);
}

at::Tensor projector_conv(const at::Tensor& x, const Maybe& past, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t before = past ? past->size(2) : 0, steps = before + x.size(2);
  const int64_t channels = x.size(1), h = x.size(3), w = x.size(4), out_channels = weight.size(0);
  if (!is_plain_bf16(x) || x.size(0) != 1 || channels % 8 || out_channels % 8 || steps % 2 || steps < 4) {
    note_reference("projector_conv", x);
    return reference::projector_conv(x, past.value_or(at::Tensor()), weight, bias);
  }
  const CUDAGuard guard(x.device());
  // Replicated borders become data: one more row and column on each side, channels last.
  at::Tensor padded = with_border(x);
  if (!padded.defined() || (past && before != 2)) {
    padded = at::empty({steps, h + 2, w + 2, channels}, x.options());
    pad_steps(x, padded.narrow(0, before, x.size(2)));
  } else if (!past) {
    padded = padded.narrow(0, 2, steps);
  }
  if (past) pad_steps(*past, padded.narrow(0, 0, before));

  const int64_t out_steps = (steps - 2) / 2;
  const at::Tensor out = at::empty({out_steps, h, w, out_channels}, x.options());
  const at::Tensor packed = packed_weight(weight, false, false, x), bias32 = float_bias(bias);
  ConvNhwcParams p;
  p.input = bits(padded);
  p.weights = bits(packed);
  p.bias = bias32.data_ptr<float>();
  p.output = mutable_bits(out);
  p.in_stride_t = padded.stride(0);
  p.in_stride_y = padded.stride(1);
  p.in_stride_x = padded.stride(2);
  p.out_stride_t = out.stride(0);
  p.out_stride_y = out.stride(1);
  p.out_stride_x = out.stride(2);
  p.in_channels = static_cast<int32_t>(channels);
  p.in_frames = static_cast<int32_t>(steps);
  p.in_height = static_cast<int32_t>(h + 2);
  p.in_width = static_cast<int32_t>(w + 2);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(out_steps);
  p.kernel_t = 4;
  p.stride_t = 2;
  p.kernel_xy = 3;
  p.pad = 0;
  check(launch_conv_nhwc(p, stream()), "projector_conv");
  return out.permute({3, 0, 1, 2}).unsqueeze(0);
}

// --- TC decoder -------------------------------------------------------------------------------------------------

// Each step dense; the steps may lie farther apart, as in a strip of rows.
bool is_channels_last(const at::Tensor& x) {
  return x.dim() == 4 && x.stride(1) == 1 && x.stride(3) == x.size(1) && x.stride(2) == x.size(3) * x.stride(3) &&
         (x.size(0) == 1 || (x.stride(0) >= x.size(2) * x.stride(2) && x.stride(0) % 8 == 0));
}

bool are_steps_dense(const at::Tensor& x) { return x.size(0) == 1 || x.stride(0) == x.size(2) * x.stride(2); }

// Pictures that a MemBlock will read are made with one free step in front, for the memory: the two steps of its
// first convolution then lie side by side and nothing is concatenated. Only storages noted here have that step.
class FrontSteps {
 public:
  at::Tensor empty(int64_t t, int64_t c, int64_t h, int64_t w, const at::Tensor& like) {
    const at::Tensor whole = at::empty({t + 1, c, h, w}, like.options(), at::MemoryFormat::ChannelsLast);
    storages_.note(whole);
    return whole.narrow(0, 1, t);
  }
  // The step in front of all of x's, or undefined.
  at::Tensor front(const at::Tensor& x) {
    const int64_t step = x.size(1) * x.size(2) * x.size(3);
    if (!storages_.has(x) || x.storage_offset() != step ||
        static_cast<int64_t>(x.storage().nbytes()) < (x.size(0) + 1) * step * 2) {
      return {};
    }
    return x.as_strided({1, x.size(1), x.size(2), x.size(3)}, {step, 1, x.size(3) * x.size(1), x.size(1)}, 0);
  }

 private:
  NotedStorages storages_;
};

FrontSteps& front_steps() {
  static FrontSteps* steps = new FrontSteps;
  return *steps;
}

at::Tensor empty_channels_last(int64_t t, int64_t c, int64_t h, int64_t w, const at::Tensor& like) {
  return at::empty({t, c, h, w}, like.options(), at::MemoryFormat::ChannelsLast);
}

at::Tensor decoder_input(const at::Tensor& frames, const Maybe& latents, int64_t latent_channels, int64_t missing,
                         int64_t unshuffle) {
  const int64_t channels = 3 * 4 * unshuffle * unshuffle + latent_channels;
  if (!can_pack(frames, unshuffle, channels) || latent_channels % 8 || (latents && !is_plain_bf16(*latents))) {
    note_reference("decoder_input", frames);
    return reference::decoder_input(frames, latents.value_or(at::Tensor()), latent_channels, missing, unshuffle);
  }
  const CUDAGuard guard(frames.device());
  const at::Tensor source = with_dense_rows(frames);
  PackFramesParams p = frames_to_pack(source, missing, unshuffle);
  p.steps = static_cast<int32_t>((missing + frames.size(2)) / 4);
  p.group = 4;
  p.squash = true;
  p.latents = bits(latents);
  p.latent_channels = static_cast<int32_t>(latent_channels);
  if (latents) {
    p.latent_stride_c = latents->stride(1);
    p.latent_stride_t = latents->stride(2);
    p.latent_stride_y = latents->stride(3);
    p.latent_stride_x = latents->stride(4);
  }
  const at::Tensor out = empty_channels_last(p.steps, channels, p.height, p.width, frames);
  p.output = mutable_bits(out);
  check(launch_pack_frames(p, stream()), "decoder_input");
  return out;
}

// Sizes and strides of a channels-last picture, whatever its stride says where the size is 1.
void set_input(ConvNhwcParams& p, const at::Tensor& x) {
  p.input = bits(x);
  p.in_channels = static_cast<int32_t>(x.size(1));
  p.in_frames = static_cast<int32_t>(x.size(0));
  p.in_height = static_cast<int32_t>(x.size(2));
  p.in_width = static_cast<int32_t>(x.size(3));
  p.in_stride_x = x.size(1);
  p.in_stride_y = p.in_stride_x * x.size(3);
  p.in_stride_t = x.size(0) == 1 ? p.in_stride_y * x.size(2) : x.stride(0);
}

void set_output(ConvNhwcParams& p, const at::Tensor& out) {
  p.output = mutable_bits(out);
  p.out_stride_x = out.size(1);
  p.out_stride_y = p.out_stride_x * out.size(3);
  p.out_stride_t = p.out_stride_y * out.size(2);
}

at::Tensor conv3x3(const at::Tensor& x, const Maybe& past, const at::Tensor& weight, const Maybe& bias, const Maybe& add,
                   bool relu, int64_t up, bool feeds_memory) {
  const int64_t channels = x.size(1), out_channels = weight.size(0);
  const bool plain = is_plain_bf16(x) && !(at::GradMode::is_enabled() && weight.requires_grad()) && weight.size(2) == 3 &&
                     is_channels_last(x) && (!past || (is_channels_last(*past) && are_steps_dense(x) && are_steps_dense(*past))) &&
                     (!add || (is_channels_last(*add) && are_steps_dense(*add)));
  const bool tiles = plain && channels % 8 == 0 && out_channels % 8 == 0 && (up == 1 || (up == 2 && out_channels % 128 == 0));
  const bool planes = plain && are_steps_dense(x) && out_channels == 3 && channels % 32 == 0 && channels <= 128 && up == 1 && !past && !add &&
                      !relu;
  if (!tiles && !planes) {
    note_reference("conv3x3", x);
    const at::Tensor none;
    return reference::conv3x3(x, past.value_or(none), weight, bias.value_or(none), add.value_or(none), relu, up);
  }
  const CUDAGuard guard(x.device());
  const at::Tensor bias32 = bias ? float_bias(*bias) : at::Tensor();
  if (planes) {
    const at::Tensor source = weight.stride(2) == 3 * weight.stride(3) ? weight : weight.contiguous();
    const at::Tensor out = at::empty({3, x.size(0), x.size(2), x.size(3)}, x.options());
    ConvToPlanesParams p;
    p.input = bits(x);
    p.weight = bits(source);
    p.bias = bias ? bias32.data_ptr<float>() : nullptr;
    p.output = mutable_bits(out);
    p.plane_stride = out.stride(0);
    p.frame_stride = out.stride(1);
    p.stride_o = source.stride(0);
    p.stride_c = source.stride(1);
    p.stride_xy = source.stride(3);
    p.channels = static_cast<int32_t>(channels);
    p.frames = static_cast<int32_t>(x.size(0));
    p.height = static_cast<int32_t>(x.size(2));
    p.width = static_cast<int32_t>(x.size(3));
    check(launch_conv_to_planes(p, stream()), "conv_to_planes");
    return out.transpose(0, 1);
  }
  const at::Tensor packed = packed_weight(weight, past.has_value(), up == 2, x);
  const at::Tensor out = feeds_memory && x.size(0) <= 8 ? front_steps().empty(x.size(0), out_channels, x.size(2) * up, x.size(3) * up, x)
                                      : empty_channels_last(x.size(0), out_channels, x.size(2) * up, x.size(3) * up, x);
  ConvNhwcParams p;
  set_input(p, x);
  p.past = bits(past);
  p.weights = bits(packed);
  p.bias = bias ? bias32.data_ptr<float>() : nullptr;
  p.residual = bits(add);
  set_output(p, out);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(x.size(0));
  p.kernel_t = past ? 2 : 1;
  p.upsample = static_cast<int32_t>(up);
  p.folded = up == 2;
  p.relu = relu;
  check(launch_conv_nhwc(p, stream()), "conv3x3");
  return out;
}

at::Tensor mem_conv(const at::Tensor& x, const Maybe& memory, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t steps = x.size(0), channels = x.size(1), out_channels = weight.size(0);
  const bool fits = is_plain_bf16(x) && !(at::GradMode::is_enabled() && weight.requires_grad()) && weight.size(2) == 3 &&
                    is_channels_last(x) && are_steps_dense(x) && channels % 8 == 0 && out_channels % 8 == 0;
  const at::Tensor front = fits ? front_steps().front(x) : at::Tensor();
  if (!front.defined()) {
    const at::Tensor first = memory ? *memory : at::zeros_like(x.narrow(0, 0, 1));
    const at::Tensor past = steps == 1 ? first : at::cat({first, x.narrow(0, 0, steps - 1)}, 0);
    return conv3x3(x, past.contiguous(at::MemoryFormat::ChannelsLast), weight, bias, {}, /*relu=*/true, 1,
                   /*feeds_memory=*/false);
  }
  const CUDAGuard guard(x.device());
  if (memory) {
    front.copy_(*memory);
  } else {
    front.zero_();
  }
  const at::Tensor packed = packed_weight(weight, true, false, x), bias32 = float_bias(bias);
  const at::Tensor out = empty_channels_last(steps, out_channels, x.size(2), x.size(3), x);
  ConvNhwcParams p;
  set_input(p, x);
  p.input -= p.in_stride_t;
  p.in_frames += 1;
  p.weights = bits(packed);
  p.bias = bias32.data_ptr<float>();
  set_output(p, out);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(steps);
  p.kernel_t = 2;
  p.relu = true;
  check(launch_conv_nhwc(p, stream()), "mem_conv");
  return out;
}

at::Tensor time_grow(const at::Tensor& x, const at::Tensor& weight, int64_t grow) {
  const int64_t out_channels = weight.size(0);
  const bool fits = is_plain_bf16(x) && !(at::GradMode::is_enabled() && weight.requires_grad()) && is_channels_last(x) &&
                    x.size(1) % 8 == 0 && out_channels % 8 == 0 &&
                    (grow == 1 || (grow == 2 && out_channels % 256 == 0));
  if (!fits) {
    note_reference("time_grow", x);
    return reference::time_grow(x, weight, grow);
  }
  const CUDAGuard guard(x.device());
  const at::Tensor packed = packed_weight(weight, false, false, x);
  const at::Tensor out = empty_channels_last(x.size(0) * grow, out_channels / grow, x.size(2), x.size(3), x);
  ConvNhwcParams p;
  set_input(p, x);
  p.weights = bits(packed);
  set_output(p, out);
  p.out_channels = static_cast<int32_t>(out_channels);
  p.out_frames = static_cast<int32_t>(x.size(0));
  p.kernel_xy = 1;
  p.pad = 0;
  p.grow = static_cast<int32_t>(grow);
  check(launch_conv_nhwc(p, stream()), "time_grow");
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(flashvsr, FLASHVSR_KERNEL_DEVICE, m) {
  m.impl("projector_input", projector_input);
  m.impl("projector_conv", projector_conv);
  m.impl("decoder_input", decoder_input);
  m.impl("conv3x3", conv3x3);
  m.impl("mem_conv", mem_conv);
  m.impl("time_grow", time_grow);
}

}  // namespace flashvsr
