/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Frames and events: how many, which, in what order. */
#include "harness.h"

GST_START_TEST(check_06_n_in_n_out) {
  static const struct { guint in, before_eos; } kCases[] = {
      {0, 0}, {1, 0}, {4, 0}, {5, 0}, {21, 0}, {24, 0}, {25, 21}, {26, 21}, {32, 21}, {33, 29}, {34, 29}, {41, 37},
      {42, 37}, {100, 93}};
  for (guint i = 0; i < G_N_ELEMENTS(kCases); i++) {
    GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
    push_frames(h, 0, kCases[i].in);
    expect_received(h, kCases[i].before_eos);
    fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
    fail_unless_equals_int(gst_harness_buffers_received(h), kCases[i].in);
    pull_frames(h, 0, kCases[i].in);
    finish(h);
  }
}
GST_END_TEST

GST_START_TEST(check_06_primed_start) {
  static const struct { guint in, before_eos; } kCases[] = {{1, 0}, {11, 0}, {12, 8}, {19, 8}, {20, 16}, {50, 40}};
  for (guint i = 0; i < G_N_ELEMENTS(kCases); i++) {
    GstHarness *h = open_harness("flashvsr startup=primed", SMALL_CAPS);
    push_frames(h, 0, kCases[i].in);
    expect_received(h, kCases[i].before_eos);
    fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
    pull_frames(h, 0, kCases[i].in);
    fail_unless_equals_int(gst_harness_buffers_received(h), kCases[i].in);
    finish(h);
  }
}
GST_END_TEST

GST_START_TEST(check_07_timestamps_and_flags) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  for (guint i = 0; i < 40; i++) {
    GstBuffer *b = make_frame(h, i);
    GST_BUFFER_PTS(b) = i * FRAME_TIME + (i % 3) * 1000;
    GST_BUFFER_DTS(b) = i * FRAME_TIME + 7;
    GST_BUFFER_DURATION(b) = FRAME_TIME - i;
    GST_BUFFER_OFFSET_END(b) = 1000 + i;
    if (i % 4 == 1) GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_GAP);
    if (i % 5 == 2) GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_CORRUPTED);
    if (i % 7 == 3) GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_DROPPABLE);
    if (i % 6 == 5) GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_MARKER);
    fail_unless_equals_int(gst_harness_push(h, b), GST_FLOW_OK);
  }
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  for (guint i = 0; i < 40; i++) {
    GstBuffer *b = pull_frame(h, i);
    fail_unless_equals_uint64(GST_BUFFER_PTS(b), i * FRAME_TIME + (i % 3) * 1000);
    fail_unless_equals_uint64(GST_BUFFER_DTS(b), i * FRAME_TIME + 7);
    fail_unless_equals_uint64(GST_BUFFER_DURATION(b), FRAME_TIME - i);
    fail_unless_equals_uint64(GST_BUFFER_OFFSET_END(b), 1000 + i);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(b, GST_BUFFER_FLAG_GAP), i % 4 == 1);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(b, GST_BUFFER_FLAG_CORRUPTED), i % 5 == 2);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(b, GST_BUFFER_FLAG_DROPPABLE), i % 7 == 3);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(b, GST_BUFFER_FLAG_MARKER), i % 6 == 5);
    gst_buffer_unref(b);
  }
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_15_small_upstream_pool) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  GstCaps *caps = gst_caps_from_string(SMALL_CAPS);
  GstVideoInfo info;
  gst_video_info_from_caps(&info, caps);
  GstBufferPool *pool = gst_video_buffer_pool_new();
  GstStructure *config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_set_params(config, caps, GST_VIDEO_INFO_SIZE(&info), 4, 4);
  gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  fail_unless(gst_buffer_pool_set_config(pool, config));
  fail_unless(gst_buffer_pool_set_active(pool, TRUE));
  GstBufferPoolAcquireParams no_wait = {.flags = GST_BUFFER_POOL_ACQUIRE_FLAG_DONTWAIT};
  for (guint i = 0; i < 100; i++) {
    GstBuffer *b = NULL;
    fail_unless_equals_int(gst_buffer_pool_acquire_buffer(pool, &b, &no_wait), GST_FLOW_OK);
    gst_buffer_memset(b, 0, (guint8)i, GST_VIDEO_INFO_SIZE(&info));
    GST_BUFFER_PTS(b) = i * FRAME_TIME;
    GST_BUFFER_OFFSET(b) = i;
    fail_unless_equals_int(gst_harness_push(h, b), GST_FLOW_OK);
  }
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  pull_frames(h, 0, 100);
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
  gst_caps_unref(caps);
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_20_flush_mid_chunk) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  for (guint round = 0; round < 20; round++) {
    push_frames(h, 0, 20 + round);  /* with and without finished frames inside */
    fail_unless(gst_harness_push_event(h, gst_event_new_flush_start()));
    fail_unless_equals_int(gst_harness_push(h, make_frame(h, 99)), GST_FLOW_FLUSHING);
    fail_unless(gst_harness_push_event(h, gst_event_new_flush_stop(TRUE)));
    GstBuffer *old;
    while ((old = gst_harness_try_pull(h))) gst_buffer_unref(old);
    fail_unless(gst_harness_push_event(h, gst_event_new_segment(&segment)));
    const guint before = gst_harness_buffers_received(h);
    push_frames(h, 100, 25);
    wait_received(h, before + 21);
    pull_frames(h, 100, 21);
    fail_unless(gst_harness_push_event(h, gst_event_new_flush_start()));
    fail_unless(gst_harness_push_event(h, gst_event_new_flush_stop(TRUE)));
    fail_unless(gst_harness_push_event(h, gst_event_new_segment(&segment)));
    g_usleep(1000);
    fail_unless_equals_int(gst_harness_buffers_received(h), before + 21);
  }
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_20_fast_flush_pair_lets_nothing_old_through) {
  fake("FLASHVSR_FAKE_CHUNK_MS", "20");
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  for (guint round = 0; round < 60; round++) {
    for (guint i = 0; i < 33; i++) gst_harness_push(h, make_frame(h, i));
    g_usleep((round * 7919) % 45000);
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    const guint before = gst_harness_buffers_received(h);
    gst_harness_push_event(h, gst_event_new_segment(&segment));
    GstBuffer *old;
    while ((old = gst_harness_try_pull(h))) gst_buffer_unref(old);
    g_usleep(3000);
    fail_unless_equals_int(gst_harness_buffers_received(h), before);
  }
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_22_segment_mid_chunk) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  push_frames(h, 0, 1);
  Trace *t = trace_new(h);
  push_frames(h, 1, 9);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = segment.time = 20 * GST_SECOND;
  fail_unless(gst_harness_push_event(h, gst_event_new_segment(&segment)));
  push_frames(h, 500, 5);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  GString *expected = g_string_new(NULL);
  add_frames(expected, 0, 10);
  add_word(expected, "segment");
  add_frames(expected, 500, 5);
  add_word(expected, "eos");
  expect_trace(t, expected);
  g_string_free(expected, TRUE);
  finish(h);
  trace_free(t);
}
GST_END_TEST

GST_START_TEST(check_23_caps_mid_chunk) {
  GstHarness *h = open_harness("flashvsr scale=2", SMALL_CAPS);
  push_frames(h, 0, 1);
  Trace *t = trace_new(h);
  push_frames(h, 1, 29);
  gst_harness_set_src_caps_str(h, "video/x-raw,format=I420,width=32,height=32,framerate=25/1");
  push_frames(h, 30, 7);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  GString *expected = g_string_new(NULL);
  add_frames(expected, 0, 30);
  add_word(expected, "caps");
  add_frames(expected, 30, 7);
  add_word(expected, "eos");
  gchar *got = trace_take(t);
  /* the harness sends a new SEGMENT with its caps */
  gchar **parts = g_strsplit(got, " segment", -1);
  gchar *joined = g_strjoinv("", parts);
  fail_unless_equals_string(joined, expected->str);
  for (guint i = 0; i < 37; i++) {
    GstBuffer *b = pull_frame(h, i);
    fail_unless_equals_int(gst_buffer_get_size(b), i < 30 ? 128 * 96 * 3 / 2 : 64 * 64 * 3 / 2);
    gst_buffer_unref(b);
  }
  g_strfreev(parts);
  g_free(joined);
  g_free(got);
  g_string_free(expected, TRUE);
  finish(h);
  trace_free(t);
}
GST_END_TEST

GST_START_TEST(check_24_same_caps_again) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  push_frames(h, 0, 10);
  GstCaps *caps = gst_pad_get_current_caps(h->srcpad);
  fail_unless(gst_harness_push_event(h, gst_event_new_caps(caps)));
  gst_caps_unref(caps);
  expect_received(h, 0);
  push_frames(h, 10, 15);
  expect_received(h, 21);
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_25_scale_changes_while_playing) {
  GstHarness *h = open_harness("flashvsr scale=2", SMALL_CAPS);
  push_frames(h, 0, 13);
  set(h, "scale", "4");
  push_frames(h, 13, 30);
  set(h, "scale", "1.5");
  push_frames(h, 43, 3);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  for (guint i = 0; i < 46; i++) {
    GstBuffer *b = pull_frame(h, i);
    const guint size = i < 13 ? 128 * 96 : i < 43 ? 256 * 192 : 96 * 72;
    fail_unless_equals_int(gst_buffer_get_size(b), size * 3 / 2);
    gst_buffer_unref(b);
  }
  fail_unless_equals_int(gst_harness_buffers_received(h), 46);
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_25_other_properties_change_while_playing) {
  static const gchar *const kChanges[][2] = {
      {"sparse-ratio", "1.5"}, {"local-range", "9"}, {"color-fix", "wavelet"}, {"strength", "0.5"}, {"bypass", "true"},
      {"compare", "split"}, {"compare-position", "0.25"}, {"bypass", "false"}, {"compare", "side-by-side"},
      {"overload-policy", "wait"}, {"processing-deadline", "100000000"}, {"stats-interval", "2"}, {"compare", "off"}};
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  for (guint i = 0; i < 200; i++) {
    fail_unless_equals_int(gst_harness_push(h, make_frame(h, i)), GST_FLOW_OK);
    if (i % 5 == 0) {
      const guint c = i / 5 % G_N_ELEMENTS(kChanges);
      set(h, kChanges[c][0], kChanges[c][1]);
    }
  }
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  fail_unless_equals_int(gst_harness_buffers_received(h), 200);
  for (guint i = 0; i < 200; i++) {
    GstBuffer *b = gst_harness_pull(h);
    fail_unless_equals_int(GST_BUFFER_OFFSET(b), i);
    gst_buffer_unref(b);
  }
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_27_events_keep_their_place) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  push_frames(h, 0, 1);
  Trace *t = trace_new(h);
  push_frames(h, 1, 4);
  fail_unless(gst_harness_push_event(h, gst_event_new_tag(gst_tag_list_new(GST_TAG_TITLE, "x", NULL))));
  push_frames(h, 5, 20);
  wait_received(h, 21);
  fail_unless(gst_harness_push_event(h, gst_event_new_gap(25 * FRAME_TIME, FRAME_TIME)));
  fail_unless(gst_harness_push_event(
      h, gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM, gst_structure_new_empty("custom"))));
  fail_unless(gst_harness_push_event(
      h, gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM_OOB, gst_structure_new_empty("oob"))));
  push_frames(h, 26, 8);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  GString *expected = g_string_new(NULL);
  add_frames(expected, 0, 5);
  add_word(expected, "tag");
  add_frames(expected, 5, 16);
  add_word(expected, "oob");
  add_frames(expected, 21, 4);
  add_word(expected, "gap custom");
  add_frames(expected, 26, 8);
  add_word(expected, "eos");
  expect_trace(t, expected);
  g_string_free(expected, TRUE);
  finish(h);
  trace_free(t);
}
GST_END_TEST

GST_START_TEST(check_27_gaps) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  push_frames(h, 0, 1);
  Trace *t = trace_new(h);
  GString *expected = g_string_new(NULL);
  /* ten seconds: drains at once */
  push_frames(h, 1, 4);
  fail_unless(gst_harness_push_event(h, gst_event_new_gap(5 * FRAME_TIME, 10 * GST_SECOND)));
  add_frames(expected, 0, 5);
  add_word(expected, "gap");
  expect_trace(t, expected);
  /* nothing pending: passes at once, whatever its length */
  fail_unless(gst_harness_push_event(h, gst_event_new_gap(15 * GST_SECOND, FRAME_TIME)));
  add_word(expected, "gap");
  expect_trace(t, expected);
  fail_unless(gst_harness_push_event(h, gst_event_new_gap(15 * GST_SECOND, GST_CLOCK_TIME_NONE)));
  add_word(expected, "gap");
  expect_trace(t, expected);
  /* a still frame is shown for long: what comes before it leaves */
  push_frames(h, 400, 3);
  fail_unless(gst_harness_push_event(h, gst_video_event_new_still_frame(TRUE)));
  add_frames(expected, 400, 3);
  add_word(expected, "GstEventStillFrame");
  expect_trace(t, expected);
  g_string_free(expected, TRUE);
  finish(h);
  trace_free(t);
}
GST_END_TEST

GST_START_TEST(check_28_discont) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  for (guint i = 0; i < 25; i++) {
    GstBuffer *b = make_frame(h, i);
    if (i == 10) {
      GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_DISCONT);
    }
    gst_harness_push(h, b);
  }
  expect_received(h, 21);  /* one lost packet does not cost a restart */
  for (guint i = 0; i < 21; i++) {
    GstBuffer *b = pull_frame(h, i);
    fail_unless_equals_int(GST_BUFFER_IS_DISCONT(b), i == 10);
    gst_buffer_unref(b);
  }
  /* two seconds on, and then backwards: both finish what is inside */
  GstBuffer *b = make_frame(h, 25);
  GST_BUFFER_PTS(b) = 24 * FRAME_TIME + 2 * GST_SECOND;
  GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_DISCONT);
  gst_harness_push(h, b);
  expect_received(h, 25);
  b = make_frame(h, 26);
  GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_DISCONT);
  gst_harness_push(h, b);
  expect_received(h, 26);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  for (guint i = 21; i < 27; i++) {
    b = pull_frame(h, i);
    fail_unless_equals_int(GST_BUFFER_IS_DISCONT(b), i >= 25);
    gst_buffer_unref(b);
  }
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_29_eos_and_starting_again) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  push_frames(h, 0, 7);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 0, 7);
  fail_unless(gst_harness_push_event(h, gst_event_new_flush_start()));
  fail_unless(gst_harness_push_event(h, gst_event_new_flush_stop(TRUE)));
  fail_unless(gst_harness_push_event(h, gst_event_new_segment(&segment)));
  push_frames(h, 7, 30);
  fail_unless(gst_harness_push_event(h, gst_event_new_stream_start("again")));
  pull_frames(h, 7, 30);
  fail_unless(gst_harness_push_event(h, gst_event_new_segment(&segment)));
  push_frames(h, 37, 5);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  pull_frames(h, 37, 5);
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_30_no_timestamps) {
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  for (guint i = 0; i < 40; i++) {
    GstBuffer *b = make_frame(h, i);
    GST_BUFFER_PTS(b) = GST_BUFFER_DTS(b) = GST_BUFFER_DURATION(b) = GST_CLOCK_TIME_NONE;
    fail_unless_equals_int(gst_harness_push(h, b), GST_FLOW_OK);
  }
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  for (guint i = 0; i < 40; i++) {
    GstBuffer *b = pull_frame(h, i);
    fail_if(GST_BUFFER_PTS_IS_VALID(b));
    gst_buffer_unref(b);
  }
  finish(h);
}
GST_END_TEST

GST_START_TEST(check_30_segment_in_bytes) {
  GstHarness *h = gst_harness_new(FLASHVSR_NAME);
  GstCaps *caps = gst_caps_from_string(SMALL_CAPS);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_BYTES);
  fail_unless(gst_harness_push_event(h, gst_event_new_stream_start("bytes")));
  fail_unless(gst_harness_push_event(h, gst_event_new_caps(caps)));
  fail_unless(gst_harness_push_event(h, gst_event_new_segment(&segment)));
  push_frames(h, 0, 30);
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  pull_frames(h, 0, 30);
  gst_caps_unref(caps);
  finish(h);
}
GST_END_TEST

static GstFlowReturn refused;
static GstFlowReturn refuse(GstPad *pad, GstObject *parent, GstBuffer *buffer) {
  (void)pad, (void)parent;
  gst_buffer_unref(buffer);
  return refused;
}

GST_START_TEST(check_34_downstream_result_reaches_upstream) {
  static const GstFlowReturn kResults[] = {GST_FLOW_EOS, GST_FLOW_NOT_LINKED, GST_FLOW_ERROR, GST_FLOW_FLUSHING,
                                           GST_FLOW_NOT_NEGOTIATED, GST_FLOW_CUSTOM_ERROR};
  for (guint r = 0; r < G_N_ELEMENTS(kResults); r++) {
    GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
    refused = kResults[r];
    gst_pad_set_chain_function(h->sinkpad, refuse);
    GstFlowReturn flow = GST_FLOW_OK;
    for (guint i = 0; i < 1000 && flow == GST_FLOW_OK; i++) {
      flow = gst_harness_push(h, make_frame(h, i));
      if (i > 25) g_usleep(1000);
    }
    fail_unless_equals_int(flow, kResults[r]);
    fail_unless_equals_int(gst_harness_push(h, make_frame(h, 0)), kResults[r]);
    gst_harness_push_event(h, gst_event_new_eos()); /* must not wait for frames that nobody takes */
    finish(h);
  }
}
GST_END_TEST

GST_START_TEST(check_34_error_after_the_end) {
  /* Upstream has sent all it has: the only way to tell is a message. */
  GstHarness *h = open_harness(FLASHVSR_NAME, SMALL_CAPS);
  GstBus *bus = gst_bus_new();
  gst_element_set_bus(h->element, bus);
  push_frames(h, 0, 5);
  refused = GST_FLOW_NOT_NEGOTIATED;
  gst_pad_set_chain_function(h->sinkpad, refuse);
  gst_harness_push_event(h, gst_event_new_eos());
  g_clear_error(&(GError *){wait_error(bus, NULL)});
  gst_element_set_bus(h->element, NULL);
  gst_object_unref(bus);
  finish(h);
}
GST_END_TEST

static Suite *flow_suite(void) {
  Suite *s = suite_create("flow");
  TCase *t = tcase_create("flow");
  tcase_set_timeout(t, 60);
  suite_add_tcase(s, t);
  tcase_add_test(t, check_06_n_in_n_out);
  tcase_add_test(t, check_06_primed_start);
  tcase_add_test(t, check_07_timestamps_and_flags);
  tcase_add_test(t, check_15_small_upstream_pool);
  tcase_add_test(t, check_20_flush_mid_chunk);
  tcase_add_test(t, check_20_fast_flush_pair_lets_nothing_old_through);
  tcase_add_test(t, check_22_segment_mid_chunk);
  tcase_add_test(t, check_23_caps_mid_chunk);
  tcase_add_test(t, check_24_same_caps_again);
  tcase_add_test(t, check_25_scale_changes_while_playing);
  tcase_add_test(t, check_25_other_properties_change_while_playing);
  tcase_add_test(t, check_27_events_keep_their_place);
  tcase_add_test(t, check_27_gaps);
  tcase_add_test(t, check_28_discont);
  tcase_add_test(t, check_29_eos_and_starting_again);
  tcase_add_test(t, check_30_no_timestamps);
  tcase_add_test(t, check_30_segment_in_bytes);
  tcase_add_test(t, check_34_downstream_result_reaches_upstream);
  tcase_add_test(t, check_34_error_after_the_end);
  return s;
}

FLASHVSR_MAIN(flow_suite)
