// SPDX-License-Identifier: LGPL-2.1-or-later
//
// flashvsr-dataset: media files to shards for flashvsr-train.
//
//   flashvsr-dataset OUTPUT.safetensors FILE...
//
// Everything that GStreamer decodes: videos and stills (F = 1). Each file becomes one
// tensor, uint8 [F, H, W, 3] in RGB, named after the file without folder and suffix.
// Memory: one file at a time; the data go to OUTPUT as they are decoded and the
// header is put in front at the end.
#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Entry {
  std::string name;
  uint64_t frames = 0;
  int width = 0;
  int height = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + "\"";
}

void raise_bus_error(GstElement* pipeline, const std::string& path) {
  GstBus* bus = gst_element_get_bus(pipeline);
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  gst_object_unref(bus);
  if (message == nullptr) return;
  GError* error = nullptr;
  gst_message_parse_error(message, &error, nullptr);
  const std::string text = error->message;
  g_error_free(error);
  gst_message_unref(message);
  fail(path + ": " + text);
}

// Appends the frames of `path` to `out`.
Entry decode(const std::string& path, std::ofstream& out, uint64_t offset) {
  GError* error = nullptr;
  GstElement* pipeline = gst_parse_launch(
      "filesrc name=file ! decodebin ! videoconvert ! video/x-raw,format=RGB ! "
      "appsink name=sink sync=false max-buffers=8",
      &error);
  if (pipeline == nullptr) fail(error->message);
  GstElement* file = gst_bin_get_by_name(GST_BIN(pipeline), "file");
  g_object_set(file, "location", path.c_str(), nullptr);
  gst_object_unref(file);
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
  gst_element_set_state(pipeline, GST_STATE_PLAYING);

  Entry entry;
  entry.name = std::filesystem::path(path).stem().string();
  entry.begin = entry.end = offset;
  while (gst_app_sink_is_eos(GST_APP_SINK(sink)) == FALSE) {
    // A failed decoder sends no end of stream: look at the bus while waiting.
    GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink), 100 * GST_MSECOND);
    if (sample == nullptr) {
      raise_bus_error(pipeline, path);
      continue;
    }
    GstVideoInfo info;
    GstVideoFrame frame;
    gst_video_info_from_caps(&info, gst_sample_get_caps(sample));
    if (entry.frames > 0 && (info.width != entry.width || info.height != entry.height)) {
      fail(path + ": the size changes");
    }
    entry.width = info.width;
    entry.height = info.height;
    if (!gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample), GST_MAP_READ)) fail(path + ": cannot map");
    const auto* row = static_cast<const char*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0));
    for (int y = 0; y < info.height; ++y) {
      out.write(row, info.width * 3);
      row += GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0);
    }
    gst_video_frame_unmap(&frame);
    gst_sample_unref(sample);
    ++entry.frames;
    entry.end += static_cast<uint64_t>(info.width) * info.height * 3;
  }
  raise_bus_error(pipeline, path);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(sink);
  gst_object_unref(pipeline);
  if (entry.frames == 0) fail(path + ": no picture");
  return entry;
}

void run(const std::string& output, std::vector<std::string> paths) {
  const std::string data_path = output + ".data";
  std::vector<Entry> entries;
  {
    std::ofstream data(data_path, std::ios::binary | std::ios::trunc);
    std::set<std::string> names;
    uint64_t offset = 0;
    for (const std::string& path : paths) {
      entries.push_back(decode(path, data, offset));
      offset = entries.back().end;
      if (!names.insert(entries.back().name).second) fail("two files are called " + entries.back().name);
      std::fprintf(stderr, "\r%zu of %zu ", entries.size(), paths.size());
    }
    if (!data.flush()) fail("cannot write " + data_path);
  }
  std::string header = "{";
  for (const Entry& entry : entries) {
    if (header.size() > 1) header += ',';
    header += quoted(entry.name) + ":{\"dtype\":\"U8\",\"shape\":[" + std::to_string(entry.frames) + ',' +
              std::to_string(entry.height) + ',' + std::to_string(entry.width) + ",3],\"data_offsets\":[" +
              std::to_string(entry.begin) + ',' + std::to_string(entry.end) + "]}";
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t size = header.size();
  std::ofstream out(output, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(&size), 8);
  out << header << std::ifstream(data_path, std::ios::binary).rdbuf();
  if (!out.flush()) fail("cannot write " + output);
  std::filesystem::remove(data_path);
  std::fprintf(stderr, "\r%s: %zu files\n", output.c_str(), entries.size());
}

}  // namespace

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  if (argc < 3) {
    std::fputs("flashvsr-dataset OUTPUT.safetensors FILE...\n", stderr);
    return 2;
  }
  try {
    run(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "\nflashvsr-dataset: %s\n", error.what());
    return 1;
  }
  return 0;
}
