/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Live pipelines on the real clock: overload (FLASHVSR_OVERLOAD_SECONDS of it; 10), stalls; and scene cuts. Suite timing:
 * alone on the machine. */
#include "support.h"

typedef struct LiveResult {
  Outcome outcome;
  guint64 rendered, dropped_by_sink, passthrough, dropped, in, out, late_chunks;
  gdouble degrade;
  gchar model[32];
} LiveResult;

static gchar* model_in_use(GstElement* element) {
  GstStructure* stats = NULL;
  g_object_get(element, "stats", &stats, NULL);
  gchar* name = g_strdup(gst_structure_get_string(stats, "model"));
  gst_structure_free(stats);
  return name;
}

/* 30 frames/s of 64 x 48 through the element into a sink that drops what is 20 ms late. */
static LiveResult run_live(const gchar* settings, guint frames, guint chunk_ms) {
  LiveResult result = {0};
  gchar* text = g_strdup_printf("%u", chunk_ms);
  g_setenv("FLASHVSR_FAKE_CHUNK_MS", text, TRUE);
  g_free(text);
  gchar* line = g_strdup_printf("videotestsrc is-live=true num-buffers=%u ! video/x-raw,format=I420,width=64,height=48,framerate=30/1"
                                " ! flashvsr name=el %s ! fakesink name=out sync=true max-lateness=20000000",
                                frames, settings);
  GstElement* pipeline = parse(line);
  g_free(line);
  GstElement* element = gst_bin_get_by_name(GST_BIN(pipeline), "el");
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "out");
  count_at(pipeline, "out", &result.outcome);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &result.outcome, 40 * GST_SECOND + frames * GST_SECOND / 30);
  fail_unless(result.outcome.is_eos, "%s", result.outcome.error ? result.outcome.error->message : "?");
  GstStructure* stats = NULL;
  g_object_get(sink, "stats", &stats, NULL);
  gst_structure_get(stats, "rendered", G_TYPE_UINT64, &result.rendered, "dropped", G_TYPE_UINT64, &result.dropped_by_sink, NULL);
  gst_structure_free(stats);
  result.passthrough = stat_of(element, "passthrough-frames");
  result.dropped = stat_of(element, "dropped-frames");
  result.in = stat_of(element, "in-frames");
  result.out = stat_of(element, "out-frames");
  result.late_chunks = stat_of(element, "late-chunks");
  g_object_get(element, "stats", &stats, NULL);
  gst_structure_get_double(stats, "degrade", &result.degrade);
  g_strlcpy(result.model, gst_structure_get_string(stats, "model"), sizeof result.model);
  gst_structure_free(stats);
  gst_object_unref(element);
  gst_object_unref(sink);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  fail_unless_equals_uint64(result.in, frames);
  fail_unless_equals_uint64(result.out + result.dropped, frames);
  check_engine_is_clean();
  return result;
}

/* Twice too slow for a live stream: every frame leaves, in time, some of them past the model. */
GST_START_TEST(overload_passthrough_is_the_default_when_live) {
  const gchar* text = g_getenv("FLASHVSR_OVERLOAD_SECONDS");
  const guint frames = 30 * (text ? (guint)atoi(text) : 10);
  const LiveResult result = run_live("processing-deadline=267000000", frames, 534);
  g_print("# %d frames, %d past the model, %d late at the sink\n", (int)frames, (int)result.passthrough, (int)result.dropped_by_sink);
  fail_unless_equals_uint64(result.out, frames);
  fail_unless(result.passthrough > 0, "the model kept up?");
  fail_unless(result.passthrough < frames - 20, "the model was hardly asked");
  fail_unless(result.outcome.qos_messages > 0 && result.late_chunks > 0);
  /* The last message is of a chunk before the end. */
  fail_unless(result.outcome.qos_dropped > 0 && result.outcome.qos_dropped <= result.passthrough);
  fail_unless(result.outcome.qos_processed > 0 && result.outcome.qos_processed <= result.out - result.passthrough);
  fail_unless(result.dropped_by_sink <= 8, "%d were late at the sink", (int)result.dropped_by_sink);
}
GST_END_TEST

GST_START_TEST(overload_drop_chunk) {
  const LiveResult result = run_live("processing-deadline=267000000 overload-policy=drop-chunk", 300, 534);
  fail_unless(result.dropped > 0);
  fail_unless(result.outcome.qos_dropped > 0 && result.outcome.qos_dropped <= result.dropped);
  fail_unless_equals_uint64(result.passthrough, 0);
  fail_unless(result.dropped_by_sink <= 8, "%d were late at the sink", (int)result.dropped_by_sink);
  fail_unless(result.outcome.qos_messages > 0);
}
GST_END_TEST

GST_START_TEST(overload_degrade) {
  /* 100 ms and 200 for each 1.0 of sparse-ratio: 500 ms at 2.0, in time at 0.6. */
  g_setenv("FLASHVSR_FAKE_DENSE_MS", "200", TRUE);
  const LiveResult result = run_live("processing-deadline=267000000 overload-policy=degrade", 360, 100);
  fail_unless_equals_uint64(result.out, 360);
  fail_unless(result.degrade < 0.5, "sparse-ratio was not lowered");
  fail_unless(result.passthrough < 180, "%d frames went past the model", (int)result.passthrough);
  fail_unless(result.dropped_by_sink <= 8, "%d were late at the sink", (int)result.dropped_by_sink);
}
GST_END_TEST

/* No attention is sparse enough: at last the embedded model takes over, and nothing is lost on the way. */
GST_START_TEST(overload_degrade_to_the_embedded_model) {
  g_setenv("FLASHVSR_FAKE_SMALL_MS", "60", TRUE);
  gchar* settings = g_strdup_printf("processing-deadline=267000000 overload-policy=degrade model=%s", g_getenv("FLASHVSR_ENGINE_PATH"));
  const LiveResult result = run_live(settings, 450, 900);
  g_free(settings);
  fail_unless_equals_uint64(result.out, 450);
  fail_unless_equals_string(result.model, "fake embedded");
  g_print("# %d past the models, %d late at the sink\n", (int)result.passthrough, (int)result.dropped_by_sink);
  fail_unless(result.passthrough + result.dropped_by_sink < 300, "%d frames went past the models, %d were late at the sink",
              (int)result.passthrough, (int)result.dropped_by_sink);
}
GST_END_TEST

/* Another policy brings the chosen model back. */
GST_START_TEST(overload_degrade_taken_back) {
  g_setenv("FLASHVSR_FAKE_SMALL_MS", "0", TRUE);
  g_setenv("FLASHVSR_FAKE_CHUNK_MS", "0", TRUE);
  gchar* settings = g_strdup_printf("overload-policy=degrade model=%s", g_getenv("FLASHVSR_ENGINE_PATH"));
  GstHarness* h = make_harness(settings);
  g_free(settings);
  /* Late by QoS until the end: each second chunk is a step down, and after the sixth step comes the embedded model. */
  g_object_set(h->element, "qos", TRUE, NULL);
  gst_harness_push_upstream_event(h, gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 2.0, 10000 * FRAME_TIME, 0));
  guint64 i = 0;
  gchar* model = NULL;
  while (i < 400 && g_strcmp0(model, "fake embedded") != 0) {
    push_frames(h, i, i + 8);
    i += 8;
    g_free(model);
    model = model_in_use(h->element);
  }
  fail_unless_equals_string(model, "fake embedded");
  g_free(model);
  g_object_set(h->element, "overload-policy", 1 /* wait */, NULL);
  while (stat_of(h->element, "in-frames") < i) g_usleep(1000);
  guint64 end = i + 100;
  model = NULL;
  for (; i < end && g_strcmp0(model, "fake") != 0; ++i) {
    push_frames(h, i, i + 1);
    g_usleep(2000); /* the worker takes the setting over in its turn */
    g_free(model);
    model = model_in_use(h->element);
  }
  fail_unless_equals_string(model, "fake");
  g_free(model);
  gst_harness_push_event(h, gst_event_new_eos());
  expect_waiting(h, (guint)i);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

/* `wait` never drops and never passes, live or not. */
GST_START_TEST(overload_wait) {
  const LiveResult result = run_live("overload-policy=wait", 100, 300);
  fail_unless_equals_uint64(result.out, 100);
  fail_unless_equals_uint64(result.passthrough, 0);
}
GST_END_TEST

/* A model that keeps up is never passed by. */
GST_START_TEST(overload_none) {
  const LiveResult result = run_live("", 150, 180);
  fail_unless_equals_uint64(result.out, 150);
  fail_unless_equals_uint64(result.passthrough, 0);
  fail_unless_equals_uint64(result.dropped_by_sink, 0);
  fail_unless_equals_int(result.outcome.qos_messages, 0);
}
GST_END_TEST

/* The harness is a live source. It stops after 10 frames: they leave by themselves. */
GST_START_TEST(stall_drains) {
  GstHarness* h = make_harness(NULL);
  push_frames(h, 0, 10);
  expect_waiting(h, 10);
  push_frames(h, 10, 35);
  expect_waiting(h, 10 + 21);
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 0, 35);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static GstBuffer* make_scene_frame(guint64 i, guint8 level) {
  GstBuffer* buffer = make_frame(i);
  gst_buffer_memset(buffer, 0, level, 64 * 48);
  return buffer;
}

GST_START_TEST(scene_cut_starts_anew) {
  for (int is_on = 1; is_on >= 0; --is_on) {
    GstHarness* h = make_harness(is_on ? NULL : "scene-cut=off");
    for (guint i = 0; i < 10; ++i) gst_harness_push(h, make_scene_frame(i, 40));
    for (guint i = 10; i < 34; ++i) gst_harness_push(h, make_scene_frame(i, 200));
    /* Cut: the old scene has left, and the new one wants 25 of its own. */
    expect_waiting(h, is_on ? 10 : 29);
    fail_unless_equals_uint64(stat_of(h->element, "scene-cuts"), is_on);
    fail_unless_equals_uint64(stat_of(h->element, "drains"), is_on);
    gst_harness_push(h, make_scene_frame(34, 200));
    expect_waiting(h, is_on ? 10 + 21 : 29);
    gst_harness_push_event(h, gst_event_new_eos());
    for (guint i = 0; i < 35; ++i) {
      GstBuffer* buffer = gst_harness_pull(h);
      fail_unless_equals_uint64(index_of(buffer), i);
      fail_unless_equals_int(first_byte(buffer), i < 10 ? 40 : 200);
      gst_buffer_unref(buffer);
    }
    gst_harness_teardown(h);
  }
  check_engine_is_clean();
}
GST_END_TEST

static guint count_stats(GstBus* bus) {
  guint count = 0;
  GstMessage* message;
  while ((message = gst_bus_pop_filtered(bus, GST_MESSAGE_ELEMENT))) {
    count += gst_message_has_name(message, "flashvsr-stats");
    gst_message_unref(message);
  }
  return count;
}

GST_START_TEST(stats_messages) {
  GstHarness* h = make_harness("stats-interval=1");
  GstBus* bus = gst_bus_new();
  gst_element_set_bus(h->element, bus);
  push_frames(h, 0, 25);
  pull_frames(h, 0, 21);
  fail_unless(count_stats(bus) >= 20);
  g_object_set(h->element, "stats-interval", (guint64)0, NULL);
  push_frames(h, 25, 33);
  pull_frames(h, 21, 29);
  fail_unless(count_stats(bus) <= 1);
  fail_unless_equals_uint64(stat_of(h->element, "chunks"), 2);
  fail_unless_equals_uint64(stat_of(h->element, "in-frames"), 33);
  fail_unless_equals_uint64(stat_of(h->element, "inside-frames"), 4);
  gst_element_set_bus(h->element, NULL);
  gst_object_unref(bus);
  gst_harness_teardown(h);
}
GST_END_TEST

int main(int argc, char** argv) {
  gst_check_init(&argc, &argv);
  Suite* suite = suite_create("flashvsr live");
  TCase* tcase = tcase_create("live");
  suite_add_tcase(suite, tcase);
  tcase_set_timeout(tcase, 120);
  tcase_add_test(tcase, scene_cut_starts_anew);
  tcase_add_test(tcase, stats_messages);
  tcase_add_test(tcase, stall_drains);
  tcase_add_test(tcase, overload_none);
  tcase_add_test(tcase, overload_wait);
  tcase_add_test(tcase, overload_passthrough_is_the_default_when_live);
  tcase_add_test(tcase, overload_drop_chunk);
  tcase_add_test(tcase, overload_degrade);
  tcase_add_test(tcase, overload_degrade_to_the_embedded_model);
  tcase_add_test(tcase, overload_degrade_taken_back);
  return run_suite(suite);
}
