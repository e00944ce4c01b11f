// SPDX-License-Identifier: LGPL-2.1-or-later
/**
 * SECTION:element-flashvsr
 * @title: flashvsr
 *
 * Enlarges video with FlashVSR, a diffusion model that looks at several frames at once. Width and
 * height become #GstFlashVsr:scale times as large; frame rate, pixel format, colorimetry, time
 * stamps, flags and metas stay. Every frame that goes in comes out, in order.
 *
 * Without #GstFlashVsr:model the small model runs that comes with the plugin. The released models
 * are given as a folder or file; `auto` recognises their version by checksum.
 *
 * ## Delay
 *
 * The model looks ahead: the first frame of a stream leaves after 24 others (11 with
 * startup=primed), later ones after at most 11. The element answers the LATENCY query with 24
 * frame durations and the processing deadline, and drains at the end of the stream, before a new
 * segment, caps or a jump in time, so that nothing is lost or held back. At 24 frames/s the first
 * second stays inside: where audio passes by in a queue, give that queue more than the default
 * second (`queue max-size-time=3000000000`).
 *
 * ## Threads
 *
 * Asynchronous inside: frames are taken from upstream while the model runs in its own thread, and
 * leave from a third one. No queue is needed around the element.
 *
 * ## Live pipelines
 *
 * When the model is too slow for the stream, #GstFlashVsr:overload-policy says what becomes of
 * late chunks of 8 frames. By default live pipelines enlarge them by bicubic interpolation and
 * others wait. A QOS message accounts for each such chunk.
 *
 * ## Scenes
 *
 * Where the picture changes altogether the model starts anew, so that nothing of the old scene
 * shows in the new one (#GstFlashVsr:scene-cut).
 *
 * ## Interlaced video
 *
 * is refused: put `deinterlace` in front.
 *
 * ## Example launch lines
 * |[
 * gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! flashvsr ! videoconvert ! x264enc ! matroskamux ! filesink location=out.mkv
 * ]| Enlarges a file four times with the built-in model.
 * |[
 * gst-launch-1.0 videotestsrc num-buffers=100 ! video/x-raw,width=160,height=120 ! flashvsr scale=2 ! videoconvert ! autovideosink
 * ]| Shows a test picture at twice its size.
 * |[
 * gst-launch-1.0 v4l2src ! videoconvert ! flashvsr scale=2 startup=primed compare=split ! videoconvert ! autovideosink
 * ]| A camera, with less delay at the start; left of the bar plain bicubic enlargement.
 * |[
 * gst-launch-1.0 filesrc location=in.mkv ! matroskademux name=d  d.video_0 ! queue max-size-time=3000000000 ! decodebin ! videoconvert ! flashvsr model=FlashVSR-v1.1 device=cuda ! videoconvert ! x264enc ! queue ! mux.  d.audio_0 ! queue max-size-time=3000000000 max-size-bytes=0 max-size-buffers=0 ! mux.  matroskamux name=mux ! filesink location=out.mkv
 * ]| A released model on a GPU; the audio is copied.
 */
#include "gstflashvsr.h"

#include <flashvsr/flashvsr.h>
#include <gst/video/navigation.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "gstflashvsrcaps.h"
#include "gstflashvsrcut.h"
#include "gstflashvsrengine.h"
#include "gstflashvsrerror.h"
#include "gstflashvsrframe.h"
#include "gstflashvsrqueue.h"

GST_DEBUG_CATEGORY_STATIC(flash_vsr_debug);
#define GST_CAT_DEFAULT flash_vsr_debug

using flashvsr_gst::Queue;

// What runs when the model cannot keep up.
enum OverloadPolicy {
  kOverloadAuto = 0,
  kOverloadWait = 1,
  kOverloadDropChunk = 2,
  kOverloadPassthrough = 3,
  kOverloadDegrade = 4
};

struct Settings {
  std::string model;
  bool has_model = false;
  FlashVsrVersion version = FLASHVSR_VERSION_AUTO;
  gdouble scale = 4.0;
  std::string device = "auto";
  FlashVsrPrecision precision = FLASHVSR_PRECISION_AUTO;
  FlashVsrDecoder decoder = FLASHVSR_DECODER_TC;
  gfloat sparse_ratio = 0;
  gint kv_chunks = 0;
  gint local_range = 0;
  FlashVsrColorFix color_fix = FLASHVSR_COLOR_FIX_ADAIN;
  guint64 seed = 0;
  FlashVsrStartup startup = FLASHVSR_STARTUP_FULL;
  gdouble max_vram = 0;
  gboolean bypass = FALSE;
  gfloat strength = 1;
  FlashVsrCompare compare = FLASHVSR_COMPARE_OFF;
  gfloat compare_position = 0.5f;
  GstClockTime processing_deadline = GST_CLOCK_TIME_NONE;
  gint overload_policy = kOverloadAuto;
  gboolean has_scene_cut = TRUE;
  GstClockTime stats_interval = 0;
};

// Marks that the worker leaves on the frames of a run.
enum Mark { kMarkModel = 0, kMarkPassthrough = 1, kMarkDrop = 2 };

// Everything that is not GObject's. Which thread (see gstflashvsrqueue.h) may touch what stands
// beside it; what two may touch has a mutex.
struct Stream {
  Queue queue;
  std::thread worker;

  const FlashVsrApi* api = nullptr;  // from start() to stop()
  FlashVsrModel* model = nullptr;
  FlashVsrModelInfo model_info = {};  // of `model`, under session_mutex
  std::string model_name;  // for messages

  // `session` is replaced by U while W and P are parked and both call mutexes are held; the
  // session mutex is for interrupt and stats, which come from any thread.
  FlashVsrSession* session = nullptr;
  std::mutex session_mutex;
  std::mutex send_mutex, receive_mutex;  // held during send, receive; both during drain, flush, set_options

  // U
  FlashVsrFormat format{};
  GstFlashVsrRatio scale{4, 1};
  FlashVsrSessionOptions options{};  // of the session; W while it applies changes
  GstSegment segment;
  guint64 next_id = 0;
  GstClockTime last_pts = GST_CLOCK_TIME_NONE;
  GstClockTime last_duration = GST_CLOCK_TIME_NONE;

  flashvsr_gst::CutDetector cut_detector;
  std::atomic<bool> is_trick_mode{false};

  // Whether the model is loaded: under start_mutex.
  std::mutex start_mutex;
  std::condition_variable start_changed;
  int start_state = 0;  // StartState
  bool is_shutting_down = false;

  // Output buffers.
  std::mutex pool_mutex;
  GstBufferPool* pool = nullptr;

  // False from FLUSH_START or a shutdown until FLUSH_STOP or activation: only then may set_info
  // let W and P go on after it has halted them.
  std::mutex gate_mutex;
  bool may_run = false;

  // P's task may be paused by P itself and started by others.
  std::mutex task_mutex;

  // Clocks, latency, statistics: under `clock_mutex`.
  std::mutex clock_mutex;
  GstClockTime frame_duration = 0;
  gint32 max_delay = 24;
  GstClockTime deadline = 0;          // in use
  GstClockTime reported = GST_CLOCK_TIME_NONE;
  GstClockTime configured = GST_CLOCK_TIME_NONE;  // from the LATENCY event
  bool is_live = false;
  GstClockTime upstream_min = 0;  // latency before us
  GstClockTime qos_earliest = GST_CLOCK_TIME_NONE;
  GstSegment out_segment;  // of what P pushes
  GstClockTime out_pts = GST_CLOCK_TIME_NONE;
  guint64 frames_in = 0, frames_out = 0, frames_dropped = 0, frames_passthrough = 0;
  guint64 drains = 0, late_chunks = 0, scene_cuts = 0;
  double degrade = 1;                 // factor on sparse-ratio
  gint64 stats_posted = 0;
  gint64 first_out = 0, last_out = 0; // monotonic, for fps

  // W
  double chunk_ns = 0;       // a model run in steady state, smoothed
  int passthrough_chunks = 0;  // since the model was left; 0: it runs
  bool is_passing = false;
  bool was_fresh = true;     // the next model run starts a new state
};

struct _GstFlashVsr {
  GstVideoFilter parent;
  Stream* stream;
  Settings* settings;  // under the object lock
};

enum {
  PROP_0,
  PROP_MODEL,
  PROP_MODEL_VERSION,
  PROP_SCALE,
  PROP_DEVICE,
  PROP_PRECISION,
  PROP_DECODER,
  PROP_SPARSE_RATIO,
  PROP_KV_CHUNKS,
  PROP_LOCAL_RANGE,
  PROP_COLOR_FIX,
  PROP_SEED,
  PROP_STARTUP,
  PROP_MAX_VRAM,
  PROP_BYPASS,
  PROP_STRENGTH,
  PROP_COMPARE,
  PROP_COMPARE_POSITION,
  PROP_PROCESSING_DEADLINE,
  PROP_OVERLOAD_POLICY,
  PROP_SCENE_CUT,
  PROP_STATS,
  PROP_STATS_INTERVAL,
};

G_DEFINE_TYPE(GstFlashVsr, gst_flash_vsr, GST_TYPE_VIDEO_FILTER)
GST_ELEMENT_REGISTER_DEFINE(flashvsr, "flashvsr", GST_RANK_NONE, GST_TYPE_FLASH_VSR)

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS("video/x-raw, format=(string)" GST_FLASH_VSR_FORMATS
                    ", width=(int)[16,8192], height=(int)[16,8192], framerate=(fraction)[0/1,2147483647/1]"
                    ", interlace-mode=(string)progressive"));
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS("video/x-raw, format=(string)" GST_FLASH_VSR_FORMATS
                    ", width=(int)[16,16384], height=(int)[16,16384], framerate=(fraction)[0/1,2147483647/1]"
                    ", interlace-mode=(string)progressive"));

// ---- enumerations

#define DEFINE_ENUM(function, type_name, ...)                     \
  static GType function(void) {                                   \
    static gsize type = 0;                                        \
    static const GEnumValue values[] = {__VA_ARGS__, {0, nullptr, nullptr}}; \
    if (g_once_init_enter(&type)) {                               \
      const GType registered = g_enum_register_static(type_name, values); \
      gst_type_mark_as_plugin_api(registered, static_cast<GstPluginAPIFlags>(0)); \
      g_once_init_leave(&type, registered);                       \
    }                                                             \
    return type;                                                  \
  }

DEFINE_ENUM(version_type, "GstFlashVsrModelVersion",
            {FLASHVSR_VERSION_AUTO, "By the files' checksums; unknown files are refused", "auto"},
            {FLASHVSR_VERSION_V1, "FlashVSR v1", "v1"}, {FLASHVSR_VERSION_V1_1, "FlashVSR v1.1", "v1.1"})
DEFINE_ENUM(precision_type, "GstFlashVsrPrecision",
            {FLASHVSR_PRECISION_AUTO, "bf16 on CUDA, the faster of fp32 and bf16 on the CPU", "auto"},
            {FLASHVSR_PRECISION_FP32, "32 bit, TF32 off", "fp32"}, {FLASHVSR_PRECISION_BF16, "bfloat16", "bf16"},
            {FLASHVSR_PRECISION_FP16, "16 bit, CUDA only", "fp16"},
            {FLASHVSR_PRECISION_FP8, "8 bit in the transformer's linear layers, Hopper and newer", "fp8"})
DEFINE_ENUM(decoder_type, "GstFlashVsrDecoder", {FLASHVSR_DECODER_TC, "Tiny conditional decoder", "tc"},
            {FLASHVSR_DECODER_VAE, "Wan2.1 VAE decoder, slower", "vae"})
DEFINE_ENUM(color_fix_type, "GstFlashVsrColorFix", {FLASHVSR_COLOR_FIX_NONE, "Leave colors to the model", "none"},
            {FLASHVSR_COLOR_FIX_ADAIN, "Mean and spread of each channel", "adain"},
            {FLASHVSR_COLOR_FIX_WAVELET, "Low frequencies from the input", "wavelet"})
DEFINE_ENUM(startup_type, "GstFlashVsrStartup",
            {FLASHVSR_STARTUP_FULL, "The reference schedule: the first frame waits for 24 others", "full"},
            {FLASHVSR_STARTUP_PRIMED, "Copies of the first frame come first: it waits for 11 others", "primed"})
DEFINE_ENUM(compare_type, "GstFlashVsrCompare", {FLASHVSR_COMPARE_OFF, "The result", "off"},
            {FLASHVSR_COMPARE_SPLIT, "Left of the bar bicubic, right of it the result", "split"},
            {FLASHVSR_COMPARE_SIDE_BY_SIDE, "The middle half of each, bicubic left", "side-by-side"})
DEFINE_ENUM(overload_policy_type, "GstFlashVsrOverloadPolicy",
            {kOverloadAuto, "passthrough when live, else wait; drop-chunk when not live but qos=true", "auto"},
            {kOverloadWait, "Take the time it takes", "wait"},
            {kOverloadDropChunk, "Drop late chunks", "drop-chunk"},
            {kOverloadPassthrough, "Enlarge late chunks by bicubic interpolation", "passthrough"},
            {kOverloadDegrade, "Like passthrough, and sparse-ratio is lowered each time", "degrade"})

enum SceneCut { kSceneCutOff = 0, kSceneCutAuto = 1 };

DEFINE_ENUM(scene_cut_type, "GstFlashVsrSceneCut", {kSceneCutAuto, "Start anew at a cut to another scene", "auto"},
            {kSceneCutOff, "Take the stream for one scene", "off"})

// ---- settings

// False: not offered.
static bool ratio_of(gdouble scale, GstFlashVsrRatio* ratio) {
  static const struct {
    gdouble scale;
    GstFlashVsrRatio ratio;
  } offered[] = {{1.5, {3, 2}}, {2.0, {2, 1}}, {3.0, {3, 1}}, {4.0, {4, 1}}};
  for (const auto& one : offered) {
    if (!(ABS(scale - one.scale) <= 1e-6)) continue;
    *ratio = one.ratio;
    return true;
  }
  return false;
}

static Settings copy_settings(GstFlashVsr* self) {
  GST_OBJECT_LOCK(self);
  Settings settings = *self->settings;
  GST_OBJECT_UNLOCK(self);
  return settings;
}

static FlashVsrSessionOptions session_options(const Stream* stream, const Settings& settings,
                                              GstFlashVsrRatio scale, double degrade) {
  FlashVsrSessionOptions options;
  stream->api->default_session_options(&options);
  options.struct_size = sizeof options;
  options.scale_num = scale.num;
  options.scale_den = scale.den;
  options.sparse_ratio = settings.sparse_ratio;
  if (degrade < 1) {
    const float base = settings.sparse_ratio > 0 ? settings.sparse_ratio : 2.0f;
    options.sparse_ratio = std::max(0.25f, static_cast<float>(base * degrade));
  }
  options.kv_chunks = settings.kv_chunks;
  options.local_range = settings.local_range;
  options.color_fix = settings.color_fix;
  options.seed = settings.seed;
  options.startup = settings.startup;
  options.max_vram = settings.max_vram;
  return options;
}

static void update_latency(GstFlashVsr* self);

static void gst_flash_vsr_set_property(GObject* object, guint id, const GValue* value, GParamSpec* spec) {
  GstFlashVsr* self = GST_FLASH_VSR(object);
  Settings* settings = self->settings;
  bool is_reconfigured = false, is_session_changed = false, is_latency_changed = false, is_refused = false;
  GstFlashVsrRatio scale;

  GST_OBJECT_LOCK(self);
  switch (id) {
    case PROP_MODEL: {
      const gchar* path = g_value_get_string(value);
      settings->has_model = path && *path;
      settings->model = settings->has_model ? path : "";
      break;
    }
    case PROP_MODEL_VERSION:
      settings->version = static_cast<FlashVsrVersion>(g_value_get_enum(value));
      break;
    case PROP_SCALE:
      is_refused = !ratio_of(g_value_get_double(value), &scale);
      if (is_refused) break;
      is_reconfigured = settings->scale != g_value_get_double(value);
      settings->scale = g_value_get_double(value);
      break;
    case PROP_DEVICE:
      settings->device = g_value_get_string(value) ? g_value_get_string(value) : "auto";
      break;
    case PROP_PRECISION:
      settings->precision = static_cast<FlashVsrPrecision>(g_value_get_enum(value));
      break;
    case PROP_DECODER:
      settings->decoder = static_cast<FlashVsrDecoder>(g_value_get_enum(value));
      break;
    case PROP_SPARSE_RATIO:
      is_refused = g_value_get_float(value) != 0 && !(g_value_get_float(value) >= 0.25f);
      if (is_refused) break;
      settings->sparse_ratio = g_value_get_float(value);
      is_session_changed = true;
      break;
    case PROP_KV_CHUNKS:
      settings->kv_chunks = g_value_get_int(value);
      break;
    case PROP_LOCAL_RANGE:
      settings->local_range = g_value_get_int(value);
      is_session_changed = true;
      break;
    case PROP_COLOR_FIX:
      settings->color_fix = static_cast<FlashVsrColorFix>(g_value_get_enum(value));
      is_session_changed = true;
      break;
    case PROP_SEED:
      settings->seed = g_value_get_uint64(value);
      break;
    case PROP_STARTUP:
      settings->startup = static_cast<FlashVsrStartup>(g_value_get_enum(value));
      break;
    case PROP_MAX_VRAM:
      settings->max_vram = g_value_get_double(value);
      break;
    case PROP_BYPASS:
      settings->bypass = g_value_get_boolean(value);
      break;
    case PROP_STRENGTH:
      settings->strength = g_value_get_float(value);
      break;
    case PROP_COMPARE:
      settings->compare = static_cast<FlashVsrCompare>(g_value_get_enum(value));
      break;
    case PROP_COMPARE_POSITION:
      settings->compare_position = g_value_get_float(value);
      break;
    case PROP_PROCESSING_DEADLINE:
      settings->processing_deadline = g_value_get_uint64(value);
      is_latency_changed = true;
      break;
    case PROP_OVERLOAD_POLICY:
      settings->overload_policy = g_value_get_enum(value);
      is_session_changed = true;  // takes back what `degrade` lowered
      break;
    case PROP_SCENE_CUT:
      settings->has_scene_cut = g_value_get_enum(value) == kSceneCutAuto;
      break;
    case PROP_STATS_INTERVAL:
      settings->stats_interval = g_value_get_uint64(value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
      break;
  }
  GST_OBJECT_UNLOCK(self);

  if (is_refused)
    GST_ELEMENT_WARNING(self, LIBRARY, SETTINGS, ("%s stays as it was: the new value is not offered.", spec->name),
                        (id == PROP_SCALE ? "scale is 1.5, 2, 3 or 4" : "sparse-ratio is 0 or 0.25 .. 8"));
  if (is_reconfigured) gst_base_transform_reconfigure_src(GST_BASE_TRANSFORM(self));
  if (is_session_changed) self->stream->queue.request_options();
  if (is_latency_changed) update_latency(self);
}

static GstStructure* make_stats(GstFlashVsr* self);

static void gst_flash_vsr_get_property(GObject* object, guint id, GValue* value, GParamSpec* spec) {
  GstFlashVsr* self = GST_FLASH_VSR(object);
  if (id == PROP_STATS) {
    g_value_take_boxed(value, make_stats(self));
    return;
  }
  const Settings settings = copy_settings(self);
  switch (id) {
    case PROP_MODEL:
      g_value_set_string(value, settings.has_model ? settings.model.c_str() : nullptr);
      break;
    case PROP_MODEL_VERSION:
      g_value_set_enum(value, settings.version);
      break;
    case PROP_SCALE:
      g_value_set_double(value, settings.scale);
      break;
    case PROP_DEVICE:
      g_value_set_string(value, settings.device.c_str());
      break;
    case PROP_PRECISION:
      g_value_set_enum(value, settings.precision);
      break;
    case PROP_DECODER:
      g_value_set_enum(value, settings.decoder);
      break;
    case PROP_SPARSE_RATIO:
      g_value_set_float(value, settings.sparse_ratio);
      break;
    case PROP_KV_CHUNKS:
      g_value_set_int(value, settings.kv_chunks);
      break;
    case PROP_LOCAL_RANGE:
      g_value_set_int(value, settings.local_range);
      break;
    case PROP_COLOR_FIX:
      g_value_set_enum(value, settings.color_fix);
      break;
    case PROP_SEED:
      g_value_set_uint64(value, settings.seed);
      break;
    case PROP_STARTUP:
      g_value_set_enum(value, settings.startup);
      break;
    case PROP_MAX_VRAM:
      g_value_set_double(value, settings.max_vram);
      break;
    case PROP_BYPASS:
      g_value_set_boolean(value, settings.bypass);
      break;
    case PROP_STRENGTH:
      g_value_set_float(value, settings.strength);
      break;
    case PROP_COMPARE:
      g_value_set_enum(value, settings.compare);
      break;
    case PROP_COMPARE_POSITION:
      g_value_set_float(value, settings.compare_position);
      break;
    case PROP_PROCESSING_DEADLINE:
      g_value_set_uint64(value, settings.processing_deadline);
      break;
    case PROP_OVERLOAD_POLICY:
      g_value_set_enum(value, settings.overload_policy);
      break;
    case PROP_SCENE_CUT:
      g_value_set_enum(value, settings.has_scene_cut ? kSceneCutAuto : kSceneCutOff);
      break;
    case PROP_STATS_INTERVAL:
      g_value_set_uint64(value, settings.stats_interval);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
      break;
  }
}

static GstStructure* make_stats(GstFlashVsr* self) {
  Stream* stream = self->stream;
  FlashVsrStats engine = {};
  engine.struct_size = sizeof engine;
  FlashVsrModelInfo info;
  {
    std::lock_guard<std::mutex> lock(stream->session_mutex);
    if (stream->session) stream->api->stats(stream->session, &engine, nullptr);
    info = stream->model_info;
  }
  const gint64 inside = stream->queue.frames_inside();
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  const double seconds = static_cast<double>(stream->last_out - stream->first_out) / 1e6;
  return gst_structure_new(
      "application/x-flashvsr-stats", "model", G_TYPE_STRING, info.name, "device", G_TYPE_STRING, info.device,
      "precision", G_TYPE_STRING, info.precision, "in-frames", G_TYPE_UINT64, stream->frames_in, "out-frames", G_TYPE_UINT64,
      stream->frames_out, "inside-frames", G_TYPE_UINT64, static_cast<guint64>(inside), "dropped-frames",
      G_TYPE_UINT64, stream->frames_dropped, "passthrough-frames", G_TYPE_UINT64, stream->frames_passthrough,
      "chunks", G_TYPE_UINT64, static_cast<guint64>(engine.chunks), "passthrough-chunks", G_TYPE_UINT64,
      static_cast<guint64>(engine.chunks_passthrough), "late-chunks", G_TYPE_UINT64, stream->late_chunks, "drains",
      G_TYPE_UINT64, stream->drains, "resets", G_TYPE_UINT64, static_cast<guint64>(engine.resets), "fps",
      G_TYPE_DOUBLE, seconds > 0 && stream->frames_out > 1 ? static_cast<double>(stream->frames_out - 1) / seconds : 0.0,
      "chunk-ms", G_TYPE_DOUBLE, engine.chunk_ms, "avg-chunk-ms", G_TYPE_DOUBLE, engine.chunk_ms_mean,
      "max-chunk-ms", G_TYPE_DOUBLE, engine.chunk_ms_max, "preprocess-ms", G_TYPE_DOUBLE, engine.preprocess_ms,
      "projector-ms", G_TYPE_DOUBLE, engine.projector_ms, "transformer-ms", G_TYPE_DOUBLE, engine.transformer_ms,
      "decoder-ms", G_TYPE_DOUBLE, engine.decoder_ms, "postprocess-ms", G_TYPE_DOUBLE, engine.postprocess_ms,
      "host-memory", G_TYPE_UINT64, static_cast<guint64>(engine.host_bytes), "device-memory", G_TYPE_UINT64,
      static_cast<guint64>(engine.device_bytes), "device-memory-peak", G_TYPE_UINT64,
      static_cast<guint64>(engine.device_bytes_peak), "processing-deadline", G_TYPE_UINT64, stream->deadline,
      "degrade", G_TYPE_DOUBLE, stream->degrade, "scene-cuts", G_TYPE_UINT64, stream->scene_cuts, nullptr);
}

// ---- latency

// Takes the setting, the frame rate and what was measured; posts LATENCY where the sum changed.
static void update_latency(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = copy_settings(self);
  bool is_changed = false;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (stream->frame_duration == 0) return;  // no caps yet
    GstClockTime deadline = settings.processing_deadline;
    if (!GST_CLOCK_TIME_IS_VALID(deadline)) {
      deadline = 8 * stream->frame_duration;
      // Raised by what was measured, never lowered while it runs: each change glitches.
      if (stream->deadline > deadline && GST_CLOCK_TIME_IS_VALID(stream->reported)) deadline = stream->deadline;
    }
    stream->deadline = deadline;
    const GstClockTime sum = static_cast<GstClockTime>(stream->max_delay) * stream->frame_duration + deadline;
    is_changed = sum != stream->reported;
    stream->reported = sum;
  }
  if (is_changed) gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}

static void raise_deadline(GstFlashVsr* self, GstClockTime measured) {
  Stream* stream = self->stream;
  if (GST_CLOCK_TIME_IS_VALID(copy_settings(self).processing_deadline)) return;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    // More than a tenth late; never beyond four times real time, which no delay would cure.
    if (measured <= stream->deadline + stream->deadline / 10 || measured > 32 * stream->frame_duration) return;
    stream->deadline = measured;
  }
  update_latency(self);
}

static gboolean query_latency(GstFlashVsr* self, GstQuery* query) {
  Stream* stream = self->stream;
  if (!gst_pad_peer_query(GST_BASE_TRANSFORM_SINK_PAD(self), query)) return FALSE;
  gboolean is_live;
  GstClockTime min, max;
  gst_query_parse_latency(query, &is_live, &min, &max);
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  stream->is_live = is_live;
  stream->upstream_min = min;
  const GstClockTime own = GST_CLOCK_TIME_IS_VALID(stream->reported) ? stream->reported : 0;
  min += own;
  if (GST_CLOCK_TIME_IS_VALID(max)) max += own;
  gst_query_set_latency(query, is_live, min, max);
  return TRUE;
}

// ---- worker

static void interrupt(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->session_mutex);
  if (stream->session) stream->api->interrupt(stream->session);
}

static GstClockTime running_time_now(GstFlashVsr* self) {
  GstClock* clock = gst_element_get_clock(GST_ELEMENT(self));
  if (!clock) return GST_CLOCK_TIME_NONE;
  const GstClockTime now = gst_clock_get_time(clock), base = gst_element_get_base_time(GST_ELEMENT(self));
  gst_object_unref(clock);
  return GST_CLOCK_TIME_IS_VALID(now) && now > base ? now - base : 0;
}

// Whether frames at running time `time` would come too late if a run of `cost` began now.
static bool is_late(GstFlashVsr* self, GstClockTime time, double cost, GstClockTimeDiff* jitter) {
  Stream* stream = self->stream;
  GstClockTime qos_earliest, latency;
  bool is_live;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    qos_earliest = stream->qos_earliest;
    // Never less than what frames need to come and to fill a chunk: a sink that does not wait
    // for the clock (a recording) leaves the pipeline with a latency of 0.
    latency = stream->reported;
    if (GST_CLOCK_TIME_IS_VALID(latency)) latency += stream->upstream_min;
    if (GST_CLOCK_TIME_IS_VALID(stream->configured))
      latency = GST_CLOCK_TIME_IS_VALID(latency) ? std::max(latency, stream->configured) : stream->configured;
    is_live = stream->is_live;
  }
  *jitter = 0;
  if (GST_CLOCK_TIME_IS_VALID(qos_earliest) && time < qos_earliest) {
    *jitter = GST_CLOCK_DIFF(time, qos_earliest);
    return true;
  }
  if (!is_live || !GST_CLOCK_TIME_IS_VALID(latency) || GST_STATE(self) != GST_STATE_PLAYING) return false;
  const GstClockTime now = running_time_now(self);
  if (!GST_CLOCK_TIME_IS_VALID(now)) return false;
  *jitter = GST_CLOCK_DIFF(time + latency, now + static_cast<GstClockTime>(cost));
  return *jitter > 0;
}

// The mode of the next run, and the mark for its frames.
static Mark choose_mode(GstFlashVsr* self, const Settings& settings, GstClockTimeDiff* jitter) {
  Stream* stream = self->stream;
  *jitter = 0;
  if (settings.bypass || stream->is_trick_mode) return kMarkPassthrough;
  bool is_live, has_qos;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    is_live = stream->is_live;
    has_qos = GST_CLOCK_TIME_IS_VALID(stream->qos_earliest);
  }
  gint policy = settings.overload_policy;
  if (policy == kOverloadAuto) policy = is_live ? kOverloadPassthrough : has_qos ? kOverloadDropChunk : kOverloadWait;
  const gint64 time = stream->queue.time_of_next_result();
  if (policy == kOverloadWait || time < 0) {
    stream->is_passing = false;
    return kMarkModel;
  }
  // A run that starts a new state computes 25 frames where a later one computes 12.
  const double cost = stream->chunk_ns * (stream->is_passing || stream->was_fresh ? 2.1 : 1.0);
  bool late = is_late(self, static_cast<GstClockTime>(time), cost, jitter);
  if (stream->is_passing) {
    // Comes back only when a fresh start and half a chunk more would be in time, and not at once.
    GstClockTimeDiff unused;
    late = late || (policy != kOverloadDropChunk && stream->passthrough_chunks < 2) ||
           is_late(self, static_cast<GstClockTime>(time), cost + stream->chunk_ns / 2, &unused);
  }
  if (!late) {
    stream->is_passing = false;
    stream->passthrough_chunks = 0;
    return kMarkModel;
  }
  if (policy == kOverloadDegrade && !stream->is_passing) {
    // This chunk is late whatever we do; those after it find a faster model.
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (stream->degrade > 0.15) {
      stream->degrade *= 0.7;
      stream->chunk_ns *= 0.8;  // until it is measured
      stream->queue.request_options();
    }
  }
  stream->is_passing = true;
  ++stream->passthrough_chunks;
  return policy == kOverloadDropChunk ? kMarkDrop : kMarkPassthrough;
}

static void post_qos(GstFlashVsr* self, GstClockTime running_time, GstClockTimeDiff jitter) {
  Stream* stream = self->stream;
  GstMessage* message;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    ++stream->late_chunks;
    const GstClockTime pts = gst_segment_position_from_running_time(&stream->out_segment, GST_FORMAT_TIME, running_time);
    message = gst_message_new_qos(GST_OBJECT(self), stream->is_live, running_time,
                                  gst_segment_to_stream_time(&stream->out_segment, GST_FORMAT_TIME, pts), pts,
                                  8 * stream->frame_duration);
    const double budget = static_cast<double>(8 * stream->frame_duration);
    gst_message_set_qos_values(message, jitter, budget > 0 ? stream->chunk_ns / budget : 1.0, 1000000);
    gst_message_set_qos_stats(message, GST_FORMAT_BUFFERS,
                              stream->frames_out - stream->frames_passthrough,
                              stream->frames_dropped + stream->frames_passthrough);
  }
  gst_element_post_message(GST_ELEMENT(self), message);
}

static void fail(GstFlashVsr* self, const FlashVsrError& error, const gchar* doing) {
  Stream* stream = self->stream;
  GST_WARNING_OBJECT(self, "%s: status %d: %s", doing, error.status, error.message);
  gst_flash_vsr_post_error(GST_ELEMENT(self), &error,
                           stream->model_name.empty() ? nullptr : stream->model_name.c_str());
  // Only now, or upstream's complaint about our ERROR is on the bus before ours.
  stream->queue.fail();
}

static void run_chunk(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = copy_settings(self);
  // By the queue's count, not the engine's: the engine has a frame a moment before the queue, and a
  // run in that moment would bypass the policy.
  if (!stream->queue.has_complete_chunk()) {
    stream->queue.run_done(Queue::RunResult::kNothing);
    return;
  }
  GstClockTimeDiff jitter = 0;
  const gint64 time = stream->queue.time_of_next_result();
  const Mark mark = choose_mode(self, settings, &jitter);
  // Before the run: the push thread may take the first frame before it has returned.
  stream->queue.mark_next(mark);
  FlashVsrError error = {};
  const gint64 begin = g_get_monotonic_time();
  const FlashVsrStatus status =
      stream->api->run(stream->session, mark == kMarkModel ? FLASHVSR_RUN_MODEL : FLASHVSR_RUN_PASSTHROUGH, &error);
  const double took = static_cast<double>(g_get_monotonic_time() - begin) * 1000;

  if (status == FLASHVSR_AGAIN) {
    stream->queue.run_done(Queue::RunResult::kNothing);
  } else if (status == FLASHVSR_ERROR_INTERRUPTED) {
    stream->queue.run_done(Queue::RunResult::kInterrupted);
  } else if (status != FLASHVSR_OK) {
    error.status = status;
    fail(self, error, "running the model");
    stream->queue.run_done(Queue::RunResult::kFailed);
  } else {
    if (mark == kMarkModel) {
      if (!stream->was_fresh) stream->chunk_ns = stream->chunk_ns > 0 ? 0.7 * stream->chunk_ns + 0.3 * took : took;
      else if (stream->chunk_ns <= 0) stream->chunk_ns = took / 2.1;
      stream->was_fresh = false;
      GST_DEBUG_OBJECT(self, "chunk took %.1f ms", took / 1e6);
    } else {
      stream->was_fresh = true;
    }
    stream->queue.run_done(Queue::RunResult::kRan);
    if (mark == kMarkModel) {
      raise_deadline(self, static_cast<GstClockTime>(stream->chunk_ns));
    } else if (!settings.bypass && !stream->is_trick_mode && time >= 0) {
      post_qos(self, static_cast<GstClockTime>(time), jitter);
    }
  }
}

static void drain_engine(GstFlashVsr* self) {
  Stream* stream = self->stream;
  FlashVsrError error = {};
  FlashVsrStatus status;
  {
    std::scoped_lock lock(stream->send_mutex, stream->receive_mutex);
    status = stream->api->drain(stream->session, &error);
  }
  stream->was_fresh = true;
  if (status != FLASHVSR_OK) {
    error.status = status;
    fail(self, error, "draining");
    stream->queue.run_done(Queue::RunResult::kFailed);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    ++stream->drains;
  }
  stream->queue.drain_done();
}

static void apply_options(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = copy_settings(self);
  double degrade;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (settings.overload_policy != kOverloadDegrade) stream->degrade = 1;
    degrade = stream->degrade;
  }
  FlashVsrError error = {};
  FlashVsrStatus status = FLASHVSR_OK;
  {
    std::scoped_lock lock(stream->send_mutex, stream->receive_mutex);
    if (!stream->session) return;
    FlashVsrSessionOptions options = stream->options;
    const FlashVsrSessionOptions wanted = session_options(stream, settings, stream->scale, degrade);
    options.sparse_ratio = wanted.sparse_ratio;
    options.local_range = wanted.local_range;
    options.color_fix = wanted.color_fix;
    status = stream->api->set_options(stream->session, &options, &error);
    if (status == FLASHVSR_OK) stream->options = options;
  }
  if (status != FLASHVSR_OK) {
    error.status = status;
    fail(self, error, "changing settings");
  }
}

static void work(GstFlashVsr* self) {
  for (;;) {
    switch (self->stream->queue.next_work()) {
      case Queue::WorkKind::kStop:
        return;
      case Queue::WorkKind::kOptions:
        apply_options(self);
        break;
      case Queue::WorkKind::kDrain:
        drain_engine(self);
        break;
      case Queue::WorkKind::kRun:
        run_chunk(self);
        break;
    }
  }
}

// ---- pushing

static GstFlowReturn acquire(GstFlashVsr* self, GstBuffer** buffer) {
  Stream* stream = self->stream;
  for (;;) {
    GstBufferPool* pool;
    {
      std::lock_guard<std::mutex> lock(stream->pool_mutex);
      pool = stream->pool ? static_cast<GstBufferPool*>(gst_object_ref(stream->pool)) : nullptr;
    }
    if (!pool) return GST_FLOW_NOT_NEGOTIATED;
    const GstFlowReturn flow = gst_buffer_pool_acquire_buffer(pool, buffer, nullptr);
    bool is_swapped;
    {
      std::lock_guard<std::mutex> lock(stream->pool_mutex);
      is_swapped = pool != stream->pool;
    }
    gst_object_unref(pool);
    // A RECONFIGURE replaces the pool while we wait in the old one.
    if (flow == GST_FLOW_OK || !is_swapped || stream->queue.is_flushing()) return flow;
  }
}

static void post_stats(GstFlashVsr* self) {
  const GstClockTime interval = copy_settings(self).stats_interval;
  if (interval == 0) return;
  Stream* stream = self->stream;
  const gint64 now = g_get_monotonic_time();
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (stream->stats_posted != 0 && now - stream->stats_posted < static_cast<gint64>(interval / 1000)) return;
    stream->stats_posted = now;
  }
  GstStructure* stats = make_stats(self);
  gst_structure_set_name(stats, "flashvsr-stats");
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), stats));
}

// Returns what push_done is to be told; kNoResult: nothing was there.
static constexpr int kNoResult = 1000;

static int push_frame(GstFlashVsr* self, const Queue::Output& output) {
  Stream* stream = self->stream;
  GstVideoFilter* filter = GST_VIDEO_FILTER(self);
  GstBuffer* buffer = nullptr;
  GstFlowReturn flow = acquire(self, &buffer);
  if (flow == GST_FLOW_FLUSHING) return flow;
  GstVideoFrame mapped;
  FlashVsrFrame frame = {};
  if (flow != GST_FLOW_OK || !gst_flash_vsr_frame_map(&mapped, &filter->out_info, buffer, GST_MAP_WRITE, &frame)) {
    if (buffer) gst_buffer_unref(buffer);
    GST_ELEMENT_ERROR(self, RESOURCE, WRITE, ("No buffer for the enlarged picture."),
                      ("%s", flow == GST_FLOW_OK ? "mapping failed" : gst_flow_get_name(flow)));
    stream->queue.fail();
    return GST_FLOW_ERROR;
  }

  GstBuffer* shell = static_cast<GstBuffer*>(output.payload);
  if (GST_BUFFER_PTS_IS_VALID(shell)) {
    GstClockTime stream_time = GST_CLOCK_TIME_NONE;
    {
      std::lock_guard<std::mutex> lock(stream->clock_mutex);
      if (stream->out_segment.format == GST_FORMAT_TIME)
        stream_time = gst_segment_to_stream_time(&stream->out_segment, GST_FORMAT_TIME, GST_BUFFER_PTS(shell));
    }
    if (GST_CLOCK_TIME_IS_VALID(stream_time)) gst_object_sync_values(GST_OBJECT(self), stream_time);
  }
  const Settings settings = copy_settings(self);
  const FlashVsrView view = {sizeof view, settings.strength, settings.compare, settings.compare_position};
  FlashVsrError error = {};
  FlashVsrStatus status;
  {
    std::lock_guard<std::mutex> lock(stream->receive_mutex);
    status = stream->api->receive(stream->session, &view, &frame, &error);
  }
  gst_video_frame_unmap(&mapped);
  if (status == FLASHVSR_AGAIN) {
    gst_buffer_unref(buffer);
    return kNoResult;
  }
  if (status == FLASHVSR_OK && frame.frame_id != output.id) {
    status = FLASHVSR_ERROR_INTERNAL;
    g_snprintf(error.message, sizeof error.message, "frame %" G_GUINT64_FORMAT " came back in place of %" G_GUINT64_FORMAT,
               static_cast<guint64>(frame.frame_id), static_cast<guint64>(output.id));
  }
  if (status != FLASHVSR_OK) {
    gst_buffer_unref(buffer);
    error.status = status;
    fail(self, error, "receiving a frame");
    return GST_FLOW_ERROR;
  }

  const int mark = stream->queue.take_frame();
  if (!stream->queue.is_current(output.epoch)) {
    gst_buffer_unref(buffer);
    gst_buffer_unref(shell);
    return GST_FLOW_FLUSHING;
  }
  // GstBaseTransform's own: flags, times, and metas through transform_meta.
  GST_BASE_TRANSFORM_GET_CLASS(self)->copy_metadata(GST_BASE_TRANSFORM(self), shell, buffer);
  gst_buffer_unref(shell);
  const GstClockTime pts = GST_BUFFER_PTS(buffer);
  if (mark == kMarkDrop) {
    gst_buffer_unref(buffer);
  } else {
    flow = gst_pad_push(GST_BASE_TRANSFORM_SRC_PAD(self), buffer);
  }
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (mark == kMarkDrop) {
      ++stream->frames_dropped;
    } else if (flow == GST_FLOW_OK) {
      ++stream->frames_out;
      if (mark == kMarkPassthrough) ++stream->frames_passthrough;
      if (GST_CLOCK_TIME_IS_VALID(pts)) stream->out_pts = pts;
      stream->last_out = g_get_monotonic_time();
      if (stream->first_out == 0) stream->first_out = stream->last_out;
    }
  }
  if (flow == GST_FLOW_OK) post_stats(self);
  return flow;
}

static void push_loop(gpointer user) {
  GstFlashVsr* self = GST_FLASH_VSR(user);
  Stream* stream = self->stream;
  GstPad* pad = GST_BASE_TRANSFORM_SRC_PAD(self);
  const Queue::Output output = stream->queue.next_output();
  switch (output.kind) {
    case Queue::OutputKind::kEvent:
      gst_pad_push_event(pad, static_cast<GstEvent*>(output.payload));
      stream->queue.push_done(0, output.epoch);
      return;
    case Queue::OutputKind::kFrame: {
      const int flow = push_frame(self, output);
      if (flow == kNoResult) {
        stream->queue.no_result(output.runs);
        return;
      }
      // FLUSHING without our own flush comes from a pad that is being shut; ours follows.
      if (flow != GST_FLOW_OK) GST_DEBUG_OBJECT(self, "push returned %s", gst_flow_get_name(static_cast<GstFlowReturn>(flow)));
      stream->queue.push_done(flow, output.epoch);
      return;
    }
    case Queue::OutputKind::kLost: {
      FlashVsrError error = {FLASHVSR_ERROR_INTERNAL, "drained, but frames did not come back"};
      fail(self, error, "receiving a frame");
      return;
    }
    case Queue::OutputKind::kPark: {
      std::lock_guard<std::mutex> lock(stream->task_mutex);
      if (stream->queue.is_flushing() || stream->queue.has_failed() || stream->queue.flow() != 0)
        gst_pad_pause_task(pad);
      return;
    }
  }
}

static void start_task(GstFlashVsr* self) {
  std::lock_guard<std::mutex> lock(self->stream->task_mutex);
  gst_pad_start_task(GST_BASE_TRANSFORM_SRC_PAD(self), push_loop, self, nullptr);
}

static void set_pool_flushing(Stream* stream, gboolean is_flushing) {
  std::lock_guard<std::mutex> lock(stream->pool_mutex);
  if (stream->pool) gst_buffer_pool_set_flushing(stream->pool, is_flushing);
}

static void replace_pool(Stream* stream, GstBufferPool* pool) {
  GstBufferPool* old;
  {
    std::lock_guard<std::mutex> lock(stream->pool_mutex);
    old = stream->pool;
    stream->pool = pool;
  }
  if (!old) return;
  gst_buffer_pool_set_active(old, FALSE);
  gst_object_unref(old);
}

static void drop_items(const std::vector<Queue::Item>& items) {
  for (const Queue::Item& item : items) gst_mini_object_unref(static_cast<GstMiniObject*>(item.payload));
}

// Everything inside goes; W and P are parked, and stay so until resume().
static void halt(GstFlashVsr* self) {
  Stream* stream = self->stream;
  stream->queue.set_flushing(true);
  interrupt(stream);
  set_pool_flushing(stream, TRUE);
  gst_pad_pause_task(GST_BASE_TRANSFORM_SRC_PAD(self));
  drop_items(stream->queue.clear());
  std::scoped_lock lock(stream->send_mutex, stream->receive_mutex);
  if (stream->session) stream->api->flush(stream->session);
}

static void close_gate(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->gate_mutex);
  stream->may_run = false;
  stream->queue.set_flushing(true);
}

static void open_gate(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->gate_mutex);
  stream->may_run = true;
}

// After halt(); nothing where a flush or a shutdown has begun meanwhile, which does it in its turn.
static void resume(GstFlashVsr* self) {
  Stream* stream = self->stream;
  std::lock_guard<std::mutex> lock(stream->gate_mutex);
  if (!stream->may_run) return;
  set_pool_flushing(stream, FALSE);
  stream->queue.set_flushing(false);
  start_task(self);
}

static gboolean src_activate_mode(GstPad* pad, GstObject* parent, GstPadMode mode, gboolean active) {
  GstFlashVsr* self = GST_FLASH_VSR(parent);
  if (mode != GST_PAD_MODE_PUSH) return FALSE;
  if (active) {
    open_gate(self->stream);
    resume(self);
    return TRUE;
  }
  close_gate(self->stream);
  interrupt(self->stream);
  set_pool_flushing(self->stream, TRUE);
  return gst_pad_stop_task(pad);
}

// ---- GstBaseTransform

static gboolean open_model(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = copy_settings(self);

  gchar* why = nullptr;
  stream->api = gst_flash_vsr_engine_open(&why);
  if (!stream->api) {
    gst_flash_vsr_post_engine_missing(GST_ELEMENT(self), why);
    g_free(why);
    return FALSE;
  }

  FlashVsrModelOptions options;
  stream->api->default_model_options(&options);
  options.struct_size = sizeof options;
  options.path = settings.has_model ? settings.model.c_str() : nullptr;
  options.device = settings.device.c_str();
  options.version = settings.version;
  options.precision = settings.precision;
  options.decoder = settings.decoder;
  options.progress = [](void* user, int32_t percent, const char* what) {
    gchar* text = g_strdup_printf("%d %%: %s", percent, what);
    gst_element_post_message(GST_ELEMENT(user), gst_message_new_progress(GST_OBJECT(user), GST_PROGRESS_TYPE_CONTINUE,
                                                                         "load-model", text));
    g_free(text);
  };
  options.progress_user = self;
  const auto progress = [self](GstProgressType type, const gchar* text) {
    gst_element_post_message(GST_ELEMENT(self), gst_message_new_progress(GST_OBJECT(self), type, "load-model", text));
  };
  stream->model_name = settings.model;
  progress(GST_PROGRESS_TYPE_START, "Loading the FlashVSR model");
  FlashVsrError error = {};
  const FlashVsrStatus status = stream->api->model_open(&options, &stream->model, &error);
  if (status != FLASHVSR_OK) {
    error.status = status;
    progress(GST_PROGRESS_TYPE_ERROR, "The FlashVSR model could not be loaded");
    gst_flash_vsr_post_error(GST_ELEMENT(self), &error, options.path);
    stream->model = nullptr;
    return FALSE;
  }
  progress(GST_PROGRESS_TYPE_COMPLETE, "The FlashVSR model is loaded");
  FlashVsrModelInfo info = {};
  info.struct_size = sizeof info;
  if (stream->api->model_info(stream->model, &info, &error) == FLASHVSR_OK)
    GST_INFO_OBJECT(self, "model %s, %s, %s", info.name, info.device, info.precision);
  {
    std::lock_guard<std::mutex> lock(stream->session_mutex);
    stream->model_info = info;
  }
  stream->queue.start();
  stream->worker = std::thread(work, self);
  return TRUE;
}

static void close_session(Stream* stream) {
  FlashVsrSession* old;
  {
    std::scoped_lock lock(stream->session_mutex, stream->send_mutex, stream->receive_mutex);
    old = stream->session;
    stream->session = nullptr;
  }
  if (old) stream->api->session_close(old);
}

// The sink pad takes data before `start` has returned: caps that come so early wait here.
enum class StartState { kIdle, kStarted, kFailed };

static void set_start_state(GstFlashVsr* self, StartState state) {
  Stream* stream = self->stream;
  std::lock_guard<std::mutex> lock(stream->start_mutex);
  stream->start_state = static_cast<int>(state);
  stream->start_changed.notify_all();
}

static bool wait_started(GstFlashVsr* self) {
  Stream* stream = self->stream;
  std::unique_lock<std::mutex> lock(stream->start_mutex);
  stream->start_changed.wait(lock, [stream] {
    return stream->start_state != static_cast<int>(StartState::kIdle) || stream->is_shutting_down;
  });
  return stream->start_state == static_cast<int>(StartState::kStarted) && !stream->is_shutting_down;
}

static void set_shutting_down(GstFlashVsr* self, bool is_shutting_down) {
  Stream* stream = self->stream;
  std::lock_guard<std::mutex> lock(stream->start_mutex);
  stream->is_shutting_down = is_shutting_down;
  stream->start_changed.notify_all();
}

static gboolean gst_flash_vsr_start(GstBaseTransform* transform) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  const gboolean ok = open_model(self);
  set_start_state(self, ok ? StartState::kStarted : StartState::kFailed);
  return ok;
}

// Upstream's thread and P are gone by now; streaming state is reset here and not in start, when
// a running upstream may already be inside.
static gboolean gst_flash_vsr_stop(GstBaseTransform* transform) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  set_start_state(self, StartState::kIdle);
  interrupt(stream);
  stream->queue.stop();
  if (stream->worker.joinable()) stream->worker.join();
  drop_items(stream->queue.clear());
  close_session(stream);
  if (stream->model) stream->api->model_close(stream->model);
  stream->model = nullptr;
  replace_pool(stream, nullptr);
  gst_segment_init(&stream->segment, GST_FORMAT_UNDEFINED);
  stream->last_pts = stream->last_duration = GST_CLOCK_TIME_NONE;
  stream->is_trick_mode = false;
  stream->is_passing = false;
  stream->passthrough_chunks = 0;
  stream->chunk_ns = 0;
  stream->was_fresh = true;
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  gst_segment_init(&stream->out_segment, GST_FORMAT_UNDEFINED);
  stream->frame_duration = 0;
  stream->reported = stream->configured = stream->qos_earliest = stream->out_pts = GST_CLOCK_TIME_NONE;
  stream->deadline = 0;
  stream->is_live = false;
  stream->upstream_min = 0;
  stream->frames_in = stream->frames_out = stream->frames_dropped = stream->frames_passthrough = 0;
  stream->drains = stream->late_chunks = stream->scene_cuts = 0;
  stream->degrade = 1;
  stream->stats_posted = stream->first_out = stream->last_out = 0;
  return TRUE;
}

static void reset_position(Stream* stream) {
  stream->cut_detector.reset();
  stream->last_pts = stream->last_duration = GST_CLOCK_TIME_NONE;
}

// All frames leave, then all is parked.
static Queue::Go drain_all(GstFlashVsr* self) {
  const Queue::Go go = self->stream->queue.drain(true);
  if (go != Queue::Go::kYes) GST_DEBUG_OBJECT(self, "drain gave up: %d", static_cast<int>(go));
  return go;
}

static bool ask_is_live(GstFlashVsr* self) {
  GstQuery* query = gst_query_new_latency();
  gboolean is_live = FALSE;
  if (gst_pad_peer_query(GST_BASE_TRANSFORM_SINK_PAD(self), query)) {
    GstClockTime min;
    gst_query_parse_latency(query, &is_live, &min, nullptr);
    std::lock_guard<std::mutex> lock(self->stream->clock_mutex);
    self->stream->upstream_min = min;
  }
  gst_query_unref(query);
  return is_live;
}

// Not live, and nothing has left yet: perhaps another branch of the pipeline is full and
// its demuxer waits, so that no further frame can come before ours preroll the sink.
static void set_preroll_timeout(GstFlashVsr* self, bool is_playing) {
  self->stream->queue.set_preroll_timeout(std::chrono::milliseconds(is_playing ? 3000 : 2000));
}

static gboolean gst_flash_vsr_set_info(GstVideoFilter* filter, GstCaps* in_caps, GstVideoInfo* in_info, GstCaps* out_caps,
                                       GstVideoInfo* out_info) {
  GstFlashVsr* self = GST_FLASH_VSR(filter);
  Stream* stream = self->stream;
  GST_DEBUG_OBJECT(self, "%" GST_PTR_FORMAT " -> %" GST_PTR_FORMAT, in_caps, out_caps);

  if (!wait_started(self)) return FALSE;
  // With the old caps still on the pads.
  const Queue::Go go = drain_all(self);
  if (go == Queue::Go::kFlushing) return FALSE;
  if (go != Queue::Go::kYes) {
    const int flow = stream->queue.flow();
    const bool has_failed = stream->queue.has_failed();
    halt(self);
    resume(self);
    // What stopped the old stream stops the new one too, until a flush or a new start; and is told once.
    if (has_failed) {
      stream->queue.fail();
      return FALSE;
    }
    if (flow != 0) stream->queue.set_flow(flow);
  }

  const Settings settings = copy_settings(self);
  FlashVsrFormat format;
  if (!gst_flash_vsr_format_from_info(in_info, &format)) return FALSE;
  format.input_memory = format.output_memory = FLASHVSR_MEMORY_HOST;

  // The property may have changed since these caps were made; the caps decide.
  GstFlashVsrRatio scale = {0, 1};
  for (const gdouble candidate : {settings.scale, 1.5, 2.0, 3.0, 4.0}) {
    GstFlashVsrRatio one;
    if (!ratio_of(candidate, &one)) continue;
    if (gst_flash_vsr_scale_size(GST_VIDEO_INFO_WIDTH(in_info), one) != GST_VIDEO_INFO_WIDTH(out_info) ||
        gst_flash_vsr_scale_size(GST_VIDEO_INFO_HEIGHT(in_info), one) != GST_VIDEO_INFO_HEIGHT(out_info))
      continue;
    scale = one;
    break;
  }
  if (scale.num == 0) {
    GST_ERROR_OBJECT(self, "the output's size is no multiple that is offered");
    return FALSE;
  }

  const bool is_same = stream->session && std::memcmp(&format, &stream->format, sizeof format) == 0 &&
                       scale.num == stream->scale.num && scale.den == stream->scale.den;
  if (!is_same) {
    close_session(stream);
    double degrade;
    {
      std::lock_guard<std::mutex> lock(stream->clock_mutex);
      degrade = stream->degrade;
    }
    const FlashVsrSessionOptions options = session_options(stream, settings, scale, degrade);
    FlashVsrError error = {};
    FlashVsrPlan plan = {};
    plan.struct_size = sizeof plan;
    if (stream->api->model_plan(stream->model, &format, &options, &plan, &error) == FLASHVSR_OK)
      GST_INFO_OBJECT(self, "%s", plan.text);
    FlashVsrSession* session = nullptr;
    const FlashVsrStatus status = stream->api->session_open(stream->model, &format, &options, &session, &error);
    if (status != FLASHVSR_OK) {
      error.status = status;
      gst_flash_vsr_post_error(GST_ELEMENT(self), &error, settings.has_model ? settings.model.c_str() : nullptr);
      stream->queue.fail();
      return FALSE;
    }
    std::scoped_lock lock(stream->session_mutex, stream->send_mutex, stream->receive_mutex);
    stream->session = session;
    stream->format = format;
    stream->scale = scale;
    stream->options = options;
  }

  // Bounds: frames, and 256 MiB on either side where pictures are large. The first run alone
  // takes 25 frames and gives 21, so these are the least.
  constexpr gint64 kBytes = 256 << 20;
  const gint64 max_results = CLAMP(kBytes / static_cast<gint64>(GST_VIDEO_INFO_SIZE(out_info)), 4, 33);
  const gint64 max_inputs = CLAMP(kBytes / static_cast<gint64>(GST_VIDEO_INFO_SIZE(in_info)), 33, 41);
  stream->queue.set_limits(max_inputs + max_results, max_results,
                           stream->options.startup == FLASHVSR_STARTUP_PRIMED ? 8 : 21);

  const bool is_live = ask_is_live(self);
  GstClockTime duration = GST_SECOND / 25;
  if (GST_VIDEO_INFO_FPS_N(in_info) > 0)
    duration = gst_util_uint64_scale(GST_SECOND, GST_VIDEO_INFO_FPS_D(in_info), GST_VIDEO_INFO_FPS_N(in_info));
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (duration != stream->frame_duration) stream->deadline = 0;
    stream->frame_duration = duration;
    stream->max_delay = stream->api->max_delay(stream->session);
    stream->is_live = is_live;
  }
  update_latency(self);
  // A live source that stalls: what waits inside leaves after twice the longest wait.
  stream->queue.set_idle_timeout(std::chrono::nanoseconds(
      is_live ? 2 * static_cast<gint64>(stream->max_delay) * static_cast<gint64>(duration) : 0));
  set_preroll_timeout(self, GST_STATE(self) == GST_STATE_PLAYING);
  return TRUE;
}

static GstCaps* gst_flash_vsr_transform_caps(GstBaseTransform* transform, GstPadDirection direction, GstCaps* caps,
                                             GstCaps* filter) {
  GstFlashVsrRatio scale;
  ratio_of(copy_settings(GST_FLASH_VSR(transform)).scale, &scale);
  GstCaps* result = gst_flash_vsr_caps_scale(caps, scale, direction == GST_PAD_SINK);
  if (filter) {
    GstCaps* narrowed = gst_caps_intersect_full(filter, result, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref(result);
    result = narrowed;
  }
  GST_LOG_OBJECT(transform, "%s %" GST_PTR_FORMAT " -> %" GST_PTR_FORMAT,
                 direction == GST_PAD_SINK ? "sink" : "src", caps, result);
  return result;
}

static gboolean gst_flash_vsr_decide_allocation(GstBaseTransform* transform, GstQuery* query) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  if (!GST_BASE_TRANSFORM_CLASS(gst_flash_vsr_parent_class)->decide_allocation(transform, query)) return FALSE;
  GstBufferPool* pool = nullptr;
  if (gst_query_get_n_allocation_pools(query) > 0)
    gst_query_parse_nth_allocation_pool(query, 0, &pool, nullptr, nullptr, nullptr);
  if (!pool) {
    GST_ERROR_OBJECT(self, "no buffer pool was decided");
    return FALSE;
  }
  if (!gst_buffer_pool_set_active(pool, TRUE)) {
    GST_ELEMENT_ERROR(self, RESOURCE, NO_SPACE_LEFT, ("The output buffers could not be allocated."), (nullptr));
    gst_object_unref(pool);
    return FALSE;
  }
  // The pool is ours alone: the base class would swap it under P at each RECONFIGURE.
  while (gst_query_get_n_allocation_pools(query) > 0) gst_query_remove_nth_allocation_pool(query, 0);
  replace_pool(self->stream, pool);
  return TRUE;
}

static gboolean drop_memory_meta(GstBuffer*, GstMeta** meta, gpointer) {
  const GType api = (*meta)->info->api;
  // A GstParentBufferMeta ("memory-reference") would hold upstream's buffer; a GstVideoMeta
  // ("memory") describes planes that the shell does not have.
  if (gst_meta_api_type_has_tag(api, g_quark_from_static_string("memory-reference")) ||
      gst_meta_api_type_has_tag(api, g_quark_from_static_string("memory")))
    *meta = nullptr;
  return TRUE;
}

// A buffer without memory that keeps the flags, times and metas of `buffer` until its result
// comes, and does not keep upstream's memory from its pool.
static GstBuffer* make_shell(GstBuffer* buffer) {
  GstBuffer* shell = gst_buffer_new();
  gst_buffer_copy_into(shell, buffer,
                       static_cast<GstBufferCopyFlags>(GST_BUFFER_COPY_FLAGS | GST_BUFFER_COPY_TIMESTAMPS |
                                                       GST_BUFFER_COPY_META),
                       0, -1);
  gst_buffer_foreach_meta(shell, drop_memory_meta, nullptr);
  GST_BUFFER_FLAG_UNSET(shell, GST_BUFFER_FLAG_TAG_MEMORY);
  return shell;
}

// |jump| > 1 s, or backwards, as playback goes.
static bool is_jump(const Stream* stream, GstClockTime pts) {
  if (!GST_CLOCK_TIME_IS_VALID(pts) || !GST_CLOCK_TIME_IS_VALID(stream->last_pts)) return false;
  GstClockTimeDiff step = GST_CLOCK_DIFF(stream->last_pts, pts);
  if (stream->segment.format == GST_FORMAT_TIME && stream->segment.rate < 0) step = -step;
  return step < 0 || step > static_cast<GstClockTimeDiff>(GST_SECOND);
}

// Looks at luma, or at green where there is none.
static bool is_cut(Stream* stream, const GstVideoFrame& mapped) {
  const guint component = GST_VIDEO_INFO_IS_RGB(&mapped.info) ? 1 : 0;
  flashvsr_gst::CutPlane plane;
  plane.data = static_cast<const uint8_t*>(GST_VIDEO_FRAME_COMP_DATA(&mapped, component));
  plane.stride = static_cast<size_t>(GST_VIDEO_FRAME_COMP_STRIDE(&mapped, component));
  plane.width = GST_VIDEO_FRAME_COMP_WIDTH(&mapped, component);
  plane.height = GST_VIDEO_FRAME_COMP_HEIGHT(&mapped, component);
  plane.step = GST_VIDEO_FRAME_COMP_PSTRIDE(&mapped, component);
  const gint depth = GST_VIDEO_FRAME_COMP_DEPTH(&mapped, component);
  if (depth > 8) plane.shift = GST_VIDEO_FORMAT_INFO_SHIFT(mapped.info.finfo, component) + depth - 8;
  return stream->cut_detector.is_cut(plane);
}

static GstFlowReturn flow_of(GstFlashVsr* self, Queue::Go go) {
  switch (go) {
    case Queue::Go::kYes:
      return GST_FLOW_OK;
    case Queue::Go::kFlushing:
      return GST_FLOW_FLUSHING;
    case Queue::Go::kDownstream:
      return static_cast<GstFlowReturn>(self->stream->queue.flow());
    default:
      return GST_FLOW_ERROR;
  }
}

static GstFlowReturn gst_flash_vsr_submit_input_buffer(GstBaseTransform* transform, gboolean is_discont, GstBuffer* input) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  // The base class renegotiates here, and parks the buffer in queued_buf.
  GstFlowReturn flow = GST_BASE_TRANSFORM_CLASS(gst_flash_vsr_parent_class)->submit_input_buffer(transform, is_discont, input);
  if (flow != GST_FLOW_OK) {
    if (stream->queue.is_flushing()) return GST_FLOW_FLUSHING;
    return stream->queue.has_failed() ? GST_FLOW_ERROR : flow;
  }
  GstBuffer* buffer = transform->queued_buf;
  transform->queued_buf = nullptr;
  if (!buffer) return GST_FLOW_OK;

  GstVideoFrame mapped;
  FlashVsrFrame frame = {};
  const GstVideoInfo* info = &GST_VIDEO_FILTER(self)->in_info;
  if (!gst_flash_vsr_frame_map(&mapped, info, buffer, GST_MAP_READ, &frame)) {
    GST_ELEMENT_ERROR(self, STREAM, FORMAT, ("A video frame cannot be read."),
                      ("%" G_GSIZE_FORMAT " bytes; the caps ask for %" G_GSIZE_FORMAT, gst_buffer_get_size(buffer),
                       GST_VIDEO_INFO_SIZE(info)));
    gst_buffer_unref(buffer);
    return GST_FLOW_ERROR;
  }

  // Two frames that do not belong together: the model starts anew between them. `is_discont`
  // stays set until the base class pushes something, which it never does.
  bool is_new_scene = GST_BUFFER_IS_DISCONT(buffer) && is_jump(stream, GST_BUFFER_PTS(buffer));
  if (is_new_scene) {
    GST_DEBUG_OBJECT(self, "a jump to %" GST_TIME_FORMAT, GST_TIME_ARGS(GST_BUFFER_PTS(buffer)));
    stream->cut_detector.reset();
  }
  if (copy_settings(self).has_scene_cut && !stream->is_trick_mode && is_cut(stream, mapped)) {
    GST_DEBUG_OBJECT(self, "a cut at %" GST_TIME_FORMAT, GST_TIME_ARGS(GST_BUFFER_PTS(buffer)));
    is_new_scene = true;
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    ++stream->scene_cuts;
  }
  if (is_new_scene) flow = flow_of(self, stream->queue.drain(false));
  if (flow == GST_FLOW_OK) flow = flow_of(self, stream->queue.reserve());
  if (flow != GST_FLOW_OK) {
    gst_video_frame_unmap(&mapped);
    gst_buffer_unref(buffer);
    return flow;
  }
  frame.frame_id = stream->next_id++;
  FlashVsrError error = {};
  FlashVsrStatus status;
  {
    std::lock_guard<std::mutex> lock(stream->send_mutex);
    status = stream->api->send(stream->session, &frame, &error);
  }
  gst_video_frame_unmap(&mapped);
  if (status != FLASHVSR_OK) {
    gst_buffer_unref(buffer);
    error.status = status;
    fail(self, error, "sending a frame");
    return GST_FLOW_ERROR;
  }

  GstBuffer* shell = make_shell(buffer);
  gst_buffer_unref(buffer);  // upstream's memory goes back to its pool now
  stream->last_pts = GST_BUFFER_PTS(shell);
  stream->last_duration = GST_BUFFER_DURATION(shell);
  gint64 running_time = -1;
  if (stream->segment.format == GST_FORMAT_TIME && GST_BUFFER_PTS_IS_VALID(shell)) {
    const guint64 time = gst_segment_to_running_time(&stream->segment, GST_FORMAT_TIME, GST_BUFFER_PTS(shell));
    if (GST_CLOCK_TIME_IS_VALID(time)) running_time = static_cast<gint64>(time);
  }
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    ++stream->frames_in;
  }
  stream->queue.add_frame(shell, frame.frame_id, running_time);
  // Key frames of a fast scan have nothing to do with each other: each leaves at once, enlarged plainly.
  if (stream->is_trick_mode) flow = flow_of(self, stream->queue.drain(false));
  return flow;
}

// Results leave through P alone.
static GstFlowReturn gst_flash_vsr_generate_output(GstBaseTransform*, GstBuffer** buffer) {
  *buffer = nullptr;
  return GST_FLOW_OK;
}

// Never called, but without it GstVideoFilter works in place and asks for no pool.
static GstFlowReturn gst_flash_vsr_transform_frame(GstVideoFilter*, GstVideoFrame*, GstVideoFrame*) {
  return GST_FLOW_NOT_SUPPORTED;
}

static gboolean gst_flash_vsr_filter_meta(GstBaseTransform*, GstQuery*, GType api, const GstStructure*) {
  // Upstream may attach what it likes, but for a crop, which it is to apply itself.
  return api != GST_VIDEO_CROP_META_API_TYPE;
}

static gboolean gst_flash_vsr_transform_meta(GstBaseTransform* transform, GstBuffer* output, GstMeta* meta, GstBuffer* input) {
  GstVideoFilter* filter = GST_VIDEO_FILTER(transform);
  const GstMetaInfo* info = meta->info;
  const gchar* const* tags = gst_meta_api_type_get_tags(info->api);
  if (!tags || !tags[0]) return TRUE;
  static const gchar* const known[] = {GST_META_TAG_VIDEO_STR, GST_META_TAG_VIDEO_ORIENTATION_STR,
                                       GST_META_TAG_VIDEO_SIZE_STR, GST_META_TAG_VIDEO_COLORSPACE_STR, nullptr};
  bool has_size = false;
  for (gint i = 0; tags[i]; ++i) {
    if (!g_strv_contains(known, tags[i])) return FALSE;
    has_size = has_size || g_str_equal(tags[i], GST_META_TAG_VIDEO_SIZE_STR);
  }
  if (info->api == GST_VIDEO_BAR_META_API_TYPE) {
    // No GStreamer scales this one. Bars left and right are pixels across, else lines down.
    const GstVideoBarMeta* bar = reinterpret_cast<GstVideoBarMeta*>(meta);
    const guint in = bar->is_letterbox ? GST_VIDEO_INFO_HEIGHT(&filter->in_info) : GST_VIDEO_INFO_WIDTH(&filter->in_info);
    const guint out = bar->is_letterbox ? GST_VIDEO_INFO_HEIGHT(&filter->out_info) : GST_VIDEO_INFO_WIDTH(&filter->out_info);
    gst_buffer_add_video_bar_meta(output, bar->field, bar->is_letterbox,
                                  static_cast<guint>(gst_util_uint64_scale_int_round(bar->bar_data1, out, in)),
                                  static_cast<guint>(gst_util_uint64_scale_int_round(bar->bar_data2, out, in)));
    return FALSE;
  }
  if (!has_size) return TRUE;
  if (info->transform_func) {
    GstVideoMetaTransform scale = {&filter->in_info, &filter->out_info};
    info->transform_func(output, meta, input, gst_video_meta_transform_scale_get_quark(), &scale);
  }
  return FALSE;
}

static gboolean forward(GstBaseTransform* transform, GstEvent* event) {
  return GST_BASE_TRANSFORM_CLASS(gst_flash_vsr_parent_class)->sink_event(transform, event);
}

static void take_segment(Stream* stream, const GstSegment* segment) {
  stream->segment = *segment;
  stream->is_trick_mode = (segment->flags & GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS) != 0;
  reset_position(stream);
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  stream->out_segment = *segment;
}

static gboolean gst_flash_vsr_sink_event(GstBaseTransform* transform, GstEvent* event) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  gboolean is_still;
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_FLUSH_START: {
      close_gate(stream);
      interrupt(stream);
      set_pool_flushing(stream, TRUE);
      const gboolean ok = forward(transform, event);
      gst_pad_pause_task(GST_BASE_TRANSFORM_SRC_PAD(self));
      return ok;
    }
    case GST_EVENT_FLUSH_STOP: {
      halt(self);
      reset_position(stream);
      stream->is_passing = false;
      stream->was_fresh = true;
      {
        std::lock_guard<std::mutex> lock(stream->clock_mutex);
        stream->qos_earliest = stream->out_pts = GST_CLOCK_TIME_NONE;
      }
      const gboolean ok = forward(transform, event);
      open_gate(stream);
      resume(self);
      return ok;
    }
    case GST_EVENT_STREAM_START:
    case GST_EVENT_SEGMENT_DONE:
    case GST_EVENT_STREAM_GROUP_DONE:
      drain_all(self);
      return forward(transform, event);
    case GST_EVENT_EOS: {
      if (drain_all(self) == Queue::Go::kFailed) {
        // The worker posts the error, or has: an EOS that overtook it would look like success.
        gst_event_unref(event);
        return FALSE;
      }
      reset_position(stream);
      const GstFlowReturn flow = static_cast<GstFlowReturn>(stream->queue.flow());
      // Upstream has no more buffers to be told by.
      if (!stream->queue.has_failed() && (flow == GST_FLOW_NOT_LINKED || flow < GST_FLOW_EOS))
        GST_ELEMENT_FLOW_ERROR(self, flow);
      return forward(transform, event);
    }
    case GST_EVENT_SEGMENT: {
      const GstSegment* segment;
      gst_event_parse_segment(event, &segment);
      // The same again changes nothing, and a restart of the model would show.
      if (gst_segment_is_equal(segment, &stream->segment) && stream->queue.add_event(event)) return TRUE;
      drain_all(self);
      take_segment(stream, segment);
      return forward(transform, event);
    }
    case GST_EVENT_GAP: {
      GstClockTime start, duration;
      gst_event_parse_gap(event, &start, &duration);
      if (!GST_CLOCK_TIME_IS_VALID(duration) || duration > GST_SECOND) {
        drain_all(self);
        return forward(transform, event);
      }
      return stream->queue.add_event(event) ? TRUE : forward(transform, event);
    }
    case GST_EVENT_CAPS:
      return forward(transform, event);  // set_info drains where they changed
    default:
      if (!GST_EVENT_IS_SERIALIZED(event)) return forward(transform, event);
      if (gst_video_event_parse_still_frame(event, &is_still)) {
        drain_all(self);
        return forward(transform, event);
      }
      return stream->queue.add_event(event) ? TRUE : forward(transform, event);
  }
}

static gboolean gst_flash_vsr_src_event(GstBaseTransform* transform, GstEvent* event) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_QOS: {
      GstClockTimeDiff diff;
      GstClockTime time;
      gst_event_parse_qos(event, nullptr, nullptr, &diff, &time);
      if (!gst_base_transform_is_qos_enabled(transform)) {
        // A decoder that hears of it drops frames, and tears holes into what the model sees.
        gst_event_unref(event);
        return TRUE;
      }
      {
        std::lock_guard<std::mutex> lock(stream->clock_mutex);
        stream->qos_earliest = GST_CLOCK_TIME_IS_VALID(time) && static_cast<GstClockTimeDiff>(time) + diff > 0
                                   ? static_cast<GstClockTime>(static_cast<GstClockTimeDiff>(time) + diff)
                                   : GST_CLOCK_TIME_NONE;
        if (diff <= 0) stream->qos_earliest = GST_CLOCK_TIME_NONE;
      }
      // Past the base class, which would drop single frames.
      return gst_pad_push_event(GST_BASE_TRANSFORM_SINK_PAD(self), event);
    }
    case GST_EVENT_LATENCY: {
      GstClockTime latency;
      gst_event_parse_latency(event, &latency);
      std::lock_guard<std::mutex> lock(stream->clock_mutex);
      stream->configured = latency;
      break;
    }
    case GST_EVENT_RECONFIGURE:
      // Linked again, perhaps: as queue does, try anew.
      if (stream->queue.flow() == GST_FLOW_NOT_LINKED) {
        stream->queue.set_flow(0);
        if (GST_PAD_IS_ACTIVE(GST_BASE_TRANSFORM_SRC_PAD(self))) start_task(self);
      }
      break;
    case GST_EVENT_NAVIGATION: {
      gdouble x, y;
      const Settings settings = copy_settings(self);
      const GstStructure* was = gst_event_get_structure(event);
      if (!was || !gst_structure_get_double(was, "pointer_x", &x) || !gst_structure_get_double(was, "pointer_y", &y)) break;
      gint button = 0;
      const gchar* kind = gst_structure_get_string(was, "event");
      gst_structure_get_int(was, "button", &button);
      gint state = 0;
      gst_structure_get_int(was, "state", &state);
      const gint width = GST_VIDEO_INFO_WIDTH(&GST_VIDEO_FILTER(self)->out_info);
      // Dragging, or a click, moves the bar.
      if (settings.compare == FLASHVSR_COMPARE_SPLIT && width > 0 && kind &&
          (g_str_equal(kind, "mouse-button-press") ||
           (g_str_equal(kind, "mouse-move") && (state & GST_NAVIGATION_MODIFIER_BUTTON1_MASK) != 0)))
        g_object_set(self, "compare-position", CLAMP(x / width, 0.0, 1.0), nullptr);
      event = gst_event_make_writable(event);
      gst_structure_set(gst_event_writable_structure(event), "pointer_x", G_TYPE_DOUBLE, x / settings.scale,
                        "pointer_y", G_TYPE_DOUBLE, y / settings.scale, nullptr);
      return gst_pad_push_event(GST_BASE_TRANSFORM_SINK_PAD(self), event);
    }
    default:
      break;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_flash_vsr_parent_class)->src_event(transform, event);
}

static gboolean gst_flash_vsr_query(GstBaseTransform* transform, GstPadDirection direction, GstQuery* query) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  switch (GST_QUERY_TYPE(query)) {
    case GST_QUERY_LATENCY:
      if (direction == GST_PAD_SRC) return query_latency(self, query);
      break;
    case GST_QUERY_SCHEDULING:
      if (direction == GST_PAD_SRC) return FALSE;  // nobody pulls: frames leave from our own thread
      break;
    case GST_QUERY_POSITION: {
      GstFormat format;
      gst_query_parse_position(query, &format, nullptr);
      if (direction != GST_PAD_SRC || format != GST_FORMAT_TIME) break;
      std::lock_guard<std::mutex> lock(stream->clock_mutex);
      if (!GST_CLOCK_TIME_IS_VALID(stream->out_pts) || stream->out_segment.format != GST_FORMAT_TIME) break;
      gst_query_set_position(query, GST_FORMAT_TIME,
                             static_cast<gint64>(gst_segment_to_stream_time(&stream->out_segment, GST_FORMAT_TIME, stream->out_pts)));
      return TRUE;
    }
    case GST_QUERY_DRAIN:
      if (direction == GST_PAD_SINK) drain_all(self);
      break;
    default:
      break;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_flash_vsr_parent_class)->query(transform, direction, query);
}

// A refused CAPS event never reaches the element, and the application hears "not negotiated":
// the pad's probe does see it.
static GstPadProbeReturn explain_interlaced(GstPad*, GstPadProbeInfo* info, gpointer user) {
  GstEvent* event = GST_PAD_PROBE_INFO_EVENT(info);
  if (GST_EVENT_TYPE(event) != GST_EVENT_CAPS) return GST_PAD_PROBE_OK;
  GstCaps* caps;
  gst_event_parse_caps(event, &caps);
  const gchar* mode = gst_structure_get_string(gst_caps_get_structure(caps, 0), "interlace-mode");
  if (mode && !g_str_equal(mode, "progressive"))
    GST_ELEMENT_ERROR(GST_ELEMENT(user), STREAM, FORMAT,
                      ("The video is interlaced (%s), which FlashVSR cannot enlarge; insert deinterlace.", mode),
                      ("%" GST_PTR_FORMAT, caps));
  return GST_PAD_PROBE_OK;
}

static GstStateChangeReturn gst_flash_vsr_change_state(GstElement* element, GstStateChange change) {
  GstFlashVsr* self = GST_FLASH_VSR(element);
  if (change == GST_STATE_CHANGE_READY_TO_PAUSED) {
    set_shutting_down(self, false);
  } else if (change == GST_STATE_CHANGE_PAUSED_TO_READY) {
    set_shutting_down(self, true);
    // Before the pads are shut, which waits for upstream's thread and ours.
    close_gate(self->stream);
    interrupt(self->stream);
    set_pool_flushing(self->stream, TRUE);
  } else if (change == GST_STATE_CHANGE_PAUSED_TO_PLAYING || change == GST_STATE_CHANGE_PLAYING_TO_PAUSED) {
    set_preroll_timeout(self, change == GST_STATE_CHANGE_PAUSED_TO_PLAYING);
  }
  return GST_ELEMENT_CLASS(gst_flash_vsr_parent_class)->change_state(element, change);
}

// ---- GObject

static void gst_flash_vsr_init(GstFlashVsr* self) {
  GstBaseTransform* transform = GST_BASE_TRANSFORM(self);
  self->stream = new Stream;
  self->settings = new Settings;
  gst_segment_init(&self->stream->segment, GST_FORMAT_UNDEFINED);
  gst_segment_init(&self->stream->out_segment, GST_FORMAT_UNDEFINED);
  gst_pad_set_activatemode_function(GST_BASE_TRANSFORM_SRC_PAD(transform), src_activate_mode);
  gst_pad_add_probe(GST_BASE_TRANSFORM_SINK_PAD(transform), GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, explain_interlaced,
                    self, nullptr);
  gst_base_transform_set_qos_enabled(transform, FALSE);
  gst_base_transform_set_gap_aware(transform, TRUE);
  gst_base_transform_set_prefer_passthrough(transform, FALSE);
}

static void gst_flash_vsr_finalize(GObject* object) {
  GstFlashVsr* self = GST_FLASH_VSR(object);
  delete self->stream;
  delete self->settings;
  G_OBJECT_CLASS(gst_flash_vsr_parent_class)->finalize(object);
}

static void gst_flash_vsr_class_init(GstFlashVsrClass* klass) {
  GObjectClass* object_class = G_OBJECT_CLASS(klass);
  GstElementClass* element_class = GST_ELEMENT_CLASS(klass);
  GstBaseTransformClass* transform_class = GST_BASE_TRANSFORM_CLASS(klass);
  GstVideoFilterClass* filter_class = GST_VIDEO_FILTER_CLASS(klass);
  GST_DEBUG_CATEGORY_INIT(flash_vsr_debug, "flashvsr", 0, "FlashVSR element");

  object_class->set_property = gst_flash_vsr_set_property;
  object_class->get_property = gst_flash_vsr_get_property;
  object_class->finalize = gst_flash_vsr_finalize;

  const auto base = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS;
  const auto ready = static_cast<GParamFlags>(base | GST_PARAM_MUTABLE_READY);
  const auto playing = static_cast<GParamFlags>(base | GST_PARAM_MUTABLE_PLAYING);
  const auto controlled = static_cast<GParamFlags>(base | GST_PARAM_MUTABLE_PLAYING | GST_PARAM_CONTROLLABLE);
  const auto install = [object_class](guint id, GParamSpec* spec) { g_object_class_install_property(object_class, id, spec); };

  install(PROP_MODEL, g_param_spec_string("model", "Model", "Folder or file of the model; unset: the embedded one",
                                          nullptr, ready));
  install(PROP_MODEL_VERSION, g_param_spec_enum("model-version", "Model version", "Version of the released model's files",
                                                version_type(), FLASHVSR_VERSION_AUTO, ready));
  install(PROP_SCALE, g_param_spec_double("scale", "Scale", "Width and height of the output over those of the input: 1.5, 2, 3 or 4",
                                          1.5, 4.0, 4.0, playing));
  install(PROP_DEVICE, g_param_spec_string("device", "Device", "Where the model runs: auto, cpu, cuda or cuda:N", "auto", ready));
  install(PROP_PRECISION, g_param_spec_enum("precision", "Precision", "Number format of the model", precision_type(),
                                            FLASHVSR_PRECISION_AUTO, ready));
  install(PROP_DECODER, g_param_spec_enum("decoder", "Decoder", "What turns latents into pictures", decoder_type(),
                                          FLASHVSR_DECODER_TC, ready));
  install(PROP_SPARSE_RATIO, g_param_spec_float("sparse-ratio", "Sparse ratio",
                                                "Density of attention, 0.25 .. 8: larger is slower and steadier (0 = the model's default)",
                                                0, 8, 0, playing));
  install(PROP_KV_CHUNKS, g_param_spec_int("kv-chunks", "KV chunks", "Past chunks that attention sees (0 = the model's default)",
                                           0, 8, 0, ready));
  install(PROP_LOCAL_RANGE, g_param_spec_int("local-range", "Local range",
                                             "Reach of attention in blocks of 128 pixels (0 = the model's default; 9 is sharper than 11)",
                                             0, 31, 0, playing));
  install(PROP_COLOR_FIX, g_param_spec_enum("color-fix", "Color fix", "How colors are brought back to the input's",
                                            color_fix_type(), FLASHVSR_COLOR_FIX_ADAIN, playing));
  install(PROP_SEED, g_param_spec_uint64("seed", "Seed", "Seed of the noise; the same seed gives the same video", 0, G_MAXUINT64,
                                         0, ready));
  install(PROP_STARTUP, g_param_spec_enum("startup", "Startup", "How a stream begins", startup_type(), FLASHVSR_STARTUP_FULL, ready));
  install(PROP_MAX_VRAM, g_param_spec_double("max-vram", "Maximal VRAM",
                                             "Device memory beside the weights: up to 1 a fraction of the device, above bytes (0 = what is free)",
                                             0, G_MAXDOUBLE, 0, ready));
  install(PROP_BYPASS, g_param_spec_boolean("bypass", "Bypass", "Enlarge by bicubic interpolation, past the model", FALSE, playing));
  install(PROP_STRENGTH, g_param_spec_float("strength", "Strength", "Blend of bicubic enlargement (0) and result (1)", 0, 1, 1,
                                            controlled));
  install(PROP_COMPARE, g_param_spec_enum("compare", "Compare", "Show the bicubic enlargement beside the result", compare_type(),
                                          FLASHVSR_COMPARE_OFF, controlled));
  install(PROP_COMPARE_POSITION, g_param_spec_float("compare-position", "Compare position",
                                                    "Where the bar of compare=split is: 0 all result, 1 all bicubic", 0, 1, 0.5,
                                                    controlled));
  install(PROP_PROCESSING_DEADLINE, g_param_spec_uint64("processing-deadline", "Processing deadline",
                                                        "Time for a chunk of 8 frames in the reported latency, in ns (max = automatic: 8 frame durations, or what was measured)",
                                                        0, G_MAXUINT64, GST_CLOCK_TIME_NONE, playing));
  install(PROP_OVERLOAD_POLICY, g_param_spec_enum("overload-policy", "Overload policy", "What becomes of chunks that would be late",
                                                  overload_policy_type(), kOverloadAuto, playing));
  install(PROP_SCENE_CUT, g_param_spec_enum("scene-cut", "Scene cut", "Whether the model starts anew where the scene changes",
                                            scene_cut_type(), kSceneCutAuto, playing));
  install(PROP_STATS, g_param_spec_boxed("stats", "Statistics",
                                         "Frames, chunks, milliseconds of each stage, memory in bytes", GST_TYPE_STRUCTURE,
                                         static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)));
  install(PROP_STATS_INTERVAL, g_param_spec_uint64("stats-interval", "Statistics interval",
                                                   "Post an element message flashvsr-stats this often, in ns (0 = never)", 0,
                                                   G_MAXUINT64, 0, playing));

  gst_element_class_set_static_metadata(element_class, "FlashVSR video super-resolution", "Filter/Converter/Video/Scaler",
                                        "Enlarges video with the FlashVSR diffusion model", "FlashVSR for GStreamer");
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);
  element_class->change_state = gst_flash_vsr_change_state;

  transform_class->start = gst_flash_vsr_start;
  transform_class->stop = gst_flash_vsr_stop;
  transform_class->transform_caps = gst_flash_vsr_transform_caps;
  transform_class->decide_allocation = gst_flash_vsr_decide_allocation;
  transform_class->submit_input_buffer = gst_flash_vsr_submit_input_buffer;
  transform_class->generate_output = gst_flash_vsr_generate_output;
  transform_class->sink_event = gst_flash_vsr_sink_event;
  transform_class->src_event = gst_flash_vsr_src_event;
  transform_class->query = gst_flash_vsr_query;
  transform_class->filter_meta = gst_flash_vsr_filter_meta;
  transform_class->transform_meta = gst_flash_vsr_transform_meta;
  transform_class->passthrough_on_same_caps = FALSE;
  filter_class->set_info = gst_flash_vsr_set_info;
  filter_class->transform_frame = gst_flash_vsr_transform_frame;
}
