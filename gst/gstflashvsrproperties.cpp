// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Properties and statistics.
#include "gstflashvsrprivate.h"

#include <algorithm>

#define GST_CAT_DEFAULT gst_flash_vsr_debug

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
DEFINE_ENUM(color_fix_type, "GstFlashVsrColorFix",
            {FLASHVSR_COLOR_FIX_AUTO, "adain for the released models, none for the embedded one", "auto"},
            {FLASHVSR_COLOR_FIX_NONE, "Leave colors to the model", "none"},
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
            {kOverloadDegrade, "Like passthrough, and sparse-ratio is lowered; at last the embedded model goes on", "degrade"})

enum SceneCut { kSceneCutOff = 0, kSceneCutAuto = 1 };

DEFINE_ENUM(scene_cut_type, "GstFlashVsrSceneCut", {kSceneCutAuto, "Start anew at a cut to another scene", "auto"},
            {kSceneCutOff, "Take the stream for one scene", "off"})

bool gst_flash_vsr_ratio_of(gdouble scale, GstFlashVsrRatio* ratio) {
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

Settings gst_flash_vsr_copy_settings(GstFlashVsr* self) {
  GST_OBJECT_LOCK(self);
  Settings settings = *self->settings;
  GST_OBJECT_UNLOCK(self);
  return settings;
}

FlashVsrSessionOptions gst_flash_vsr_session_options(const Stream* stream, const Settings& settings, GstFlashVsrRatio scale,
                                                     double degrade) {
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
  if (stream->small_state == SmallModel::kInUse) {
    // What was chosen was meant for the other model.
    options.sparse_ratio = 0;
    options.kv_chunks = options.local_range = 0;
  }
  options.color_fix = settings.color_fix;
  options.seed = settings.seed;
  options.startup = settings.startup;
  options.max_vram = settings.max_vram;
  return options;
}

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
      is_refused = !gst_flash_vsr_ratio_of(g_value_get_double(value), &scale);
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
  if (is_latency_changed) gst_flash_vsr_update_latency(self);
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

static void gst_flash_vsr_get_property(GObject* object, guint id, GValue* value, GParamSpec* spec) {
  GstFlashVsr* self = GST_FLASH_VSR(object);
  if (id == PROP_STATS) {
    g_value_take_boxed(value, make_stats(self));
    return;
  }
  const Settings settings = gst_flash_vsr_copy_settings(self);
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

void gst_flash_vsr_post_stats(GstFlashVsr* self) {
  const GstClockTime interval = gst_flash_vsr_copy_settings(self).stats_interval;
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

void gst_flash_vsr_install_properties(GObjectClass* object_class) {
  object_class->set_property = gst_flash_vsr_set_property;
  object_class->get_property = gst_flash_vsr_get_property;

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
                                            color_fix_type(), FLASHVSR_COLOR_FIX_AUTO, playing));
  install(PROP_SEED, g_param_spec_uint64("seed", "Seed", "Seed of the noise; the same seed gives the same video", 0, G_MAXUINT64,
                                         0, ready));
  install(PROP_STARTUP, g_param_spec_enum("startup", "Startup", "How a stream begins", startup_type(), FLASHVSR_STARTUP_FULL, ready));
  install(PROP_MAX_VRAM, g_param_spec_double("max-vram", "Maximal VRAM",
                                             "Device memory beside the weights: up to 1 a fraction of the device, above bytes (0 = what is free); with too little it runs slower, in tiles at last",
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
}
