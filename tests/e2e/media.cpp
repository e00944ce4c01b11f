// SPDX-License-Identifier: LGPL-2.1-or-later
#include "tests/e2e/media.h"

#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <cmath>
#include <mutex>

namespace flashvsr {
namespace {

constexpr GstClockTime kPatience = 900 * GST_SECOND;

struct Watch {
  std::mutex mutex;
  std::vector<Stamp> stamps;
  int width = 0, height = 0;
};

GstPadProbeReturn on_pass(GstPad*, GstPadProbeInfo* info, gpointer user) {
  auto& watch = *static_cast<Watch*>(user);
  std::lock_guard<std::mutex> lock(watch.mutex);
  if (GST_PAD_PROBE_INFO_TYPE(info) & GST_PAD_PROBE_TYPE_BUFFER) {
    GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
    watch.stamps.push_back({GST_BUFFER_PTS(buffer), GST_BUFFER_DURATION(buffer)});
  } else if (GST_EVENT_TYPE(GST_PAD_PROBE_INFO_EVENT(info)) == GST_EVENT_CAPS) {
    GstCaps* caps = nullptr;
    gst_event_parse_caps(GST_PAD_PROBE_INFO_EVENT(info), &caps);
    gst_structure_get_int(gst_caps_get_structure(caps, 0), "width", &watch.width);
    gst_structure_get_int(gst_caps_get_structure(caps, 0), "height", &watch.height);
  }
  return GST_PAD_PROBE_OK;
}

void watch_pad(GstElement* element, const char* name, Watch* watch) {
  GstPad* pad = gst_element_get_static_pad(element, name);
  gst_pad_add_probe(
      pad, static_cast<GstPadProbeType>(GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM), on_pass,
      watch, nullptr);
  gst_object_unref(pad);
}

GstElement* parse(const std::string& line, std::string* error) {
  gst_init(nullptr, nullptr);
  GError* problem = nullptr;
  GstElement* pipeline = gst_parse_launch_full(line.c_str(), nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &problem);
  if (problem) {
    *error = problem->message;
    g_error_free(problem);
  }
  return pipeline;
}

// Waits for the end; the text of the first error, or empty.
std::string wait(GstElement* pipeline) {
  GstBus* bus = gst_element_get_bus(pipeline);
  GstMessage* message = gst_bus_timed_pop_filtered(
      bus, kPatience, static_cast<GstMessageType>(GST_MESSAGE_EOS | GST_MESSAGE_ERROR));
  std::string error;
  if (!message) {
    error = "no end within the time";
  } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
    GError* problem = nullptr;
    gchar* debug = nullptr;
    gst_message_parse_error(message, &problem, &debug);
    error = std::string(problem->message) + (debug ? std::string(" / ") + debug : "");
    g_error_free(problem);
    g_free(debug);
  }
  if (message) gst_message_unref(message);
  gst_object_unref(bus);
  return error;
}

// Pulls every sample of the appsink called "s".
template <typename Take>
void pull_all(const std::string& line, std::string* error, Take take) {
  error->clear();
  GstElement* pipeline = parse(line, error);
  if (!error->empty()) return;
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "s");
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  while (GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink), kPatience)) {
    take(sample);
    gst_sample_unref(sample);
  }
  *error = wait(pipeline);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(sink);
  gst_object_unref(pipeline);
}

}  // namespace

Passage run_pipeline(const std::string& launch_line) {
  Passage passage;
  Watch in, out;
  GstElement* pipeline = parse(launch_line, &passage.error);
  if (!passage.error.empty()) return passage;
  GstElement* filter = gst_bin_get_by_name(GST_BIN(pipeline), "f");
  if (filter) {
    watch_pad(filter, "sink", &in);
    watch_pad(filter, "src", &out);
    gst_object_unref(filter);
  }
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  passage.error = wait(pipeline);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  passage.in = std::move(in.stamps);
  passage.out = std::move(out.stamps);
  passage.in_width = in.width;
  passage.in_height = in.height;
  passage.out_width = out.width;
  passage.out_height = out.height;
  return passage;
}

std::vector<GrayFrame> decode_gray(const std::string& path, std::string* error, const std::string& more) {
  std::vector<GrayFrame> frames;
  pull_all("filesrc location=\"" + path + "\" ! decodebin ! videoconvert ! " + more +
               " video/x-raw,format=GRAY8 ! appsink name=s sync=false",
           error, [&](GstSample* sample) {
             GstVideoInfo info;
             gst_video_info_from_caps(&info, gst_sample_get_caps(sample));
             GstVideoFrame mapped;
             if (!gst_video_frame_map(&mapped, &info, gst_sample_get_buffer(sample), GST_MAP_READ)) return;
             GrayFrame frame{GST_BUFFER_PTS(gst_sample_get_buffer(sample)), info.width, info.height, {}};
             for (int y = 0; y < info.height; y++) {
               auto* row = static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&mapped, 0)) +
                           static_cast<size_t>(y) * GST_VIDEO_FRAME_PLANE_STRIDE(&mapped, 0);
               frame.pixels.insert(frame.pixels.end(), row, row + info.width);
             }
             gst_video_frame_unmap(&mapped);
             frames.push_back(std::move(frame));
           });
  return frames;
}

uint64_t container_duration(const std::string& path) {
  std::string error;
  GstElement* pipeline = parse("filesrc location=\"" + path + "\" ! decodebin ! fakesink", &error);
  if (!error.empty()) return 0;
  gint64 duration = 0;
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  if (gst_element_get_state(pipeline, nullptr, nullptr, kPatience) != GST_STATE_CHANGE_SUCCESS ||
      !gst_element_query_duration(pipeline, GST_FORMAT_TIME, &duration))
    duration = 0;
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  return static_cast<uint64_t>(duration);
}

std::vector<std::string> audio_packets(const std::string& path, std::string* error) {
  std::vector<std::string> packets;
  pull_all("filesrc location=\"" + path + "\" ! parsebin ! audio/mpeg ! appsink name=s sync=false", error,
           [&](GstSample* sample) {
             GstMapInfo map;
             gst_buffer_map(gst_sample_get_buffer(sample), &map, GST_MAP_READ);
             packets.emplace_back(reinterpret_cast<const char*>(map.data), map.size);
             gst_buffer_unmap(gst_sample_get_buffer(sample), &map);
           });
  return packets;
}

double psnr_of_reduced(const GrayFrame& large, const GrayFrame& small) {
  const int factor = large.width / small.width;
  double sum = 0;
  for (int y = 0; y < small.height; y++)
    for (int x = 0; x < small.width; x++) {
      int total = 0;
      for (int dy = 0; dy < factor; dy++)
        for (int dx = 0; dx < factor; dx++)
          total += large.pixels[static_cast<size_t>(y * factor + dy) * large.width + x * factor + dx];
      const double difference = static_cast<double>(total) / (factor * factor) - small.pixels[static_cast<size_t>(y) * small.width + x];
      sum += difference * difference;
    }
  return 10 * std::log10(255.0 * 255.0 / std::fmax(sum / (small.width * small.height), 1e-9));
}

}  // namespace flashvsr
