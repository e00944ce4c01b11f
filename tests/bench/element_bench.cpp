// SPDX-License-Identifier: LGPL-2.1-or-later
//
// flashvsr-bench element: what the element costs beside the bare engine, system memory in and out.
// The engine is driven as wall_stream.h says; the element by appsrc ! flashvsr ! fakesink with the
// same pictures. They take turns, `--rounds` times, so that what else the machine does meets both.
// Two JSON lines; "ratio" of the element is its best round over the engine's best.
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/json_line.h"
#include "tests/bench/wall_stream.h"

namespace flashvsr {
namespace {

using Clock = std::chrono::steady_clock;

double engine_fps(const FlashVsrApi& api, FlashVsrModel* model, const BenchModelOptions& options, double seconds) {
  WallStream stream(api, model, options.width, options.height);
  stream.wait_for(29);
  stream.begin();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return stream.end().fps();
}

struct Free {
  void operator()(GstElement* pipeline) const {
    gst_element_set_state(pipeline, GST_STATE_NULL);
    gst_object_unref(pipeline);
  }
};

double element_fps(const BenchModelOptions& options, double seconds) {
  const std::string what =
      "appsrc name=source block=true format=time max-buffers=32 max-bytes=0 caps=video/x-raw,format=I420,width=" +
      std::to_string(options.width) + ",height=" + std::to_string(options.height) +
      ",framerate=25/1 ! flashvsr device=" + options.device + " precision=" + options.precision +
      (options.model.empty() ? "" : " model-version=v1.1 model=\"" + options.model + "\"") + " ! fakesink name=sink sync=false";
  GError* error = nullptr;
  const std::unique_ptr<GstElement, Free> pipeline(gst_parse_launch(what.c_str(), &error));
  if (error != nullptr) throw std::runtime_error(error->message);
  std::atomic<int> received{0};
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline.get()), "sink");
  GstPad* pad = gst_element_get_static_pad(sink, "sink");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, [](GstPad*, GstPadProbeInfo*, gpointer count) {
    ++*static_cast<std::atomic<int>*>(count);
    return GST_PAD_PROBE_OK;
  }, &received, nullptr);
  gst_object_unref(pad);
  gst_object_unref(sink);

  GstElement* source = gst_bin_get_by_name(GST_BIN(pipeline.get()), "source");
  std::atomic<bool> is_over{false};
  gst_element_set_state(pipeline.get(), GST_STATE_PLAYING);
  std::thread feeder([&] {
    const std::vector<BenchPicture> pictures = BenchPicture::loop(options.width, options.height);
    for (guint64 n = 0; !is_over; ++n) {
      const std::vector<uint8_t>& bytes = pictures[n % pictures.size()].bytes();
      GstBuffer* buffer = gst_buffer_new_memdup(bytes.data(), bytes.size());
      GST_BUFFER_PTS(buffer) = n * 40 * GST_MSECOND;
      GST_BUFFER_DURATION(buffer) = 40 * GST_MSECOND;
      if (gst_app_src_push_buffer(GST_APP_SRC(source), buffer) != GST_FLOW_OK) return;
    }
  });
  GstBus* bus = gst_element_get_bus(pipeline.get());
  std::string failure;
  const auto wait_until = [&](const auto& is_done) {
    while (failure.empty() && !is_done()) {
      // gst_bus_timed_pop takes a whole core to wait a millisecond, which the model would miss
      GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
      if (message == nullptr) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        continue;
      }
      gst_message_parse_error(message, &error, nullptr);
      failure = error->message;
      gst_message_unref(message);
    }
  };
  wait_until([&] { return received >= 29; });
  const int before = received;
  const auto begin = Clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  wait_until([&] { return passed() >= seconds; });
  const double fps = (received - before) / passed();
  is_over = true;
  gst_element_set_state(pipeline.get(), GST_STATE_NULL);  // wakes the feeder
  feeder.join();
  gst_object_unref(bus);
  gst_object_unref(source);
  g_clear_error(&error);
  if (!failure.empty()) throw std::runtime_error(failure);
  return fps;
}

int run(int argc, char** argv) {
  BenchModelOptions options;
  double seconds = 10;
  int rounds = 5;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (!value.empty() && options.take(name, value)) continue;
    if (!value.empty() && name == "--seconds") seconds = std::stod(value);
    else if (!value.empty() && name == "--rounds") rounds = std::stoi(value);
    else {
      std::fprintf(stderr, "usage: %s [--seconds 10] [--rounds 5]\n%s", argv[0], BenchModelOptions::usage());
      return name == "--help" ? 0 : 2;
    }
  }
  const FlashVsrApi& api = bench_api();
  FlashVsrModel* model = open_bench_model(api, options);  // kept open: the element shares it
  FlashVsrModelInfo info = {};
  info.struct_size = sizeof(info);
  api.model_info(model, &info, nullptr);
  std::vector<double> engine, element;
  for (int i = 0; i < rounds; ++i) {
    engine.push_back(engine_fps(api, model, options, seconds));
    element.push_back(element_fps(options, seconds));
  }
  api.model_close(model);
  const auto report = [&](const char* what, const std::vector<double>& fps) {
    JsonLine("element")
        .text("case", what)
        .text("model", info.name)
        .text("device", info.device)
        .text("precision", info.precision)
        .number("width", options.width)
        .number("height", options.height)
        .number("rounds", rounds)
        .spread("fps", Spread::of(fps), 2)
        .text("baseline", "engine")
        .number("ratio", Spread::of(fps).max / Spread::of(engine).max, 3)
        .print();
  };
  report("engine", engine);
  report("element", element);
  return 0;
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  try {
    return flashvsr::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "flashvsr-bench: %s\n", e.what());
    return 1;
  }
}
