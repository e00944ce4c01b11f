/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the element's tests share: a GstHarness around `flashvsr` on the fake engine, frames
 * that carry their number in every byte, a log of what comes out.
 *
 * Tests are named check_NN_..., NN being the number in the list of acceptance checks.
 * The environment (meson.build) names the plugin, the engine and a registry of their own.
 */
#ifndef FLASHVSR_TESTS_GST_HARNESS_H_
#define FLASHVSR_TESTS_GST_HARNESS_H_

#include <gst/check/gstcheck.h>
#include <gst/check/gstharness.h>
#include <gst/video/video.h>

#include <glib/gstdio.h>
#include <string.h>

#define FLASHVSR_NAME "flashvsr"
#define SMALL_CAPS "video/x-raw,format=I420,width=64,height=48,framerate=25/1,interlace-mode=progressive,pixel-aspect-ratio=1/1"
#define FRAME_TIME (GST_SECOND / 25)
#define WAIT_S 10

static inline void fake(const gchar *name, const gchar *value) { g_setenv(name, value, TRUE); }

/* Every fault that a test may have set. */
static inline void fake_reset(void) {
  gchar **names = g_listenv();
  for (gchar **n = names; *n; n++)
    if (g_str_has_prefix(*n, "FLASHVSR_FAKE_")) g_unsetenv(*n);
  g_strfreev(names);
}

/* launch: properties too, as "flashvsr scale=2". */
static inline GstHarness *open_harness(const gchar *launch, const gchar *caps) {
  GstHarness *h = gst_harness_new_parse(launch);
  fail_unless(h != NULL, "no element from '%s': is the plugin found?", launch);
  if (caps) gst_harness_set_src_caps_str(h, caps);
  return h;
}

/* The element itself: a launch line gives the harness a bin. Borrowed. */
static inline GstElement *filter_of(GstHarness *h) {
  GstElement *element = gst_harness_find_element(h, FLASHVSR_NAME);
  fail_unless(element != NULL);
  gst_object_unref(element); /* the harness holds it */
  return element;
}

static inline void set(GstHarness *h, const gchar *name, const gchar *value) {
  GstElement *element = filter_of(h);
  fail_unless(g_object_class_find_property(G_OBJECT_GET_CLASS(element), name) != NULL, "no property %s", name);
  gst_util_set_object_arg(G_OBJECT(element), name, value);
}

static inline GstBuffer *make_frame(GstHarness *h, guint number) {
  GstCaps *caps = gst_pad_get_current_caps(h->srcpad);
  GstVideoInfo info;
  fail_unless(gst_video_info_from_caps(&info, caps));
  gst_caps_unref(caps);
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&info), NULL);
  gst_buffer_memset(buffer, 0, (guint8)(number % 200), GST_VIDEO_INFO_SIZE(&info));
  const GstClockTime d = GST_VIDEO_INFO_FPS_N(&info) > 0
      ? gst_util_uint64_scale(GST_SECOND, GST_VIDEO_INFO_FPS_D(&info), GST_VIDEO_INFO_FPS_N(&info)) : FRAME_TIME;
  GST_BUFFER_PTS(buffer) = number * d;
  GST_BUFFER_DURATION(buffer) = d;
  GST_BUFFER_OFFSET(buffer) = number;
  GST_BUFFER_OFFSET_END(buffer) = number + 1;
  return buffer;
}

static inline guint8 first_byte(GstBuffer *buffer) {
  guint8 value = 0;
  fail_unless_equals_int(gst_buffer_extract(buffer, 0, &value, 1), 1);
  return value;
}

static inline void push_frames(GstHarness *h, guint first, guint count) {
  for (guint i = first; i < first + count; i++)
    fail_unless_equals_int(gst_harness_push(h, make_frame(h, i)), GST_FLOW_OK);
}

/* The harness only counts; the element pushes from its own thread. */
static inline void wait_received(GstHarness *h, guint count) {
  const gint64 end = g_get_monotonic_time() + WAIT_S * G_TIME_SPAN_SECOND;
  while (gst_harness_buffers_received(h) < count && g_get_monotonic_time() < end) g_usleep(1000);
  fail_unless_equals_int(gst_harness_buffers_received(h), count);
}

/* Exactly `count`, and no more a little later. */
static inline void expect_received(GstHarness *h, guint count) {
  wait_received(h, count);
  g_usleep(30000);
  fail_unless_equals_int(gst_harness_buffers_received(h), count);
}

static inline GstBuffer *pull_frame(GstHarness *h, guint number) {
  GstBuffer *buffer = gst_harness_try_pull(h);
  const gint64 end = g_get_monotonic_time() + WAIT_S * G_TIME_SPAN_SECOND;
  while (!buffer && g_get_monotonic_time() < end) buffer = gst_harness_try_pull(h);
  fail_unless(buffer != NULL, "frame %u does not come", number);
  if (GST_BUFFER_OFFSET(buffer) != number)
    fail("frame %" G_GUINT64_FORMAT " came where %u was due", GST_BUFFER_OFFSET(buffer), number);
  fail_unless_equals_int(first_byte(buffer), number % 200);
  return buffer;
}

static inline void pull_frames(GstHarness *h, guint first, guint count) {
  for (guint i = first; i < first + count; i++) gst_buffer_unref(pull_frame(h, i));
}

static inline void finish(GstHarness *h) {
  gst_harness_teardown(h);
  fake_reset();
}

/* A log of what leaves the source pad, in words: "B3", "B5d" (DISCONT), "caps", "segment", ... */
typedef struct {
  GMutex lock;
  GString *text;
} Trace;

static inline void trace_word(Trace *t, const gchar *word) {
  g_mutex_lock(&t->lock);
  if (t->text->len) g_string_append_c(t->text, ' ');
  g_string_append(t->text, word);
  g_mutex_unlock(&t->lock);
}

static inline GstPadProbeReturn trace_probe(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  Trace *t = user;
  (void)pad;
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
    GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER(info);
    gchar word[32];
    g_snprintf(word, sizeof word, "B%d%s", (int)GST_BUFFER_OFFSET(buffer), GST_BUFFER_IS_DISCONT(buffer) ? "d" : "");
    trace_word(t, word);
  } else if (info->type & GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM) {
    GstEvent *event = GST_PAD_PROBE_INFO_EVENT(info);
    const GstStructure *s = gst_event_get_structure(event);
    if (GST_EVENT_TYPE(event) == GST_EVENT_CUSTOM_DOWNSTREAM || GST_EVENT_TYPE(event) == GST_EVENT_CUSTOM_DOWNSTREAM_OOB)
      trace_word(t, gst_structure_get_name(s));
    else
      trace_word(t, GST_EVENT_TYPE_NAME(event));
  }
  return GST_PAD_PROBE_OK;
}

static inline Trace *trace_new(GstHarness *h) {
  Trace *t = g_new0(Trace, 1);
  t->text = g_string_new(NULL);
  g_mutex_init(&t->lock);
  GstPad *pad = gst_element_get_static_pad(filter_of(h), "src");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM | GST_PAD_PROBE_TYPE_EVENT_FLUSH,
                    trace_probe, t, NULL);
  gst_object_unref(pad);
  return t;
}

static inline gchar *trace_take(Trace *t) {
  g_mutex_lock(&t->lock);
  gchar *text = g_string_free(t->text, FALSE);
  t->text = g_string_new(NULL);
  g_mutex_unlock(&t->lock);
  return text;
}

static inline void trace_free(Trace *t) {
  g_string_free(t->text, TRUE);
  g_mutex_clear(&t->lock);
  g_free(t);
}

/* "B%d B%d ..." appended to `text`. */
static inline void add_frames(GString *text, guint first, guint count) {
  for (guint i = first; i < first + count; i++) g_string_append_printf(text, "%sB%u", text->len ? " " : "", i);
}
static inline void add_word(GString *text, const gchar *word) {
  g_string_append_printf(text, "%s%s", text->len ? " " : "", word);
}

static inline void expect_trace(Trace *t, GString *expected) {
  gchar *got = trace_take(t);
  if (strcmp(got, expected->str) != 0) fail("\n got:      %s\n expected: %s", got, expected->str);
  g_free(got);
  g_string_truncate(expected, 0);
}

/* Runs a pipeline to EOS or an error; the error is returned. */
static inline GError *run_to_end(GstElement *pipeline, guint seconds) {
  GError *error = NULL;
  GstBus *bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  GstMessage *m = gst_bus_timed_pop_filtered(bus, seconds * GST_SECOND, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  fail_unless(m != NULL, "neither EOS nor an error within %u s", seconds);
  if (GST_MESSAGE_TYPE(m) == GST_MESSAGE_ERROR) gst_message_parse_error(m, &error, NULL);
  gst_message_unref(m);
  gst_object_unref(bus);
  return error;
}

static inline void count_buffer(GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer user) {
  (void)sink, (void)buffer, (void)pad;
  g_atomic_int_inc((gint *)user);
}

/* The error message that `element` posts on the bus within WAIT_S. */
static inline GError *wait_error(GstBus *bus, gchar **debug) {
  GstMessage *m = gst_bus_timed_pop_filtered(bus, WAIT_S * GST_SECOND, GST_MESSAGE_ERROR);
  fail_unless(m != NULL, "no error message");
  GError *error = NULL;
  gst_message_parse_error(m, &error, debug);
  gst_message_unref(m);
  return error;
}

/* GST_CHECK_MAIN, but TAP and nothing else on stdout. */
#define FLASHVSR_MAIN(make_suite)                       \
  int main(int argc, char **argv) {                     \
    gst_check_init(&argc, &argv);                       \
    SRunner *runner = srunner_create(make_suite());     \
    srunner_set_tap(runner, "-");                       \
    srunner_run_all(runner, CK_SILENT);                 \
    const int failed = srunner_ntests_failed(runner);   \
    srunner_free(runner);                               \
    return failed ? 1 : 0;                              \
  }

#endif /* FLASHVSR_TESTS_GST_HARNESS_H_ */
