// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/encoder.h"

#include <ATen/ATen.h>

namespace flashvsr::train {
namespace {

constexpr int64_t kWidth1 = 64, kWidth2 = 96, kWidth3 = 128;
constexpr int64_t kUnshuffle = 4;

void visit_conv(const std::string& key, Conv2d& conv, int64_t out, int64_t in, const ParameterVisitor& visit) {
  visit(key + ".weight", conv.weight, {out, in, 3, 3});
  visit(key + ".bias", conv.bias, {out});
}

}  // namespace

void Encoder::visit_parameters(const std::string& prefix, const ParameterVisitor& visit) {
  visit_conv(prefix + "conv_in", conv_in_, kWidth1, 6 * kUnshuffle * kUnshuffle, visit);
  visit_conv(prefix + "conv_stride", conv_stride_, kWidth2, kWidth1, visit);
  visit_conv(prefix + "conv_merge", conv_merge_, kWidth3, 4 * kWidth2, visit);
  visit_conv(prefix + "mem.conv.0", mem_.conv0, kWidth3, 2 * kWidth3, visit);
  visit_conv(prefix + "mem.conv.2", mem_.conv2, kWidth3, kWidth3, visit);
  visit_conv(prefix + "mem.conv.4", mem_.conv4, kWidth3, kWidth3, visit);
  visit_conv(prefix + "conv_out", conv_out_, latent_channels_, kWidth3, visit);
}

void Encoder::visit_buffers(const std::string& prefix, const ParameterVisitor& visit) {
  visit(prefix + "running_mean", running_mean_, {latent_channels_});
  visit(prefix + "running_var", running_var_, {latent_channels_});
}

at::Tensor Encoder::forward(const at::Tensor& hq, const at::Tensor& base, bool is_training) {
  const int64_t batch = hq.size(0);
  at::Tensor x = at::cat({hq - base, base}, 1);
  x = at::cat({x.narrow(2, 0, 1).expand({-1, -1, 3, -1, -1}), x}, 2);
  const int64_t f = x.size(2) / 4;
  x = at::pixel_unshuffle(x.transpose(1, 2).flatten(0, 1), kUnshuffle)
          .to(conv_in_.weight.scalar_type())
          .contiguous(at::MemoryFormat::ChannelsLast);
  x = at::relu(conv_in_(x));
  x = at::relu(at::conv2d(x, conv_stride_.weight, conv_stride_.bias, {2, 2}, {1, 1}));
  x = x.reshape({batch * f, 4 * kWidth2, x.size(2), x.size(3)}).contiguous(at::MemoryFormat::ChannelsLast);
  x = at::relu(conv_merge_(x));
  at::Tensor memory;
  x = mem_.forward(x, batch, memory, /*is_last=*/true);
  x = conv_out_(x).to(at::kFloat);
  x = at::batch_norm(x, {}, {}, running_mean_, running_var_, is_training, 0.01, 1e-5, false);
  return x.unflatten(0, {batch, f}).transpose(1, 2);
}

}  // namespace flashvsr::train
