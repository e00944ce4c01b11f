// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How much better than bicubic is a model? Clips with truth go through the engine's C
// interface as the element would send them; the results and Pillow's bicubic (image/bicubic.h)
// are measured against the truth as train/metrics.h defines it, over all frames.
//
//   quality [--model DIR] [--device NAME] [--precision fp32|bf16] [--color-fix none|adain|wavelet]
//           [--frames N] [--markdown] [--require DB] [CLIPS-DIR | LQ TRUTH [LQ TRUTH ...]]
//
// Default: the built-in model on the CPU in fp32, the three pairs of examples/clips. With
// --require the exit status is 1 unless every clip gains and the mean gain in PSNR-Y is >= DB.
#include <ATen/ATen.h>
#include <flashvsr/flashvsr.h>
#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "image/bicubic.h"
#include "train/metrics.h"

namespace {

using flashvsr::train::Quality;
constexpr int kScale = 4;

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

// [F, H, W, 3] uint8, at most `most` frames.
at::Tensor decode(const std::string& path, int64_t most) {
  GError* parse_error = nullptr;
  GstElement* pipeline = gst_parse_launch(
      "filesrc name=file ! decodebin ! videoconvert ! video/x-raw,format=RGB ! appsink name=sink sync=false max-buffers=8",
      &parse_error);
  if (pipeline == nullptr) fail(parse_error->message);
  GstElement* file = gst_bin_get_by_name(GST_BIN(pipeline), "file");
  g_object_set(file, "location", path.c_str(), nullptr);
  gst_object_unref(file);
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  std::vector<at::Tensor> frames;
  while (!gst_app_sink_is_eos(GST_APP_SINK(sink)) && static_cast<int64_t>(frames.size()) < most) {
    GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink), 100 * GST_MSECOND);
    if (sample == nullptr) {
      // A failed decoder sends no end of stream.
      GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
      if (message == nullptr) continue;
      GError* error = nullptr;
      gst_message_parse_error(message, &error, nullptr);
      fail(path + ": " + error->message);
    }
    GstVideoInfo info;
    GstVideoFrame frame;
    gst_video_info_from_caps(&info, gst_sample_get_caps(sample));
    if (!gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample), GST_MAP_READ)) fail(path + ": cannot map");
    at::Tensor out = at::empty({info.height, info.width, 3}, at::kByte);
    for (int y = 0; y < info.height; ++y) {
      std::memcpy(out.data_ptr<uint8_t>() + static_cast<int64_t>(y) * info.width * 3,
                  static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0)) +
                      static_cast<int64_t>(y) * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0),
                  static_cast<size_t>(info.width) * 3);
    }
    gst_video_frame_unmap(&frame);
    gst_sample_unref(sample);
    frames.push_back(out);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(sink);
  gst_object_unref(pipeline);
  if (frames.empty()) fail(path + ": no picture");
  return at::stack(frames);
}

at::Tensor bicubic(const at::Tensor& lq) {
  const int h = static_cast<int>(lq.size(1)), w = static_cast<int>(lq.size(2));
  const flashvsr::BicubicResizer resizer(w, h, w * kScale, h * kScale, 8);
  at::Tensor out = at::empty({lq.size(0), h * kScale, w * kScale, 3}, at::kByte);
  for (int64_t f = 0; f < lq.size(0); ++f) {
    flashvsr::PlanarImage in(w, h, 8, false), enlarged;
    for (int c = 0; c < 3; ++c) {
      const at::Tensor plane = lq[f].select(2, c).contiguous();
      std::memcpy(in.plane<uint8_t>(c), plane.data_ptr(), plane.nbytes());
    }
    resizer.resize(in, enlarged, true);
    for (int c = 0; c < 3; ++c) {
      out[f].select(2, c).copy_(at::from_blob(enlarged.plane<uint8_t>(c), {h * kScale, w * kScale}, at::kByte));
    }
  }
  return out;
}

struct Engine {
  const FlashVsrApi* api = nullptr;
  FlashVsrModel* model = nullptr;
  FlashVsrColorFix color_fix = FLASHVSR_COLOR_FIX_NONE;
  bool has_color_fix = false;
  FlashVsrError error = {};

  void check(FlashVsrStatus status) const {
    if (status < 0) fail(error.message);
  }

  at::Tensor upscale(const at::Tensor& lq, double* ms_per_frame) {
    FlashVsrFormat format = {};
    format.pixel_format = FLASHVSR_PIXEL_FORMAT_RGB;
    format.width = static_cast<int32_t>(lq.size(2));
    format.height = static_cast<int32_t>(lq.size(1));
    format.color = {0, 1, 1, 1};
    FlashVsrSessionOptions options = {};
    options.struct_size = sizeof options;
    api->default_session_options(&options);
    options.scale_num = kScale;
    options.scale_den = 1;
    if (has_color_fix) options.color_fix = color_fix;
    FlashVsrSession* session = nullptr;
    check(api->session_open(model, &format, &options, &session, &error));
    at::Tensor out = at::zeros({lq.size(0), lq.size(1) * kScale, lq.size(2) * kScale, 3}, at::kByte);
    int64_t received = 0;
    const auto start = std::chrono::steady_clock::now();
    for (int64_t f = 0; f <= lq.size(0); ++f) {
      if (f < lq.size(0)) {
        const at::Tensor in = lq[f].contiguous();
        FlashVsrFrame frame = {};
        frame.data[0] = in.data_ptr();
        frame.stride[0] = static_cast<size_t>(lq.size(2)) * 3;
        frame.frame_id = static_cast<uint64_t>(f);
        check(api->send(session, &frame, &error));
      } else {
        check(api->drain(session, &error));
      }
      for (;;) {
        const FlashVsrStatus ran = api->run(session, FLASHVSR_RUN_MODEL, &error);
        check(ran);
        for (;;) {
          at::Tensor picture = at::empty(out[0].sizes(), at::kByte);
          FlashVsrFrame frame = {};
          frame.data[0] = picture.data_ptr();
          frame.stride[0] = static_cast<size_t>(out.size(2)) * 3;
          const FlashVsrStatus got = api->receive(session, nullptr, &frame, &error);
          check(got);
          if (got != FLASHVSR_OK) break;
          if (frame.frame_id != static_cast<uint64_t>(received)) fail("frames out of order");
          out[received++].copy_(picture);
        }
        if (ran == FLASHVSR_AGAIN) break;
      }
    }
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
    *ms_per_frame = taken.count() / static_cast<double>(lq.size(0));
    api->session_close(session);
    if (received != lq.size(0)) fail("frames are missing");
    return out;
  }
};

void print_row(bool is_markdown, const std::string& clip, const std::string& what, const Quality& q, double gain, double ms) {
  const char* pattern = is_markdown ? "| %s | %s | %.2f | %s | %.4f | %.4f | %.3f | %s |\n"
                                    : "%-22s %-8s %8.2f %8s %8.4f %8.4f %10.3f %10s\n";
  char gain_text[16] = "", ms_text[16] = "";
  if (gain != 0) std::snprintf(gain_text, sizeof gain_text, "%+.2f", gain);
  if (ms != 0) std::snprintf(ms_text, sizeof ms_text, "%.1f", ms);
  std::printf(pattern, clip.c_str(), what.c_str(), q.psnr_y, gain_text, q.ssim, q.gmsd, q.temporal_error, ms_text);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  std::string model, device = "cpu", precision = "fp32", color_fix;
  std::vector<std::string> paths;
  int64_t most = INT64_MAX;
  bool is_markdown = false;
  double required = 0;
  bool has_requirement = false;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] {
      if (i + 1 >= argc) fail(name + " needs a value");
      return std::string(argv[++i]);
    };
    if (name == "--model") model = value();
    else if (name == "--device") device = value();
    else if (name == "--precision") precision = value();
    else if (name == "--color-fix") color_fix = value();
    else if (name == "--frames") most = std::stoll(value());
    else if (name == "--markdown") is_markdown = true;
    else if (name == "--require") required = std::stod(value()), has_requirement = true;
    else if (name.rfind("--", 0) == 0) fail("unknown option " + name);
    else paths.push_back(name);
  }
  if (paths.size() <= 1) {
    const std::string folder = paths.empty() ? FLASHVSR_CLIPS : paths[0];
    paths = {folder + "/dog_256x144.mp4",         folder + "/dog_gt_1024x576.mp4", folder + "/cars_audio_192x108.mp4",
             folder + "/cars_gt_768x432.mp4",     folder + "/friday_gray_160x120.mp4",
             folder + "/friday_gt_gray_640x480.mp4"};
  }
  if (paths.size() % 2 != 0) fail("pairs of LQ and TRUTH are needed");

  Engine engine;
  engine.api = flashvsr_get_api(FLASHVSR_ABI_VERSION);
  if (engine.api == nullptr) fail("the engine speaks another ABI version");
  FlashVsrModelOptions options = {};
  options.struct_size = sizeof options;
  engine.api->default_model_options(&options);
  options.path = model.empty() ? nullptr : model.c_str();
  options.device = device.c_str();
  if (precision == "fp32") options.precision = FLASHVSR_PRECISION_FP32;
  else if (precision == "bf16") options.precision = FLASHVSR_PRECISION_BF16;
  else if (precision == "fp16") options.precision = FLASHVSR_PRECISION_FP16;
  else fail("precision " + precision + " is none of fp32, bf16, fp16");
  engine.check(engine.api->model_open(&options, &engine.model, &engine.error));
  engine.has_color_fix = !color_fix.empty();
  if (color_fix == "none") engine.color_fix = FLASHVSR_COLOR_FIX_NONE;
  else if (color_fix == "adain") engine.color_fix = FLASHVSR_COLOR_FIX_ADAIN;
  else if (color_fix == "wavelet") engine.color_fix = FLASHVSR_COLOR_FIX_WAVELET;
  else if (!color_fix.empty()) fail("color-fix " + color_fix + " is none of none, adain, wavelet");
  FlashVsrModelInfo info = {};
  info.struct_size = sizeof info;
  engine.check(engine.api->model_info(engine.model, &info, &engine.error));
  std::printf("model %s on %s in %s\n\n", info.name, info.device, info.precision);

  if (is_markdown) {
    std::printf("| clip | | PSNR-Y | gain | SSIM | GMSD | temporal error | ms/frame |\n|---|---|---|---|---|---|---|---|\n");
  } else {
    std::printf("%-22s %-8s %8s %8s %8s %8s %10s %10s\n", "clip", "", "PSNR-Y", "gain", "SSIM", "GMSD", "temporal", "ms/frame");
  }
  double sum = 0;
  bool is_better_everywhere = true;
  for (size_t i = 0; i < paths.size(); i += 2) {
    const at::Tensor lq = decode(paths[i], most), truth = decode(paths[i + 1], most);
    if (truth.size(0) != lq.size(0) || truth.size(1) != lq.size(1) * kScale || truth.size(2) != lq.size(2) * kScale) {
      fail(paths[i + 1] + " is not " + paths[i] + " four times as large");
    }
    const std::string clip = std::filesystem::path(paths[i]).stem().string();
    const Quality before = flashvsr::train::measure(bicubic(lq), truth);
    double ms = 0;
    const Quality after = flashvsr::train::measure(engine.upscale(lq, &ms), truth);
    const double gain = after.psnr_y - before.psnr_y;
    print_row(is_markdown, clip, "bicubic", before, 0, 0);
    print_row(is_markdown, clip, info.name, after, gain, ms);
    sum += gain;
    if (!(gain > 0)) is_better_everywhere = false;
  }
  const double mean = sum / static_cast<double>(paths.size() / 2);
  std::printf("\nmean gain %+.2f dB PSNR-Y\n", mean);
  engine.api->model_close(engine.model);
  if (has_requirement && !(is_better_everywhere && mean >= required)) {
    std::printf("required: a gain on every clip and %+.2f dB on average\n", required);
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "quality: %s\n", error.what());
    return 2;
  }
}
