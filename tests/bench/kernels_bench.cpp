// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Times the kernels at the shapes of the steady chunk, 768x1408, and prints one JSON line per case. Each case
// runs `repeats` times between two events after one warm-up (burst); inputs are random, never zeros.
//
//   kernels_bench [filter]
#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "kernels/block_mask.h"
#include "kernels/color_convert.h"
#include "kernels/conv_nhwc.h"
#include "kernels/conv_to_planes.h"
#include "kernels/finish_frames.h"
#include "kernels/layer_norm_modulate.h"
#include "kernels/norm_rope_window.h"
#include "kernels/pack_frames.h"
#include "kernels/wavelet_color.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;
using device::check;

std::string filter;

double time_ms(const std::function<void()>& run, int repeats) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  run();
  check(cudaDeviceSynchronize(), "warm-up");
  std::vector<float> times;
  for (int i = 0; i < 5; ++i) {
    cudaEventRecord(begin);
    for (int j = 0; j < repeats; ++j) run();
    cudaEventRecord(end);
    check(cudaEventSynchronize(end), "event");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    times.push_back(ms / repeats);
  }
  std::sort(times.begin(), times.end());
  return times[2];
}

void report(const char* kernel, const std::string& name, double ms, double flop, double bytes) {
  std::printf("{\"kernel\": \"%s\", \"case\": \"%s\", \"us\": %.1f, \"tflops\": %.1f, \"gbps\": %.0f}\n", kernel,
              name.c_str(), ms * 1e3, flop / ms * 1e-9, bytes / ms * 1e-6);
  std::fflush(stdout);
}

struct ConvShape {
  const char* name;
  int count;  // launches a chunk
  int in_channels, out_channels, frames, height, width, kernel_t, stride_t, kernel_xy, pad, upsample, grow;
  bool folded, residual;
};

void bench_conv(ConvKernel kernel, const char* kernel_name, const std::vector<ConvShape>& shapes, const char* sum) {
  const std::vector<uint16_t> noise = device::random_bf16(4 << 20, 7);
  double total = 0, total_flop = 0;
  for (const ConvShape& s : shapes) {
    ConvNhwcParams p;
    const int border = s.kernel_xy == 3 && s.pad == 0 ? 2 : 0;
    p.in_channels = s.in_channels;
    p.out_channels = s.out_channels;
    p.out_frames = s.frames;
    p.in_frames = (s.frames - 1) * s.stride_t + s.kernel_t;
    p.in_height = s.height + border;
    p.in_width = s.width + border;
    p.kernel_t = s.kernel_t;
    p.stride_t = s.stride_t;
    p.kernel_xy = s.kernel_xy;
    p.pad = s.pad;
    p.upsample = s.upsample;
    p.grow = s.grow;
    p.folded = s.folded;
    p.relu = true;
    p.kernel = kernel;
    p.in_stride_x = s.in_channels;
    p.in_stride_y = p.in_stride_x * p.in_width;
    p.in_stride_t = p.in_stride_y * p.in_height;
    p.out_stride_x = s.out_channels / s.grow;
    p.out_stride_y = p.out_stride_x * s.width * s.upsample;
    p.out_stride_t = p.out_stride_y * s.height * s.upsample;
    PackConvWeightsParams pack;
    pack.in_channels = s.in_channels;
    pack.out_channels = s.out_channels;
    pack.kernel_t = s.kernel_t;
    pack.kernel_xy = s.kernel_xy;
    pack.folded = s.folded;
    Buffer<uint16_t> input(p.in_stride_t * p.in_frames), weights(conv_weight_elements(pack)),
        output(p.out_stride_t * s.frames * s.grow), residual(s.residual ? output.size() : 8);
    input.fill(noise);
    weights.fill(noise);
    residual.fill(noise);
    Buffer<float> bias(device::random_float(s.out_channels, 3));
    p.input = input.get();
    p.weights = weights.get();
    p.bias = bias.get();
    p.residual = s.residual ? residual.get() : nullptr;
    p.output = output.get();
    const double flop = 2.0 * s.out_channels * s.frames * s.height * s.width * s.upsample * s.upsample * s.kernel_t *
                        s.in_channels * (s.folded ? 4 : s.kernel_xy * s.kernel_xy);
    const double bytes = 2.0 * (input.size() + weights.size() + output.size() * (s.residual ? 2 : 1));
    const double ms = time_ms([&] { check(launch_conv_nhwc(p, nullptr), "conv"); }, 3);
    report(kernel_name, s.name, ms, flop, bytes);
    total += ms * s.count;
    total_flop += flop * s.count;
    if (kernel == ConvKernel::kSm90) {
      // The other kernel is an independent witness at full size: the first and the last stretch of output.
      const size_t part = std::min<size_t>(output.size(), 8 << 20);
      const std::vector<uint16_t> first = output.download(0, part), last = output.download(output.size() - part, part);
      output.poison();
      p.kernel = ConvKernel::kSm80;
      check(launch_conv_nhwc(p, nullptr), "conv");
      const double a = device::compare(first, output.download(0, part)).relative,
                   b = device::compare(last, output.download(output.size() - part, part)).relative;
      if (!(a <= 1e-3 && b <= 1e-3)) std::printf("{\"mismatch\": \"%s\", \"relative\": [%g, %g]}\n", s.name, a, b);
    }
  }
  report(kernel_name, sum, total, total_flop, 0);
}

// Row kernels of one layer: 8448 tokens, 1536 wide, 12 heads.
void bench_rows() {
  const std::vector<uint16_t> noise = device::random_bf16(4 << 20, 7);
  const int64_t tokens = 8448, dim = 1536;
  // Several sets, so that L2 does not hold what the model would have evicted.
  constexpr int kSets = 4;
  const size_t most = 3 * size_t(tokens);  // of a first chunk
  std::vector<std::unique_ptr<Buffer<uint16_t>>> qkv, q, k, v;
  for (int i = 0; i < kSets; ++i) {
    qkv.push_back(std::make_unique<Buffer<uint16_t>>(most * dim * 3));
    qkv.back()->fill(noise);
    q.push_back(std::make_unique<Buffer<uint16_t>>(most * dim));
    k.push_back(std::make_unique<Buffer<uint16_t>>(most * dim));
    v.push_back(std::make_unique<Buffer<uint16_t>>(most * dim));
  }
  Buffer<uint16_t> weight(noise);
  Buffer<double> cosine(most * 64), sine(most * 64);
  cosine.fill(std::vector<double>(1024, 0.6));
  sine.fill(std::vector<double>(1024, 0.8));
  Buffer<uint16_t> q_mean(3 * 66 * dim), k_mean(3 * 66 * dim);
  int turn = 0;
  const auto rope = [&](const char* name, int frames, bool has_value) {
    NormRopeWindowParams n;
    n.frames = frames;
    n.height = 48;
    n.width = 88;
    n.dim = dim;
    n.head_dim = 128;
    n.eps = 1e-6f;
    Buffer<uint8_t> workspace(norm_rope_window_workspace_bytes(n));
    n.q_weight = n.k_weight = weight.get();
    n.cosine = cosine.get();
    n.sine = sine.get();
    n.q_mean = q_mean.get();
    n.k_mean = k_mean.get();
    n.workspace = workspace.get();
    report("norm_rope_window", name, time_ms([&] {
             const int i = turn++ % kSets;
             n.qkv = qkv[i]->get();
             n.q = q[i]->get();
             n.k = k[i]->get();
             n.v = has_value ? v[i]->get() : nullptr;
             check(launch_norm_rope_window(n, nullptr), "norm_rope_window");
           }, 20), 0, (has_value ? 12.0 : 8.0) * (frames / 2) * tokens * dim);
  };
  rope("8448 x 1536", 2, true);
  rope("8448 x 1536, q and k", 2, false);
  rope("25344 x 1536, q and k", 6, false);

  const auto rows = [&](const char* name, RowNorm norm, bool add, double passes) {
    LayerNormModulateParams p;
    p.rows = tokens;
    p.dim = dim;
    p.eps = 1e-6f;
    p.norm = norm;
    p.scale1 = weight.get();
    p.shift = weight.get() + dim;
    report("layer_norm_modulate", name, time_ms([&] {
             const int i = turn++ % kSets;
             p.x = q[i]->get();
             if (add) {
               p.y = k[i]->get();
               p.gate = weight.get() + 2 * dim;
               p.sum = const_cast<uint16_t*>(p.x);
             }
             p.out = norm == RowNorm::kNone ? nullptr : v[i]->get();
             check(launch_layer_norm_modulate(p, nullptr), "layer_norm_modulate");
           }, 20), 0, passes * 2 * tokens * dim);
  };
  rows("modulate", RowNorm::kModulate, false, 2);
  rows("affine", RowNorm::kAffine, false, 2);
  rows("rms", RowNorm::kRms, false, 2);
  rows("gated residual", RowNorm::kNone, true, 3);
  rows("gated residual + modulate", RowNorm::kModulate, true, 4);
}

// The mask of one layer; as many blocks as --sparse-ratio 2 keeps: 120 a query block.
void bench_mask() {
  struct Shape {
    const char* name;
    int rows, columns, q_slots, k_slots;
  };
  for (const Shape& s : {Shape{"12 x 66 x 264", 6, 11, 1, 4}, Shape{"12 x 198 x 198, first", 6, 11, 3, 3},
                         Shape{"12 x 252 x 1008", 12, 21, 1, 4}, Shape{"12 x 756 x 756, first", 12, 21, 3, 3},
                         Shape{"12 x 510 x 2040", 17, 30, 1, 4}, Shape{"12 x 1530 x 1530, first", 17, 30, 3, 3}}) {
    BlockMaskParams p;
    p.heads = 12;
    p.head_dim = 128;
    p.rows = s.rows;
    p.columns = s.columns;
    p.q_slots = s.q_slots;
    p.k_slots = s.k_slots;
    p.local_range = 11;
    const size_t windows = size_t(s.rows) * s.columns, dim = 12 * 128;
    const size_t q_blocks = s.q_slots * windows, k_blocks = s.k_slots * windows;
    p.topk = int64_t(windows) * 120 - 1;
    Buffer<uint16_t> queries(device::random_bf16(q_blocks * dim, 5, 1.2f)), keys(device::random_bf16(k_blocks * dim, 6, 1.2f));
    Buffer<int32_t> row_begin(12 * (q_blocks + 1)), column(12 * q_blocks * k_blocks);
    Buffer<uint8_t> workspace(block_mask_workspace_bytes(p));
    p.q_mean = queries.get();
    for (int i = 0; i < s.k_slots; ++i) p.k_mean[i] = keys.get() + i * windows * dim;
    p.row_begin = row_begin.get();
    p.column = column.get();
    p.workspace = workspace.get();
    report("block_mask", s.name, time_ms([&] { check(launch_block_mask(p, nullptr), "block_mask"); }, 20),
           2.0 * 12 * double(q_blocks) * double(k_blocks) * 128, 0);
  }
}

// What the convolutions read, steady chunk of 8 frames.
void bench_pack() {
  const std::vector<uint16_t> noise = device::random_bf16(4 << 20, 7);
  const int frames = 8, height = 768, width = 1408;
  const auto pack = [&](const char* name, int unshuffle, int group, int latents, bool border, bool squash) {
    PackFramesParams p;
    p.steps = frames / group;
    p.height = height / unshuffle;
    p.width = width / unshuffle;
    p.unshuffle = unshuffle;
    p.group = group;
    p.latent_channels = latents;
    p.border = border;
    p.squash = squash;
    p.row_stride = width;
    p.frame_stride = height * width;
    p.plane_stride = frames * p.frame_stride;
    p.latent_stride_x = 1;
    p.latent_stride_y = p.width;
    p.latent_stride_t = p.latent_stride_y * p.height;
    p.latent_stride_c = p.latent_stride_t * p.steps;
    const size_t edge = border ? 2 : 0, channels = 3 * group * unshuffle * unshuffle + latents;
    Buffer<uint16_t> input(3 * p.plane_stride), behind(std::max<size_t>(8, latents * p.latent_stride_c)),
        output(p.steps * (p.height + edge) * (p.width + edge) * channels);
    input.fill(noise);
    behind.fill(noise);
    p.frames = input.get();
    p.latents = behind.get();
    p.output = output.get();
    report("pack_frames", name, time_ms([&] { check(launch_pack_frames(p, nullptr), "pack_frames"); }, 10), 0,
           2.0 * double(input.size() + output.size()));
  };
  pack("decoder", 8, 4, 16, false, true);
  pack("projector", 16, 1, 0, true, false);
  PadStepsParams p;
  p.steps = 4;
  p.height = 48;
  p.width = 88;
  p.channels = 2048;
  p.in_stride_x = p.channels;
  p.in_stride_y = p.in_stride_x * p.width;
  p.in_stride_t = p.in_stride_y * p.height;
  Buffer<uint16_t> input(p.steps * p.in_stride_t), output(size_t(p.steps) * 50 * 90 * 2048);
  input.fill(noise);
  p.input = input.get();
  p.output = output.get();
  report("pad_steps", "projector conv2", time_ms([&] { check(launch_pad_steps(p, nullptr), "pad_steps"); }, 10), 0,
         2.0 * double(input.size() + output.size()));
}

void bench_planes() {
  Buffer<uint16_t> input(size_t(8) * 768 * 1408 * 128), weight(27 * 128), output(size_t(3) * 8 * 768 * 1408);
  const std::vector<uint16_t> noise = device::random_bf16(4 << 20, 7);
  input.fill(noise);
  weight.fill(noise);
  ConvToPlanesParams p;
  p.channels = 128;
  p.frames = 8;
  p.height = 768;
  p.width = 1408;
  p.input = input.get();
  p.weight = weight.get();
  p.output = output.get();
  p.plane_stride = int64_t{8} * 768 * 1408;
  p.frame_stride = 768 * 1408;
  p.stride_o = 9 * 128;
  p.stride_c = 1;
  p.stride_xy = 128;
  report("conv_to_planes", "128->3", time_ms([&] { check(launch_conv_to_planes(p, nullptr), "conv_to_planes"); }, 3),
         2.0 * 27 * 128 * 8 * 768 * 1408, 2.0 * (input.size() + output.size()));
}

// Callers' pictures and the way out of the model: 8 frames of 768x1408, against a copy on the device.
void bench_pictures() {
  const int frames = 8, height = 768, width = 1408;
  const int64_t area = int64_t{height} * width;
  Buffer<uint8_t> samples(size_t(frames) * 3 * area * 2), planes(size_t(frames) * area * 4);
  const std::vector<uint16_t> noise = device::random_bf16(4 << 20, 7, .5f);
  std::vector<uint8_t> bytes_of_noise(4 << 20);
  std::mt19937 engine(8);
  for (uint8_t& byte : bytes_of_noise) byte = uint8_t(engine());
  samples.fill(bytes_of_noise);
  planes.fill(bytes_of_noise);
  double copy_gbps = 0;
  {
    Buffer<uint8_t> from(256 << 20), to(256 << 20);
    from.fill(bytes_of_noise);
    const double ms = time_ms(
        [&] { check(cudaMemcpyAsync(to.get(), from.get(), from.size(), cudaMemcpyDeviceToDevice, nullptr), "copy"); }, 5);
    copy_gbps = 2.0 * double(from.size()) / ms * 1e-6;
  }
  const auto row = [&](const char* kernel, const char* name, double ms, double bytes) {
    std::printf("{\"kernel\": \"%s\", \"case\": \"%s\", \"us\": %.1f, \"gbps\": %.0f, \"of_copy\": %.2f}\n", kernel, name,
                ms * 1e3, bytes / ms * 1e-6, bytes / ms * 1e-6 / copy_gbps);
    std::fflush(stdout);
  };

  struct Format {
    const char* name;
    PlanesKind kind;
    bool is_16_bit;
    double bytes_per_pixel;  // of the planes
  };
  for (const Format& f : {Format{"NV12", PlanesKind::kYuvPaired, false, 1.5}, Format{"P010", PlanesKind::kYuvPaired, true, 3},
                          Format{"RGBA", PlanesKind::kPacked, false, 4}}) {
    const int bytes = f.is_16_bit ? 2 : 1;
    ConvertPlanesParams p;
    p.samples = samples.get();
    p.frames = frames;
    p.height = height;
    p.width = width;
    p.kind = f.kind;
    p.is_16_bit = f.is_16_bit;
    p.to_rgb = to_rgb_coefficients(1, false, f.is_16_bit ? 10 : 8);
    p.from_rgb = from_rgb_coefficients(1, false, f.is_16_bit ? 10 : 8);
    if (f.kind == PlanesKind::kPacked) {
      p.step = 4;
      p.green = 1;
      p.blue = 2;
    } else {
      p.halved_down = true;
      p.shift = f.is_16_bit ? 6 : 0;
    }
    for (int frame = 0; frame < frames; ++frame) {
      uint8_t* at = planes.get() + size_t(frame) * size_t(f.bytes_per_pixel * double(area));
      p.planes[frame][0] = at;
      p.planes[frame][1] = at + area * bytes;
      p.strides[frame][0] = p.strides[frame][1] = int64_t{width} * (f.kind == PlanesKind::kPacked ? 4 : bytes);
    }
    const double moved = double(frames) * double(area) * (f.bytes_per_pixel + 3 * bytes);
    row("planes_to_samples", f.name,
        time_ms([&] { check(launch_planes_to_samples(p, nullptr), "planes_to_samples"); }, 10), moved);
    row("samples_to_planes", f.name,
        time_ms([&] { check(launch_samples_to_planes(p, nullptr), "samples_to_planes"); }, 10), moved);
  }

  Buffer<uint16_t> input(size_t(frames) * 3 * area), style(input.size());
  input.fill(noise);
  style.fill(noise);
  Buffer<uint8_t> workspace(finish_frames_workspace_bytes(frames));
  FinishFramesParams p;
  p.input = {input.get(), frames * area, area, width};
  p.samples = samples.get();
  p.workspace = workspace.get();
  p.frames = frames;
  p.height = height;
  p.width = width;
  p.max_value = 255;
  const auto finish = [&] { check(launch_finish_frames(p, nullptr), "finish_frames"); };
  row("finish_frames", "quantised", time_ms(finish, 10), 3.0 * double(input.size()));
  p.style = {style.get(), frames * area, area, width};
  // Frames twice, style once, samples once.
  row("finish_frames", "AdaIN", time_ms(finish, 10), 7.0 * double(input.size()));
  // Frames, style and samples once: what must move, were there no borders between blocks.
  row("wavelet_color", "wavelet", time_ms([&] { check(launch_wavelet_color(p, nullptr), "wavelet_color"); }, 10),
      5.0 * double(input.size()));
}

int bench() {
  // Decoder: two latents. Frames of the second and third stage by the growth before them.
  const std::vector<ConvShape> decoder = {
      {"tc in 784->512", 1, 784, 512, 2, 96, 176, 1, 1, 3, 1, 1, 1, false, false},
      {"tc 512->512", 1, 512, 512, 2, 96, 176, 1, 1, 3, 1, 1, 1, false, false},
      {"tc mem0 512", 3, 512, 512, 2, 96, 176, 2, 1, 3, 1, 1, 1, false, false},
      {"tc mem2 512", 3, 512, 512, 2, 96, 176, 1, 1, 3, 1, 1, 1, false, false},
      {"tc mem4 512 residual", 3, 512, 512, 2, 96, 176, 1, 1, 3, 1, 1, 1, false, true},
      {"tc grow 512->512", 1, 512, 512, 2, 96, 176, 1, 1, 1, 0, 1, 1, false, false},
      {"tc up 512->256 folded", 1, 512, 256, 2, 96, 176, 1, 1, 3, 1, 2, 1, true, false},
      {"tc mem0 256", 3, 256, 256, 2, 192, 352, 2, 1, 3, 1, 1, 1, false, false},
      {"tc mem2 256", 3, 256, 256, 2, 192, 352, 1, 1, 3, 1, 1, 1, false, false},
      {"tc mem4 256 residual", 3, 256, 256, 2, 192, 352, 1, 1, 3, 1, 1, 1, false, true},
      {"tc grow 256->512", 1, 256, 512, 2, 192, 352, 1, 1, 1, 0, 1, 2, false, false},
      {"tc up 256->128 folded", 1, 256, 128, 4, 192, 352, 1, 1, 3, 1, 2, 1, true, false},
      {"tc mem0 128", 3, 128, 128, 4, 384, 704, 2, 1, 3, 1, 1, 1, false, false},
      {"tc mem2 128", 3, 128, 128, 4, 384, 704, 1, 1, 3, 1, 1, 1, false, false},
      {"tc mem4 128 residual", 3, 128, 128, 4, 384, 704, 1, 1, 3, 1, 1, 1, false, true},
      {"tc grow 128->256", 1, 128, 256, 4, 384, 704, 1, 1, 1, 0, 1, 2, false, false},
      {"tc up 128->128 folded", 1, 128, 128, 8, 384, 704, 1, 1, 3, 1, 2, 1, true, false},
      {"tc 128->128", 1, 128, 128, 8, 768, 1408, 1, 1, 3, 1, 1, 1, false, false},
  };
  const std::vector<ConvShape> projector = {
      {"lq conv1", 1, 768, 2048, 4, 48, 88, 4, 2, 3, 0, 1, 1, false, false},
      {"lq conv2", 1, 2048, 3072, 2, 48, 88, 4, 2, 3, 0, 1, 1, false, false},
  };
  const auto wanted = [](const char* name) { return filter.empty() || filter == name; };
  if (wanted("rows")) bench_rows();
  if (wanted("mask")) bench_mask();
  if (wanted("pack")) bench_pack();
  if (wanted("planes")) bench_planes();
  if (wanted("pictures")) bench_pictures();
  if (device::compute_capability() == 90) {
    if (wanted("tc")) bench_conv(ConvKernel::kSm90, "conv_nhwc_sm90", decoder, "tc sum");
    if (wanted("lq")) bench_conv(ConvKernel::kSm90, "conv_nhwc_sm90", projector, "lq sum");
  }
  if (filter == "sm80") {
    bench_conv(ConvKernel::kSm80, "conv_nhwc_sm80", {decoder[2], decoder[12], projector[0]}, "sum");
  }
  return 0;
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  if (argc > 1) flashvsr::filter = argv[1];
  if (!flashvsr::device::have_gpu()) {
    std::fprintf(stderr, "no GPU\n");
    return flashvsr::device::gpu_required() ? 1 : 77;
  }
  return flashvsr::bench();
}
