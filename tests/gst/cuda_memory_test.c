/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Check 46: frames in CUDA memory, on a driver without a device (support/fake_cuda) and the fake
 * engine, which takes only what lies in the primary context. GStreamer's own cudaupload and
 * cudadownload are the neighbours; where nvcodec is not installed, the cases that need them are left out.
 * What a true device does with copies between contexts is not seen here. */
#include <gst/base/gstbasetransform.h>
#include <gst/cuda/gstcudabufferpool.h>
#include <gst/cuda/gstcudautils.h>

#include "../support/fake_cuda/fake_cuda.h"
#include "support.h"

#define CUDA "(memory:CUDAMemory)"
#define CUDA_64x48 "video/x-raw" CUDA ",format=I420,width=64,height=48,framerate=25/1"

/* By itself cudaupload passes on what comes where the next element takes both. */
#define UPLOAD "cudaupload ! video/x-raw" CUDA

static FakeCudaState cuda_state(void) {
  FakeCudaState state;
  gpointer get = NULL;
  GModule* module = g_module_open("libcuda.so.1", G_MODULE_BIND_LOCAL);
  fail_unless(module && g_module_symbol(module, "fake_cuda_get_state", &get), "not the fake driver");
  ((FakeCudaGetStateFunc)get)(&state);
  return state;
}

/* nvcodec leaves contexts current when it asks a decoder library in vain, as it is loaded. */
static int64_t current_before;

static void load_nvcodec(void) {
  GstElement* upload = gst_element_factory_make("cudaupload", NULL);
  if (upload) gst_object_unref(gst_object_ref_sink(upload));
  gst_cuda_load_library();
  current_before = cuda_state().current;
}

/* Nothing is left on the device, and the driver refused nothing. */
static void check_all_is_clean(void) {
  check_engine_is_clean();
  const FakeCudaState state = cuda_state();
  fail_unless_equals_int(state.contexts, 0);
  fail_unless_equals_int(state.primary_retains, 0);
  fail_unless_equals_int(state.allocations, 0);
  fail_unless_equals_int(state.host_allocations, 0);
  fail_unless_equals_int(state.current, current_before);
  fail_unless_equals_int(state.pending, 0);
  fail_unless_equals_int(state.errors, 0);
}

static void put_model_on(const gchar* device) { g_setenv("FLASHVSR_FAKE_CUDA_DEVICE", device, TRUE); }

static gboolean has_cuda(GstElement* element, const gchar* pad_name, const gchar* format) {
  gchar* text = g_strdup_printf("video/x-raw" CUDA ",format=%s", format);
  GstPad* pad = gst_element_get_static_pad(element, pad_name);
  GstCaps* caps = gst_pad_query_caps(pad, NULL);
  GstCaps* wanted = gst_caps_from_string(text);
  const gboolean has = gst_caps_can_intersect(caps, wanted);
  gst_caps_unref(wanted);
  gst_caps_unref(caps);
  gst_object_unref(pad);
  g_free(text);
  return has;
}

static const gchar* const kPads[] = {"sink", "src"};

/* Not started, a model on CUDA, a model on the CPU. */
GST_START_TEST(check_46_caps) {
  GstElement* element = gst_element_factory_make("flashvsr", NULL);
  gst_object_ref_sink(element);
  for (int round = 0; round < 3; ++round) {
    const gboolean is_cpu = round == 2;
    for (guint p = 0; p < 2; ++p) {
      fail_unless_equals_int(has_cuda(element, kPads[p], "NV12"), !is_cpu);
      fail_unless_equals_int(has_cuda(element, kPads[p], "P010_10LE"), !is_cpu);
      fail_unless(!has_cuda(element, kPads[p], "GRAY8"));
      fail_unless(!has_cuda(element, kPads[p], "xRGB"));
    }
    gst_element_set_state(element, GST_STATE_NULL);
    if (round == 0) put_model_on("0");
    else g_unsetenv("FLASHVSR_FAKE_CUDA_DEVICE");
    if (round < 2) gst_element_set_state(element, GST_STATE_PAUSED);
  }
  fail_unless(has_cuda(element, "sink", "NV12"));
  gst_object_unref(element);
  check_all_is_clean();
}
GST_END_TEST

/* The memory of the input is the first choice, the other is there for the asking. */
GST_START_TEST(check_46_order_of_memories) {
  put_model_on("0");
  for (int i = 0; i < 2; ++i) {
    GstHarness* h = make_harness(NULL);
    GstCaps* input = gst_caps_from_string(i ? CUDA_64x48 : CAPS_64x48);
    GstCaps* caps = GST_BASE_TRANSFORM_GET_CLASS(h->element)->transform_caps(GST_BASE_TRANSFORM(h->element), GST_PAD_SINK, input, NULL);
    fail_unless_equals_int(gst_caps_get_size(caps), 2);
    for (int k = 0; k < 2; ++k)
      fail_unless_equals_int(gst_caps_features_contains(gst_caps_get_features(caps, k), "memory:CUDAMemory"), i != k);
    gst_caps_unref(caps);
    gst_caps_unref(input);
    gst_harness_teardown(h);
  }
  check_all_is_clean();
}
GST_END_TEST

static void expect_refusal(const gchar* what) {
  GstHarness* h = make_harness(NULL);
  GstBus* bus = gst_bus_new();
  gst_element_set_bus(h->element, bus);
  gst_harness_push_event(h, gst_event_new_caps(gst_caps_from_string(CUDA_64x48)));
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  fail_unless(message != NULL, "no message");
  GError* error = NULL;
  gst_message_parse_error(message, &error, NULL);
  fail_unless(g_error_matches(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT), "%s", error->message);
  fail_unless(strstr(error->message, what) && strstr(error->message, "cudadownload"), "%s", error->message);
  g_error_free(error);
  gst_message_unref(message);
  gst_element_set_bus(h->element, NULL);
  gst_object_unref(bus);
  gst_harness_teardown(h);
  /* and system memory goes as ever */
  h = make_harness(NULL);
  push_frames(h, 0, 30);
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 0, 30);
  gst_harness_teardown(h);
}

GST_START_TEST(check_46_model_on_the_cpu) {
  expect_refusal("CPU");
  check_all_is_clean();
}
GST_END_TEST

GST_START_TEST(check_46_no_such_device) {
  put_model_on("3");
  expect_refusal("device 3");
  check_engine_is_clean();
  fail_unless_equals_int(cuda_state().primaries, 0);
}
GST_END_TEST

/* ---- pipelines */

typedef struct Seen {
  GChecksum* bytes; /* what is visible, and the times */
  guint frames;
  guint cuts;
  GstCudaContext *in, *out; /* of the last buffer at the element's pads */
  guint contexts_in, contexts_out;
  guint have_context;     /* messages of the element */
  GstCudaContext* answer; /* to NEED_CONTEXT */
} Seen;

static GstPadProbeReturn sum_probe(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  Seen* seen = user;
  GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  GstCaps* caps = gst_pad_get_current_caps(pad);
  GstVideoInfo video;
  GstVideoFrame frame;
  fail_unless(gst_video_info_from_caps(&video, caps));
  gst_caps_unref(caps);
  fail_unless(gst_video_frame_map(&frame, &video, buffer, GST_MAP_READ));
  for (guint c = 0; c < GST_VIDEO_FRAME_N_COMPONENTS(&frame); ++c) {
    const gint step = GST_VIDEO_FRAME_COMP_PSTRIDE(&frame, c), width = GST_VIDEO_FRAME_COMP_WIDTH(&frame, c);
    const gint bytes = GST_VIDEO_FRAME_COMP_DEPTH(&frame, c) > 8 ? 2 : 1;
    for (gint y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT(&frame, c); ++y) {
      const guint8* row = (const guint8*)GST_VIDEO_FRAME_COMP_DATA(&frame, c) + (gsize)y * GST_VIDEO_FRAME_COMP_STRIDE(&frame, c);
      for (gint x = 0; x < width; ++x) g_checksum_update(seen->bytes, row + (gsize)x * step, bytes);
    }
  }
  gst_video_frame_unmap(&frame);
  const guint64 times[] = {GST_BUFFER_PTS(buffer), GST_BUFFER_DURATION(buffer), GST_BUFFER_OFFSET(buffer)};
  g_checksum_update(seen->bytes, (const guchar*)times, sizeof times);
  seen->frames++;
  return GST_PAD_PROBE_OK;
}

static GstPadProbeReturn context_probe(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  Seen* seen = user;
  GstMemory* memory = gst_buffer_peek_memory(GST_PAD_PROBE_INFO_BUFFER(info), 0);
  GstCudaContext* context = gst_is_cuda_memory(memory) ? GST_CUDA_MEMORY_CAST(memory)->context : NULL;
  const gboolean is_in = GST_PAD_IS_SINK(pad);
  GstCudaContext** kept = is_in ? &seen->in : &seen->out;
  if (context && context != *kept) {
    *(is_in ? &seen->contexts_in : &seen->contexts_out) += 1;
    gst_object_replace((GstObject**)kept, GST_OBJECT(context));
  }
  return GST_PAD_PROBE_OK;
}

static GstBusSyncReply answer_context(GstBus* bus, GstMessage* message, gpointer user) {
  Seen* seen = user;
  const gchar* type;
  (void)bus;
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_HAVE_CONTEXT && g_str_has_prefix(GST_OBJECT_NAME(GST_MESSAGE_SRC(message)), "el"))
    seen->have_context++;
  if (seen->answer && GST_MESSAGE_TYPE(message) == GST_MESSAGE_NEED_CONTEXT && gst_message_parse_context_type(message, &type) &&
      g_str_equal(type, GST_CUDA_CONTEXT_TYPE)) {
    GstContext* context = gst_context_new_cuda_context(seen->answer);
    gst_element_set_context(GST_ELEMENT(GST_MESSAGE_SRC(message)), context);
    gst_context_unref(context);
  }
  return GST_BUS_PASS;
}

/* The element is "el"; sums are taken at "out". Twice to EOS; the second time must be as the first. */
static Seen look_at(const gchar* line, GstCudaContext* answer) {
  Seen seen = {.answer = answer};
  GstElement* pipeline = parse(line);
  GstElement* el = gst_bin_get_by_name(GST_BIN(pipeline), "el");
  GstElement* out = gst_bin_get_by_name(GST_BIN(pipeline), "out");
  GstBus* bus = gst_element_get_bus(pipeline);
  gst_bus_set_sync_handler(bus, answer_context, &seen, NULL);
  const struct {
    GstElement* element;
    const gchar* pad;
    GstPadProbeCallback probe;
  } probes[] = {{el, "sink", context_probe}, {el, "src", context_probe}, {out, "sink", sum_probe}};
  for (guint i = 0; i < G_N_ELEMENTS(probes); ++i) {
    GstPad* pad = gst_element_get_static_pad(probes[i].element, probes[i].pad);
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, probes[i].probe, &seen, NULL);
    gst_object_unref(pad);
  }
  gchar* first = NULL;
  for (int run = 0; run < 2; ++run) {
    Outcome outcome = {0};
    seen.bytes = g_checksum_new(G_CHECKSUM_SHA256);
    seen.frames = seen.contexts_in = seen.contexts_out = 0;
    gst_clear_object(&seen.in);
    gst_clear_object(&seen.out);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_for_end(pipeline, &outcome, 60 * GST_SECOND);
    fail_unless(outcome.is_eos, "%s: %s", line, outcome.error ? outcome.error->message : "?");
    seen.cuts = (guint)stat_of(el, "scene-cuts");
    fail_unless_equals_int(gst_element_set_state(pipeline, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    if (run == 0) {
      first = g_strdup(g_checksum_get_string(seen.bytes));
      g_checksum_free(seen.bytes);
    }
  }
  fail_unless_equals_string(g_checksum_get_string(seen.bytes), first);
  g_free(first);
  gst_bus_set_sync_handler(bus, NULL, NULL, NULL);
  gst_object_unref(bus);
  gst_object_unref(out);
  gst_object_unref(el);
  gst_object_unref(pipeline);
  return seen;
}

static void forget(Seen* seen) {
  g_checksum_free(seen->bytes);
  gst_clear_object(&seen->in);
  gst_clear_object(&seen->out);
}

static const gchar* const kFormats[] = {"I420", "NV12", "RGB", "BGR",  "RGBx", "BGRx",      "RGBA",     "BGRA",
                                        "ARGB", "ABGR", "GBR", "Y42B", "Y444", "I420_10LE", "P010_10LE"};

/* In front of the element and behind it; how often a frame is copied between contexts. */
static const struct {
  const gchar *front, *behind;
  guint copies;
} kNeighbours[] = {
    {UPLOAD " !", "video/x-raw" CUDA " ! cudadownload !", 2}, /* cudadownload starts first, with a context of its own */
    {UPLOAD " !", "", 0},               /* the primary context, published */
    {UPLOAD " !", "video/x-raw !", 0},
    {"", "video/x-raw" CUDA " !", 0},
    {"", "video/x-raw" CUDA " ! cudadownload !", 1},
};

GST_START_TEST(check_46_bits_as_in_system_memory) {
  const gchar* format = kFormats[__i__];
  gchar* front = g_strdup_printf("videotestsrc num-buffers=43 pattern=ball ! video/x-raw,format=%s,width=65,height=49,framerate=25/1 !", format);
  gchar* line = g_strdup_printf("%s flashvsr name=el scale=2 ! fakesink name=out", front);
  Seen system = look_at(line, NULL);
  fail_unless_equals_int(system.frames, 43);
  fail_unless_equals_int(cuda_state().primaries, 0);
  g_free(line);
  put_model_on("0");
  GstVideoInfo info;
  gst_video_info_set_format(&info, gst_video_format_from_string(format), 65, 49);
  for (guint n = 0; n < G_N_ELEMENTS(kNeighbours); ++n) {
    const gint64 before = cuda_state().copies_across;
    line = g_strdup_printf("%s %s flashvsr name=el scale=2 ! %s fakesink name=out", front, kNeighbours[n].front, kNeighbours[n].behind);
    Seen seen = look_at(line, NULL);
    fail_unless_equals_int(seen.frames, 43);
    fail_unless(g_str_equal(g_checksum_get_string(seen.bytes), g_checksum_get_string(system.bytes)), "%s", line);
    fail_unless_equals_int(cuda_state().copies_across - before, 2 * 43 * kNeighbours[n].copies * GST_VIDEO_INFO_N_PLANES(&info));
    forget(&seen);
    g_free(line);
  }
  forget(&system);
  g_free(front);
  check_all_is_clean();
}
GST_END_TEST

/* The detector sees on a device what it sees elsewhere, for a part of the picture. */
GST_START_TEST(check_46_scene_cuts) {
  static const gchar* const formats[] = {"I420", "P010_10LE", "RGB", "BGRA"};
  for (guint i = 0; i < G_N_ELEMENTS(formats); ++i) {
    /* black and white by turns; the first change stands out */
    gchar* front = g_strdup_printf("videotestsrc num-buffers=30 pattern=blink ! video/x-raw,format=%s,width=640,height=480 !", formats[i]);
    gchar* line = g_strdup_printf("%s flashvsr name=el scale=2 ! fakesink name=out", front);
    g_unsetenv("FLASHVSR_FAKE_CUDA_DEVICE");
    Seen system = look_at(line, NULL);
    g_free(line);
    put_model_on("0");
    line = g_strdup_printf("%s " UPLOAD " ! flashvsr name=el scale=2 ! video/x-raw ! fakesink name=out", front);
    const gint64 before = cuda_state().copies_down;
    Seen seen = look_at(line, NULL);
    fail_unless(seen.cuts > 0);
    fail_unless_equals_int(seen.cuts, system.cuts);
    GstVideoInfo info;
    gst_video_info_set_format(&info, gst_video_format_from_string(formats[i]), 640, 480);
    fail_unless(cuda_state().copies_down - before < (gint64)(2 * 30 * GST_VIDEO_INFO_SIZE(&info) / 6));
    forget(&seen);
    forget(&system);
    g_free(line);
    g_free(front);
  }
  check_all_is_clean();
}
GST_END_TEST

#define UPLOADED "videotestsrc num-buffers=43 ! " CAPS_64x48 " ! " UPLOAD " ! "

/* Nobody has a context: the device's primary one goes round, and nothing is copied between contexts. */
GST_START_TEST(check_46_context_published) {
  put_model_on("0");
  Seen seen = look_at(UPLOADED "flashvsr name=el ! fakesink name=out", NULL);
  fail_unless_equals_int(seen.frames, 43);
  fail_unless(seen.have_context >= 1);
  fail_unless_equals_int(seen.contexts_in, 1);
  fail_unless_equals_int(seen.contexts_out, 1);
  fail_unless(seen.in && seen.in == seen.out);
  fail_unless_equals_int(cuda_state().copies_across, 0);
  fail_unless_equals_int(cuda_state().contexts, 0);
  /* It outlives the element where somebody keeps it. */
  fail_unless(cuda_state().primary_retains > 0);
  fail_unless(gst_cuda_context_push(seen.in));
  gst_cuda_context_pop(NULL);
  forget(&seen);
  check_all_is_clean();
}
GST_END_TEST

/* cudadownload has made its own before we start. */
GST_START_TEST(check_46_context_of_a_neighbour) {
  put_model_on("0");
  Seen seen = look_at(UPLOADED "flashvsr name=el ! video/x-raw" CUDA " ! cudadownload ! fakesink name=out", NULL);
  fail_unless_equals_int(seen.frames, 43);
  fail_unless_equals_int(seen.have_context, 0);
  fail_unless(seen.in && seen.in == seen.out);
  fail_unless_equals_int(seen.contexts_in, 1);
  fail_unless_equals_int(seen.contexts_out, 1);
  fail_unless(cuda_state().copies_across > 0);
  forget(&seen);
  check_all_is_clean();
}
GST_END_TEST

/* 0: a context of its own, 1: the primary one, so that nothing is copied. */
GST_START_TEST(check_46_context_of_the_application) {
  put_model_on("0");
  fail_unless(gst_cuda_load_library());
  gst_cuda_memory_init_once();
  GModule* driver = g_module_open("libcuda.so.1", G_MODULE_BIND_LOCAL);
  gpointer retain = NULL, release = NULL;
  fail_unless(g_module_symbol(driver, "cuDevicePrimaryCtxRetain", &retain) && g_module_symbol(driver, "cuDevicePrimaryCtxRelease_v2", &release));
  CUcontext primary = NULL;
  if (__i__ == 1) fail_unless_equals_int(((CUresult(*)(CUcontext*, CUdevice))retain)(&primary, 0), CUDA_SUCCESS);
  GstCudaContext* mine = primary ? gst_cuda_context_new_wrapped(primary, 0) : gst_cuda_context_new(0);
  fail_unless(mine != NULL);
  Seen seen = look_at(UPLOADED "flashvsr name=el ! video/x-raw" CUDA " ! cudadownload ! fakesink name=out", mine);
  fail_unless_equals_int(seen.frames, 43);
  fail_unless_equals_int(seen.have_context, 0);
  fail_unless(seen.in == mine && seen.out == mine);
  fail_unless_equals_int(seen.contexts_in, 1);
  fail_unless_equals_int(seen.contexts_out, 1);
  fail_unless_equals_int(cuda_state().copies_across > 0, __i__ == 0);
  forget(&seen);
  gst_object_unref(mine);
  if (primary) ((CUresult(*)(CUdevice))release)(0);
  check_all_is_clean();
}
GST_END_TEST

GST_START_TEST(check_46_two_in_a_row) {
  put_model_on("0");
  Seen seen = look_at(UPLOADED "flashvsr name=el scale=2 ! flashvsr name=second scale=2 ! fakesink name=out", NULL);
  fail_unless_equals_int(seen.frames, 43);
  fail_unless(seen.in && seen.in == seen.out);
  fail_unless_equals_int(cuda_state().copies_across, 0);
  forget(&seen);
  check_all_is_clean();
}
GST_END_TEST

GST_START_TEST(check_46_other_device) {
  put_model_on("1");
  GstElement* pipeline = parse("videotestsrc num-buffers=30 ! " CAPS_64x48 " ! cudaupload name=up cuda-device-id=0 ! video/x-raw" CUDA " ! flashvsr ! fakesink name=out");
  for (int run = 0; run < 2; ++run) {
    Outcome outcome = {0};
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_for_end(pipeline, &outcome, 20 * GST_SECOND);
    fail_unless(outcome.error && g_error_matches(outcome.error, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_SETTINGS), "%s",
                outcome.error ? outcome.error->message : "no error");
    fail_unless(strstr(outcome.error->message, "CUDA device 0") && strstr(outcome.error->message, "device=cuda:0"), "%s",
                outcome.error->message);
    g_error_free(outcome.error);
    gst_element_set_state(pipeline, GST_STATE_NULL);
  }
  GstElement* upload = gst_bin_get_by_name(GST_BIN(pipeline), "up");
  g_object_set(upload, "cuda-device-id", 1, NULL);
  gst_object_unref(upload);
  Outcome outcome = {0};
  count_at(pipeline, "out", &outcome);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 20 * GST_SECOND);
  fail_unless(outcome.is_eos);
  fail_unless_equals_int(outcome.frames, 30);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  check_all_is_clean();
}
GST_END_TEST

/* ---- buffers of our own */

static GstBufferPool* make_pool(GstCudaContext* context, gint width, gint height) {
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, width, height);
  GstCaps* caps = gst_video_info_to_caps(&info);
  gst_caps_set_features_simple(caps, gst_caps_features_new("memory:CUDAMemory", NULL));
  GstBufferPool* pool = gst_cuda_buffer_pool_new(context);
  GstStructure* config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_set_params(config, caps, GST_VIDEO_INFO_SIZE(&info), 0, 0);
  gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  fail_unless(gst_buffer_pool_set_config(pool, config));
  fail_unless(gst_buffer_pool_set_active(pool, TRUE));
  gst_caps_unref(caps);
  return pool;
}

static void drop_pool(GstBufferPool* pool) {
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
}

/* Frames as support.h has them. */
static void push_cuda_frames(GstHarness* h, GstBufferPool* pool, gint width, gint height, guint64 begin, guint64 end) {
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, width, height);
  for (guint64 i = begin; i < end; ++i) {
    GstVideoFrame from, to;
    GstBuffer *buffer = NULL, *plain = make_frame_of(&info, i);
    fail_unless_equals_int(gst_buffer_pool_acquire_buffer(pool, &buffer, NULL), GST_FLOW_OK);
    fail_unless(gst_video_frame_map(&from, &info, plain, GST_MAP_READ));
    fail_unless(gst_video_frame_map(&to, &info, buffer, GST_MAP_WRITE));
    fail_unless(gst_video_frame_copy(&to, &from));
    gst_video_frame_unmap(&to);
    gst_video_frame_unmap(&from);
    gst_buffer_copy_into(buffer, plain, GST_BUFFER_COPY_TIMESTAMPS, 0, -1);
    gst_buffer_unref(plain);
    fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  }
}

/* `context`: what is set on the element before it starts. */
static GstHarness* make_cuda_harness(GstCudaContext* context) {
  put_model_on("0");
  GstElement* element = gst_element_factory_make("flashvsr", "el");
  if (context) {
    GstContext* carrier = gst_context_new_cuda_context(context);
    gst_element_set_context(element, carrier);
    gst_context_unref(carrier);
  }
  GstHarness* h = gst_harness_new_with_element(element, "sink", "src");
  gst_object_unref(element);
  gst_harness_set_src_caps_str(h, CUDA_64x48);
  return h;
}

/* Frames of a context that nobody told of (1: while the element has yet another); a flush, RECONFIGURE, a new size, the end. */
GST_START_TEST(check_46_foreign_frames) {
  fail_unless(gst_cuda_load_library());
  gst_cuda_memory_init_once();
  GstCudaContext* told = __i__ ? gst_cuda_context_new(0) : NULL;
  GstCudaContext* theirs = gst_cuda_context_new(0);
  GstBufferPool* small = make_pool(theirs, 64, 48);
  GstBufferPool* large = make_pool(theirs, 96, 64);
  GstHarness* h = make_cuda_harness(told);

  push_cuda_frames(h, small, 64, 48, 0, 30);
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  GstBuffer* buffer;
  while ((buffer = gst_harness_try_pull(h))) gst_buffer_unref(buffer);

  for (guint64 i = 100; i < 130; ++i) {
    if (i % 5 == 0) gst_harness_push_upstream_event(h, gst_event_new_reconfigure());
    push_cuda_frames(h, small, 64, 48, i, i + 1);
  }
  gst_harness_set_src_caps_str(h, "video/x-raw" CUDA ",format=I420,width=96,height=64,framerate=25/1");
  push_cuda_frames(h, large, 96, 64, 130, 171);
  gst_harness_push_event(h, gst_event_new_eos());
  for (guint64 i = 100; i < 171; ++i) {
    buffer = gst_harness_pull(h);
    fail_unless(buffer != NULL, "frame %d did not come", (int)i);
    fail_unless_equals_uint64(index_of(buffer), i);
    GstMemory* memory = gst_buffer_peek_memory(buffer, 0);
    fail_unless(gst_is_cuda_memory(memory));
    GstCudaContext* context = GST_CUDA_MEMORY_CAST(memory)->context;
    fail_unless(told ? context == told : context != theirs);
    fail_unless_equals_int(first_byte(buffer), (int)(16 + i % 200));
    gst_buffer_unref(buffer);
  }
  gst_harness_teardown(h);
  drop_pool(small);
  drop_pool(large);
  gst_object_unref(theirs);
  if (told) gst_object_unref(told);
  check_all_is_clean();
}
GST_END_TEST

GST_START_TEST(check_46_context_query) {
  GstHarness* h = make_cuda_harness(NULL);
  for (guint p = 0; p < 2; ++p) {
    GstPad* pad = gst_element_get_static_pad(h->element, kPads[p]);
    GstQuery* query = gst_query_new_context(GST_CUDA_CONTEXT_TYPE);
    fail_unless(gst_pad_query(pad, query), "%s", kPads[p]);
    GstContext* context = NULL;
    gst_query_parse_context(query, &context);
    fail_unless(context != NULL);
    gst_query_unref(query);
    query = gst_query_new_context("gst.gl.GLDisplay");
    fail_unless(!gst_pad_query(pad, query));
    gst_query_unref(query);
    gst_object_unref(pad);
  }
  gst_harness_teardown(h);
  check_all_is_clean();
}
GST_END_TEST

/* Upstream is offered a pool of CUDA memory. */
GST_START_TEST(check_46_proposed_pool) {
  GstHarness* h = make_cuda_harness(NULL);
  GstCaps* caps = gst_caps_from_string(CUDA_64x48 ",interlace-mode=progressive");
  GstQuery* query = gst_query_new_allocation(caps, TRUE);
  fail_unless(gst_pad_peer_query(h->srcpad, query));
  fail_unless(gst_query_get_n_allocation_pools(query) >= 1);
  GstBufferPool* pool = NULL;
  guint size, min, max;
  gst_query_parse_nth_allocation_pool(query, 0, &pool, &size, &min, &max);
  fail_unless(GST_IS_CUDA_BUFFER_POOL(pool));
  fail_unless(size >= 64 * 48 * 3 / 2);
  fail_unless_equals_int(max, 0);
  fail_unless(gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL));
  gst_object_unref(pool);
  gst_query_unref(query);
  gst_caps_unref(caps);
  gst_harness_teardown(h);
  check_all_is_clean();
}
GST_END_TEST

GST_START_TEST(check_46_not_cuda_after_all) {
  GstHarness* h = make_cuda_harness(NULL);
  GstBus* bus = gst_bus_new();
  gst_element_set_bus(h->element, bus);
  fail_unless_equals_int(gst_harness_push(h, make_frame(0)), GST_FLOW_ERROR);
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  fail_unless(message != NULL);
  GError* error = NULL;
  gst_message_parse_error(message, &error, NULL);
  fail_unless(g_error_matches(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT), "%s", error->message);
  g_error_free(error);
  gst_message_unref(message);
  gst_element_set_bus(h->element, NULL);
  gst_object_unref(bus);
  gst_harness_teardown(h);
  check_all_is_clean();
}
GST_END_TEST

/* A function of GStreamer 1.24 that 1.22 lacks: the plugin finds this one. */
static gint synced;
__attribute__((visibility("default"))) void gst_cuda_memory_sync(GstCudaMemory* memory);
void gst_cuda_memory_sync(GstCudaMemory* memory) {
  if (gst_is_cuda_memory((GstMemory*)memory)) g_atomic_int_inc(&synced);
}

GST_START_TEST(check_46_producers_are_waited_for) {
  fail_unless(gst_cuda_load_library());
  gst_cuda_memory_init_once();
  GstCudaContext* theirs = gst_cuda_context_new(0);
  GstBufferPool* pool = make_pool(theirs, 64, 48);
  GstHarness* h = make_cuda_harness(NULL);
  push_cuda_frames(h, pool, 64, 48, 0, 10); /* nothing leaves yet */
  /* each frame, and its copy as target and as source */
  fail_unless_equals_int(g_atomic_int_get(&synced), 30);
  gst_harness_teardown(h);
  drop_pool(pool);
  gst_object_unref(theirs);
  check_all_is_clean();
}
GST_END_TEST

static Suite* suite(void) {
  Suite* s = suite_create("cuda_memory");
  TCase* alone = tcase_create("alone");
  tcase_add_test(alone, check_46_caps);
  tcase_add_test(alone, check_46_order_of_memories);
  tcase_add_test(alone, check_46_model_on_the_cpu);
  tcase_add_test(alone, check_46_no_such_device);
  tcase_add_loop_test(alone, check_46_foreign_frames, 0, 2);
  tcase_add_test(alone, check_46_context_query);
  tcase_add_test(alone, check_46_proposed_pool);
  tcase_add_test(alone, check_46_not_cuda_after_all);
  tcase_add_test(alone, check_46_producers_are_waited_for);
  suite_add_tcase(s, alone);

  GstElementFactory* upload = gst_element_factory_find("cudaupload");
  if (!upload) return s; /* nvcodec is not installed */
  gst_object_unref(upload);
  TCase* neighbours = tcase_create("neighbours");
  tcase_add_checked_fixture(neighbours, load_nvcodec, NULL);
  tcase_add_loop_test(neighbours, check_46_bits_as_in_system_memory, 0, G_N_ELEMENTS(kFormats));
  tcase_add_test(neighbours, check_46_scene_cuts);
  tcase_add_test(neighbours, check_46_context_published);
  tcase_add_test(neighbours, check_46_context_of_a_neighbour);
  tcase_add_loop_test(neighbours, check_46_context_of_the_application, 0, 2);
  tcase_add_test(neighbours, check_46_two_in_a_row);
  tcase_add_test(neighbours, check_46_other_device);
  suite_add_tcase(s, neighbours);
  return s;
}

int main(int argc, char** argv) {
  g_setenv("FAKE_CUDA_DEVICES", "2", TRUE);
  gst_check_init(&argc, &argv);
  return run_suite(suite());
}
