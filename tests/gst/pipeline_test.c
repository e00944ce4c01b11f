/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Whole pipelines: seeks, loops, faults and restarts, branches, other people's elements. */
#include <glib/gstdio.h>

#include "support.h"

#define SOURCE "videotestsrc pattern=ball name=src ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! "

typedef struct {
  GMutex lock;
  GArray *pts; /* of every buffer at the sink */
} Times;

static GstPadProbeReturn note_time(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  Times *t = user;
  const GstClockTime pts = GST_BUFFER_PTS(GST_PAD_PROBE_INFO_BUFFER(info));
  (void)pad;
  g_mutex_lock(&t->lock);
  g_array_append_val(t->pts, pts);
  g_mutex_unlock(&t->lock);
  return GST_PAD_PROBE_OK;
}

static GstElement *launch(const gchar *text, Times *times) {
  GError *error = NULL;
  GstElement *pipeline = gst_parse_launch(text, &error);
  fail_unless(error == NULL, "%s: %s", text, error ? error->message : "");
  if (times) {
    g_mutex_init(&times->lock);
    times->pts = g_array_new(FALSE, FALSE, sizeof(GstClockTime));
    GstElement *sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
    GstPad *pad = gst_element_get_static_pad(sink, "sink");
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, note_time, times, NULL);
    gst_object_unref(pad);
    gst_object_unref(sink);
  }
  return pipeline;
}

static guint n_times(Times *t) {
  g_mutex_lock(&t->lock);
  const guint n = t->pts->len;
  g_mutex_unlock(&t->lock);
  return n;
}

static void clear_times(Times *t) {
  g_mutex_lock(&t->lock);
  g_array_set_size(t->pts, 0);
  g_mutex_unlock(&t->lock);
}

static void close_pipeline(GstElement *pipeline, Times *times) {
  fail_unless_equals_int(gst_element_set_state(pipeline, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  gst_object_unref(pipeline);
  if (times) {
    g_array_unref(times->pts);
    g_mutex_clear(&times->lock);
  }
  check_engine_is_clean();
}

static void to_state(GstElement *pipeline, GstState state) {
  gst_element_set_state(pipeline, state);
  fail_unless_equals_int(gst_element_get_state(pipeline, NULL, NULL, WAIT_S * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
}

static void wait_message(GstElement *pipeline, GstMessageType type) {
  GstBus *bus = gst_element_get_bus(pipeline);
  GstMessage *m = gst_bus_timed_pop_filtered(bus, 20 * GST_SECOND, type | GST_MESSAGE_ERROR);
  fail_unless(m != NULL, "no %s", gst_message_type_get_name(type));
  if (GST_MESSAGE_TYPE(m) == GST_MESSAGE_ERROR && type != GST_MESSAGE_ERROR) {
    GError *error = NULL;
    gst_message_parse_error(m, &error, NULL);
    fail("error instead of %s: %s", gst_message_type_get_name(type), error->message);
  }
  gst_message_unref(m);
  gst_object_unref(bus);
}

static GArray *frames_at_rate(const gchar *filter, gdouble rate) {
  Times times;
  gchar *text = g_strdup_printf(SOURCE "%s ! fakesink name=sink sync=false", filter);
  GstElement *p = launch(text, &times);
  g_free(text);
  to_state(p, GST_STATE_PAUSED);
  fail_unless(gst_element_seek(p, rate, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE,
                               GST_SEEK_TYPE_SET, 10 * FRAME_TIME, GST_SEEK_TYPE_SET, 50 * FRAME_TIME));
  fail_unless_equals_int(gst_element_get_state(p, NULL, NULL, WAIT_S * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
  gst_element_set_state(p, GST_STATE_PLAYING);
  wait_message(p, GST_MESSAGE_EOS);
  GArray *result = g_array_ref(times.pts);
  close_pipeline(p, &times);
  return result;
}

GST_START_TEST(check_31_reverse_and_other_rates) {
  static const gdouble kRates[] = {-1.0, 1.0, 2.0, 0.5, -2.0};
  for (guint r = 0; r < G_N_ELEMENTS(kRates); r++) {
    GArray *ours = frames_at_rate("flashvsr", kRates[r]);
    GArray *baseline = frames_at_rate("videoscale ! video/x-raw,width=256,height=192", kRates[r]);
    /* the first is the frame of the first preroll, from before the seek */
    fail_unless_equals_int(ours->len, baseline->len);
    fail_unless(ours->len >= 41);
    for (guint i = 1; i < ours->len; i++) {
      const GstClockTime pts = g_array_index(ours, GstClockTime, i);
      fail_unless_equals_uint64(pts, g_array_index(baseline, GstClockTime, i));
      if (i > 1) fail_unless((pts > g_array_index(ours, GstClockTime, i - 1)) == (kRates[r] > 0));
    }
    g_array_unref(ours);
    g_array_unref(baseline);
  }
}
GST_END_TEST

GST_START_TEST(check_32_accurate_seeks_in_paused) {
  static const guint kTargets[] = {5, 1, 10, 0, 7};
  GstElement *p = launch(SOURCE "flashvsr ! fakesink name=sink enable-last-sample=true", NULL);
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  to_state(p, GST_STATE_PAUSED);
  for (guint i = 0; i < G_N_ELEMENTS(kTargets); i++) {
    const GstClockTime target = kTargets[i] * GST_SECOND;
    fail_unless(gst_element_seek_simple(p, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE, target));
    fail_unless_equals_int(gst_element_get_state(p, NULL, NULL, WAIT_S * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
    GstSample *sample = NULL;
    g_object_get(sink, "last-sample", &sample, NULL);
    fail_unless(sample != NULL);
    fail_unless_equals_uint64(GST_BUFFER_PTS(gst_sample_get_buffer(sample)), target);
    gst_sample_unref(sample);
    gint64 position = -1;
    fail_unless(gst_element_query_position(p, GST_FORMAT_TIME, &position));
    fail_unless_equals_int64(position, target);
  }
  gst_object_unref(sink);
  close_pipeline(p, NULL);
}
GST_END_TEST

GST_START_TEST(check_33_segment_loops) {
  static const gdouble kRates[] = {1.0, 2.0};
  for (guint r = 0; r < G_N_ELEMENTS(kRates); r++) {
    Times times;
    GstElement *p = launch(SOURCE "flashvsr ! fakesink name=sink sync=false", &times);
    to_state(p, GST_STATE_PAUSED);
    fail_unless(gst_element_seek(p, kRates[r], GST_FORMAT_TIME,
                                 GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_SEGMENT | GST_SEEK_FLAG_ACCURATE,
                                 GST_SEEK_TYPE_SET, 0, GST_SEEK_TYPE_SET, GST_SECOND));
    gst_element_get_state(p, NULL, NULL, WAIT_S * GST_SECOND);
    clear_times(&times);
    gst_element_set_state(p, GST_STATE_PLAYING);
    guint before = 0;
    for (guint loop = 0; loop < 3; loop++) {
      wait_message(p, GST_MESSAGE_SEGMENT_DONE);
      if (loop < 2) {
        fail_unless(gst_element_seek(p, kRates[r], GST_FORMAT_TIME, GST_SEEK_FLAG_SEGMENT | GST_SEEK_FLAG_ACCURATE,
                                     GST_SEEK_TYPE_SET, 0, GST_SEEK_TYPE_SET, GST_SECOND));
      }
    }
    /* the message overtakes the frames; the event does not */
    const gint64 end = g_get_monotonic_time() + WAIT_S * G_TIME_SPAN_SECOND;
    while (n_times(&times) < before + 74 && g_get_monotonic_time() < end) g_usleep(1000);
    g_usleep(50000);
    /* 3 x 25, the preroll frame (which was there before the count began) perhaps not counted */
    const guint n = n_times(&times);
    fail_unless(n == 75 || n == 74, "%u frames in three loops", n);
    close_pipeline(p, &times);
  }
}
GST_END_TEST

GST_START_TEST(check_41_sound_and_pictures_preroll_with_default_queues) {
  /* One thread feeds both branches, as a demuxer does; 25 frames are two seconds, a queue holds one. */
  gchar *file = g_build_filename(g_get_tmp_dir(), "flashvsr-check-41.mkv", NULL);
  gchar *text = g_strdup_printf(
      "matroskamux name=m ! filesink location=%s "
      "videotestsrc num-buffers=48 ! video/x-raw,format=I420,width=64,height=48,framerate=12/1 ! m. "
      "audiotestsrc num-buffers=172 ! audio/x-raw,rate=44100,channels=2 ! m.", file);
  GstElement *p = launch(text, NULL);
  GError *error = run_to_end(p, 20);
  fail_unless(error == NULL);
  close_pipeline(p, NULL);
  g_free(text);
  text = g_strdup_printf(
      "filesrc location=%s ! matroskademux name=d d.video_0 ! queue ! flashvsr ! fakesink name=sink "
      "d.audio_0 ! queue ! fakesink sync=false", file);
  Times times;
  p = launch(text, &times);
  const gint64 begin = g_get_monotonic_time();
  to_state(p, GST_STATE_PAUSED); /* prerolls */
  g_print("# preroll after %.2f s\n", (g_get_monotonic_time() - begin) / 1e6);
  gst_element_set_state(p, GST_STATE_PLAYING);
  wait_message(p, GST_MESSAGE_EOS);
  fail_unless_equals_int(n_times(&times), 48);
  close_pipeline(p, &times);
  g_unlink(file);
  g_free(text);
  g_free(file);
}
GST_END_TEST

GST_START_TEST(check_42_faults_end_in_one_message_and_can_be_restarted) {
  static const struct { const gchar *name, *status; gint domain_is_library, code; } kFaults[] = {
      {"FLASHVSR_FAKE_FAIL_CHUNK", "-7", TRUE, GST_LIBRARY_ERROR_FAILED},
      {"FLASHVSR_FAKE_FAIL_CHUNK", "-5", FALSE, GST_RESOURCE_ERROR_NO_SPACE_LEFT},
      {"FLASHVSR_FAKE_FAIL_CHUNK", "-4", FALSE, GST_RESOURCE_ERROR_OPEN_READ_WRITE}, /* the GPU is lost */
      {"FLASHVSR_FAKE_FAIL_SEND", "-7", TRUE, GST_LIBRARY_ERROR_FAILED},
      {"FLASHVSR_FAKE_FAIL_RECEIVE", "-7", TRUE, GST_LIBRARY_ERROR_FAILED},
      {"FLASHVSR_FAKE_SESSION_STATUS", "-5", FALSE, GST_RESOURCE_ERROR_NO_SPACE_LEFT},
      {"FLASHVSR_FAKE_OPEN_STATUS", "-4", FALSE, GST_RESOURCE_ERROR_OPEN_READ_WRITE},
  };
  GstElement *p = launch("videotestsrc num-buffers=60 ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! "
                         "flashvsr ! fakesink name=sink sync=false signal-handoffs=true", NULL);
  gint count = 0;
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  g_signal_connect(sink, "handoff", G_CALLBACK(count_buffer), &count);
  gst_object_unref(sink);
  GRand *random = g_rand_new_with_seed(42);
  for (guint round = 0; round < 3 * G_N_ELEMENTS(kFaults); round++) {
    const guint i = round % G_N_ELEMENTS(kFaults);
    const gboolean is_status = g_str_has_suffix(kFaults[i].name, "STATUS");
    /* 60 frames are chunks 0 to 5, the last one by draining */
    gchar *when = g_strdup_printf("%d", g_rand_int_range(random, 0, 6));
    g_setenv(kFaults[i].name, is_status ? kFaults[i].status : when, TRUE);
    g_free(when);
    g_setenv("FLASHVSR_FAKE_FAIL_STATUS", kFaults[i].status, TRUE);
    GError *error = run_to_end(p, 10);
    fail_unless(error != NULL, "%s=%s: no error", kFaults[i].name, kFaults[i].status);
    fail_unless_equals_int(error->domain, kFaults[i].domain_is_library ? GST_LIBRARY_ERROR : GST_RESOURCE_ERROR);
    fail_unless_equals_int(error->code, kFaults[i].code);
    g_error_free(error);
    /* ours is the first message and the only one of ours; the source may add its own */
    GstBus *bus = gst_element_get_bus(p);
    GstMessage *m;
    while ((m = gst_bus_timed_pop_filtered(bus, 50 * GST_MSECOND, GST_MESSAGE_ERROR))) {
      gst_message_parse_error(m, &error, NULL);
      fail_if(g_str_has_prefix(GST_OBJECT_NAME(GST_MESSAGE_SRC(m)), "flashvsr"), "%s=%s: a second message: %s",
              kFaults[i].name, kFaults[i].status, error->message);
      g_error_free(error);
      gst_message_unref(m);
    }
    gst_object_unref(bus);
    fail_unless_equals_int(gst_element_set_state(p, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    g_unsetenv(kFaults[i].name);
    count = 0;
    error = run_to_end(p, 10);
    fail_unless(error == NULL, "after %s: %s", kFaults[i].name, error ? error->message : "");
    fail_unless_equals_int(count, 60);
    gst_element_set_state(p, GST_STATE_NULL);
  }
  g_rand_free(random);
  close_pipeline(p, NULL);
}
GST_END_TEST

GST_START_TEST(check_42_full_disk) {
  /* More frames than fit inside: upstream is still there to be told. */
  GstElement *p = launch("videotestsrc num-buffers=400 ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! flashvsr ! "
                         "filesink name=sink location=/dev/full", NULL);
  GError *error = run_to_end(p, 10);
  fail_unless(g_error_matches(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT), "%s", error ? error->message : "no error");
  g_error_free(error);
  /* The sink has said it: we add nothing. */
  GstBus *bus = gst_element_get_bus(p);
  GstMessage *m;
  while ((m = gst_bus_timed_pop_filtered(bus, 50 * GST_MSECOND, GST_MESSAGE_ERROR))) {
    fail_if(g_str_has_prefix(GST_OBJECT_NAME(GST_MESSAGE_SRC(m)), "flashvsr"));
    gst_message_unref(m);
  }
  gst_object_unref(bus);
  fail_unless_equals_int(gst_element_set_state(p, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  g_object_set(sink, "location", "/dev/null", NULL);
  gst_object_unref(sink);
  error = run_to_end(p, 10);
  fail_unless(error == NULL, "%s", error ? error->message : "");
  close_pipeline(p, NULL);
}
GST_END_TEST

GST_START_TEST(check_43_two_in_one_process) {
  GstElement *p = launch(
      "videotestsrc num-buffers=70 pattern=ball ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! tee name=t "
      "t. ! queue ! flashvsr scale=2 ! fakesink name=sink sync=false async=false signal-handoffs=true "
      "t. ! queue ! flashvsr scale=4 ! videoscale method=nearest-neighbour ! video/x-raw,width=128,height=96 ! "
      "fakesink name=other sync=false async=false signal-handoffs=true", NULL);
  gint a = 0, b = 0;
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  GstElement *other = gst_bin_get_by_name(GST_BIN(p), "other");
  g_signal_connect(sink, "handoff", G_CALLBACK(count_buffer), &a);
  g_signal_connect(other, "handoff", G_CALLBACK(count_buffer), &b);
  GError *error = run_to_end(p, 20);
  fail_unless(error == NULL, "%s", error ? error->message : "");
  fail_unless_equals_int(a, 70);
  fail_unless_equals_int(b, 70);
  gst_object_unref(sink);
  gst_object_unref(other);
  close_pipeline(p, NULL);
}
GST_END_TEST

GST_START_TEST(check_44_lost_frames_do_not_begin_anew) {
  /* 1 % lost and flagged DISCONT by what comes after: the temporal state goes on. */
  GstHarness *h = make_harness(NULL);
  guint sent = 0, lost = 0;
  for (guint i = 0; i < 400; i++) {
    if (i % 97 == 50) {
      lost = 1;
      continue;
    }
    GstBuffer *b = make_frame(i);
    gst_buffer_memset(b, 0, 100, 64 * 48); /* one scene */
    if (lost) GST_BUFFER_FLAG_SET(b, GST_BUFFER_FLAG_DISCONT);
    lost = 0;
    fail_unless_equals_int(gst_harness_push(h, b), GST_FLOW_OK);
    sent++;
  }
  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  fail_unless_equals_int(gst_harness_buffers_received(h), sent);
  fail_unless_equals_uint64(stat_of(h->element, "resets"), 1);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static gint64 duration_of(const gchar *file, const gchar *demuxer) {
  gchar *text = g_strdup_printf("filesrc location=%s ! %s ! fakesink", file, demuxer);
  GstElement *p = launch(text, NULL);
  gint64 duration = -1;
  to_state(p, GST_STATE_PAUSED);
  fail_unless(gst_element_query_duration(p, GST_FORMAT_TIME, &duration));
  close_pipeline(p, NULL);
  g_free(text);
  return duration;
}

GST_START_TEST(check_45_through_a_file) {
  /* An encoder and a muxer that everybody has, and those that everybody uses. */
  static const struct { const gchar *encoder, *muxer, *demuxer, *decoder; guint frames_with_times; } kFiles[] = {
      {"jpegenc", "matroskamux", "matroskademux", "jpegdec", 53},
      {"x264enc", "mp4mux", "qtdemux", "h264parse", 0}, /* in the order of decoding */
  };
  gchar *file = g_build_filename(g_get_tmp_dir(), "flashvsr-check-45", NULL);
  for (guint i = 0; i < G_N_ELEMENTS(kFiles); i++) {
    GstElementFactory *encoder = gst_element_factory_find(kFiles[i].encoder), *muxer = gst_element_factory_find(kFiles[i].muxer);
    const gboolean is_here = encoder && muxer;
    g_clear_object(&encoder);
    g_clear_object(&muxer);
    if (!is_here) {
      g_print("# no %s or %s here\n", kFiles[i].encoder, kFiles[i].muxer);
      continue;
    }
    gchar *text = g_strdup_printf(
        "videotestsrc num-buffers=53 ! video/x-raw,format=I420,width=80,height=46,framerate=30000/1001 ! flashvsr scale=2 ! "
        "videoconvert ! %s ! %s ! filesink location=%s", kFiles[i].encoder, kFiles[i].muxer, file);
    GstElement *p = launch(text, NULL);
    GError *error = run_to_end(p, 20);
    fail_unless(error == NULL, "%s", error ? error->message : "");
    close_pipeline(p, NULL);
    g_free(text);
    text = g_strdup_printf("filesrc location=%s ! %s ! %s ! fakesink name=sink sync=false", file, kFiles[i].demuxer, kFiles[i].decoder);
    Times times;
    p = launch(text, &times);
    error = run_to_end(p, 20);
    fail_unless(error == NULL, "%s", error ? error->message : "");
    fail_unless_equals_int(n_times(&times), 53);
    for (guint n = 0; n < kFiles[i].frames_with_times; n++) {
      const GstClockTime due = gst_util_uint64_scale(n * GST_SECOND, 1001, 30000);
      const GstClockTime pts = g_array_index(times.pts, GstClockTime, n);
      fail_unless(ABS(GST_CLOCK_DIFF(due, pts)) <= (GstClockTimeDiff)GST_MSECOND); /* Matroska counts milliseconds */
    }
    close_pipeline(p, &times);
    g_free(text);
    const gint64 due = (gint64)gst_util_uint64_scale(53 * GST_SECOND, 1001, 30000), duration = duration_of(file, kFiles[i].demuxer);
    fail_unless(ABS(duration - due) <= (gint64)(2 * GST_MSECOND), "%s: %" G_GINT64_FORMAT " ns, not %" G_GINT64_FORMAT, kFiles[i].muxer, duration, due);
    g_unlink(file);
  }
  g_free(file);
}
GST_END_TEST

static GstPadProbeReturn blocked(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  (void)pad, (void)info;
  g_atomic_int_set((gint *)user, 1);
  return GST_PAD_PROBE_OK;
}

GST_START_TEST(dynamic_pipeline_remove_and_add_while_playing) {
  GstElement *p = launch("videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=100/1 ! "
                         "identity name=before ! flashvsr name=filter scale=2 ! identity name=after ! "
                         "fakesink name=sink sync=false async=false signal-handoffs=true", NULL);
  gint count = 0;
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  GstElement *before = gst_bin_get_by_name(GST_BIN(p), "before");
  GstElement *after = gst_bin_get_by_name(GST_BIN(p), "after");
  g_signal_connect(sink, "handoff", G_CALLBACK(count_buffer), &count);
  gst_element_set_state(p, GST_STATE_PLAYING);
  GstPad *pad = gst_element_get_static_pad(before, "src");
  for (guint round = 0; round < 4; round++) {
    count = 0;
    const gint64 end = g_get_monotonic_time() + WAIT_S * G_TIME_SPAN_SECOND;
    while (g_atomic_int_get(&count) < 30 && g_get_monotonic_time() < end) g_usleep(1000);
    fail_unless(g_atomic_int_get(&count) >= 30, "round %u: nothing flows", round);
    gint is_blocked = 0;
    const gulong id = gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BLOCK_DOWNSTREAM, blocked, &is_blocked, NULL);
    while (!g_atomic_int_get(&is_blocked)) g_usleep(500);
    GstElement *old = gst_bin_get_by_name(GST_BIN(p), "filter");
    gst_element_unlink_many(before, old, after, NULL);
    gst_bin_remove(GST_BIN(p), old); /* frames inside, the push task running */
    fail_unless_equals_int(gst_element_set_state(old, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    GstElement *new_one = round % 2 ? old : gst_element_factory_make("flashvsr", "filter");
    if (round % 2 == 0) gst_object_unref(old);
    gst_util_set_object_arg(G_OBJECT(new_one), "scale", round % 2 ? "2" : "3");
    gst_bin_add(GST_BIN(p), new_one);
    if (round % 2) gst_object_unref(old);
    fail_unless(gst_element_link_many(before, new_one, after, NULL));
    fail_unless(gst_element_sync_state_with_parent(new_one));
    gst_pad_remove_probe(pad, id);
  }
  gst_object_unref(pad);
  gst_object_unref(before);
  gst_object_unref(after);
  gst_object_unref(sink);
  close_pipeline(p, NULL);
}
GST_END_TEST

GST_START_TEST(playbin_video_filter_and_compositor) {
  GstElement *p = launch("compositor name=c sink_1::xpos=70 ! fakesink name=sink sync=false signal-handoffs=true "
                         "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=32,height=32,framerate=25/1 ! tee name=t "
                         "t. ! queue ! flashvsr scale=2 ! c.sink_0 "
                         "t. ! queue max-size-buffers=100 max-size-time=0 max-size-bytes=0 ! c.sink_1", NULL);
  gint count = 0;
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p), "sink");
  g_signal_connect(sink, "handoff", G_CALLBACK(count_buffer), &count);
  GError *error = run_to_end(p, 20);
  fail_unless(error == NULL, "%s", error ? error->message : "");
  fail_unless(count >= 30, "%d frames from the compositor", count);
  gst_object_unref(sink);
  close_pipeline(p, NULL);

  gchar *file = g_build_filename(g_get_tmp_dir(), "flashvsr-playbin.mkv", NULL);
  gchar *text = g_strdup_printf(
      "matroskamux name=m ! filesink location=%s videotestsrc num-buffers=48 ! "
      "video/x-raw,format=I420,width=64,height=48,framerate=24/1 ! m. audiotestsrc num-buffers=86 ! audio/x-raw,rate=44100 ! m.", file);
  p = launch(text, NULL);
  fail_unless(run_to_end(p, 20) == NULL);
  close_pipeline(p, NULL);
  g_free(text);
  GstElement *play = gst_element_factory_make("playbin", NULL);
  if (play) {
    gchar *uri = gst_filename_to_uri(file, NULL);
    count = 0;
    sink = gst_element_factory_make("fakesink", NULL);
    g_object_set(sink, "signal-handoffs", TRUE, "sync", FALSE, NULL);
    g_signal_connect(sink, "handoff", G_CALLBACK(count_buffer), &count);
    GstElement *audio = gst_element_factory_make("fakesink", NULL);
    g_object_set(audio, "sync", FALSE, NULL);
    g_object_set(play, "uri", uri, "video-filter", gst_element_factory_make("flashvsr", NULL), "video-sink", sink,
                 "audio-sink", audio, NULL);
    error = run_to_end(play, 20);
    fail_unless(error == NULL, "%s", error ? error->message : "");
    fail_unless_equals_int(count, 48);
    g_free(uri);
    close_pipeline(play, NULL);
  }
  g_unlink(file);
  g_free(file);
}
GST_END_TEST

static Suite *pipeline_suite(void) {
  Suite *s = suite_create("pipeline");
  TCase *t = tcase_create("pipeline");
  suite_add_tcase(s, t);
  tcase_add_test(t, check_31_reverse_and_other_rates);
  tcase_add_test(t, check_32_accurate_seeks_in_paused);
  tcase_add_test(t, check_33_segment_loops);
  tcase_add_test(t, check_41_sound_and_pictures_preroll_with_default_queues);
  tcase_add_test(t, check_42_faults_end_in_one_message_and_can_be_restarted);
  tcase_add_test(t, check_42_full_disk);
  tcase_add_test(t, check_43_two_in_one_process);
  tcase_add_test(t, check_44_lost_frames_do_not_begin_anew);
  tcase_add_test(t, check_45_through_a_file);
  tcase_add_test(t, dynamic_pipeline_remove_and_add_while_playing);
  tcase_add_test(t, playbin_video_filter_and_compositor);
  return s;
}

int main(int argc, char **argv) {
  gst_check_init(&argc, &argv);
  return run_suite(pipeline_suite());
}
