// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the element's own files share. Thread names U, W, P: see gstflashvsrqueue.h.
#ifndef FLASHVSR_GST_GSTFLASHVSRPRIVATE_H_
#define FLASHVSR_GST_GSTFLASHVSRPRIVATE_H_

#include <flashvsr/flashvsr.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gstflashvsr.h"
#include "gstflashvsrcaps.h"
#include "gstflashvsrcut.h"
#include "gstflashvsrinterval.h"
#include "gstflashvsrqueue.h"
#ifdef FLASHVSR_HAVE_GST_CUDA
#include "gstflashvsrcuda.h"
#endif

GST_DEBUG_CATEGORY_EXTERN(gst_flash_vsr_debug);

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
  FlashVsrColorFix color_fix = FLASHVSR_COLOR_FIX_AUTO;
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

// The embedded model beside another one, to which policy `degrade` turns last.
enum class SmallModel {
  kNone,
  kLoaded,   // unused so far
  kWanted,   // W asks, U changes to it with the next frame
  kInUse,    // `session` is of it
  kReturn    // W asks, U changes back
};

// Everything that is not GObject's. Which thread (see gstflashvsrqueue.h) may touch what stands
// beside it; what two may touch has a mutex.
struct Stream {
  flashvsr_gst::Queue queue;
  std::thread worker;

  const FlashVsrApi* api = nullptr;  // from start() to stop()
  FlashVsrModel* model = nullptr;
  FlashVsrModelInfo model_info = {};  // of `model`, under session_mutex
  std::string model_name;  // for messages
  FlashVsrModel* small_model = nullptr;  // from start() to stop(); may be null
  std::atomic<SmallModel> small_state{SmallModel::kNone};

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

  GstFlowReturn told = GST_FLOW_OK;  // to upstream, with its newest frame

  GstClockTime caps_duration = 0;  // of a frame, as the caps have it

  flashvsr_gst::CutDetector cut_detector;
  flashvsr_gst::IntervalMeter interval_meter;
  std::atomic<bool> is_trick_mode{false};

  // Whether the model is loaded: under start_mutex.
  std::mutex start_mutex;
  std::condition_variable start_changed;
  int start_state = 0;  // StartState
  bool is_shutting_down = false;

  // Output buffers.
  std::mutex pool_mutex;
  GstBufferPool* pool = nullptr;

#ifdef FLASHVSR_HAVE_GST_CUDA
  flashvsr_gst::CudaMemory cuda;  // open from start() to stop()
#endif

  // False from FLUSH_START or a shutdown until FLUSH_STOP or activation: only then may set_info
  // let W and P go on after it has halted them.
  std::mutex gate_mutex;
  bool may_run = false;
  bool is_active = false;  // from activation until a shutdown begins: FLUSH_STOP opens nothing without it

  // P's task may be paused by P itself and started by others.
  std::mutex task_mutex;

  // Clocks, latency, statistics: under `clock_mutex`.
  std::mutex clock_mutex;
  GstClockTime frame_duration = 0;    // the caps', or longer where the frames' times say so
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
  bool is_guess = true;      // `chunk_ns` was not measured in steady state with these settings
  int passthrough_chunks = 0;  // since the model was left; 0: it runs
  bool is_passing = false;
  bool was_fresh = true;     // the next model run starts a new state
};

struct _GstFlashVsr {
  GstVideoFilter parent;
  Stream* stream;
  Settings* settings;  // under the object lock
};

// ---- gstflashvsr.cpp

GstBaseTransformClass* gst_flash_vsr_parent();

// ---- gstflashvsrproperties.cpp

void gst_flash_vsr_install_properties(GObjectClass* object_class);
Settings gst_flash_vsr_copy_settings(GstFlashVsr* self);  // any thread
// False: `scale` is not offered.
bool gst_flash_vsr_ratio_of(gdouble scale, GstFlashVsrRatio* ratio);
// degrade: a factor on sparse-ratio, 1: none.
FlashVsrSessionOptions gst_flash_vsr_session_options(const Stream* stream, const Settings& settings, GstFlashVsrRatio scale,
                                                     double degrade);
// The element message flashvsr-stats, when stats-interval has passed.
void gst_flash_vsr_post_stats(GstFlashVsr* self);

// ---- gstflashvsrlatency.cpp

// Takes the setting, the frame rate and what was measured; posts LATENCY where the sum changed.
void gst_flash_vsr_update_latency(GstFlashVsr* self);
// The caps' frame duration, 0: unknown; a longer one that was measured stays while the caps' is the same.
void gst_flash_vsr_set_frame_duration(GstFlashVsr* self, GstClockTime duration);
// Looks at the running time of a frame, -1: none. Where frames come more slowly than the caps say,
// or than was assumed, the latency grows.
void gst_flash_vsr_measure_interval(GstFlashVsr* self, gint64 time);
// A chunk took `measured` ns.
void gst_flash_vsr_raise_deadline(GstFlashVsr* self, GstClockTime measured);
gboolean gst_flash_vsr_query_latency(GstFlashVsr* self, GstQuery* query);

// ---- gstflashvsrworker.cpp

void gst_flash_vsr_work(GstFlashVsr* self);  // W's body
void gst_flash_vsr_interrupt(Stream* stream);
// Posts `error` and makes the queue refuse everything.
void gst_flash_vsr_fail(GstFlashVsr* self, const FlashVsrError& error, const gchar* doing);

// ---- gstflashvsrpush.cpp

gboolean gst_flash_vsr_src_activate_mode(GstPad* pad, GstObject* parent, GstPadMode mode, gboolean active);
void gst_flash_vsr_start_task(GstFlashVsr* self);
void gst_flash_vsr_set_pool_flushing(Stream* stream, gboolean is_flushing);
void gst_flash_vsr_replace_pool(Stream* stream, GstBufferPool* pool);  // takes `pool`
void gst_flash_vsr_drop_items(const std::vector<flashvsr_gst::Queue::Item>& items);
// Everything inside goes; W and P are parked, and stay so until resume.
void gst_flash_vsr_halt(GstFlashVsr* self);
// After halt; nothing where the gate has been closed meanwhile, by a flush or a shutdown that does it in its turn.
void gst_flash_vsr_resume(GstFlashVsr* self);
void gst_flash_vsr_close_gate(Stream* stream);  // FLUSH_START
void gst_flash_vsr_shut_gate(Stream* stream);   // for a shutdown: until activation, whatever comes between
void gst_flash_vsr_open_gate(Stream* stream);   // FLUSH_STOP

// ---- gstflashvsrmeta.cpp

// A buffer without memory that keeps the flags, times and metas of `buffer` until its result
// comes, and does not keep upstream's memory from its pool.
GstBuffer* gst_flash_vsr_make_shell(GstBuffer* buffer);
gboolean gst_flash_vsr_filter_meta(GstBaseTransform* transform, GstQuery* query, GType api, const GstStructure* params);
gboolean gst_flash_vsr_transform_meta(GstBaseTransform* transform, GstBuffer* output, GstMeta* meta, GstBuffer* input);

// ---- gstflashvsrevents.cpp

// All frames leave, then all is parked.
flashvsr_gst::Queue::Go gst_flash_vsr_drain_all(GstFlashVsr* self);
gboolean gst_flash_vsr_sink_event(GstBaseTransform* transform, GstEvent* event);
gboolean gst_flash_vsr_src_event(GstBaseTransform* transform, GstEvent* event);
gboolean gst_flash_vsr_query(GstBaseTransform* transform, GstPadDirection direction, GstQuery* query);

#endif  // FLASHVSR_GST_GSTFLASHVSRPRIVATE_H_
