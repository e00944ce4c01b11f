/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the element's tests share. Every test runs in a process of its own (libcheck forks), so
 * that it may set the fake engine's environment. Frames are I420, 25/s; frame i has the time
 * i * 40 ms and every luma byte 16 + i % 200.
 */
#ifndef FLASHVSR_TESTS_GST_SUPPORT_H_
#define FLASHVSR_TESTS_GST_SUPPORT_H_

#include <gst/check/gstcheck.h>
#include <gst/check/gstharness.h>
#include <gst/video/video.h>
#include <gmodule.h>
#include <stdlib.h>
#include <string.h>

#include "../support/fake_engine.h"

#define FRAME_TIME (40 * GST_MSECOND)
#define CAPS_64x48 "video/x-raw,format=I420,width=64,height=48,framerate=25/1"
#define WAIT_S 10
#define SOURCE_64x48(n) "videotestsrc num-buffers=" #n " ! " CAPS_64x48

#pragma GCC diagnostic ignored "-Wunused-function"

static FlashVsrFakeState fake_state(void) {
  FlashVsrFakeState state;
  gpointer get = NULL;
  GModule* module = g_module_open(g_getenv("FLASHVSR_ENGINE_PATH"), G_MODULE_BIND_LOCAL);
  fail_unless(module && g_module_symbol(module, "flashvsr_fake_get_state", &get), "no fake engine");
  ((FlashVsrFakeGetStateFunc)get)(&state);
  return state;
}

/* The engine's contract was kept, and nothing of it is left. Call at the end, with all elements gone. */
static void check_engine_is_clean(void) {
  const FlashVsrFakeState state = fake_state();
  fail_unless_equals_int(state.protocol_errors, 0);
  fail_unless_equals_int(state.sessions_open, 0);
  fail_unless_equals_int(state.models_open, 0);
}

/* Sizes are rounded up to what GstVideoInfo says. */
static GstBuffer* make_frame_of(const GstVideoInfo* info, guint64 i) {
  GstBuffer* buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(info), NULL);
  gst_buffer_memset(buffer, 0, 128, GST_VIDEO_INFO_SIZE(info));
  gst_buffer_memset(buffer, 0, (guint8)(16 + i % 200),
                    (gsize)GST_VIDEO_INFO_PLANE_STRIDE(info, 0) * GST_VIDEO_INFO_HEIGHT(info));
  GST_BUFFER_PTS(buffer) = i * FRAME_TIME;
  GST_BUFFER_DTS(buffer) = i * FRAME_TIME;
  GST_BUFFER_DURATION(buffer) = FRAME_TIME;
  GST_BUFFER_OFFSET(buffer) = i;
  GST_BUFFER_OFFSET_END(buffer) = i + 1;
  return buffer;
}

static GstBuffer* make_frame(guint64 i) {
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, 64, 48);
  return make_frame_of(&info, i);
}

static GstHarness* make_harness(const gchar* settings) {
  gchar* line = g_strdup_printf("flashvsr name=el %s", settings ? settings : "");
  GstElement* element = gst_parse_launch(line, NULL);
  fail_unless(GST_IS_ELEMENT(element));
  g_free(line);
  GstHarness* h = gst_harness_new_with_element(element, "sink", "src");
  gst_object_unref(element);
  gst_harness_set_src_caps_str(h, CAPS_64x48);
  return h;
}

static void push_frames(GstHarness* h, guint64 begin, guint64 end) {
  for (guint64 i = begin; i < end; ++i) fail_unless_equals_int(gst_harness_push(h, make_frame(i)), GST_FLOW_OK);
}

/* Waits until `wanted` buffers lie in the harness, then a little longer for one too many. */
static void expect_waiting(GstHarness* h, guint wanted) {
  for (int i = 0; i < 5000 && gst_harness_buffers_in_queue(h) < wanted; ++i) g_usleep(1000);
  g_usleep(30000);
  fail_unless_equals_int(gst_harness_buffers_in_queue(h), wanted);
}

static guint64 index_of(GstBuffer* buffer) { return GST_BUFFER_PTS(buffer) / FRAME_TIME; }

static guint8 first_byte(GstBuffer* buffer) {
  guint8 byte = 0;
  fail_unless_equals_int(gst_buffer_extract(buffer, 0, &byte, 1), 1);
  return byte;
}

/* Pulls frames [begin, end): time and picture are those of the input. */
static void pull_frames(GstHarness* h, guint64 begin, guint64 end) {
  for (guint64 i = begin; i < end; ++i) {
    GstBuffer* buffer = gst_harness_pull(h);
    fail_unless(buffer != NULL, "frame %d did not come", (int)i);
    fail_unless_equals_uint64(index_of(buffer), i);
    fail_unless_equals_int(first_byte(buffer), (int)(16 + i % 200));
    gst_buffer_unref(buffer);
  }
}

/* Buffers and events on a source pad, in words: "caps segment B0 B1d tag gap eos"; d: DISCONT. */
typedef struct Trace {
  GMutex lock;
  GString* text;
  gint64 next; /* of an unbroken run of frames, "B0-B4" */
  gint64 first;
} Trace;

static void end_frames(Trace* trace) {
  if (trace->first < 0) return;
  if (trace->next - 1 == trace->first) g_string_append_printf(trace->text, "B%" G_GINT64_FORMAT " ", trace->first);
  else g_string_append_printf(trace->text, "B%" G_GINT64_FORMAT "-B%" G_GINT64_FORMAT " ", trace->first, trace->next - 1);
  trace->first = -1;
}

static GstPadProbeReturn trace_probe(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  Trace* trace = user;
  (void)pad;
  g_mutex_lock(&trace->lock);
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
    GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
    const gint64 i = GST_BUFFER_PTS_IS_VALID(buffer) ? (gint64)index_of(buffer) : -1;
    if (GST_BUFFER_IS_DISCONT(buffer) && i != 0) {
      end_frames(trace);
      g_string_append_printf(trace->text, "B%" G_GINT64_FORMAT "d ", i);
    } else {
      if (trace->first < 0 || i != trace->next) {
        end_frames(trace);
        trace->first = i;
      }
      trace->next = i + 1;
    }
  } else {
    GstEvent* event = GST_PAD_PROBE_INFO_EVENT(info);
    end_frames(trace);
    const GstStructure* s = gst_event_get_structure(event);
    const gchar* name = GST_EVENT_TYPE_NAME(event);
    if (GST_EVENT_TYPE(event) == GST_EVENT_CUSTOM_DOWNSTREAM || GST_EVENT_TYPE(event) == GST_EVENT_CUSTOM_DOWNSTREAM_OOB)
      name = gst_structure_get_name(s);
    g_string_append_printf(trace->text, "%s ", name);
  }
  g_mutex_unlock(&trace->lock);
  return GST_PAD_PROBE_OK;
}

static Trace* trace_pad(GstElement* element) {
  Trace* trace = g_new0(Trace, 1);
  g_mutex_init(&trace->lock);
  trace->text = g_string_new("");
  trace->first = -1;
  GstPad* pad = gst_element_get_static_pad(element, "src");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM | GST_PAD_PROBE_TYPE_EVENT_FLUSH,
                    trace_probe, trace, NULL);
  gst_object_unref(pad);
  return trace;
}

/* What was seen since the last call; free with g_free. */
static gchar* trace_take(Trace* trace) {
  g_mutex_lock(&trace->lock);
  end_frames(trace);
  gchar* text = g_strdup(g_strchomp(trace->text->str));
  g_string_set_size(trace->text, 0);
  g_mutex_unlock(&trace->lock);
  return text;
}

static void trace_free(Trace* trace) {
  g_string_free(trace->text, TRUE);
  g_mutex_clear(&trace->lock);
  g_free(trace);
}

#define fail_unless_trace(trace, wanted)        \
  do {                                          \
    gchar* seen_ = trace_take(trace);           \
    fail_unless_equals_string(seen_, wanted);   \
    g_free(seen_);                              \
  } while (0)

/* Runs a launch line to EOS or error. `frames` counts buffers at the element "out" (may be NULL). */
typedef struct Outcome {
  gboolean is_eos;
  GError* error; /* NULL: none */
  guint frames;
  GstClockTime last_end; /* PTS and duration of the last */
  guint qos_messages;
  guint64 qos_processed, qos_dropped; /* in the last of them */
} Outcome;

static GstPadProbeReturn count_probe(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  Outcome* outcome = user;
  GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  (void)pad;
  outcome->frames++;
  outcome->last_end = GST_BUFFER_PTS(buffer) + GST_BUFFER_DURATION(buffer);
  return GST_PAD_PROBE_OK;
}

static void count_at(GstElement* pipeline, const gchar* name, Outcome* outcome) {
  GstElement* out = gst_bin_get_by_name(GST_BIN(pipeline), name);
  fail_unless(out != NULL, "no element %s", name);
  GstPad* pad = gst_element_get_static_pad(out, "sink");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, count_probe, outcome, NULL);
  gst_object_unref(pad);
  gst_object_unref(out);
}

static void wait_for_end(GstElement* pipeline, Outcome* outcome, GstClockTime timeout) {
  GstBus* bus = gst_element_get_bus(pipeline);
  const gint64 until = g_get_monotonic_time() + (gint64)(timeout / 1000);
  while (!outcome->is_eos && !outcome->error) {
    const gint64 left = until - g_get_monotonic_time();
    fail_unless(left > 0, "the pipeline did not end");
    GstMessage* message = gst_bus_timed_pop_filtered(bus, left * 1000, GST_MESSAGE_EOS | GST_MESSAGE_ERROR | GST_MESSAGE_QOS);
    if (!message) continue;
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS) outcome->is_eos = TRUE;
    else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) gst_message_parse_error(message, &outcome->error, NULL);
    else {
      GstFormat format;
      outcome->qos_messages++;
      gst_message_parse_qos_stats(message, &format, &outcome->qos_processed, &outcome->qos_dropped);
      fail_unless_equals_int(format, GST_FORMAT_BUFFERS);
    }
    gst_message_unref(message);
  }
  gst_object_unref(bus);
}

static GstElement* parse(const gchar* line) {
  GError* error = NULL;
  GstElement* pipeline = gst_parse_launch(line, &error);
  fail_unless(pipeline && !error, "%s: %s", line, error ? error->message : "?");
  return pipeline;
}

static Outcome run_line(const gchar* line, const gchar* out) {
  Outcome outcome = {0};
  GstElement* pipeline = parse(line);
  if (out) count_at(pipeline, out, &outcome);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 60 * GST_SECOND);
  fail_unless_equals_int(gst_element_set_state(pipeline, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  gst_object_unref(pipeline);
  return outcome;
}

/* Runs a pipeline to EOS or an error; the error is returned. */
static GError* run_to_end(GstElement* pipeline, guint seconds) {
  Outcome outcome = {0};
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, seconds * GST_SECOND);
  return outcome.error;
}

/* A handler of fakesink's "handoff". */
static void count_buffer(GstElement* sink, GstBuffer* buffer, GstPad* pad, gpointer user) {
  (void)sink, (void)buffer, (void)pad;
  g_atomic_int_inc((gint*)user);
}

static guint64 stat_of(GstElement* element, const gchar* name) {
  GstStructure* stats = NULL;
  guint64 value = 0;
  g_object_get(element, "stats", &stats, NULL);
  fail_unless(stats && gst_structure_get_uint64(stats, name, &value), "no %s in stats", name);
  gst_structure_free(stats);
  return value;
}

/* TAP on standard output, for meson. */
static int run_suite(Suite* suite) {
  SRunner* runner = srunner_create(suite);
  srunner_set_tap(runner, "-");
  srunner_run_all(runner, CK_SILENT);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}

#endif /* FLASHVSR_TESTS_GST_SUPPORT_H_ */
