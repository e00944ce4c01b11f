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
 * Where the caps tell no frame rate, or more than 500, 25 is assumed until 24 frames have shown the
 * true one; the latency grows then, as it does where a camera sends fewer frames than its caps say.
 * When a camera stalls, the frames inside leave after twice the longest wait, at least a second.
 *
 * When the model is too slow for the stream, #GstFlashVsr:overload-policy says what becomes of
 * late chunks of 8 frames. By default live pipelines enlarge them by bicubic interpolation and
 * others wait. A QOS message accounts for each such chunk. `degrade`, when set before the element
 * starts with a #GstFlashVsr:model, loads the embedded model too: sparse-ratio falls step by step,
 * and where that is not enough the embedded model goes on (an INFO message says so) until the
 * stream ends or another policy is set.
 *
 * ## Scenes
 *
 * Where the picture changes altogether the model starts anew, so that nothing of the old scene
 * shows in the new one (#GstFlashVsr:scene-cut).
 *
 * ## CUDA memory
 *
 * Built where GStreamer's CUDA library is (-Dmemory_cuda=auto), both pads also take
 * `video/x-raw(memory:CUDAMemory)`, each for itself, where the model runs on CUDA. The context is shared through #GstContext; where nobody has one
 * the device's primary context is published, and frames of others are copied on the device.
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
 */#include "gstflashvsrprivate.h"

#include <cstring>

#include "gstflashvsrcaps.h"
#include "gstflashvsrengine.h"
#include "gstflashvsrerror.h"
#include "gstflashvsrframe.h"

GST_DEBUG_CATEGORY(gst_flash_vsr_debug);
#define GST_CAT_DEFAULT gst_flash_vsr_debug

using flashvsr_gst::Queue;

G_DEFINE_TYPE(GstFlashVsr, gst_flash_vsr, GST_TYPE_VIDEO_FILTER)
GST_ELEMENT_REGISTER_DEFINE(flashvsr, "flashvsr", GST_RANK_NONE, GST_TYPE_FLASH_VSR)

GstBaseTransformClass* gst_flash_vsr_parent() { return GST_BASE_TRANSFORM_CLASS(gst_flash_vsr_parent_class); }

#define CAPS_IN(media, formats, largest)                                                                      \
  media ", format=(string)" formats ", width=(int)[16," largest "], height=(int)[16," largest "]"             \
        ", framerate=(fraction)[0/1,2147483647/1], interlace-mode=(string)progressive"
#ifdef FLASHVSR_HAVE_GST_CUDA
#define CAPS(largest)                                          \
  CAPS_IN("video/x-raw", GST_FLASH_VSR_FORMATS, largest) "; "  \
  CAPS_IN("video/x-raw(" GST_FLASH_VSR_CUDA_FEATURE ")", GST_FLASH_VSR_CUDA_FORMATS, largest)
#else
#define CAPS(largest) CAPS_IN("video/x-raw", GST_FLASH_VSR_FORMATS, largest)
#endif
static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS("8192")));
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS("16384")));

// ---- GstBaseTransform

static gboolean open_model(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = gst_flash_vsr_copy_settings(self);

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
  info.cuda_device = -1;  // of an engine that does not know the field
  if (stream->api->model_info(stream->model, &info, &error) == FLASHVSR_OK)
    GST_INFO_OBJECT(self, "model %s, %s, %s", info.name, info.device, info.precision);
  {
    std::lock_guard<std::mutex> lock(stream->session_mutex);
    stream->model_info = info;
  }
  if (settings.overload_policy == kOverloadDegrade && settings.has_model) {
    options.path = nullptr;
    options.version = FLASHVSR_VERSION_AUTO;
    options.decoder = FLASHVSR_DECODER_TC;
    options.progress = nullptr;
    if (options.precision == FLASHVSR_PRECISION_FP8) options.precision = FLASHVSR_PRECISION_AUTO;
    if (stream->api->model_open(&options, &stream->small_model, &error) == FLASHVSR_OK)
      stream->small_state = SmallModel::kLoaded;
    else
      GST_WARNING_OBJECT(self, "policy degrade goes without the embedded model: %s", error.message);
  }
  stream->queue.start();
  stream->worker = std::thread(gst_flash_vsr_work, self);
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
#ifdef FLASHVSR_HAVE_GST_CUDA
  if (ok) self->stream->cuda.open(GST_ELEMENT(self), self->stream->model_info.cuda_device);
#endif
  set_start_state(self, ok ? StartState::kStarted : StartState::kFailed);
  return ok;
}

// Upstream's thread and P are gone by now; streaming state is reset here and not in start, when
// a running upstream may already be inside.
static gboolean gst_flash_vsr_stop(GstBaseTransform* transform) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  set_start_state(self, StartState::kIdle);
  gst_flash_vsr_interrupt(stream);
  stream->queue.stop();
  if (stream->worker.joinable()) stream->worker.join();
  gst_flash_vsr_drop_items(stream->queue.clear());
  close_session(stream);
  if (stream->model) stream->api->model_close(stream->model);
  if (stream->small_model) stream->api->model_close(stream->small_model);
  stream->model = stream->small_model = nullptr;
  stream->small_state = SmallModel::kNone;
  gst_flash_vsr_replace_pool(stream, nullptr);
#ifdef FLASHVSR_HAVE_GST_CUDA
  stream->cuda.close();
#endif
  gst_segment_init(&stream->segment, GST_FORMAT_UNDEFINED);
  stream->last_pts = stream->last_duration = GST_CLOCK_TIME_NONE;
  stream->interval_meter.reset();
  stream->is_trick_mode = false;
  stream->is_passing = false;
  stream->passthrough_chunks = 0;
  stream->chunk_ns = 0;
  stream->is_guess = true;
  stream->was_fresh = true;
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  gst_segment_init(&stream->out_segment, GST_FORMAT_UNDEFINED);
  stream->frame_duration = stream->caps_duration = 0;
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

// U, with W and P parked or `session` closed. In place of `session`, which is closed once the new one is open.
static bool open_session(GstFlashVsr* self, FlashVsrModel* model, const FlashVsrFormat& format, GstFlashVsrRatio scale,
                         FlashVsrError* error) {
  Stream* stream = self->stream;
  double degrade;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    degrade = stream->degrade;
  }
  const FlashVsrSessionOptions options =
      gst_flash_vsr_session_options(stream, gst_flash_vsr_copy_settings(self), scale, degrade);
  FlashVsrPlan plan = {};
  plan.struct_size = sizeof plan;
  if (stream->api->model_plan(model, &format, &options, &plan, error) == FLASHVSR_OK)
    GST_INFO_OBJECT(self, "%s", plan.text);
  FlashVsrModelInfo info = {};
  info.struct_size = sizeof info;
  stream->api->model_info(model, &info, nullptr);
  FlashVsrSession* session = nullptr;
  const FlashVsrStatus status = stream->api->session_open(model, &format, &options, &session, error);
  if (status != FLASHVSR_OK) {
    error->status = status;
    return false;
  }
  close_session(stream);
  std::scoped_lock lock(stream->session_mutex, stream->send_mutex, stream->receive_mutex);
  stream->session = session;
  stream->model_info = info;
  stream->format = format;
  stream->scale = scale;
  stream->options = options;
  return true;
}

// To the embedded model, or back, as W asked. All frames inside leave first.
static Queue::Go change_model(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const bool to_small = stream->small_state == SmallModel::kWanted;
  if (!to_small && stream->small_state != SmallModel::kReturn) return Queue::Go::kYes;
  const Queue::Go go = gst_flash_vsr_drain_all(self);
  if (go != Queue::Go::kYes) return go;
  stream->small_state = to_small ? SmallModel::kInUse : SmallModel::kLoaded;
  FlashVsrError error = {};
  if (!open_session(self, to_small ? stream->small_model : stream->model, stream->format, stream->scale, &error)) {
    GST_WARNING_OBJECT(self, "the model stays: %s", error.message);
    stream->small_state = to_small ? SmallModel::kNone : SmallModel::kInUse;
    return Queue::Go::kYes;
  }
  stream->chunk_ns = 0;
  stream->is_guess = true;
  stream->is_passing = false;
  stream->passthrough_chunks = 0;
  stream->was_fresh = true;
  GST_ELEMENT_INFO(self, LIBRARY, SETTINGS,
                   (to_small ? "The model is too slow for this stream; the built-in one goes on."
                             : "The chosen model goes on in place of the built-in one."),
                   ("overload-policy"));
  return Queue::Go::kYes;
}

#ifdef FLASHVSR_HAVE_GST_CUDA
static void explain_no_cuda(GstElement* element, const std::string& why, const GstCaps* caps) {
  GST_ELEMENT_ERROR(element, STREAM, FORMAT,
                    ("The video is in CUDA memory, which FlashVSR cannot use: %s; insert cudadownload.", why.c_str()),
                    ("%" GST_PTR_FORMAT, caps));
}
#endif

static gboolean gst_flash_vsr_set_info(GstVideoFilter* filter, GstCaps* in_caps, GstVideoInfo* in_info, GstCaps* out_caps,
                                       GstVideoInfo* out_info) {
  GstFlashVsr* self = GST_FLASH_VSR(filter);
  Stream* stream = self->stream;
  GST_DEBUG_OBJECT(self, "%" GST_PTR_FORMAT " -> %" GST_PTR_FORMAT, in_caps, out_caps);

  if (!wait_started(self)) return FALSE;
  // With the old caps still on the pads.
  const Queue::Go go = gst_flash_vsr_drain_all(self);
  if (go == Queue::Go::kFlushing) return FALSE;
  if (go != Queue::Go::kYes) {
    const int flow = stream->queue.flow();
    const bool has_failed = stream->queue.has_failed();
    gst_flash_vsr_halt(self);
    gst_flash_vsr_resume(self);
    // What stopped the old stream stops the new one too, until a flush or a new start; and is told once.
    if (has_failed) {
      stream->queue.fail();
      return FALSE;
    }
    if (flow != 0) stream->queue.set_flow(flow);
  }

  const Settings settings = gst_flash_vsr_copy_settings(self);
  FlashVsrFormat format;
  if (!gst_flash_vsr_format_from_info(in_info, &format)) return FALSE;
  format.input_memory = format.output_memory = FLASHVSR_MEMORY_HOST;
#ifdef FLASHVSR_HAVE_GST_CUDA
  if (flashvsr_gst::is_cuda_caps(in_caps)) format.input_memory = FLASHVSR_MEMORY_CUDA;
  if (flashvsr_gst::is_cuda_caps(out_caps)) format.output_memory = FLASHVSR_MEMORY_CUDA;
  // Caps that were made before the model was there.
  const std::string refusal = stream->cuda.refusal();
  if (format.input_memory + format.output_memory != 0 && !refusal.empty()) {
    explain_no_cuda(GST_ELEMENT(self), refusal, in_caps);
    stream->queue.fail();
    return FALSE;
  }
#endif

  // The property may have changed since these caps were made; the caps decide.
  GstFlashVsrRatio scale = {0, 1};
  for (const gdouble candidate : {settings.scale, 1.5, 2.0, 3.0, 4.0}) {
    GstFlashVsrRatio one;
    if (!gst_flash_vsr_ratio_of(candidate, &one)) continue;
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
    FlashVsrError error = {};
    const bool is_small = stream->small_state == SmallModel::kInUse || stream->small_state == SmallModel::kReturn;
    if (!open_session(self, is_small ? stream->small_model : stream->model, format, scale, &error)) {
      gst_flash_vsr_post_error(GST_ELEMENT(self), &error, settings.has_model ? settings.model.c_str() : nullptr);
      stream->queue.fail();
      return FALSE;
    }
  }

  // Bounds: frames, and 256 MiB on either side where pictures are large. The first run alone
  // takes 25 frames and gives 21, so these are the least.
  constexpr gint64 kBytes = 256 << 20;
  const gint64 max_results = CLAMP(kBytes / static_cast<gint64>(GST_VIDEO_INFO_SIZE(out_info)), 4, 33);
  const gint64 max_inputs = CLAMP(kBytes / static_cast<gint64>(GST_VIDEO_INFO_SIZE(in_info)), 33, 41);
  stream->queue.set_limits(max_inputs + max_results, max_results,
                           stream->options.startup == FLASHVSR_STARTUP_PRIMED ? 8 : 21);

  const bool is_live = ask_is_live(self);
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    stream->max_delay = stream->api->max_delay(stream->session);
    stream->is_live = is_live;
  }
  GstClockTime duration = 0;
  if (GST_VIDEO_INFO_FPS_N(in_info) > 0)
    duration = gst_util_uint64_scale(GST_SECOND, GST_VIDEO_INFO_FPS_D(in_info), GST_VIDEO_INFO_FPS_N(in_info));
  gst_flash_vsr_set_frame_duration(self, duration);
  set_preroll_timeout(self, GST_STATE(self) == GST_STATE_PLAYING);
  return TRUE;
}

static GstCaps* gst_flash_vsr_transform_caps(GstBaseTransform* transform, GstPadDirection direction, GstCaps* caps,
                                             GstCaps* filter) {
  GstFlashVsrRatio scale;
  gst_flash_vsr_ratio_of(gst_flash_vsr_copy_settings(GST_FLASH_VSR(transform)).scale, &scale);
  GstCaps* result = gst_flash_vsr_caps_scale(caps, scale, direction == GST_PAD_SINK);
#ifdef FLASHVSR_HAVE_GST_CUDA
  result = GST_FLASH_VSR(transform)->stream->cuda.both_memories(result);
#endif
  if (filter) {
    GstCaps* narrowed = gst_caps_intersect_full(filter, result, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref(result);
    result = narrowed;
  }
  GST_LOG_OBJECT(transform, "%s %" GST_PTR_FORMAT " -> %" GST_PTR_FORMAT,
                 direction == GST_PAD_SINK ? "sink" : "src", caps, result);
  return result;
}

static void remove_pools(GstQuery* query) {
  while (gst_query_get_n_allocation_pools(query) > 0) gst_query_remove_nth_allocation_pool(query, 0);
}

#ifdef FLASHVSR_HAVE_GST_CUDA
static gboolean gst_flash_vsr_propose_allocation(GstBaseTransform* transform, GstQuery* decided, GstQuery* query) {
  GstCaps* caps;
  gboolean need_pool;
  gst_query_parse_allocation(query, &caps, &need_pool);
  const bool is_cuda = caps && flashvsr_gst::is_cuda_caps(caps);
  if (is_cuda) {
    // Before GstVideoFilter, which else proposes system memory.
    guint size = 0;
    GstBufferPool* pool = GST_FLASH_VSR(transform)->stream->cuda.new_pool(caps, &size);
    if (!pool) return FALSE;
    gst_query_add_allocation_pool(query, need_pool ? pool : nullptr, size, 0, 0);
    gst_object_unref(pool);
  }
  if (!gst_flash_vsr_parent()->propose_allocation(transform, decided, query)) return FALSE;
  if (is_cuda && !gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, nullptr))
    gst_query_add_allocation_meta(query, GST_VIDEO_META_API_TYPE, nullptr);
  return TRUE;
}
#endif

static gboolean gst_flash_vsr_decide_allocation(GstBaseTransform* transform, GstQuery* query) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
#ifdef FLASHVSR_HAVE_GST_CUDA
  // The base class would configure downstream's pool for system memory.
  const bool is_cuda = self->stream->format.output_memory == FLASHVSR_MEMORY_CUDA;
  if (is_cuda) remove_pools(query);
#endif
  if (!gst_flash_vsr_parent()->decide_allocation(transform, query)) return FALSE;
  GstBufferPool* pool = nullptr;
#ifdef FLASHVSR_HAVE_GST_CUDA
  if (is_cuda) {
    remove_pools(query);
    guint size;
    GstCaps* caps;
    gst_query_parse_allocation(query, &caps, nullptr);
    pool = self->stream->cuda.new_pool(caps, &size);
  }
#endif
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
  remove_pools(query);
  gst_flash_vsr_replace_pool(self->stream, pool);
  return TRUE;
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
#ifdef FLASHVSR_HAVE_GST_CUDA
  if (stream->format.input_memory == FLASHVSR_MEMORY_CUDA && !stream->cuda.fetch_rows(&plane)) return false;
#endif
  return stream->cut_detector.is_cut(plane);
}

static GstFlowReturn flow_of(GstFlashVsr* self, Queue::Go go) {
  Stream* stream = self->stream;
  stream->told = go == Queue::Go::kYes          ? GST_FLOW_OK
                 : go == Queue::Go::kFlushing   ? GST_FLOW_FLUSHING
                 : go == Queue::Go::kDownstream ? static_cast<GstFlowReturn>(stream->queue.flow())
                                                : GST_FLOW_ERROR;
  return stream->told;
}

static bool map_input([[maybe_unused]] Stream* stream, GstBuffer* buffer, const GstVideoInfo* info, GstVideoFrame* mapped,
                      FlashVsrFrame* frame, [[maybe_unused]] FlashVsrError* error) {
#ifdef FLASHVSR_HAVE_GST_CUDA
  if (stream->format.input_memory == FLASHVSR_MEMORY_CUDA)
    return stream->cuda.map_input(buffer, info, mapped, frame, error);
#endif
  return gst_flash_vsr_frame_map(mapped, info, buffer, GST_MAP_READ, frame);
}

static GstFlowReturn gst_flash_vsr_submit_input_buffer(GstBaseTransform* transform, gboolean is_discont, GstBuffer* input) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  // The base class renegotiates here, and parks the buffer in queued_buf.
  GstFlowReturn flow = gst_flash_vsr_parent()->submit_input_buffer(transform, is_discont, input);
  if (flow != GST_FLOW_OK) {
    if (stream->queue.is_flushing()) return GST_FLOW_FLUSHING;
    return stream->queue.has_failed() ? GST_FLOW_ERROR : flow;
  }
  GstBuffer* buffer = transform->queued_buf;
  transform->queued_buf = nullptr;
  if (!buffer) return GST_FLOW_OK;
  // A pad that goes down and up again lets a push finish whose caps came before: the base class still takes itself for
  // negotiated then. The answer is what the pad would have said a moment earlier; the caps come with the next frame.
  if (!stream->session) {
    GST_DEBUG_OBJECT(self, "a frame without caps since the start");
    gst_buffer_unref(buffer);
    return GST_FLOW_FLUSHING;
  }

  GstVideoFrame mapped;
  FlashVsrFrame frame = {};
  FlashVsrError error = {};
  const GstVideoInfo* info = &GST_VIDEO_FILTER(self)->in_info;
  if (!map_input(stream, buffer, info, &mapped, &frame, &error)) {
    if (error.status != FLASHVSR_OK)
      gst_flash_vsr_fail(self, error, "mapping a frame");
    else
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
  if (gst_flash_vsr_copy_settings(self).has_scene_cut && !stream->is_trick_mode && is_cut(stream, mapped)) {
    GST_DEBUG_OBJECT(self, "a cut at %" GST_TIME_FORMAT, GST_TIME_ARGS(GST_BUFFER_PTS(buffer)));
    is_new_scene = true;
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    ++stream->scene_cuts;
  }
  flow = flow_of(self, change_model(self));
  if (is_new_scene && flow == GST_FLOW_OK) flow = flow_of(self, stream->queue.drain(false));
  if (flow == GST_FLOW_OK) flow = flow_of(self, stream->queue.reserve());
  if (flow != GST_FLOW_OK) {
    gst_video_frame_unmap(&mapped);
    gst_buffer_unref(buffer);
    return flow;
  }
  frame.frame_id = stream->next_id++;
  FlashVsrStatus status;
  {
    std::lock_guard<std::mutex> lock(stream->send_mutex);
    status = stream->api->send(stream->session, &frame, &error);
  }
  gst_video_frame_unmap(&mapped);
  if (status != FLASHVSR_OK) {
    gst_buffer_unref(buffer);
    error.status = status;
    gst_flash_vsr_fail(self, error, "sending a frame");
    return GST_FLOW_ERROR;
  }

  GstBuffer* shell = gst_flash_vsr_make_shell(buffer);
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
  gst_flash_vsr_measure_interval(self, running_time);
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

// A refused CAPS event never reaches the element, and the application hears "not negotiated":
// the pad's probe does see it.
static GstPadProbeReturn explain_refused_caps(GstPad*, GstPadProbeInfo* info, gpointer user) {
  GstEvent* event = GST_PAD_PROBE_INFO_EVENT(info);
  if (GST_EVENT_TYPE(event) != GST_EVENT_CAPS) return GST_PAD_PROBE_OK;
  GstCaps* caps;
  gst_event_parse_caps(event, &caps);
  const gchar* mode = gst_structure_get_string(gst_caps_get_structure(caps, 0), "interlace-mode");
  if (mode && !g_str_equal(mode, "progressive"))
    GST_ELEMENT_ERROR(GST_ELEMENT(user), STREAM, FORMAT,
                      ("The video is interlaced (%s), which FlashVSR cannot enlarge; insert deinterlace.", mode),
                      ("%" GST_PTR_FORMAT, caps));
#ifdef FLASHVSR_HAVE_GST_CUDA
  const std::string refusal = GST_FLASH_VSR(user)->stream->cuda.refusal();
  if (!refusal.empty() && flashvsr_gst::is_cuda_caps(caps)) explain_no_cuda(GST_ELEMENT(user), refusal, caps);
#endif
  return GST_PAD_PROBE_OK;
}

static GstStateChangeReturn gst_flash_vsr_change_state(GstElement* element, GstStateChange change) {
  GstFlashVsr* self = GST_FLASH_VSR(element);
  if (change == GST_STATE_CHANGE_READY_TO_PAUSED) {
    set_shutting_down(self, false);
  } else if (change == GST_STATE_CHANGE_PAUSED_TO_READY) {
    set_shutting_down(self, true);
    // Before the pads are shut, which waits for upstream's thread and ours.
    gst_flash_vsr_shut_gate(self->stream);
    gst_flash_vsr_interrupt(self->stream);
    gst_flash_vsr_set_pool_flushing(self->stream, TRUE);
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
  gst_pad_set_activatemode_function(GST_BASE_TRANSFORM_SRC_PAD(transform), gst_flash_vsr_src_activate_mode);
  gst_pad_add_probe(GST_BASE_TRANSFORM_SINK_PAD(transform), GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, explain_refused_caps,
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
  GST_DEBUG_CATEGORY_INIT(gst_flash_vsr_debug, "flashvsr", 0, "FlashVSR element");

  object_class->finalize = gst_flash_vsr_finalize;
  gst_flash_vsr_install_properties(object_class);

  gst_element_class_set_static_metadata(element_class, "FlashVSR video super-resolution", "Filter/Converter/Video/Scaler",
                                        "Enlarges video with the FlashVSR diffusion model", "FlashVSR for GStreamer");
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);
  element_class->change_state = gst_flash_vsr_change_state;

  transform_class->start = gst_flash_vsr_start;
  transform_class->stop = gst_flash_vsr_stop;
  transform_class->transform_caps = gst_flash_vsr_transform_caps;
  transform_class->decide_allocation = gst_flash_vsr_decide_allocation;
#ifdef FLASHVSR_HAVE_GST_CUDA
  transform_class->propose_allocation = gst_flash_vsr_propose_allocation;
#endif
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
