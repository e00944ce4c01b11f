/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Many threads at once. FLASHVSR_STRESS_SECONDS per round (2); the long form asks for more.
 *
 * The harness' own pusher asserts that caps are taken, which a flush or a state change makes
 * untrue, so frames come from a pusher of ours that takes any answer. */
#include <stdio.h>

#include "support.h"

typedef struct {
  GstHarness *h;
  GstCaps *caps[2];
  gint is_running;
  gint wants_pause, is_paused; /* around a flush from another thread: no frame between FLUSH_STOP and SEGMENT */
  gint pushed;
  gboolean has_flush; /* flushes come from the main thread then: two of them must not overlap on one pad */
} Stress;

static gdouble seconds(void) {
  const gchar *text = g_getenv("FLASHVSR_STRESS_SECONDS");
  return text ? g_ascii_strtod(text, NULL) : 2;
}

static gpointer pusher(gpointer user) {
  Stress *s = user;
  GRand *random = g_rand_new_with_seed(40);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  guint which = 0, n = 0;
  GstVideoInfo info;
  gst_video_info_from_caps(&info, s->caps[0]);
  gst_pad_push_event(s->h->srcpad, gst_event_new_stream_start("stress"));
  gst_pad_push_event(s->h->srcpad, gst_event_new_caps(s->caps[0]));
  gst_pad_push_event(s->h->srcpad, gst_event_new_segment(&segment));
  while (g_atomic_int_get(&s->is_running)) {
    while (g_atomic_int_get(&s->wants_pause)) {
      g_atomic_int_set(&s->is_paused, 1);
      g_usleep(50);
    }
    g_atomic_int_set(&s->is_paused, 0);
    const gint32 dice = g_rand_int_range(random, 0, 200);
    if (dice == 0) {
      which = !which;
      gst_video_info_from_caps(&info, s->caps[which]);
      gst_pad_push_event(s->h->srcpad, gst_event_new_caps(s->caps[which]));
    } else if (dice == 1) {
      gst_pad_push_event(s->h->srcpad, gst_event_new_segment(&segment));
    } else if (dice == 2) {
      gst_pad_push_event(s->h->srcpad, gst_event_new_gap(n * FRAME_TIME, FRAME_TIME));
    } else if (dice == 3) {
      gst_pad_push_event(s->h->srcpad, gst_event_new_eos());
    } else if (dice == 4 && !s->has_flush) {
      gst_pad_push_event(s->h->srcpad, gst_event_new_flush_start());
      gst_pad_push_event(s->h->srcpad, gst_event_new_flush_stop(TRUE));
      gst_pad_push_event(s->h->srcpad, gst_event_new_segment(&segment));
    } else if (dice == 5) {
      gst_pad_push_event(s->h->srcpad, gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM, gst_structure_new_empty("x")));
    } else {
      GstBuffer *b = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&info), NULL);
      GST_BUFFER_PTS(b) = n++ * FRAME_TIME;
      if (gst_pad_push(s->h->srcpad, b) == GST_FLOW_OK)
        g_atomic_int_inc(&s->pushed);
      else
        g_usleep(200);
    }
  }
  g_rand_free(random);
  return NULL;
}

static gpointer eater(gpointer user) {
  Stress *s = user;
  while (g_atomic_int_get(&s->is_running)) {
    GstBuffer *b = gst_harness_try_pull(s->h);
    if (b) gst_buffer_unref(b);
    else g_usleep(500);
    GstEvent *e = gst_harness_try_pull_event(s->h);
    if (e) gst_event_unref(e);
    e = gst_harness_try_pull_upstream_event(s->h);
    if (e) gst_event_unref(e);
  }
  return NULL;
}

static void set_some_property(GstElement *element, guint n) {
  static const gchar *const kChanges[][2] = {
      {"scale", "2"}, {"strength", "0.3"}, {"scale", "4"}, {"bypass", "true"}, {"sparse-ratio", "1"}, {"compare", "split"},
      {"scale", "1.5"}, {"bypass", "false"}, {"local-range", "5"}, {"compare", "off"}, {"scale", "3"}, {"color-fix", "none"},
      {"processing-deadline", "50000000"}, {"overload-policy", "drop-chunk"}, {"overload-policy", "wait"}};
  const guint c = n % G_N_ELEMENTS(kChanges);
  gst_util_set_object_arg(G_OBJECT(element), kChanges[c][0], kChanges[c][1]);
  GstStructure *stats = NULL;
  g_object_get(element, "stats", &stats, NULL);
  if (stats) gst_structure_free(stats);
}

static void stress(gboolean has_reconfigure, gboolean has_flush, gboolean has_states, const gchar *chunk_ms) {
  g_setenv("FLASHVSR_FAKE_CHUNK_MS", chunk_ms, TRUE);
  if (has_states) {
    /* A pad that goes down and up between a push's sticky events and its buffer says "data flow before segment":
     * the core's own, with any element. The rounds without state changes forbid every critical. */
    _gst_check_expecting_log = TRUE;
    g_log_set_always_fatal(G_LOG_FATAL_MASK);
  }
  Stress s = {.h = gst_harness_new("flashvsr"), .is_running = 1, .has_flush = has_flush};
  s.caps[0] = gst_caps_from_string(CAPS_64x48);
  s.caps[1] = gst_caps_from_string("video/x-raw,format=NV12,width=32,height=18,framerate=30/1");
  GstElement *element = s.h->element;
  GThread *push = g_thread_new("push", pusher, &s), *eat = g_thread_new("eat", eater, &s);
  GRand *random = g_rand_new_with_seed(26);
  const gint64 end = g_get_monotonic_time() + (gint64)(seconds() * G_TIME_SPAN_SECOND);
  guint n = 0;
  while (g_get_monotonic_time() < end) {
    set_some_property(element, n++);
    if (has_reconfigure) gst_harness_push_upstream_event(s.h, gst_event_new_reconfigure());
    gst_harness_push_upstream_event(s.h, gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 1.5, 1000, n * FRAME_TIME));
    GstQuery *query = gst_query_new_latency();
    gst_pad_peer_query(s.h->sinkpad, query);
    gst_query_unref(query);
    if (has_flush && n % 7 == 0) {
      GstSegment segment;
      gst_segment_init(&segment, GST_FORMAT_TIME);
      g_atomic_int_set(&s.wants_pause, 1);
      gst_pad_push_event(s.h->srcpad, gst_event_new_flush_start()); /* while a push may be inside */
      while (!g_atomic_int_get(&s.is_paused)) g_usleep(20);
      gst_pad_push_event(s.h->srcpad, gst_event_new_flush_stop(TRUE));
      gst_pad_push_event(s.h->srcpad, gst_event_new_segment(&segment));
      g_atomic_int_set(&s.wants_pause, 0);
    }
    if (has_states && n % 11 == 0) {
      gst_element_set_state(element, n % 2 ? GST_STATE_NULL : GST_STATE_READY);
      gst_element_set_state(element, GST_STATE_PLAYING);
    }
    g_usleep(g_rand_int_range(random, 0, 2000));
  }
  g_atomic_int_set(&s.is_running, 0);
  gst_pad_push_event(s.h->srcpad, gst_event_new_flush_start());
  g_thread_join(push);
  g_thread_join(eat);
  g_print("# %u changes, %d frames\n", n, s.pushed);
  fail_unless(s.pushed > 50, "only %d frames went in", s.pushed);
  gst_caps_unref(s.caps[0]);
  gst_caps_unref(s.caps[1]);
  g_rand_free(random);
  gst_harness_teardown(s.h);
  check_engine_is_clean();
}

GST_START_TEST(check_26_reconfigure_storm) { stress(TRUE, FALSE, FALSE, "0"); }
GST_END_TEST

GST_START_TEST(check_40_flushes_and_properties) { stress(FALSE, TRUE, FALSE, "5"); }
GST_END_TEST

GST_START_TEST(check_40_state_changes) { stress(FALSE, FALSE, TRUE, "5"); }
GST_END_TEST

GST_START_TEST(check_40_everything) { stress(TRUE, TRUE, TRUE, "2"); }
GST_END_TEST

GST_START_TEST(memory_stays_the_same) {
  /* As many frames as the seconds allow; the second half must not need more memory than the first. */
  GstHarness *h = make_harness("scale=2");
  gst_harness_set_src_caps_str(h, "video/x-raw,format=I420,width=32,height=32,framerate=25/1");
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, 32, 32);
  gst_harness_set_drop_buffers(h, TRUE);
  const guint frames = (guint)(2000 * seconds());
  gulong middle = 0, pages = 0;
  for (guint i = 0; i < frames; i++) {
    fail_unless_equals_int(gst_harness_push(h, make_frame_of(&info, i)), GST_FLOW_OK);
    if (i == frames / 2 || i == frames - 1) {
      gchar *text = NULL;
      gulong total = 0;
      fail_unless(g_file_get_contents("/proc/self/statm", &text, NULL, NULL));
      fail_unless_equals_int(sscanf(text, "%lu %lu", &total, &pages), 2);
      g_free(text);
      if (i == frames / 2) middle = pages;
    }
  }
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  fail_unless_equals_int(gst_harness_buffers_received(h), frames);
  g_print("# %u frames, %lu pages at the middle, %lu at the end\n", frames, middle, pages);
  if (!g_getenv("ASAN_OPTIONS")) /* whose quarantine grows */
    fail_unless(pages <= middle + 512, "%lu pages at the middle, %lu at the end", middle, pages);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static Suite *stress_suite(void) {
  Suite *s = suite_create("stress");
  TCase *t = tcase_create("stress");
  tcase_set_timeout(t, 60 + 3 * seconds());
  suite_add_tcase(s, t);
  tcase_add_test(t, check_26_reconfigure_storm);
  tcase_add_test(t, check_40_flushes_and_properties);
  tcase_add_test(t, check_40_state_changes);
  tcase_add_test(t, check_40_everything);
  tcase_add_test(t, memory_stays_the_same);
  return s;
}

int main(int argc, char **argv) {
  gst_check_init(&argc, &argv);
  return run_suite(stress_suite());
}
