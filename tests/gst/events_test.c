/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Events, drains, flushes, faults. Each test carries the number of its check. */
#include <gst/controller/controller.h>

#include "support.h"

static GstEvent* make_segment(guint64 start_frame, gdouble rate) {
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = segment.time = segment.position = start_frame * FRAME_TIME;
  segment.rate = rate;
  return gst_event_new_segment(&segment);
}

static GstEvent* make_custom(GstEventType type, const gchar* name) { return gst_event_new_custom(type, gst_structure_new_empty(name)); }

/* With and without results inside. */
GST_START_TEST(check_20_flush_mid_chunk) {
  GstHarness* h = make_harness(NULL);
  Trace* trace = trace_pad(h->element);
  for (guint64 round = 0; round < 20; ++round) {
    const guint64 base = 500 * (round + 1);
    push_frames(h, base, base + 20 + round);
    gst_harness_push_event(h, gst_event_new_flush_start());
    fail_unless_equals_int(gst_harness_push(h, make_frame(base + 99)), GST_FLOW_FLUSHING);
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    GstBuffer* old;
    while ((old = gst_harness_try_pull(h))) gst_buffer_unref(old);
    gst_harness_push_event(h, make_segment(base + 200, 1));
    g_free(trace_take(trace));
    push_frames(h, base + 200, base + 225);
    pull_frames(h, base + 200, base + 221);
    gchar* wanted = g_strdup_printf("B%d-B%d", (int)base + 200, (int)base + 220);
    fail_unless_trace(trace, wanted);
    g_free(wanted);
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    gst_harness_push_event(h, make_segment(base, 1));
    fail_unless_equals_int(gst_harness_buffers_in_queue(h), 0);
  }
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

/* A pair of flushes as fast as can be, while the worker is inside a chunk and results wait. */
GST_START_TEST(check_20_fast_flushes) {
  g_setenv("FLASHVSR_FAKE_CHUNK_MS", "5", TRUE);
  GstHarness* h = make_harness(NULL);
  for (int round = 0; round < 60; ++round) {
    const guint64 base = 1000 * (round + 1);
    gst_harness_push_event(h, make_segment(base, 1));
    push_frames(h, base, base + 25 + round % 17);
    g_usleep(round % 9 * 1000);
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    GstBuffer* old;
    while ((old = gst_harness_try_pull(h))) gst_buffer_unref(old);
    g_usleep(2000);
    fail_unless_equals_int(gst_harness_buffers_in_queue(h), 0);
  }
  gst_harness_push_event(h, make_segment(0, 1));
  push_frames(h, 0, 25);
  pull_frames(h, 0, 21);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_22_segment_mid_chunk) {
  GstHarness* h = make_harness(NULL);
  Trace* trace = trace_pad(h->element);
  push_frames(h, 0, 10);
  gst_harness_push_event(h, make_segment(500, 1));
  push_frames(h, 500, 505);
  gst_harness_push_event(h, gst_event_new_eos());
  gchar* seen = trace_take(trace);
  fail_unless(g_str_has_suffix(seen, "B0-B9 segment B500-B504 eos"), "%s", seen);
  g_free(seen);
  /* The same segment again is no reason to drain. */
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  gst_harness_push_event(h, make_segment(0, 1));
  push_frames(h, 0, 10);
  gst_harness_push_event(h, make_segment(0, 1));
  push_frames(h, 10, 25);
  expect_waiting(h, 21 + 15);
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_23_caps_mid_chunk) {
  GstHarness* h = make_harness("scale=2");
  Trace* trace = trace_pad(h->element);
  push_frames(h, 0, 10);
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, 80, 60);
  GstCaps* caps = gst_caps_from_string("video/x-raw,format=I420,width=80,height=60,framerate=25/1");
  fail_unless(gst_harness_push_event(h, gst_event_new_caps(caps)));
  gst_caps_unref(caps);
  for (guint i = 10; i < 14; ++i) fail_unless_equals_int(gst_harness_push(h, make_frame_of(&info, i)), GST_FLOW_OK);
  gst_harness_push_event(h, gst_event_new_eos());
  gchar* seen = trace_take(trace);
  fail_unless(g_str_has_suffix(seen, "B0-B9 caps B10-B13 eos"), "%s", seen);
  g_free(seen);
  for (guint i = 0; i < 14; ++i) {
    GstBuffer* buffer = gst_harness_pull(h);
    gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, i < 10 ? 128 : 160, i < 10 ? 96 : 120);
    fail_unless_equals_uint64(gst_buffer_get_size(buffer), GST_VIDEO_INFO_SIZE(&info));
    gst_buffer_unref(buffer);
  }
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_24_same_caps) {
  GstHarness* h = make_harness(NULL);
  push_frames(h, 0, 10);
  for (int i = 0; i < 3; ++i) {
    GstCaps* caps = gst_caps_from_string(CAPS_64x48);
    fail_unless(gst_harness_push_event(h, gst_event_new_caps(caps)));
    gst_caps_unref(caps);
  }
  push_frames(h, 10, 25);
  expect_waiting(h, 21);
  fail_unless_equals_uint64(stat_of(h->element, "drains"), 0);
  gst_harness_teardown(h);
}
GST_END_TEST

GST_START_TEST(check_25_scale_while_playing) {
  GstHarness* h = make_harness("scale=4");
  Trace* trace = trace_pad(h->element);
  push_frames(h, 0, 30);
  g_object_set(h->element, "scale", 2.0, NULL);
  push_frames(h, 30, 40);
  g_object_set(h->element, "scale", 1.5, NULL);
  push_frames(h, 40, 50);
  gst_harness_push_event(h, gst_event_new_eos());
  gchar* seen = trace_take(trace);
  fail_unless(g_str_has_suffix(seen, "B0-B29 caps B30-B39 caps B40-B49 eos"), "%s", seen);
  g_free(seen);
  for (guint i = 0; i < 50; ++i) {
    GstBuffer* buffer = gst_harness_pull(h);
    const guint num = i < 30 ? 8 : i < 40 ? 4 : 3;
    fail_unless_equals_uint64(gst_buffer_get_size(buffer), 64 * num / 2 * 48 * num / 2 * 3 / 2);
    fail_unless_equals_int(first_byte(buffer), (int)(16 + i));
    gst_buffer_unref(buffer);
  }
  /* What is not offered is refused, and the old stays. */
  gdouble scale;
  g_object_set(h->element, "scale", 2.7, NULL);
  g_object_get(h->element, "scale", &scale, NULL);
  fail_unless_equals_float(scale, 1.5);
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

/* Whatever changes, no frame is lost or comes twice. */
GST_START_TEST(check_25_other_properties_while_playing) {
  static const gchar* const changes[][2] = {
      {"sparse-ratio", "1.5"}, {"local-range", "9"}, {"color-fix", "wavelet"}, {"strength", "0.5"}, {"bypass", "true"},
      {"compare", "split"}, {"compare-position", "0.25"}, {"bypass", "false"}, {"compare", "side-by-side"},
      {"overload-policy", "wait"}, {"processing-deadline", "100000000"}, {"stats-interval", "2"}, {"compare", "off"}};
  GstHarness* h = make_harness(NULL);
  for (guint i = 0; i < 200; ++i) {
    push_frames(h, i, i + 1);
    const guint c = i / 5 % G_N_ELEMENTS(changes);
    if (i % 5 == 0) gst_util_set_object_arg(G_OBJECT(h->element), changes[c][0], changes[c][1]);
  }
  gst_harness_push_event(h, gst_event_new_eos());
  fail_unless_equals_int(gst_harness_buffers_in_queue(h), 200);
  for (guint i = 0; i < 200; ++i) {
    GstBuffer* buffer = gst_harness_pull(h);
    fail_unless_equals_uint64(index_of(buffer), i);
    gst_buffer_unref(buffer);
  }
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static gpointer reconfigure_thread(gpointer user) {
  GstHarness* h = user;
  for (int i = 0; i < 400; ++i) {
    gst_harness_push_upstream_event(h, gst_event_new_reconfigure());
    g_usleep(200);
  }
  return NULL;
}

GST_START_TEST(check_26_reconfigure_storm) {
  GstHarness* h = make_harness(NULL);
  GThread* thread = g_thread_new("storm", reconfigure_thread, h);
  for (guint i = 0; i < 400; ++i) {
    fail_unless_equals_int(gst_harness_push(h, make_frame(i)), GST_FLOW_OK);
    if (i % 8 == 0) g_usleep(1500);
  }
  g_thread_join(thread);
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 0, 400);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_27_event_order) {
  GstHarness* h = make_harness(NULL);
  Trace* trace = trace_pad(h->element);
  g_free(trace_take(trace));
  /* Nothing waits: at once. */
  gst_harness_push_event(h, gst_event_new_gap(0, FRAME_TIME));
  fail_unless_trace(trace, "gap");
  push_frames(h, 0, 5);
  gst_harness_push_event(h, gst_event_new_tag(gst_tag_list_new(GST_TAG_TITLE, "x", NULL)));
  push_frames(h, 5, 25);
  gst_harness_push_event(h, gst_event_new_gap(25 * FRAME_TIME, FRAME_TIME));
  gst_harness_push_event(h, make_custom(GST_EVENT_CUSTOM_DOWNSTREAM, "custom"));
  pull_frames(h, 0, 21);
  gst_harness_push_event(h, make_custom(GST_EVENT_CUSTOM_DOWNSTREAM_OOB, "oob"));
  push_frames(h, 26, 34);
  gst_harness_push_event(h, gst_event_new_eos());
  fail_unless_trace(trace, "B0-B4 tag B5-B20 oob B21-B24 gap custom B26-B33 eos");
  /* A long gap drains. */
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  gst_harness_push_event(h, make_segment(0, 1));
  g_free(trace_take(trace));
  push_frames(h, 0, 3);
  gst_harness_push_event(h, gst_event_new_gap(3 * FRAME_TIME, 10 * GST_SECOND));
  fail_unless_trace(trace, "B0-B2 gap");
  push_frames(h, 3, 5);
  gst_harness_push_event(h, gst_event_new_gap(5 * FRAME_TIME, GST_CLOCK_TIME_NONE));
  fail_unless_trace(trace, "B3-B4 gap");
  gst_harness_push_event(h, gst_event_new_gap(5 * FRAME_TIME, GST_CLOCK_TIME_NONE));
  fail_unless_trace(trace, "gap"); /* nothing waits */
  push_frames(h, 5, 7);
  gst_harness_push_event(h, gst_video_event_new_still_frame(TRUE));
  fail_unless_trace(trace, "B5-B6 GstEventStillFrame");
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_28_discont) {
  GstHarness* h = make_harness(NULL);
  Trace* trace = trace_pad(h->element);
  g_free(trace_take(trace));
  for (guint i = 0; i < 25; ++i) {
    GstBuffer* buffer = make_frame(i < 10 ? i : i + 1); /* one is lost */
    if (i == 10) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
    fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  }
  expect_waiting(h, 21);
  fail_unless_trace(trace, "B0-B9 B11d B12-B21");
  /* Two seconds on: what was inside leaves, and the model starts anew. */
  GstBuffer* buffer = make_frame(80);
  GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
  fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  expect_waiting(h, 25);
  fail_unless_trace(trace, "B22-B25");
  push_frames(h, 81, 104);
  expect_waiting(h, 25);
  push_frames(h, 104, 105);
  expect_waiting(h, 25 + 21);
  fail_unless_trace(trace, "B80d B81-B100");
  /* Backwards. */
  buffer = make_frame(3);
  GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
  fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  expect_waiting(h, 25 + 25);
  gst_harness_push_event(h, gst_event_new_eos());
  fail_unless_trace(trace, "B101-B104 B3d eos");
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_29_eos_again) {
  GstHarness* h = make_harness(NULL);
  Trace* trace = trace_pad(h->element);
  push_frames(h, 0, 10);
  gst_harness_push_event(h, gst_event_new_eos());
  gst_harness_push_event(h, gst_event_new_eos());
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  gst_harness_push_event(h, make_segment(0, 1));
  g_free(trace_take(trace));
  push_frames(h, 0, 26);
  gst_harness_push_event(h, gst_event_new_stream_start("again"));
  GstCaps* caps = gst_caps_from_string(CAPS_64x48);
  gst_harness_push_event(h, gst_event_new_caps(caps));
  gst_caps_unref(caps);
  gst_harness_push_event(h, make_segment(100, 1));
  push_frames(h, 100, 103);
  gst_harness_push_event(h, gst_event_new_eos());
  gchar* seen = trace_take(trace);
  fail_unless(g_str_has_prefix(seen, "B0-B25 stream-start "), "%s", seen);
  fail_unless(g_str_has_suffix(seen, " segment B100-B102 eos"), "%s", seen);
  g_free(seen);
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_30_no_times) {
  GstHarness* h = make_harness(NULL);
  for (guint round = 0; round < 2; ++round) {
    for (guint i = 0; i < 30; ++i) {
      GstBuffer* buffer = make_frame(i);
      GST_BUFFER_PTS(buffer) = GST_BUFFER_DTS(buffer) = GST_BUFFER_DURATION(buffer) = GST_CLOCK_TIME_NONE;
      fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
    }
    gst_harness_push_event(h, gst_event_new_eos());
    for (guint i = 0; i < 30; ++i) {
      GstBuffer* buffer = gst_harness_pull(h);
      fail_unless(buffer && !GST_BUFFER_PTS_IS_VALID(buffer) && !GST_BUFFER_DURATION_IS_VALID(buffer));
      fail_unless_equals_int(first_byte(buffer), 16 + i);
      gst_buffer_unref(buffer);
    }
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    GstSegment segment;
    gst_segment_init(&segment, GST_FORMAT_BYTES);
    gst_harness_push_event(h, gst_event_new_segment(&segment));
  }
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_31_reverse) {
  GstHarness* h = make_harness(NULL);
  Trace* trace = trace_pad(h->element);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.rate = -1;
  segment.stop = segment.position = 40 * FRAME_TIME;
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  for (int i = 39; i >= 0; --i) {
    GstBuffer* buffer = make_frame(i);
    if (i % 10 == 9) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT); /* each group of pictures */
    fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  }
  expect_waiting(h, 29);
  fail_unless_equals_uint64(stat_of(h->element, "drains"), 0);
  gst_harness_push_event(h, gst_event_new_eos());
  for (int i = 39; i >= 0; --i) {
    GstBuffer* buffer = gst_harness_pull(h);
    fail_unless_equals_uint64(index_of(buffer), i);
    gst_buffer_unref(buffer);
  }
  gst_harness_teardown(h);
  trace_free(trace);
}
GST_END_TEST

/* Key units only: each frame leaves at once, past the model. */
GST_START_TEST(check_31_key_units) {
  GstHarness* h = make_harness(NULL);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.rate = 8;
  segment.flags = GST_SEGMENT_FLAG_TRICKMODE | GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS;
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  for (guint i = 0; i < 5; ++i) {
    fail_unless_equals_int(gst_harness_push(h, make_frame(i * 25)), GST_FLOW_OK);
    GstBuffer* buffer = gst_harness_pull(h);
    fail_unless_equals_uint64(index_of(buffer), i * 25);
    fail_unless_equals_int(first_byte(buffer), 255 - (16 + i * 25 % 200)); /* the fake's passthrough is inverted */
    gst_buffer_unref(buffer);
  }
  gst_harness_teardown(h);
  fail_unless_equals_int(fake_state().runs_model, 0);
}
GST_END_TEST

static void seek_and_check(GstElement* pipeline, GstElement* sink, gint64 target, gdouble rate) {
  fail_unless(gst_element_seek(pipeline, rate, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE,
                               GST_SEEK_TYPE_SET, target, GST_SEEK_TYPE_SET, 20 * GST_SECOND));
  fail_unless_equals_int(gst_element_get_state(pipeline, NULL, NULL, 20 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
  GstSample* sample = NULL;
  g_object_get(sink, "last-sample", &sample, NULL);
  fail_unless(sample != NULL);
  fail_unless_equals_uint64(GST_BUFFER_PTS(gst_sample_get_buffer(sample)), target);
  gst_sample_unref(sample);
  gint64 position;
  fail_unless(gst_element_query_position(pipeline, GST_FORMAT_TIME, &position));
  fail_unless_equals_int64(position, target);
}

GST_START_TEST(check_32_seeks_in_paused) {
  GstElement* pipeline = parse("videotestsrc ! " CAPS_64x48 " ! flashvsr ! fakesink name=out sync=true");
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "out");
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  fail_unless_equals_int(gst_element_get_state(pipeline, NULL, NULL, 20 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
  const gint64 targets[] = {5, 1, 10, 0};
  for (guint i = 0; i < G_N_ELEMENTS(targets); ++i) seek_and_check(pipeline, sink, targets[i] * GST_SECOND, 1);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(sink);
  gst_object_unref(pipeline);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_33_segment_seeks) {
  Outcome outcome = {0};
  GstElement* pipeline = parse("videotestsrc ! " CAPS_64x48 " ! flashvsr ! fakesink name=out sync=false");
  count_at(pipeline, "out", &outcome);
  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  gst_element_get_state(pipeline, NULL, NULL, 10 * GST_SECOND);
  fail_unless(gst_element_seek(pipeline, 1, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_SEGMENT, GST_SEEK_TYPE_SET, 0,
                               GST_SEEK_TYPE_SET, GST_SECOND));
  gst_element_get_state(pipeline, NULL, NULL, 10 * GST_SECOND);
  outcome.frames = 1; /* the prerolled one was counted before or after; from here each loop adds 25 */
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  guint before = 0;
  for (int loop = 0; loop < 3; ++loop) {
    GstMessage* message = gst_bus_timed_pop_filtered(bus, 20 * GST_SECOND, GST_MESSAGE_SEGMENT_DONE | GST_MESSAGE_ERROR);
    fail_unless(message && GST_MESSAGE_TYPE(message) == GST_MESSAGE_SEGMENT_DONE);
    gst_message_unref(message);
    /* The source's message comes before the event has drained us. */
    const guint wanted = loop == 0 ? 25 : before + 25;
    for (int i = 0; i < 3000 && outcome.frames < wanted; ++i) g_usleep(1000);
    fail_unless_equals_int(outcome.frames, wanted);
    before = outcome.frames;
    fail_unless(gst_element_seek(pipeline, loop == 0 ? 1 : 2, GST_FORMAT_TIME, GST_SEEK_FLAG_SEGMENT, GST_SEEK_TYPE_SET, 0,
                                 GST_SEEK_TYPE_SET, GST_SECOND));
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pipeline);
  check_engine_is_clean();
}
GST_END_TEST

/* What ends a stretch of frames comes after all of them. */
GST_START_TEST(check_33_ends_come_after_the_frames) {
  GstHarness* h = make_harness(NULL);
  Trace* trace = trace_pad(h->element);
  g_free(trace_take(trace));
  push_frames(h, 0, 10);
  gst_harness_push_event(h, gst_event_new_segment_done(GST_FORMAT_TIME, 10 * FRAME_TIME));
  fail_unless_trace(trace, "B0-B9 segment-done");
  push_frames(h, 10, 40);
  gst_harness_push_event(h, gst_event_new_stream_group_done(1));
  fail_unless_trace(trace, "B10-B39 stream-group-done");
  push_frames(h, 40, 43);
  GstQuery* query = gst_query_new_drain();
  GstPad* pad = gst_element_get_static_pad(h->element, "sink");
  fail_unless(gst_pad_query(pad, query));
  fail_unless_trace(trace, "B40-B42");
  gst_query_unref(query);
  gst_object_unref(pad);
  gst_harness_teardown(h);
  trace_free(trace);
  check_engine_is_clean();
}
GST_END_TEST

static GstPadProbeReturn seek_inside(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  gint* seeks = user;
  GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  if (GST_BUFFER_PTS(buffer) != 12 * FRAME_TIME || (*seeks)++ > 0) return GST_PAD_PROBE_OK;
  gst_pad_push_event(pad, gst_event_new_seek(1, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE, GST_SEEK_TYPE_SET,
                                        2 * GST_SECOND, GST_SEEK_TYPE_SET, 4 * GST_SECOND));
  return GST_PAD_PROBE_DROP;
}

/* An application that seeks from our own pushing thread. */
GST_START_TEST(check_32_seek_from_a_probe) {
  GstElement* pipeline = parse("videotestsrc ! " CAPS_64x48 " ! flashvsr ! fakesink name=out sync=false");
  GstElement* sink = gst_bin_get_by_name(GST_BIN(pipeline), "out");
  GstPad* pad = gst_element_get_static_pad(sink, "sink");
  gint seeks = 0;
  Outcome outcome = {0};
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, seek_inside, &seeks, NULL);
  count_at(pipeline, "out", &outcome);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 20 * GST_SECOND);
  fail_unless(outcome.is_eos);
  fail_unless_equals_int(outcome.frames, 12 + 50);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pad);
  gst_object_unref(sink);
  gst_object_unref(pipeline);
  check_engine_is_clean();
}
GST_END_TEST

static const GstFlowReturn kFlows[] = {GST_FLOW_EOS,      GST_FLOW_NOT_LINKED,     GST_FLOW_ERROR,
                                       GST_FLOW_FLUSHING, GST_FLOW_NOT_NEGOTIATED, GST_FLOW_CUSTOM_ERROR};

static GstFlowReturn refuse(GstPad* pad, GstObject* parent, GstBuffer* buffer) {
  (void)parent;
  gst_buffer_unref(buffer);
  return GPOINTER_TO_INT(g_object_get_data(G_OBJECT(pad), "flow"));
}

GST_START_TEST(check_34_downstream_flow) {
  const GstFlowReturn wanted = kFlows[__i__];
  GstHarness* h = make_harness(NULL);
  g_object_set_data(G_OBJECT(h->sinkpad), "flow", GINT_TO_POINTER(wanted));
  gst_pad_set_chain_function(h->sinkpad, refuse);
  push_frames(h, 0, 24);
  GstFlowReturn flow = GST_FLOW_OK;
  for (guint i = 24; i < 200 && flow == GST_FLOW_OK; ++i) {
    flow = gst_harness_push(h, make_frame(i));
    g_usleep(1000);
  }
  fail_unless_equals_int(flow, wanted);
  fail_unless_equals_int(gst_harness_push(h, make_frame(0)), wanted);
  gst_harness_push_event(h, gst_event_new_eos()); /* must not wait for frames that nobody takes */
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

/* Refused after upstream's last buffer: the application still hears of it. Where upstream was told, the message is its own. */
GST_START_TEST(check_34_error_after_eos) {
  const GstFlowReturn flows[] = {GST_FLOW_NOT_LINKED, GST_FLOW_NOT_NEGOTIATED, GST_FLOW_ERROR};
  for (guint i = 0; i < 2 * G_N_ELEMENTS(flows); ++i) {
    const gboolean is_told = i >= G_N_ELEMENTS(flows);
    GstHarness* h = make_harness(NULL);
    GstBus* bus = gst_bus_new();
    gst_element_set_bus(h->element, bus);
    g_object_set_data(G_OBJECT(h->sinkpad), "flow", GINT_TO_POINTER(flows[i % G_N_ELEMENTS(flows)]));
    gst_pad_set_chain_function(h->sinkpad, refuse);
    GstFlowReturn flow = GST_FLOW_OK;
    for (guint n = 0; is_told ? flow == GST_FLOW_OK : n < 10; ++n) flow = gst_harness_push(h, make_frame(n));
    gst_harness_push_event(h, gst_event_new_eos());
    GstMessage* message = gst_bus_timed_pop_filtered(bus, is_told ? 50 * GST_MSECOND : GST_SECOND, GST_MESSAGE_ERROR);
    fail_unless((message == NULL) == is_told, "%s, %s", gst_flow_get_name(flows[i % G_N_ELEMENTS(flows)]), is_told ? "told" : "not told");
    if (message) gst_message_unref(message);
    gst_element_set_bus(h->element, NULL);
    gst_object_unref(bus);
    gst_harness_teardown(h);
  }
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_36_metas) {
  GstHarness* h = make_harness("scale=2");
  GstBuffer* buffer = make_frame(0);
  gst_buffer_add_video_time_code_meta_full(buffer, 25, 1, NULL, GST_VIDEO_TIME_CODE_FLAGS_NONE, 1, 2, 3, 4, 0);
  const guint8 caption[] = {0x80, 0x80};
  gst_buffer_add_video_caption_meta(buffer, GST_VIDEO_CAPTION_TYPE_CEA608_RAW, caption, 2);
  gst_buffer_add_video_afd_meta(buffer, 0, GST_VIDEO_AFD_SPEC_ATSC_A53, GST_VIDEO_AFD_4_3_FULL_16_9_FULL);
  GstCaps* reference = gst_caps_from_string("timestamp/x-ntp");
  gst_buffer_add_reference_timestamp_meta(buffer, reference, 12345, 6);
  gst_buffer_add_video_region_of_interest_meta(buffer, "face", 4, 6, 10, 12);
  gst_buffer_add_video_bar_meta(buffer, 0, TRUE, 5, 7);
  GstVideoCropMeta* crop = gst_buffer_add_video_crop_meta(buffer);
  crop->x = 2;
  crop->y = 4;
  crop->width = 20;
  crop->height = 30;
  gst_harness_push(h, buffer);
  gst_harness_push_event(h, gst_event_new_eos());
  GstBuffer* out = gst_harness_pull(h);
  fail_unless(out != NULL);
  GstVideoTimeCodeMeta* code = gst_buffer_get_video_time_code_meta(out);
  fail_unless(code && code->tc.hours == 1 && code->tc.minutes == 2 && code->tc.seconds == 3 && code->tc.frames == 4);
  GstVideoCaptionMeta* text = gst_buffer_get_video_caption_meta(out);
  fail_unless(text && text->size == 2 && text->data[0] == 0x80);
  fail_unless(gst_buffer_get_meta(out, GST_VIDEO_AFD_META_API_TYPE) != NULL);
  GstReferenceTimestampMeta* time = gst_buffer_get_reference_timestamp_meta(out, reference);
  fail_unless(time && time->timestamp == 12345);
  GstVideoRegionOfInterestMeta* roi = gst_buffer_get_video_region_of_interest_meta_id(out, 0);
  fail_unless(roi && roi->x == 8 && roi->y == 12 && roi->w == 20 && roi->h == 24);
  GstVideoBarMeta* bar = (GstVideoBarMeta*)gst_buffer_get_meta(out, GST_VIDEO_BAR_META_API_TYPE);
  fail_unless(bar && bar->is_letterbox && bar->bar_data1 == 10 && bar->bar_data2 == 14);
  crop = gst_buffer_get_video_crop_meta(out);
  fail_unless(crop && crop->x == 4 && crop->y == 8 && crop->width == 40 && crop->height == 60);
  fail_unless(gst_buffer_get_n_meta(out, GST_VIDEO_META_API_TYPE) <= 1);
  GstVideoMeta* planes = gst_buffer_get_video_meta(out);
  fail_unless(!planes || (planes->width == 128 && planes->height == 96));
  gst_buffer_unref(out);
  gst_caps_unref(reference);
  gst_harness_teardown(h);
}
GST_END_TEST

/* Objects that others found in the picture: GStreamer 1.24 and newer, so by name, as we are built on 1.22. */
GST_START_TEST(check_36_analytics) {
  typedef struct {
    guint id;
    gpointer meta;
  } Mtd;
  GModule* library = g_module_open("libgstanalytics-1.0.so.0", G_MODULE_BIND_LOCAL);
  if (!library) {
    g_print("# no GstAnalytics here\n");
    return;
  }
  gpointer (*add)(GstBuffer*) = NULL, (*get)(GstBuffer*) = NULL;
  gboolean (*add_object)(gpointer, GQuark, gint, gint, gint, gint, gfloat, Mtd*) = NULL;
  gboolean (*get_object)(gpointer, guint, Mtd*) = NULL;
  gboolean (*get_place)(Mtd*, gint*, gint*, gint*, gint*, gfloat*) = NULL;
  fail_unless(g_module_symbol(library, "gst_buffer_add_analytics_relation_meta", (gpointer*)&add));
  fail_unless(g_module_symbol(library, "gst_buffer_get_analytics_relation_meta", (gpointer*)&get));
  fail_unless(g_module_symbol(library, "gst_analytics_relation_meta_add_od_mtd", (gpointer*)&add_object));
  fail_unless(g_module_symbol(library, "gst_analytics_relation_meta_get_od_mtd", (gpointer*)&get_object));
  fail_unless(g_module_symbol(library, "gst_analytics_od_mtd_get_location", (gpointer*)&get_place));
  GstHarness* h = make_harness("scale=2");
  GstBuffer* buffer = make_frame(0);
  Mtd object;
  fail_unless(add_object(add(buffer), g_quark_from_string("face"), 4, 6, 10, 12, 0.5f, &object));
  gst_harness_push(h, buffer);
  gst_harness_push_event(h, gst_event_new_eos());
  buffer = gst_harness_pull(h);
  fail_unless(buffer && get(buffer), "the meta is lost");
  gint x, y, width, height;
  gfloat sure;
  fail_unless(get_object(get(buffer), 0, &object) && get_place(&object, &x, &y, &width, &height, &sure));
  fail_unless(x == 8 && y == 12 && width == 20 && height == 24, "%d, %d, %d x %d", x, y, width, height);
  gst_buffer_unref(buffer);
  gst_harness_teardown(h);
}
GST_END_TEST

static GstEvent* make_qos(guint64 frame, GstClockTimeDiff late) {
  return gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 2.0, late, frame * FRAME_TIME);
}

GST_START_TEST(check_37_qos) {
  /* By default an event does nothing, here or upstream. */
  GstHarness* h = make_harness(NULL);
  while (gst_harness_upstream_events_received(h) > 0) {
    GstEvent* event = gst_harness_try_pull_upstream_event(h);
    if (!event) break;
    gst_event_unref(event);
  }
  gst_harness_push_upstream_event(h, make_qos(0, 100 * GST_SECOND));
  push_frames(h, 0, 25);
  pull_frames(h, 0, 21);
  GstEvent* event;
  while ((event = gst_harness_try_pull_upstream_event(h))) {
    fail_unless(GST_EVENT_TYPE(event) != GST_EVENT_QOS, "a QOS event went upstream");
    gst_event_unref(event);
  }
  gst_harness_teardown(h);

  /* With qos=true whole late chunks go, and are accounted for. */
  h = make_harness("qos=true overload-policy=drop-chunk");
  GstBus* bus = gst_bus_new();
  gst_element_set_bus(h->element, bus);
  gst_harness_push_upstream_event(h, make_qos(0, 10 * FRAME_TIME)); /* frames before 10 are late, and with 0 its chunk */
  push_frames(h, 0, 41);
  expect_waiting(h, 37 - 21);
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 21, 41);
  fail_unless_equals_uint64(stat_of(h->element, "dropped-frames"), 21);
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_QOS);
  fail_unless(message != NULL, "no QOS message");
  gst_message_unref(message);
  gst_element_set_bus(h->element, NULL);
  gst_object_unref(bus);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

/* The frames that complete a chunk come while the worker is already in `run`: the chunk is late all
 * the same, and must not slip past the policy because it was incomplete when the worker looked. */
GST_START_TEST(check_37_chunk_completed_during_a_run) {
  g_setenv("FLASHVSR_FAKE_RUN_LAG_MS", "50", TRUE);
  GstHarness* h = make_harness("qos=true overload-policy=drop-chunk");
  gst_harness_push_upstream_event(h, make_qos(0, 10 * FRAME_TIME));
  push_frames(h, 0, 41);
  expect_waiting(h, 37 - 21);
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 21, 41);
  fail_unless_equals_uint64(stat_of(h->element, "dropped-frames"), 21);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static const gchar* const kFaults[][3] = {
    {"FLASHVSR_FAKE_FAIL_CHUNK", "0", "-5"},   {"FLASHVSR_FAKE_FAIL_CHUNK", "2", "-7"},
    {"FLASHVSR_FAKE_FAIL_SEND", "7", "-7"},    {"FLASHVSR_FAKE_FAIL_RECEIVE", "11", "-7"},
    {"FLASHVSR_FAKE_SESSION_STATUS", "-5", "-5"},
};

/* One message, ERROR upstream, NULL works, and the next PLAYING too. */
GST_START_TEST(check_42_engine_fails) {
  g_setenv(kFaults[__i__][0], kFaults[__i__][1], TRUE);
  g_setenv("FLASHVSR_FAKE_FAIL_STATUS", kFaults[__i__][2], TRUE);
  GstElement* pipeline = parse("videotestsrc num-buffers=100 ! " CAPS_64x48 " ! flashvsr ! fakesink name=out");
  Outcome outcome = {0};
  count_at(pipeline, "out", &outcome);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 20 * GST_SECOND);
  fail_unless(outcome.error != NULL);
  if (kFaults[__i__][2][1] == '5') fail_unless(g_error_matches(outcome.error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT), "%s", outcome.error->message);
  else fail_unless(g_error_matches(outcome.error, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_FAILED), "%s", outcome.error->message);
  g_clear_error(&outcome.error);
  fail_unless_equals_int(gst_element_set_state(pipeline, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  check_engine_is_clean();

  g_unsetenv(kFaults[__i__][0]);
  outcome.frames = 0;
  outcome.is_eos = FALSE;
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 20 * GST_SECOND);
  fail_unless(outcome.is_eos);
  fail_unless_equals_int(outcome.frames, 100);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  check_engine_is_clean();
}
GST_END_TEST

/* An error of the model and a seek after it: the flush clears it. */
GST_START_TEST(check_42_flush_after_failure) {
  g_setenv("FLASHVSR_FAKE_FAIL_CHUNK", "1", TRUE);
  GstHarness* h = make_harness(NULL);
  push_frames(h, 0, 25);
  pull_frames(h, 0, 21);
  GstFlowReturn flow = GST_FLOW_OK;
  for (guint i = 25; i < 200 && flow == GST_FLOW_OK; ++i) {
    flow = gst_harness_push(h, make_frame(i));
    g_usleep(500);
  }
  fail_unless_equals_int(flow, GST_FLOW_ERROR);
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  gst_harness_push_event(h, make_segment(0, 1));
  push_frames(h, 0, 33);
  pull_frames(h, 0, 29);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_43_two_instances) {
  GstHarness* a = make_harness("scale=2");
  GstHarness* b = make_harness("scale=4");
  for (guint i = 0; i < 41; ++i) {
    fail_unless_equals_int(gst_harness_push(a, make_frame(i)), GST_FLOW_OK);
    fail_unless_equals_int(gst_harness_push(b, make_frame(i + 50)), GST_FLOW_OK);
  }
  fail_unless_equals_int(fake_state().models_open, 1);
  fail_unless_equals_int(fake_state().model_loads, 1);
  fail_unless_equals_int(fake_state().sessions_open, 2);
  gst_harness_push_event(a, gst_event_new_eos());
  gst_harness_push_event(b, gst_event_new_eos());
  pull_frames(a, 0, 41);
  pull_frames(b, 50, 91);
  gst_harness_teardown(a);
  gst_harness_teardown(b);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_44_lost_frames) {
  Outcome outcome = {0};
  GstElement* pipeline = parse("videotestsrc num-buffers=300 ! " CAPS_64x48
                               " ! identity drop-probability=0.02 name=loss ! identity name=in ! flashvsr name=el ! fakesink name=out");
  count_at(pipeline, "out", &outcome);
  Outcome in = {0};
  count_at(pipeline, "in", &in);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 20 * GST_SECOND);
  fail_unless(outcome.is_eos);
  fail_unless(in.frames < 300 && in.frames > 200);
  fail_unless_equals_int(outcome.frames, in.frames);
  GstElement* element = gst_bin_get_by_name(GST_BIN(pipeline), "el");
  fail_unless_equals_uint64(stat_of(element, "drains"), 1); /* at the end only */
  gst_object_unref(element);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* Bypass, strength and comparison. The fake's bicubic picture is ours inverted. */
GST_START_TEST(check_14_views) {
  GstHarness* h = make_harness("bypass=true scale=2");
  push_frames(h, 0, 25);
  GstBuffer* buffer = gst_harness_pull(h);
  fail_unless_equals_int(first_byte(buffer), 255 - 16);
  gst_buffer_unref(buffer);
  gst_harness_teardown(h);
  fail_unless_equals_int(fake_state().runs_model, 0);

  h = make_harness("scale=2 strength=0.5");
  push_frames(h, 0, 2);
  gst_harness_push_event(h, gst_event_new_eos());
  buffer = gst_harness_pull(h);
  fail_unless_equals_int(first_byte(buffer), 128);
  gst_buffer_unref(buffer);
  gst_harness_teardown(h);

  h = make_harness("scale=2 compare=split compare-position=0.25");
  push_frames(h, 0, 1);
  gst_harness_push_event(h, gst_event_new_eos());
  buffer = gst_harness_pull(h);
  guint8 row[128];
  gst_buffer_extract(buffer, 0, row, 128);
  for (int x = 0; x < 128; ++x) fail_unless_equals_int(row[x], x < 32 ? 255 - 16 : 16);
  gst_buffer_unref(buffer);
  gst_harness_teardown(h);
}
GST_END_TEST

/* A property that an application moves in time has the value of the frame that it is seen on, by stream time. */
GST_START_TEST(check_14_controlled_property) {
  GstHarness* h = make_harness("scale=2 compare=split");
  GstControlSource* source = gst_interpolation_control_source_new();
  g_object_set(source, "mode", GST_INTERPOLATION_MODE_LINEAR, NULL);
  fail_unless(gst_object_add_control_binding(GST_OBJECT(h->element),
                                             gst_direct_control_binding_new(GST_OBJECT(h->element), "compare-position", source)));
  gst_timed_value_control_source_set(GST_TIMED_VALUE_CONTROL_SOURCE(source), 0, 0.0);
  gst_timed_value_control_source_set(GST_TIMED_VALUE_CONTROL_SOURCE(source), 64 * FRAME_TIME, 1.0);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = segment.position = 500 * FRAME_TIME; /* its stream time is 0 */
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  push_frames(h, 500, 540);
  gst_harness_push_event(h, gst_event_new_eos());
  for (guint i = 0; i < 40; ++i) {
    GstBuffer* buffer = gst_harness_pull(h);
    guint8 row[128];
    gst_buffer_extract(buffer, 0, row, 128);
    const guint8 ours = (guint8)(16 + (500 + i) % 200);
    for (guint x = 0; x < 128; ++x) fail_unless(row[x] == (x < 2 * i ? 255 - ours : ours), "frame %u: %u at %u", i, row[x], x);
    gst_buffer_unref(buffer);
  }
  gst_object_unref(source);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

/* A click on the bar moves it, and upstream hears of it in its own coordinates. */
GST_START_TEST(check_27_navigation) {
  GstHarness* h = make_harness("scale=2 compare=split");
  GstEvent* event;
  while ((event = gst_harness_try_pull_upstream_event(h))) gst_event_unref(event);
  gst_harness_push_upstream_event(
      h, gst_event_new_navigation(gst_structure_new("application/x-gst-navigation", "event", G_TYPE_STRING, "mouse-button-press",
                                                    "button", G_TYPE_INT, 1, "pointer_x", G_TYPE_DOUBLE, 96.0, "pointer_y",
                                                    G_TYPE_DOUBLE, 40.0, NULL)));
  gfloat position;
  g_object_get(h->element, "compare-position", &position, NULL);
  fail_unless_equals_float(position, 0.75);
  event = gst_harness_try_pull_upstream_event(h);
  fail_unless(event && GST_EVENT_TYPE(event) == GST_EVENT_NAVIGATION);
  gdouble x, y;
  gst_structure_get_double(gst_event_get_structure(event), "pointer_x", &x);
  gst_structure_get_double(gst_event_get_structure(event), "pointer_y", &y);
  fail_unless_equals_float(x, 48);
  fail_unless_equals_float(y, 20);
  gst_event_unref(event);
  /* So do requests for a key frame. */
  gst_harness_push_upstream_event(h, gst_video_event_new_upstream_force_key_unit(GST_CLOCK_TIME_NONE, TRUE, 1));
  event = gst_harness_try_pull_upstream_event(h);
  fail_unless(event && gst_video_event_is_force_key_unit(event));
  gst_event_unref(event);
  gst_harness_teardown(h);
}
GST_END_TEST

int main(int argc, char** argv) {
  gst_check_init(&argc, &argv);
  Suite* suite = suite_create("flashvsr events");
  TCase* tcase = tcase_create("events");
  suite_add_tcase(suite, tcase);
  tcase_add_test(tcase, check_14_views);
  tcase_add_test(tcase, check_14_controlled_property);
  tcase_add_test(tcase, check_20_flush_mid_chunk);
  tcase_add_test(tcase, check_20_fast_flushes);
  tcase_add_test(tcase, check_22_segment_mid_chunk);
  tcase_add_test(tcase, check_23_caps_mid_chunk);
  tcase_add_test(tcase, check_24_same_caps);
  tcase_add_test(tcase, check_25_scale_while_playing);
  tcase_add_test(tcase, check_25_other_properties_while_playing);
  tcase_add_test(tcase, check_26_reconfigure_storm);
  tcase_add_test(tcase, check_27_event_order);
  tcase_add_test(tcase, check_27_navigation);
  tcase_add_test(tcase, check_28_discont);
  tcase_add_test(tcase, check_29_eos_again);
  tcase_add_test(tcase, check_30_no_times);
  tcase_add_test(tcase, check_31_reverse);
  tcase_add_test(tcase, check_31_key_units);
  tcase_add_test(tcase, check_32_seeks_in_paused);
  tcase_add_test(tcase, check_32_seek_from_a_probe);
  tcase_add_test(tcase, check_33_segment_seeks);
  tcase_add_test(tcase, check_33_ends_come_after_the_frames);
  tcase_add_loop_test(tcase, check_34_downstream_flow, 0, G_N_ELEMENTS(kFlows));
  tcase_add_test(tcase, check_34_error_after_eos);
  tcase_add_test(tcase, check_36_metas);
  tcase_add_test(tcase, check_36_analytics);
  tcase_add_test(tcase, check_37_qos);
  tcase_add_test(tcase, check_37_chunk_completed_during_a_run);
  tcase_add_loop_test(tcase, check_42_engine_fails, 0, G_N_ELEMENTS(kFaults));
  tcase_add_test(tcase, check_42_flush_after_failure);
  tcase_add_test(tcase, check_43_two_instances);
  tcase_add_test(tcase, check_44_lost_frames);
  return run_suite(suite);
}
