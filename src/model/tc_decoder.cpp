// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/tc_decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "model/cancel.h"
#include "model/layers.h"
#include "model/ops.h"

namespace flashvsr {
namespace {

void visit_conv(const std::string& key, Conv2d& conv, int64_t out, int64_t in, int64_t kernel,
                bool bias, const ParameterVisitor& visit) {
  visit(key + ".weight", conv.weight, {out, in, kernel, kernel});
  if (bias) visit(key + ".bias", conv.bias, {out});
}

}  // namespace

at::Tensor Conv2d::operator()(const at::Tensor& x, bool relu, int64_t up, bool feeds_memory) const {
  return ops::conv3x3(x, {}, weight, bias, {}, relu, up, feeds_memory);
}

at::Tensor MemBlock::forward(const at::Tensor& x, int64_t batch, at::Tensor& memory, bool is_last) const {
  const int64_t steps = x.size(0) / batch;
  at::Tensor y;
  if (batch == 1) {
    y = ops::mem_conv(x, memory, conv0.weight, conv0.bias);
    keep(memory, x.narrow(0, steps - 1, 1));
  } else {
    const at::Tensor by_time = x.unflatten(0, {batch, steps});
    const at::Tensor first =
        memory.defined() ? memory.unsqueeze(1) : at::zeros_like(by_time.narrow(1, 0, 1));
    // A five-dimensional cat forgets channels_last, and every convolution behind it would run plain.
    const at::Tensor past =
        at::cat({first, by_time.narrow(1, 0, steps - 1)}, 1).flatten(0, 1).contiguous(x.suggest_memory_format());
    memory = by_time.select(1, steps - 1).clone();
    y = ops::conv3x3(x, past, conv0.weight, conv0.bias, {}, /*relu=*/true, 1);
  }
  y = conv2(y, /*relu=*/true);
  return ops::conv3x3_onto(x, y, conv4.weight, conv4.bias, /*relu=*/true, /*feeds_memory=*/!is_last);
}

at::Tensor MemBlock::apply(const at::Tensor& x, const at::Tensor& memory, bool is_last) const {
  const at::Tensor y = conv2(ops::mem_conv(x, memory, conv0.weight, conv0.bias), /*relu=*/true);
  return ops::conv3x3(y, {}, conv4.weight, conv4.bias, x, /*relu=*/true, 1, /*feeds_memory=*/!is_last);
}

TailSplit tail_split(const TcDecoderConfig& config, int64_t pixels, int64_t steps, int64_t bytes_per_value) {
  constexpr int64_t kBytes = 720000000, kFinishBytes = 600000000;
  const int64_t up = config.up[2] * config.final_shuffle, grow = config.grow[1];
  // x, what is between the convolutions and the result of a MemBlock
  const int64_t step_bytes = 4 * grow * config.channels[2] * (pixels / (up * up)) * bytes_per_value;
  TailSplit split;
  split.steps = steps;
  if (steps * step_bytes > kBytes) {
    // The convolution kernel's tiles span two steps: fewer would waste half of it.
    split.steps = std::max<int64_t>(1, 2 / grow);
    split.strips = (split.steps * step_bytes + kBytes - 1) / kBytes;
  }
  // Two frames behind the last transition and behind the next convolution.
  const int64_t finish_bytes = 2 * 2 * config.channels[3] * pixels * bytes_per_value;
  split.finish_strips = std::max<int64_t>(1, (finish_bytes + kFinishBytes * split.strips - 1) / (kFinishBytes * split.strips));
  if (split.strips > 1) {
    // What the strip's own frames leave of a MemBlock's room.
    const int64_t grown = split.steps * grow, third = config.channels[2] * (pixels / (up * up)) * bytes_per_value;
    const int64_t room = std::max<int64_t>(1, 3 * grown + 2 - grown * config.grow[2]) * third;
    // An eighth more: rows around a part, and up to whole tiles.
    split.finish_strips = std::max(split.finish_strips, (finish_bytes + finish_bytes / 8 + room - 1) / room);
  }
  return split;
}

// Where strips begin so that all have as many rows, those around them counted: the two outermost have some on one
// side only.
static int64_t strip_begin(int64_t strip, int64_t strips, int64_t rows, int64_t halo) {
  if (strip == 0 || strip == strips) return strip == 0 ? 0 : rows;
  return (rows + 2 * halo * (strips - 1)) * strip / strips - halo * (2 * strip - 1);
}

// Rows of a part behind the third stage: with those around them whole tiles of the convolution kernel, where parts
// are large enough to fill some.
static int64_t part_rows(int64_t rows, int64_t parts, int64_t halo) {
  constexpr int64_t kTile = 16;
  const int64_t whole = (rows + parts - 1) / parts + 2 * halo;
  return (whole < 3 * kTile ? whole : (whole + kTile - 1) / kTile * kTile) - 2 * halo;
}

TcDecoder::TcDecoder(const TcDecoderConfig& config) : config_(config) {
  const auto& up = config_.up;
  const auto& grow = config_.grow;
  FLASHVSR_CHECK(grow[0] * grow[1] * grow[2] == 4, ErrorCode::kModelInvalid,
                 "tc_decoder: time growth is ", grow[0] * grow[1] * grow[2], ", expected 4");
  FLASHVSR_CHECK(up[0] * up[1] * up[2] * config_.final_shuffle == 8, ErrorCode::kModelInvalid,
                 "tc_decoder: enlargement is ", up[0] * up[1] * up[2] * config_.final_shuffle,
                 ", expected 8");
  FLASHVSR_CHECK(config_.channels[3] > 0 || (up[2] == 1 && grow[2] == 1), ErrorCode::kModelInvalid,
                 "tc_decoder: no third transition, but it enlarges");
  for (int stage = 0; stage < 3; ++stage) mem_[stage].resize(config_.mem_blocks[stage]);
}

void TcDecoder::visit_parameters(const std::string& prefix, const ParameterVisitor& visit) {
  const auto& c = config_.channels;
  const int64_t unshuffle = config_.cond_unshuffle;
  const int64_t in = 3 * 4 * unshuffle * unshuffle + config_.latent_channels;
  const int64_t out = 3 * config_.final_shuffle * config_.final_shuffle;
  int64_t index = 1;  // 0 is the clamp
  const auto key = [&](int64_t at) { return prefix + "decoder." + std::to_string(at); };

  visit_conv(key(index), conv_in_, c[0], in, 3, true, visit);
  index += 2;  // conv, ReLU
  if (config_.deepen) {
    visit_conv(key(index), deepen_in_, c[0], c[0], 3, false, visit);
    index += 2;
  }
  for (int stage = 0; stage < 3; ++stage) {
    const int64_t width = c[stage];
    for (MemBlock& block : mem_[stage]) {
      visit_conv(key(index) + ".conv.0", block.conv0, width, 2 * width, 3, true, visit);
      visit_conv(key(index) + ".conv.2", block.conv2, width, width, 3, true, visit);
      visit_conv(key(index) + ".conv.4", block.conv4, width, width, 3, true, visit);
      ++index;
    }
    if (stage == 2 && c[3] == 0) break;
    ++index;  // nearest enlargement
    visit_conv(key(index) + ".conv", grow_[stage], width * config_.grow[stage], width, 1, false, visit);
    ++index;
    visit_conv(key(index), transition_[stage], c[stage + 1], width, 3, false, visit);
    ++index;
  }
  int64_t last = c[2];
  if (c[3] > 0) {
    last = c[3];
    ++index;  // ReLU
    if (config_.deepen) {
      visit_conv(key(index), deepen_out_, last, last, 3, false, visit);
      index += 2;
    }
  }
  visit_conv(key(index), conv_out_, out, last, 3, true, visit);
  if (config_.skip) visit_conv(prefix + "skip", skip_, c[2], 3, 3, true, visit);
}

// From the third stage's grown steps to the last convolution's values.
at::Tensor TcDecoder::finish(const at::Tensor& x) const {
  at::Tensor y = x;
  if (config_.channels[3] > 0) {
    y = transition_[2](y, /*relu=*/true, config_.up[2]);
    if (config_.deepen) y = deepen_out_(y, /*relu=*/true);
  }
  y = conv_out_(y);
  return config_.final_shuffle > 1 ? at::pixel_shuffle(y, config_.final_shuffle) : y;
}

int64_t tail_bytes(const TcDecoderConfig& config, const TailSplit& split, int64_t pixels, int64_t steps,
                   int64_t bytes_per_value) {
  const int64_t last_up = config.up[2] * config.final_shuffle, up = config.up[1];
  const int64_t grown = std::min(split.steps, steps) * config.grow[1], frames = grown * config.grow[2];
  const int64_t third = config.channels[2] * (pixels / (last_up * last_up));  // a step of the third stage
  const int64_t second = config.channels[1] * (pixels / (last_up * last_up * up * up));
  // What our kernels make for a MemBlock has one more step, the past. Rows around a strip: a fifth at the sizes
  // that have strips; around a part and up to whole tiles: an eighth.
  const int64_t enter = grown * second + (grown + 1) * third;
  const int64_t block = (3 * grown + 2) * third, leave = (grown + frames) * third;
  int64_t part = 2 * 2 * config.channels[3] * (pixels / split.finish_strips);
  if (split.finish_strips > 1) part += part / 8;
  const int64_t finish = frames * third + part;
  int64_t strip = std::max({enter, block, leave, finish}) / split.strips;
  if (split.strips > 1) strip += strip / 5;
  return (steps * second + strip) * bytes_per_value;
}

// x [T, C, h, w]: the second stage's result. A strip of rows is computed with as many rows around it as its
// own depend on; rows at a strip's cut edges come out wrong and are not used. All others are what whole
// pictures give, value for value. Result as decode's.
// The first `dropped` frames are left undefined: nobody will see them.
at::Tensor TcDecoder::split_tail(const at::Tensor& x, DecoderMemory& memory, const TailSplit& split, int64_t dropped,
                                 const std::atomic<bool>* cancel) const {
  const auto& blocks = mem_[2];
  const size_t first_block = mem_[0].size() + mem_[1].size();
  const int64_t steps = x.size(0), rows = x.size(2), up = config_.up[1], last_up = config_.up[2] * config_.final_shuffle;
  const int64_t frames_per_step = config_.grow[1] * config_.grow[2];
  // Three convolutions at full size, three for each block, one behind the second stage's enlargement.
  const int64_t finish_halo = (3 + config_.up[2] - 1) / config_.up[2];
  const int64_t halo = (finish_halo + 3 * static_cast<int64_t>(blocks.size()) + 1 + up - 1) / up;
  // A strip keeps the rows that the next one reads around itself.
  const int64_t strips = std::max<int64_t>(1, std::min(split.strips, rows / (2 * halo)));

  // Colour planes outermost, as the caller and colour correction want them.
  const at::Tensor frames = at::empty({3, steps * frames_per_step, rows * up * last_up, x.size(3) * up * last_up}, x.options());
  for (int64_t step = 0; step < steps; step += split.steps) {
    const int64_t count = std::min(split.steps, steps - step);
    const bool has_past = !blocks.empty() && memory.steps[first_block + blocks.size() - 1].defined();
    std::vector<at::Tensor> waiting(blocks.size());  // the last rows of the strip above
    for (int64_t strip = 0; strip < strips; ++strip) {
      throw_if_cancelled(cancel);
      const int64_t begin = strip_begin(strip, strips, rows, halo), end = strip_begin(strip + 1, strips, rows, halo);
      const int64_t from = std::max<int64_t>(0, begin - halo), to = std::min(rows, end + halo);
      at::Tensor y = x.narrow(0, step, count).narrow(2, from, to - from);
      // The 1x1 convolution commutes with nearest enlargement and is cheaper before it.
      y = ops::time_grow(y, grow_[1].weight, config_.grow[1]);
      y = transition_[1](y, /*relu=*/false, up, /*feeds_memory=*/true);
      // In rows of the third stage.
      const int64_t top = from * up, own = begin * up, own_end = end * up;
      const int64_t kept = strip + 1 < strips ? own_end - halo * up : own_end;
      for (size_t n = 0; n < blocks.size(); ++n) {
        at::Tensor& past = memory.steps[first_block + n];
        at::Tensor next = blocks[n].apply(y, has_past ? past.narrow(2, top, y.size(2)) : at::Tensor(), n + 1 == blocks.size());
        // The past of this strip was read: the present takes its place, but where the next strip reads it too.
        const at::Tensor last = y.narrow(0, y.size(0) - 1, 1);
        if (!past.defined()) {
          past = at::empty({1, y.size(1), rows * up, y.size(3)}, y.options(), at::MemoryFormat::ChannelsLast);
        }
        if (waiting[n].defined()) past.narrow(2, own - waiting[n].size(2), waiting[n].size(2)).copy_(waiting[n]);
        past.narrow(2, own, kept - own).copy_(last.narrow(2, own - top, kept - own));
        if (kept < own_end) waiting[n] = last.narrow(2, kept - top, own_end - kept).clone(at::MemoryFormat::Preserve);
        y = std::move(next);
      }
      y = ops::time_grow(y, grow_[2].weight, config_.grow[2]);
      const int64_t most = part_rows(own_end - own, split.finish_strips, finish_halo);
      for (int64_t part_begin = own; part_begin < own_end; part_begin += most) {
        const int64_t part_end = std::min(own_end, part_begin + most);
        const int64_t part_from = std::max(top, part_begin - finish_halo);
        const int64_t part_to = std::min(to * up, part_end + finish_halo);
        // Nothing connects the frames any more: two at a time, as the convolution kernel's tiles have them.
        int64_t pair = 0;
        for (int64_t frame = std::max<int64_t>(0, dropped - step * frames_per_step); frame < y.size(0); frame += pair) {
          pair = std::min<int64_t>(2 - frame % 2, y.size(0) - frame);
          const at::Tensor done = finish(y.narrow(0, frame, pair).narrow(2, part_from - top, part_to - part_from));
          frames.narrow(1, step * frames_per_step + frame, pair)
              .narrow(2, part_begin * last_up, (part_end - part_begin) * last_up)
              .copy_(done.transpose(0, 1).narrow(2, (part_begin - part_from) * last_up, (part_end - part_begin) * last_up));
        }
      }
    }
  }
  return frames.transpose(0, 1);
}

// latents [B, 16, f, h, w] or undefined, frames [B, 3, 4f - missing, H, W], whose first stands for those that are
// missing -> [B * 4f, 3, H, W]
at::Tensor TcDecoder::decode(const at::Tensor& latents, const at::Tensor& frames, int64_t missing,
                             DecoderMemory& memory, const std::atomic<bool>* cancel) const {
  const int64_t batch = frames.size(0);
  at::Tensor x = ops::decoder_input(frames, latents, config_.latent_channels, missing, config_.cond_unshuffle);

  size_t block_index = 0;
  x = conv_in_(x, /*relu=*/true, 1, /*feeds_memory=*/!config_.deepen);
  if (config_.deepen) x = deepen_in_(x, /*relu=*/true, 1, /*feeds_memory=*/true);
  for (int stage = 0; stage < 3; ++stage) {
    throw_if_cancelled(cancel);
    if (stage == 2 && config_.skip) {
      const at::Tensor flat = repeat_first(frames, missing).transpose(1, 2).flatten(0, 1).contiguous(at::MemoryFormat::ChannelsLast);
      x = ops::conv3x3_onto(x, flat, skip_.weight, skip_.bias, /*relu=*/false, /*feeds_memory=*/true);
    }
    for (const MemBlock& block : mem_[stage]) {
      x = block.forward(x, batch, memory.steps[block_index++], &block == &mem_[stage].back());
    }
    if (stage == 2 && config_.channels[3] == 0) break;
    if (stage == 1 && batch == 1 && !at::GradMode::is_enabled() && config_.channels[3] > 0 && !config_.skip &&
        (x.is_cuda() || forced_split_)) {
      const int64_t scale = config_.up[1] * config_.up[2] * config_.final_shuffle;
      const int64_t pixels = scale * scale * x.size(2) * x.size(3);
      return split_tail(x, memory,
                        forced_split_ ? *forced_split_ : tail_split(config_, pixels, x.size(0), x.element_size()), missing, cancel);
    }
    // The 1x1 convolution commutes with nearest enlargement and is cheaper before it.
    x = ops::time_grow(x, grow_[stage].weight, config_.grow[stage]);
    if (stage < 2) x = transition_[stage](x, /*relu=*/false, config_.up[stage], /*feeds_memory=*/stage == 0 || !config_.skip);
  }
  throw_if_cancelled(cancel);
  return finish(x);
}

at::Tensor TcDecoder::forward(const at::Tensor& latents, const at::Tensor& cond,
                              DecoderMemory& memory, const at::Tensor& base,
                              const std::atomic<bool>* cancel) const {
  const bool is_first = memory.is_first();
  const int64_t unshuffle = config_.cond_unshuffle;
  FLASHVSR_CHECK(cond.dim() == 5 && cond.size(1) == 3 && cond.size(3) % unshuffle == 0 &&
                     cond.size(4) % unshuffle == 0,
                 ErrorCode::kInternal, "tc_decoder: condition is ", cond.sizes(),
                 ", expected [B, 3, F, multiple of ", unshuffle, ", multiple of ", unshuffle, "]");
  const int64_t batch = cond.size(0);
  const int64_t missing = (4 - cond.size(2) % 4) % 4;
  FLASHVSR_CHECK(missing == (is_first ? 3 : 0), ErrorCode::kInternal, "tc_decoder: ", cond.size(2),
                 " condition frames in a ", is_first ? "first" : "later", " chunk");
  const int64_t f = (cond.size(2) + missing) / 4;

  FLASHVSR_CHECK(!latents.defined() || (latents.size(0) == batch && latents.size(2) == f &&
                                        latents.size(1) == config_.latent_channels),
                 ErrorCode::kInternal, "tc_decoder: latents are ", latents.sizes(), " for ", f,
                 " groups of condition frames");
  if (is_first) {
    const size_t blocks = mem_[0].size() + mem_[1].size() + mem_[2].size();
    memory.steps.assign(blocks, at::Tensor());
  }
  const at::Tensor x = decode(latents, cond, missing, memory, cancel);

  const int64_t trim = is_first ? 3 : 0;
  at::Tensor y = x.unflatten(0, {batch, 4 * f}).narrow(1, trim, 4 * f - trim).transpose(1, 2);
  // In place where that leaves a dense result and nobody wants a gradient.
  if (!config_.residual) return trim == 0 && !at::GradMode::is_enabled() ? y.mul_(2).sub_(1) : y * 2 - 1;
  at::Tensor enlarged = base;
  if (!enlarged.defined()) {
    // fp32: the CPU has no bf16 form, and the sum then keeps more than 8 bits
    const at::Tensor flat = cond.transpose(1, 2).flatten(0, 1).to(at::kFloat);
    enlarged = at::_upsample_bicubic2d_aa(flat, {y.size(3), y.size(4)}, false)
                   .unflatten(0, {batch, cond.size(2)})
                   .transpose(1, 2);
  }
  FLASHVSR_CHECK(enlarged.sizes() == y.sizes(), ErrorCode::kInternal, "tc_decoder: base is ",
                 enlarged.sizes(), ", expected ", y.sizes());
  return enlarged + y;
}

}  // namespace flashvsr
