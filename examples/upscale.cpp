// SPDX-License-Identifier: LGPL-2.1-or-later
//
// flashvsr-upscale INPUT OUTPUT: one file or URI through the element `flashvsr` into Matroska or MP4.
//
//   uridecodebin ─ video ─► videoconvert ─► flashvsr ─► videoconvert ─► x264enc ─► h264parse ─┐
//               └─ audio, subtitles: as they are where the muxer takes them, else FLAC ───────┴─► mux ─► file
//
// With --from or --to it seeks before anything has reached the muxer: each pad is blocked until all are there and have sought.
// Timestamps are the source's. The file is written beside OUTPUT under another name and takes its
// place only when it is whole.
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <gst/gst.h>
#include <gst/pbutils/pbutils.h>
#include <gst/video/video.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <string>
#include <vector>

namespace {

struct Options {
  std::string input, output;
  std::vector<std::pair<std::string, std::string>> properties;  // of flashvsr
  double from = 0, to = -1;                                     // seconds of the source; to < 0: its end
};

struct App {
  GMainLoop* loop = nullptr;
  GstElement* pipeline = nullptr;
  GstElement* filter = nullptr;
  GstElement* output_format = nullptr;  // the capsfilter before the encoder
  GstElement* muxer = nullptr;
  GstElement* source = nullptr;
  GstClockTime from = 0, to = GST_CLOCK_TIME_NONE;
  std::vector<std::pair<GstPad*, gulong>> blocked;  // pads that wait for the seek, and their probes
  std::atomic<bool> waits_for_seek{false};
  bool has_video = false;
  std::string notes;  // what was done beyond the plain chain, one line each
  std::string error;
  bool is_interrupted = false;
  bool is_terminal = false;

  std::atomic<guint64> frames_in{0}, frames_out{0};
  std::atomic<GstClockTime> position{0};  // end of the newest result, stream time
  std::atomic<int> out_width{0}, out_height{0}, in_width{0}, in_height{0};
  gint64 started_us = 0, first_result_us = 0, reported_us = 0;
  std::string loading;  // what the element says while it loads
};

std::string format(const char* text, ...) G_GNUC_PRINTF(1, 2);
std::string format(const char* text, ...) {
  va_list args;
  va_start(args, text);
  gchar* line = g_strdup_vprintf(text, args);
  va_end(args);
  std::string result = line;
  g_free(line);
  return result;
}

GstElement* add(App& app, const char* factory) {
  GstElement* element = gst_element_factory_make(factory, nullptr);
  if (!element) {
    app.error = format("GStreamer has no element '%s' here", factory);
    return nullptr;
  }
  gst_bin_add(GST_BIN(app.pipeline), element);
  return element;
}

// Adds the elements, links them in order between `pad` and `last` and starts them.
bool attach(App& app, GstPad* pad, std::vector<GstElement*> chain) {
  for (size_t i = 0; i < chain.size(); i++) {
    if (!chain[i]) return false;
    if (i > 0 && !gst_element_link(chain[i - 1], chain[i])) {
      app.error = format("cannot link %s to %s", GST_OBJECT_NAME(chain[i - 1]), GST_OBJECT_NAME(chain[i]));
      return false;
    }
  }
  for (size_t i = chain.size(); i-- > 0;) gst_element_sync_state_with_parent(chain[i]);
  GstPad* sink = gst_element_get_static_pad(chain[0], "sink");
  const bool is_linked = GST_PAD_LINK_SUCCESSFUL(gst_pad_link(pad, sink));
  gst_object_unref(sink);
  if (!is_linked) app.error = "cannot link the decoder to what follows it";
  return is_linked;
}

GstPadTemplate* muxer_template(const App& app, GstCaps* caps) {
  GstElementClass* type = GST_ELEMENT_GET_CLASS(app.muxer);
  for (GList* i = gst_element_class_get_pad_template_list(type); i; i = i->next) {
    auto* candidate = GST_PAD_TEMPLATE(i->data);
    if (GST_PAD_TEMPLATE_DIRECTION(candidate) == GST_PAD_SINK &&
        gst_caps_can_intersect(GST_PAD_TEMPLATE_CAPS(candidate), caps))
      return candidate;
  }
  return nullptr;
}

// Links to a pad of the muxer made for these caps; left to itself it would offer its first kind.
bool link_to_muxer(App& app, GstElement* last, GstCaps* caps) {
  GstPadTemplate* kind = muxer_template(app, caps);
  GstPad* sink = kind ? gst_element_request_pad(app.muxer, kind, nullptr, nullptr) : nullptr;
  GstPad* src = gst_element_get_static_pad(last, "src");
  const bool is_linked = sink && GST_PAD_LINK_SUCCESSFUL(gst_pad_link(src, sink));
  gst_object_unref(src);
  if (sink) gst_object_unref(sink);
  if (!is_linked) app.error = "the muxer refuses a stream";
  return is_linked;
}

bool is_of(GstCaps* caps, const char* prefix) {
  return !gst_caps_is_empty(caps) && !gst_caps_is_any(caps) &&
         g_str_has_prefix(gst_structure_get_name(gst_caps_get_structure(caps, 0)), prefix);
}

bool can_decode_the_same(GstElementFactory* factory, GstElementFactory* other) {
  for (const GList* i = gst_element_factory_get_static_pad_templates(other); i; i = i->next) {
    auto* kind = static_cast<GstStaticPadTemplate*>(i->data);
    if (kind->direction != GST_PAD_SINK) continue;
    GstCaps* caps = gst_static_pad_template_get_caps(kind);
    const bool is_same = gst_element_factory_can_sink_any_caps(factory, caps);
    gst_caps_unref(caps);
    if (is_same) return true;
  }
  return false;
}

// Decoders in hardware leave their pictures in memory of their own (CUDA, GL, VA), and some want a display before they
// begin. The model is what takes the time here, so that they are left for what nothing else decodes.
void prefer_software_decoders() {
  GList* decoders = gst_element_factory_list_get_elements(GST_ELEMENT_FACTORY_TYPE_DECODER, GST_RANK_MARGINAL);
  for (GList* i = decoders; i; i = i->next) {
    auto* hardware = GST_ELEMENT_FACTORY(i->data);
    if (!gst_element_factory_list_is_type(hardware, GST_ELEMENT_FACTORY_TYPE_HARDWARE)) continue;
    for (GList* j = decoders; j; j = j->next) {
      auto* software = GST_ELEMENT_FACTORY(j->data);
      if (gst_element_factory_list_is_type(software, GST_ELEMENT_FACTORY_TYPE_HARDWARE) ||
          !can_decode_the_same(software, hardware))
        continue;
      gst_plugin_feature_set_rank(GST_PLUGIN_FEATURE(hardware), GST_RANK_NONE);
      break;
    }
  }
  gst_plugin_feature_list_free(decoders);
}

// uridecodebin asks before each further element. FALSE: hand the stream out as it is, coded.
gboolean on_autoplug_continue(GstElement*, GstPad*, GstCaps* caps, gpointer user) {
  auto& app = *static_cast<App*>(user);
  if (gst_caps_is_empty(caps) || gst_caps_is_any(caps) || is_of(caps, "video/") || is_of(caps, "image/"))
    return TRUE;
  const GstStructure* structure = gst_caps_get_structure(caps, 0);
  gboolean is_framed = FALSE;
  if (!gst_structure_get_boolean(structure, "framed", &is_framed) || !is_framed)
    gst_structure_get_boolean(structure, "parsed", &is_framed);
  // These may still be cut at any byte; their parser comes first, then this is asked again.
  const bool needs_parser = is_of(caps, "audio/mpeg") || is_of(caps, "audio/x-ac3") ||
                            is_of(caps, "audio/x-eac3") || is_of(caps, "audio/x-dts");
  if (needs_parser && !is_framed) return TRUE;
  return muxer_template(app, caps) ? FALSE : TRUE;
}

GstPadProbeReturn on_frame_in(GstPad*, GstPadProbeInfo*, gpointer user) {
  static_cast<App*>(user)->frames_in++;
  return GST_PAD_PROBE_OK;
}

GstPadProbeReturn on_frame_out(GstPad*, GstPadProbeInfo* info, gpointer user) {
  auto& app = *static_cast<App*>(user);
  GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  if (GST_BUFFER_PTS_IS_VALID(buffer)) {
    const GstClockTime duration = GST_BUFFER_DURATION_IS_VALID(buffer) ? GST_BUFFER_DURATION(buffer) : 0;
    app.position = GST_BUFFER_PTS(buffer) + duration;
  }
  app.frames_out++;
  return GST_PAD_PROBE_OK;
}

GstPadProbeReturn on_caps_in(GstPad*, GstPadProbeInfo* info, gpointer user) {
  auto& app = *static_cast<App*>(user);
  GstEvent* event = GST_PAD_PROBE_INFO_EVENT(info);
  if (GST_EVENT_TYPE(event) == GST_EVENT_CAPS) {
    GstCaps* caps = nullptr;
    gst_event_parse_caps(event, &caps);
    int width = 0, height = 0;
    gst_structure_get_int(gst_caps_get_structure(caps, 0), "width", &width);
    gst_structure_get_int(gst_caps_get_structure(caps, 0), "height", &height);
    app.in_width = width;
    app.in_height = height;
  }
  return GST_PAD_PROBE_OK;
}

// Chooses what the encoder gets, just before the caps reach it. Left alone it would take 4:4:4 from
// RGB, which many players refuse; H.264 in 4:2:0 cannot have odd sizes.
GstPadProbeReturn on_caps_out(GstPad*, GstPadProbeInfo* info, gpointer user) {
  auto& app = *static_cast<App*>(user);
  GstEvent* event = GST_PAD_PROBE_INFO_EVENT(info);
  if (GST_EVENT_TYPE(event) != GST_EVENT_CAPS) return GST_PAD_PROBE_OK;
  GstCaps* caps = nullptr;
  gst_event_parse_caps(event, &caps);
  GstVideoInfo video;
  if (!gst_video_info_from_caps(&video, caps)) return GST_PAD_PROBE_OK;
  app.out_width = video.width;
  app.out_height = video.height;
  const bool is_odd = video.width % 2 || video.height % 2;
  const bool is_deep = GST_VIDEO_INFO_COMP_DEPTH(&video, 0) > 8;
  const char* name = is_odd ? (is_deep ? "Y444_10LE" : "Y444") : (is_deep ? "I420_10LE" : "I420");
  GstCaps* wanted = gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, name, "interlace-mode",
                                        G_TYPE_STRING, "progressive", nullptr);
  g_object_set(app.output_format, "caps", wanted, nullptr);
  gst_caps_unref(wanted);
  return GST_PAD_PROBE_OK;
}

GstElement* make_encoder(App& app) {
  if (GstElement* x264 = gst_element_factory_make("x264enc", nullptr)) {
    gst_bin_add(GST_BIN(app.pipeline), x264);
    gst_util_set_object_arg(G_OBJECT(x264), "pass", "qual");
    gst_util_set_object_arg(G_OBJECT(x264), "speed-preset", "faster");
    g_object_set(x264, "quantizer", 17u, nullptr);
    return x264;
  }
  GstElement* openh264 = add(app, "openh264enc");
  if (openh264) {
    app.error.clear();
    app.notes += "x264enc is not installed (gstreamer1.0-plugins-ugly): encoded by openh264enc\n";
    g_object_set(openh264, "bitrate", 12000000u, nullptr);
  }
  return openh264;
}

void attach_video(App& app, GstPad* pad, GstCaps* caps) {
  app.has_video = true;
  const GstCapsFeatures* memory = gst_caps_get_features(caps, 0);
  if (memory && !gst_caps_features_is_equal(memory, GST_CAPS_FEATURES_MEMORY_SYSTEM_MEMORY)) {
    gchar* name = gst_caps_features_to_string(memory);
    app.error = format("the only decoder for this video here leaves its pictures in %s; install one that does not "
                       "(gstreamer1.0-libav)", name);
    g_free(name);
    return;
  }
  std::vector<GstElement*> chain = {add(app, "queue"), add(app, "videoconvert")};
  const char* mode = gst_structure_get_string(gst_caps_get_structure(caps, 0), "interlace-mode");
  if (mode && !g_str_equal(mode, "progressive")) {
    GstElement* deinterlace = add(app, "deinterlace");
    if (deinterlace) gst_util_set_object_arg(G_OBJECT(deinterlace), "fields", "top");
    chain.push_back(deinterlace);
    chain.push_back(add(app, "videoconvert"));
    app.notes += "the source is interlaced: one deinterlaced frame for each of its frames\n";
  }
  chain.push_back(app.filter);
  chain.push_back(add(app, "videoconvert"));
  chain.push_back(app.output_format);
  chain.push_back(make_encoder(app));
  chain.push_back(add(app, "h264parse"));
  for (GstElement* element : chain)
    if (!element) return;
  GstCaps* coded = gst_caps_from_string("video/x-h264, stream-format=avc, alignment=au");
  const bool is_linked = link_to_muxer(app, chain.back(), coded);
  gst_caps_unref(coded);
  if (!is_linked) return;
  GstPad* in = gst_element_get_static_pad(app.filter, "sink");
  GstPad* out = gst_element_get_static_pad(app.filter, "src");
  gst_pad_add_probe(in, GST_PAD_PROBE_TYPE_BUFFER, on_frame_in, &app, nullptr);
  gst_pad_add_probe(in, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, on_caps_in, &app, nullptr);
  gst_pad_add_probe(out, GST_PAD_PROBE_TYPE_BUFFER, on_frame_out, &app, nullptr);
  gst_pad_add_probe(out, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, on_caps_out, &app, nullptr);
  gst_object_unref(in);
  gst_object_unref(out);
  attach(app, pad, chain);
}

// A queue without limits: the muxer waits for pictures, which lag by the model's look-ahead.
GstElement* add_unlimited_queue(App& app) {
  GstElement* queue = add(app, "queue");
  if (queue)
    g_object_set(queue, "max-size-buffers", 0u, "max-size-bytes", 0u, "max-size-time", guint64{0}, nullptr);
  return queue;
}

void attach_other(App& app, GstPad* pad, GstCaps* caps) {
  std::vector<GstElement*> chain = {add_unlimited_queue(app)};
  // Raw sound fits some muxers too, as PCM; FLAC is the same samples in half the bytes. MP4 cannot have FLAC
  // here.
  const bool is_raw_audio = is_of(caps, "audio/x-raw");
  GstCaps* flac = gst_caps_new_empty_simple("audio/x-flac");
  GstCaps* opus = gst_caps_from_string("audio/x-opus, channel-mapping-family=0");
  GstCaps* coded = gst_caps_ref(!is_raw_audio ? caps : muxer_template(app, flac) ? flac : opus);
  const bool is_flac = coded == flac;
  gst_caps_unref(flac);
  gst_caps_unref(opus);
  if (is_raw_audio) {
    for (const char* name : {"audioconvert", "audioresample", is_flac ? "flacenc" : "opusenc"})
      chain.push_back(add(app, name));
    if (!is_flac && chain.back()) g_object_set(chain.back(), "bitrate", 192000, nullptr);
    app.notes += is_flac
                     ? "the sound was decoded and stored as FLAC, without loss\n"
                     : "the sound was decoded and stored as Opus at 192 kbit/s; .mkv keeps it without loss\n";
  } else if (!muxer_template(app, caps)) {
    const GstStructure* first = gst_caps_is_empty(caps) ? nullptr : gst_caps_get_structure(caps, 0);
    app.notes += format("left out: a stream of type %s\n", first ? gst_structure_get_name(first) : "unknown");
    gst_caps_unref(coded);
    attach(app, pad, {add(app, "fakesink")});
    return;
  }
  bool is_linked = true;
  for (GstElement* element : chain) is_linked = is_linked && element;
  is_linked = is_linked && link_to_muxer(app, chain.back(), coded);
  gst_caps_unref(coded);
  if (is_linked) attach(app, pad, chain);
}

GstPadProbeReturn block(GstPad*, GstPadProbeInfo*, gpointer) { return GST_PAD_PROBE_OK; }

// In the main thread, since the streaming threads stand at the pads.
gboolean seek_and_unblock(gpointer user) {
  auto& app = *static_cast<App*>(user);
  const bool has_end = GST_CLOCK_TIME_IS_VALID(app.to);
  app.waits_for_seek = false;
  if (!gst_element_seek(app.source, 1.0, GST_FORMAT_TIME,
                        static_cast<GstSeekFlags>(GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE), GST_SEEK_TYPE_SET,
                        static_cast<gint64>(app.from), has_end ? GST_SEEK_TYPE_SET : GST_SEEK_TYPE_NONE,
                        has_end ? static_cast<gint64>(app.to) : -1))
    GST_ELEMENT_ERROR(app.pipeline, RESOURCE, SEEK, ("this input cannot be sought in; leave --from and --to away"),
                      (nullptr));
  for (auto& [pad, probe] : app.blocked) {
    gst_pad_remove_probe(pad, probe);
    gst_object_unref(pad);
  }
  app.blocked.clear();
  return G_SOURCE_REMOVE;
}

void on_pad_added(GstElement*, GstPad* pad, gpointer user) {
  auto& app = *static_cast<App*>(user);
  if (app.waits_for_seek)
    app.blocked.emplace_back(GST_PAD(gst_object_ref(pad)),
                             gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BLOCK_DOWNSTREAM, block, nullptr, nullptr));
  GstCaps* caps = gst_pad_get_current_caps(pad);
  if (!caps) caps = gst_pad_query_caps(pad, nullptr);
  if (is_of(caps, "video/x-raw") && !app.has_video)
    attach_video(app, pad, caps);
  else if (is_of(caps, "video/") || is_of(caps, "image/"))
    attach(app, pad, {add(app, "fakesink")});
  else
    attach_other(app, pad, caps);
  gst_caps_unref(caps);
  if (!app.error.empty())
    GST_ELEMENT_ERROR(app.pipeline, STREAM, FAILED, ("%s", app.error.c_str()), (nullptr));
}

void on_no_more_pads(GstElement*, gpointer user) {
  auto& app = *static_cast<App*>(user);
  if (!app.has_video)
    GST_ELEMENT_ERROR(app.pipeline, STREAM, WRONG_TYPE, ("the input has no video"), (nullptr));
  if (app.waits_for_seek) g_idle_add(seek_and_unblock, &app);
}

std::string clock_text(double seconds) {
  const int whole = static_cast<int>(seconds + 0.5);
  return whole >= 3600 ? format("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60)
                       : format("%d:%02d", whole / 60, whole % 60);
}

void clear_line(const App& app) {
  if (app.is_terminal) g_printerr("\r\033[K");
}

gboolean on_tick(gpointer user) {
  auto& app = *static_cast<App*>(user);
  const gint64 now = g_get_monotonic_time();
  const guint64 frames = app.frames_out;
  if (frames > 0 && app.first_result_us == 0) app.first_result_us = now;
  // A log gets a line every ten seconds, a terminal a bar that moves.
  if (!app.is_terminal && now - app.reported_us < 10 * G_USEC_PER_SEC) return G_SOURCE_CONTINUE;
  app.reported_us = now;

  std::string line;
  if (frames == 0) {
    line = app.frames_in > 0
               ? format("%" G_GUINT64_FORMAT " frames in, waiting for the first result", app.frames_in.load())
           : app.loading.empty() ? std::string("opening")
                                 : app.loading;
    line += format(", %s", clock_text(1e-6 * (now - app.started_us)).c_str());
  } else {
    const double elapsed = 1e-6 * (now - app.started_us);
    gint64 duration = 0;
    if (!gst_element_query_duration(app.pipeline, GST_FORMAT_TIME, &duration)) duration = 0;
    if (GST_CLOCK_TIME_IS_VALID(app.to)) duration = MIN(duration, static_cast<gint64>(app.to));
    duration -= static_cast<gint64>(app.from);
    const double done = static_cast<double>(app.position) - static_cast<double>(app.from);
    const double part = duration > 0 ? CLAMP(done / static_cast<double>(duration), 0.0, 1.0) : 0;
    if (duration > 0) {
      constexpr int kCells = 30;
      const int full = static_cast<int>(part * kCells);
      line = format("[%.*s%.*s] %3.0f %%  ", full, "##############################", kCells - full,
                    "..............................", 100 * part);
    }
    line += format("%" G_GUINT64_FORMAT " frames, %.1f frames/s", frames, frames / MAX(elapsed, 1e-3));
    if (part > 0.01) line += format(", %s left", clock_text(elapsed * (1 - part) / part).c_str());
  }
  if (app.is_terminal)
    g_printerr("\r%s\033[K", line.c_str());
  else
    g_printerr("%s\n", line.c_str());
  return G_SOURCE_CONTINUE;
}

gboolean on_interrupt(gpointer user) {
  auto& app = *static_cast<App*>(user);
  clear_line(app);
  if (app.is_interrupted) {
    app.error = "stopped";
    g_main_loop_quit(app.loop);
    return G_SOURCE_CONTINUE;
  }
  app.is_interrupted = true;
  g_printerr("stopping: finishing the frames inside and the file; once more to give up at once\n");
  gst_element_send_event(app.pipeline, gst_event_new_eos());
  return G_SOURCE_CONTINUE;
}

gboolean on_message(GstBus*, GstMessage* message, gpointer user) {
  auto& app = *static_cast<App*>(user);
  switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_EOS:
      g_main_loop_quit(app.loop);
      break;
    case GST_MESSAGE_ERROR: {
      GError* error = nullptr;
      gchar* debug = nullptr;
      gst_message_parse_error(message, &error, &debug);
      // The first error is the cause; those that follow are its echoes.
      if (app.error.empty() || g_str_equal(app.error.c_str(), error->message))
        app.error = format("%s: %s%s%s", GST_MESSAGE_SRC_NAME(message), error->message, debug ? "\n  " : "",
                           debug ? debug : "");
      g_error_free(error);
      g_free(debug);
      g_main_loop_quit(app.loop);
      break;
    }
    case GST_MESSAGE_WARNING: {
      GError* error = nullptr;
      gst_message_parse_warning(message, &error, nullptr);
      clear_line(app);
      g_printerr("warning: %s: %s\n", GST_MESSAGE_SRC_NAME(message), error->message);
      g_error_free(error);
      break;
    }
    case GST_MESSAGE_PROGRESS: {
      gchar* text = nullptr;
      gst_message_parse_progress(message, nullptr, nullptr, &text);
      app.loading = text ? text : "";
      g_free(text);
      break;
    }
    case GST_MESSAGE_ELEMENT:
      if (gst_is_missing_plugin_message(message)) {
        gchar* what = gst_missing_plugin_message_get_description(message);
        clear_line(app);
        g_printerr("missing: %s\n", what);
        g_free(what);
      }
      break;
    default:
      break;
  }
  return G_SOURCE_CONTINUE;
}

// The element's own words for the device, where it offers them.
std::string device_of(GstElement* filter) {
  std::string device;
  GObjectClass* type = G_OBJECT_GET_CLASS(filter);
  if (g_object_class_find_property(type, "stats")) {
    GstStructure* stats = nullptr;
    g_object_get(filter, "stats", &stats, nullptr);
    if (stats) {
      const char* text[3] = {gst_structure_get_string(stats, "device"), gst_structure_get_string(stats, "precision"),
                             gst_structure_get_string(stats, "model")};
      if (text[0] && *text[0]) device = text[0];
      if (text[1] && *text[1]) device += std::string(", ") + text[1];
      if (text[2] && *text[2]) device += std::string(", model ") + text[2];
      gst_structure_free(stats);
    }
  }
  return device;
}

bool parse(int argc, char** argv, Options& options) {
  gchar **sets = nullptr, **rest = nullptr;
  gchar *model = nullptr, *version = nullptr, *scale = nullptr, *device = nullptr, *precision = nullptr;
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &model,
       "Directory or file of a model; default: the embedded one", "PATH"},
      {"model-version", 0, 0, G_OPTION_ARG_STRING, &version, "auto, v1 or v1.1", "V"},
      {"scale", 's', 0, G_OPTION_ARG_STRING, &scale, "How much larger; default 4", "FACTOR"},
      {"device", 'd', 0, G_OPTION_ARG_STRING, &device, "auto, cpu, cuda or cuda:N", "DEVICE"},
      {"precision", 0, 0, G_OPTION_ARG_STRING, &precision, "auto, fp32, bf16 or fp16", "P"},
      {"from", 0, 0, G_OPTION_ARG_DOUBLE, &options.from, "Begin at this second of the input", "SECONDS"},
      {"to", 0, 0, G_OPTION_ARG_DOUBLE, &options.to, "End before this second of the input", "SECONDS"},
      {"set", 0, 0, G_OPTION_ARG_STRING_ARRAY, &sets,
       "Any other property of the element (gst-inspect-1.0 flashvsr)", "NAME=VALUE"},
      {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, nullptr, "INPUT OUTPUT"},
      {nullptr, 0, 0, G_OPTION_ARG_NONE, nullptr, nullptr, nullptr}};
  GOptionContext* context = g_option_context_new(nullptr);
  g_option_context_set_summary(context, "Upscales a video with FlashVSR. OUTPUT ends in .mkv or .mp4.");
  g_option_context_add_main_entries(context, entries, nullptr);
  g_option_context_add_group(context, gst_init_get_option_group());
  GError* error = nullptr;
  if (!g_option_context_parse(context, &argc, &argv, &error)) {
    g_printerr("flashvsr-upscale: %s\n", error->message);
    return false;
  }
  if (!rest || g_strv_length(rest) != 2) {
    gchar* help = g_option_context_get_help(context, TRUE, nullptr);
    g_printerr("%s", help);
    g_free(help);
    return false;
  }
  options.input = rest[0];
  options.output = rest[1];
  if (options.from < 0 || (options.to >= 0 && options.to <= options.from)) {
    g_printerr("flashvsr-upscale: --from and --to are seconds, and --to is the larger\n");
    return false;
  }
  const std::pair<const char*, const gchar*> named[] = {{"model", model},
                                                        {"model-version", version},
                                                        {"scale", scale},
                                                        {"device", device},
                                                        {"precision", precision}};
  for (auto& [name, value] : named)
    if (value) options.properties.emplace_back(name, value);
  for (gchar** set = sets; set && *set; set++) {
    const gchar* equals = strchr(*set, '=');
    if (!equals) {
      g_printerr("flashvsr-upscale: --set %s: NAME=VALUE is wanted\n", *set);
      return false;
    }
    options.properties.emplace_back(std::string(*set, static_cast<size_t>(equals - *set)), equals + 1);
  }
  g_option_context_free(context);
  return true;
}

// Sets a property from text and says so when the text is no value of it.
bool set_property(GstElement* filter, const std::string& name, const std::string& text) {
  GParamSpec* spec = g_object_class_find_property(G_OBJECT_GET_CLASS(filter), name.c_str());
  if (!spec) {
    g_printerr("flashvsr-upscale: flashvsr has no property '%s'\n", name.c_str());
    return false;
  }
  GValue value = G_VALUE_INIT;
  g_value_init(&value, spec->value_type);
  const bool is_good = gst_value_deserialize(&value, text.c_str()) && !g_param_value_validate(spec, &value);
  if (is_good)
    g_object_set_property(G_OBJECT(filter), name.c_str(), &value);
  else
    g_printerr("flashvsr-upscale: '%s' is no value of %s (gst-inspect-1.0 flashvsr lists them)\n",
               text.c_str(), name.c_str());
  g_value_unset(&value);
  return is_good;
}

int fail(const std::string& text) {
  g_printerr("flashvsr-upscale: %s\n", text.c_str());
  return 1;
}

int run(const Options& options) {
  App app;
  app.is_terminal = isatty(2);
  app.from = static_cast<GstClockTime>(options.from * GST_SECOND);
  if (options.to >= 0) app.to = static_cast<GstClockTime>(options.to * GST_SECOND);
  app.waits_for_seek = options.from > 0 || options.to >= 0;

  std::string uri = options.input;
  if (!gst_uri_is_valid(uri.c_str())) {
    if (!g_file_test(uri.c_str(), G_FILE_TEST_IS_REGULAR)) return fail("no such file: " + options.input);
    gchar* made = gst_filename_to_uri(uri.c_str(), nullptr);
    uri = made;
    g_free(made);
  }
  const bool is_mp4 = g_str_has_suffix(options.output.c_str(), ".mp4");
  if (!is_mp4 && !g_str_has_suffix(options.output.c_str(), ".mkv"))
    return fail("the output's name must end in .mkv or .mp4: " + options.output);
  const std::string partial = options.output + ".part";
  FILE* probe = g_fopen(partial.c_str(), "wb");
  if (!probe) return fail("cannot write " + options.output + ": " + g_strerror(errno));
  fclose(probe);

  app.pipeline = gst_pipeline_new("upscale");
  app.filter = gst_element_factory_make("flashvsr", nullptr);
  if (!app.filter) {
    g_unlink(partial.c_str());
    return fail(
        "GStreamer does not know the element flashvsr; is GST_PLUGIN_PATH set to the build's gst folder?");
  }
  gst_bin_add(GST_BIN(app.pipeline), app.filter);
  for (auto& [name, value] : options.properties)
    if (!set_property(app.filter, name, value)) {
      g_unlink(partial.c_str());
      return 1;
    }
  GstElement* source = app.source = add(app, "uridecodebin");
  app.output_format = add(app, "capsfilter");
  app.muxer = add(app, is_mp4 ? "mp4mux" : "matroskamux");
  GstElement* sink = add(app, "filesink");
  if (!source || !app.output_format || !app.muxer || !sink) {
    g_unlink(partial.c_str());
    return fail(app.error);
  }
  if (is_mp4) g_object_set(app.muxer, "faststart", TRUE, nullptr);
  g_object_set(source, "uri", uri.c_str(), nullptr);
  g_object_set(sink, "location", partial.c_str(), nullptr);
  gst_element_link(app.muxer, sink);
  g_signal_connect(source, "autoplug-continue", G_CALLBACK(on_autoplug_continue), &app);
  g_signal_connect(source, "pad-added", G_CALLBACK(on_pad_added), &app);
  g_signal_connect(source, "no-more-pads", G_CALLBACK(on_no_more_pads), &app);

  app.loop = g_main_loop_new(nullptr, FALSE);
  GstBus* bus = gst_element_get_bus(app.pipeline);
  gst_bus_add_watch(bus, on_message, &app);
  g_unix_signal_add(SIGINT, on_interrupt, &app);
  g_unix_signal_add(SIGTERM, on_interrupt, &app);
  g_timeout_add(200, on_tick, &app);
  app.started_us = app.reported_us = g_get_monotonic_time();

  const GstStateChangeReturn change = gst_element_set_state(app.pipeline, GST_STATE_PLAYING);
  if (change == GST_STATE_CHANGE_FAILURE) {
    // The reason waits on the bus.
    while (GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR)) {
      on_message(bus, message, &app);
      gst_message_unref(message);
    }
    if (app.error.empty()) app.error = "the pipeline does not start";
  } else {
    g_main_loop_run(app.loop);
  }
  clear_line(app);
  const double seconds = 1e-6 * (g_get_monotonic_time() - app.started_us);
  const std::string device = device_of(app.filter);
  gst_element_set_state(app.pipeline, GST_STATE_NULL);
  gst_bus_remove_watch(bus);
  gst_object_unref(bus);
  gst_object_unref(app.pipeline);
  g_main_loop_unref(app.loop);

  const guint64 in = app.frames_in, out = app.frames_out;
  if (app.error.empty() && out == 0) app.error = "no frame came out";
  if (app.error.empty() && g_rename(partial.c_str(), options.output.c_str()) != 0)
    app.error = "cannot rename " + partial + ": " + g_strerror(errno);
  if (!app.error.empty()) {
    g_unlink(partial.c_str());
    return fail(app.error + "\nnothing was written to " + options.output);
  }

  g_print("%s", app.notes.c_str());
  gchar* path = g_canonicalize_filename(options.output.c_str(), nullptr);
  GStatBuf info;
  const double megabytes = g_stat(path, &info) == 0 ? 1e-6 * info.st_size : 0;
  g_print("result   %s (%.1f MB)\n", path, megabytes);
  g_free(path);
  g_print("size     %d x %d, from %d x %d\n", app.out_width.load(), app.out_height.load(),
          app.in_width.load(), app.in_height.load());
  g_print("frames   %" G_GUINT64_FORMAT " in, %" G_GUINT64_FORMAT " out%s\n", in, out,
          app.is_interrupted ? " (stopped early)" : "");
  g_print("speed    %.1f frames/s, %.1f s in all\n", out / MAX(seconds, 1e-3), seconds);
  g_print("device   %s\n", device.empty() ? "not told by the element" : device.c_str());
  if (in != out) return fail("frames were lost or invented; please report this");
  return app.is_interrupted ? 130 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) return 2;
  gst_pb_utils_init();
  prefer_software_decoders();
  return run(options);
}
