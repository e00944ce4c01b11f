/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Checks on time: alone on the machine (suite timing, one after the other). */
#include "support.h"

static gdouble ms_since(gint64 begin) { return (g_get_monotonic_time() - begin) / 1e3; }

typedef struct {
  GMutex lock;
  GHashTable *in; /* PTS -> monotonic us */
  gdouble worst_ms;
} Delays;

static GstPadProbeReturn note_in(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  Delays *d = user;
  (void)pad;
  gint64 *pts = g_new(gint64, 2);
  pts[0] = (gint64)GST_BUFFER_PTS(GST_PAD_PROBE_INFO_BUFFER(info));
  pts[1] = g_get_monotonic_time();
  g_mutex_lock(&d->lock);
  g_hash_table_insert(d->in, pts, pts);
  g_mutex_unlock(&d->lock);
  return GST_PAD_PROBE_OK;
}

static GstPadProbeReturn note_out(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  Delays *d = user;
  (void)pad;
  gint64 pts = (gint64)GST_BUFFER_PTS(GST_PAD_PROBE_INFO_BUFFER(info));
  g_mutex_lock(&d->lock);
  const gint64 *in = g_hash_table_lookup(d->in, &pts);
  if (in) d->worst_ms = MAX(d->worst_ms, ms_since(in[1]));
  g_mutex_unlock(&d->lock);
  return GST_PAD_PROBE_OK;
}

static GstPadProbeReturn come_late(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  (void)pad, (void)info;
  g_usleep((gulong)g_rand_int_range(user, 0, 15000));
  return GST_PAD_PROBE_OK;
}

/* A live source without queues; every frame must be shown, none by the bicubic way out. `has_jitter`: they come up to 15 ms
   late. Check 19: a sink that waits for the clock keeps frames in the element for its own processing-deadline too, which it
   adds to the pipeline's latency; nothing else is allowed for. */
static void live(guint fps, guint frames, const gchar *chunk_ms, const gchar *sink_settings, gboolean has_jitter) {
  g_setenv("FLASHVSR_FAKE_CHUNK_MS", chunk_ms, TRUE);
  gchar *text = g_strdup_printf(
      "videotestsrc is-live=true num-buffers=%u ! video/x-raw,format=I420,width=64,height=48,framerate=%u/1 ! "
      "identity name=camera ! flashvsr name=f ! fakesink name=sink sync=true max-lateness=20000000 %s", frames, fps, sink_settings);
  GError *error = NULL;
  GstElement *p = gst_parse_launch(text, &error);
  fail_unless(error == NULL, "%s", error ? error->message : "");
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  GstElement *filter = gst_bin_get_by_name(GST_BIN(p), "f");
  Delays delays = {.in = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free)};
  g_mutex_init(&delays.lock);
  GstPad *in = gst_element_get_static_pad(filter, "sink"), *out = gst_element_get_static_pad(filter, "src");
  gst_pad_add_probe(in, GST_PAD_PROBE_TYPE_BUFFER, note_in, &delays, NULL);
  gst_pad_add_probe(out, GST_PAD_PROBE_TYPE_BUFFER, note_out, &delays, NULL);
  GRand *random = g_rand_new_with_seed(18);
  if (has_jitter) {
    GstElement *camera = gst_bin_get_by_name(GST_BIN(p), "camera");
    GstPad *pad = gst_element_get_static_pad(camera, "sink");
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, come_late, random, NULL);
    gst_object_unref(pad);
    gst_object_unref(camera);
  }
  error = run_to_end(p, 30);
  fail_unless(error == NULL, "%s", error ? error->message : "");
  GstStructure *stats = NULL;
  guint64 rendered = 0, dropped = 99;
  g_object_get(sink, "stats", &stats, NULL);
  gst_structure_get_uint64(stats, "rendered", &rendered);
  gst_structure_get_uint64(stats, "dropped", &dropped);
  GstQuery *query = gst_query_new_latency();
  GstClockTime own_min = 0, upstream_min = 0;
  if (gst_pad_query(out, query)) gst_query_parse_latency(query, NULL, &own_min, NULL);
  gst_query_unref(query);
  query = gst_query_new_latency();
  if (gst_pad_peer_query(in, query)) gst_query_parse_latency(query, NULL, &upstream_min, NULL);
  gst_query_unref(query);
  const gdouble reported = (own_min - upstream_min) / 1e6;
  g_print("# %u fps: %" G_GUINT64_FORMAT " shown, %" G_GUINT64_FORMAT " late, element latency %.1f ms, reported %.1f ms\n",
          fps, rendered, dropped, delays.worst_ms, reported);
  fail_unless_equals_uint64(dropped, 0);
  fail_unless_equals_uint64(rendered, frames);
  fail_unless_equals_uint64(stat_of(filter, "passthrough-frames"), 0);
  gboolean is_waiting = FALSE;
  guint64 deadline = 0;
  g_object_get(sink, "sync", &is_waiting, "processing-deadline", &deadline, NULL);
  const gdouble allowed = 1.05 * reported + (is_waiting ? deadline / 1e6 : 0);
  fail_unless(delays.worst_ms <= allowed, "%.1f ms in the element, %.1f ms reported, %.1f ms allowed", delays.worst_ms, reported, allowed);
  gst_structure_free(stats);
  gst_object_unref(in);
  gst_object_unref(out);
  gst_object_unref(filter);
  gst_object_unref(sink);
  gst_element_set_state(p, GST_STATE_NULL);
  gst_object_unref(p);
  g_hash_table_unref(delays.in);
  g_rand_free(random);
  g_free(text);
  check_engine_is_clean();
}

GST_START_TEST(check_18_live_at_90_percent_drops_nothing) { live(30, 200, "240", "", FALSE); }
GST_END_TEST

GST_START_TEST(check_18_live_60_fps) { live(60, 300, "118", "", FALSE); }
GST_END_TEST

GST_START_TEST(check_18_live_with_jitter) { live(30, 200, "240", "", TRUE); }
GST_END_TEST

GST_START_TEST(check_19_no_longer_inside_than_reported) { live(25, 60, "290", "sync=false", FALSE); }
GST_END_TEST

GST_START_TEST(check_19_sink_that_waits) { live(60, 200, "118", "processing-deadline=0", FALSE); }
GST_END_TEST

static gpointer push_until_refused(gpointer user) {
  GstHarness *h = user;
  GstFlowReturn flow = GST_FLOW_OK;
  for (guint i = 0; i < 500 && flow == GST_FLOW_OK; i++) flow = gst_harness_push(h, make_frame(i));
  return GINT_TO_POINTER(flow);
}

GST_START_TEST(check_21_flush_while_the_model_runs) {
  g_setenv("FLASHVSR_FAKE_CHUNK_MS", "3000", TRUE);
  GstHarness *h = make_harness(NULL);
  for (guint round = 0; round < 3; round++) {
    GThread *thread = g_thread_new("push", push_until_refused, h);
    g_usleep(150000); /* waits for room: a run takes 3 s */
    gint64 begin = g_get_monotonic_time();
    fail_unless(gst_harness_push_event(h, gst_event_new_flush_start()));
    fail_unless_equals_int(GPOINTER_TO_INT(g_thread_join(thread)), GST_FLOW_FLUSHING);
    const gdouble refused_ms = ms_since(begin);
    begin = g_get_monotonic_time();
    fail_unless(gst_harness_push_event(h, gst_event_new_flush_stop(TRUE)));
    g_print("# refused after %.1f ms, flush-stop took %.1f ms\n", refused_ms, ms_since(begin));
    fail_unless(refused_ms < 200);
    fail_unless(ms_since(begin) < 200);
    GstSegment segment;
    gst_segment_init(&segment, GST_FORMAT_TIME);
    fail_unless(gst_harness_push_event(h, gst_event_new_segment(&segment)));
  }
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_35_stop_at_any_time) {
  g_setenv("FLASHVSR_FAKE_CHUNK_MS", "3000", TRUE);
  GError *error = NULL;
  GstElement *p = gst_parse_launch(
      "videotestsrc num-buffers=400 ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! flashvsr ! "
      "fakesink name=sink sync=false async=false signal-handoffs=true", &error);
  fail_unless(error == NULL);
  GRand *random = g_rand_new_with_seed(35);
  gdouble worst = 0;
  for (guint i = 0; i < 40; i++) {
    gst_element_set_state(p, GST_STATE_PLAYING);
    g_usleep(g_rand_int_range(random, 0, 60000));
    const gint64 begin = g_get_monotonic_time();
    gst_element_set_state(p, i % 2 ? GST_STATE_NULL : GST_STATE_READY);
    fail_unless_equals_int(gst_element_get_state(p, NULL, NULL, 5 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
    worst = MAX(worst, ms_since(begin));
  }
  g_print("# worst of 40: %.1f ms\n", worst);
  fail_unless(worst < 500, "%.1f ms", worst);
  gst_element_set_state(p, GST_STATE_NULL);
  gst_object_unref(p);
  check_engine_is_clean();
  g_unsetenv("FLASHVSR_FAKE_CHUNK_MS");
  p = gst_parse_launch("videotestsrc num-buffers=40 ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! flashvsr ! "
                       "fakesink name=sink sync=false signal-handoffs=true", &error);
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  gint count = 0;
  g_signal_connect(sink, "handoff", G_CALLBACK(count_buffer), &count);
  for (guint i = 0; i < 3; i++) {
    count = 0;
    fail_unless(run_to_end(p, 10) == NULL);
    fail_unless_equals_int(count, 40);
    gst_element_set_state(p, i % 2 ? GST_STATE_NULL : GST_STATE_READY);
  }
  gst_element_set_state(p, GST_STATE_NULL);
  gst_object_unref(sink);
  gst_object_unref(p);
  g_rand_free(random);
}
GST_END_TEST

static Suite *timing_suite(void) {
  Suite *s = suite_create("timing");
  TCase *t = tcase_create("timing");
  suite_add_tcase(s, t);
  tcase_add_test(t, check_18_live_at_90_percent_drops_nothing);
  tcase_add_test(t, check_18_live_60_fps);
  tcase_add_test(t, check_18_live_with_jitter);
  tcase_add_test(t, check_19_no_longer_inside_than_reported);
  tcase_add_test(t, check_19_sink_that_waits);
  tcase_add_test(t, check_21_flush_while_the_model_runs);
  tcase_add_test(t, check_35_stop_at_any_time);
  return s;
}

int main(int argc, char **argv) {
  gst_check_init(&argc, &argv);
  return run_suite(timing_suite());
}
