/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Frames, times, caps, allocation. Each test carries the number of its check in the list of
 * acceptance checks. */
#include "support.h"

static GError* error_of_pausing(GstElement* pipeline) {
  GError* error = NULL;
  GstBus* bus = gst_element_get_bus(pipeline);
  fail_unless_equals_int(gst_element_set_state(pipeline, GST_STATE_PAUSED), GST_STATE_CHANGE_FAILURE);
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  fail_unless(message != NULL, "no error message");
  gst_message_parse_error(message, &error, NULL);
  gst_message_unref(message);
  fail_unless(gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR) == NULL, "more than one message");
  gst_object_unref(bus);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  return error;
}

GST_START_TEST(check_03_engine_missing) {
  gchar* real = g_strdup(g_getenv("FLASHVSR_ENGINE_PATH"));
  GstElement* pipeline = parse("videotestsrc num-buffers=3 ! flashvsr ! fakesink name=out");
  g_setenv("FLASHVSR_ENGINE_PATH", "/nowhere/libflashvsr.so", TRUE);
  GError* error = error_of_pausing(pipeline);
  fail_unless(g_error_matches(error, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT), "%s", error->message);
  g_error_free(error);

  /* A library that is none, and one of another release. */
  g_setenv("FLASHVSR_ENGINE_PATH", "/proc/self/exe", TRUE);
  error = error_of_pausing(pipeline);
  fail_unless(g_error_matches(error, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT));
  g_error_free(error);
  g_setenv("FLASHVSR_ENGINE_PATH", real, TRUE);
  g_setenv("FLASHVSR_FAKE_NO_ABI", "1", TRUE);
  error = error_of_pausing(pipeline);
  fail_unless(g_error_matches(error, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT));
  g_error_free(error);
  g_unsetenv("FLASHVSR_FAKE_NO_ABI");

  /* Back again, in the same process, with the same element. */
  Outcome outcome = {0};
  count_at(pipeline, "out", &outcome);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 20 * GST_SECOND);
  fail_unless(outcome.is_eos);
  fail_unless_equals_int(outcome.frames, 3);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  check_engine_is_clean();
  g_free(real);
}
GST_END_TEST

GST_START_TEST(check_04_model_missing) {
  GstElement* pipeline = parse("videotestsrc ! flashvsr model=/nowhere/model ! fakesink");
  fail_unless_equals_int(gst_element_set_state(pipeline, GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  GError* error = error_of_pausing(pipeline);
  fail_unless(g_error_matches(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND), "%s", error->message);
  fail_unless(strstr(error->message, "/nowhere/model") != NULL, "%s", error->message);
  g_error_free(error);
  gst_object_unref(pipeline);
  check_engine_is_clean();
}
GST_END_TEST

/* style.md 8.1: each status has its message. */
GST_START_TEST(check_04_error_table) {
  static const struct {
    int status;
    gint code;
    gboolean is_library;
  } table[] = {
      {FLASHVSR_ERROR_MODEL_INVALID, GST_RESOURCE_ERROR_READ, FALSE},
      {FLASHVSR_ERROR_NO_DEVICE, GST_RESOURCE_ERROR_OPEN_READ_WRITE, FALSE},
      {FLASHVSR_ERROR_OUT_OF_MEMORY, GST_RESOURCE_ERROR_NO_SPACE_LEFT, FALSE},
      {FLASHVSR_ERROR_INVALID_ARGUMENT, GST_LIBRARY_ERROR_SETTINGS, TRUE},
      {FLASHVSR_ERROR_INTERNAL, GST_LIBRARY_ERROR_FAILED, TRUE},
  };
  for (guint i = 0; i < G_N_ELEMENTS(table); ++i) {
    gchar* text = g_strdup_printf("%d", table[i].status);
    g_setenv("FLASHVSR_FAKE_OPEN_STATUS", text, TRUE);
    GstElement* pipeline = parse("videotestsrc ! flashvsr ! fakesink");
    GError* error = error_of_pausing(pipeline);
    fail_unless(g_error_matches(error, table[i].is_library ? GST_LIBRARY_ERROR : GST_RESOURCE_ERROR, table[i].code),
                "status %s: %s", text, error->message);
    g_error_free(error);
    gst_object_unref(pipeline);
    g_free(text);
  }
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_04_progress_messages) {
  GstElement* pipeline = parse("videotestsrc num-buffers=1 ! flashvsr ! fakesink");
  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  GString* seen = g_string_new("");
  GstMessage* message;
  while ((message = gst_bus_pop_filtered(bus, GST_MESSAGE_PROGRESS))) {
    GstProgressType type;
    gchar *code, *text;
    gst_message_parse_progress(message, &type, &code, &text);
    fail_unless_equals_string(code, "load-model");
    g_string_append_printf(seen, "%d", type);
    g_free(code);
    g_free(text);
    gst_message_unref(message);
  }
  /* start, three times continue (0, 50, 100 per cent of the fake), complete */
  fail_unless_equals_string(seen->str, "01112");
  g_string_free(seen, TRUE);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pipeline);
}
GST_END_TEST

static const guint kLengths[] = {0, 1, 4, 5, 21, 24, 25, 26, 32, 33, 34, 41, 42, 100};

GST_START_TEST(check_06_every_frame_once) {
  gchar* line = g_strdup_printf("videotestsrc num-buffers=%u ! " CAPS_64x48 " ! flashvsr ! fakesink name=out", kLengths[__i__]);
  const Outcome outcome = run_line(line, "out");
  fail_unless(outcome.is_eos);
  fail_unless_equals_int(outcome.frames, kLengths[__i__]);
  g_free(line);
  check_engine_is_clean();
}
GST_END_TEST

/* How many are out when no more come, and all of them, in order, after EOS. */
GST_START_TEST(check_06_before_eos) {
  static const struct {
    const gchar* settings;
    guint in, before_eos;
  } table[] = {
      {"", 0, 0},   {"", 1, 0},   {"", 4, 0},   {"", 5, 0},   {"", 21, 0},  {"", 24, 0},   {"", 25, 21},
      {"", 26, 21}, {"", 32, 21}, {"", 33, 29}, {"", 34, 29}, {"", 41, 37}, {"", 42, 37}, {"", 100, 93},
      {"startup=primed", 1, 0},  {"startup=primed", 11, 0},  {"startup=primed", 12, 8}, {"startup=primed", 19, 8},
      {"startup=primed", 20, 16}, {"startup=primed", 50, 40},
  };
  for (guint i = 0; i < G_N_ELEMENTS(table); ++i) {
    GstHarness* h = make_harness(table[i].settings);
    push_frames(h, 0, table[i].in);
    expect_waiting(h, table[i].before_eos);
    gst_harness_push_event(h, gst_event_new_eos());
    fail_unless_equals_int(gst_harness_buffers_in_queue(h), table[i].in);
    pull_frames(h, 0, table[i].in);
    gst_harness_teardown(h);
  }
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_07_times_and_flags) {
  GstHarness* h = make_harness(NULL);
  for (guint i = 0; i < 30; ++i) {
    GstBuffer* buffer = make_frame(i);
    GST_BUFFER_PTS(buffer) = i * 100 + 7;
    GST_BUFFER_DTS(buffer) = i * 100 + 3;
    GST_BUFFER_DURATION(buffer) = 50 + i;
    GST_BUFFER_OFFSET(buffer) = 1000 + i;
    GST_BUFFER_OFFSET_END(buffer) = 2000 + i;
    if (i % 3 == 0) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_GAP);
    if (i % 5 == 0) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_CORRUPTED);
    if (i % 7 == 0) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DROPPABLE);
    if (i % 4 == 0) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_MARKER);
    fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  }
  gst_harness_push_event(h, gst_event_new_eos());
  for (guint i = 0; i < 30; ++i) {
    GstBuffer* buffer = gst_harness_pull(h);
    fail_unless(buffer != NULL);
    fail_unless_equals_uint64(GST_BUFFER_PTS(buffer), i * 100 + 7);
    fail_unless_equals_uint64(GST_BUFFER_DTS(buffer), i * 100 + 3);
    fail_unless_equals_uint64(GST_BUFFER_DURATION(buffer), 50 + i);
    fail_unless_equals_uint64(GST_BUFFER_OFFSET(buffer), 1000 + i);
    fail_unless_equals_uint64(GST_BUFFER_OFFSET_END(buffer), 2000 + i);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_GAP), i % 3 == 0);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_CORRUPTED), i % 5 == 0);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_DROPPABLE), i % 7 == 0);
    fail_unless_equals_int(GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_MARKER), i % 4 == 0);
    gst_buffer_unref(buffer);
  }
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static const struct {
  const gchar* scale;
  gint width, height; /* of 65 x 49 */
} kScales[] = {{"1.5", 98, 74}, {"2", 130, 98}, {"3", 195, 147}, {"4", 260, 196}};

GST_START_TEST(check_08_caps) {
  gchar* settings = g_strdup_printf("scale=%s", kScales[__i__].scale);
  GstHarness* h = make_harness(settings);
  gst_harness_set_src_caps_str(h,
                               "video/x-raw,format=P010_10LE,width=65,height=49,framerate=30000/1001,pixel-aspect-ratio=8/9,"
                               "colorimetry=bt2100-pq,chroma-site=mpeg2,interlace-mode=progressive,"
                               "mastering-display-info=(string)\"35400:14600:8500:39850:6550:2300:15635:16450:10000000:1\","
                               "content-light-level=(string)\"1000:400\",multiview-mode=mono");
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_P010_10LE, 65, 49);
  fail_unless_equals_int(gst_harness_push(h, make_frame_of(&info, 0)), GST_FLOW_OK);
  gst_harness_push_event(h, gst_event_new_eos());
  GstBuffer* buffer = gst_harness_pull(h);
  fail_unless(buffer != NULL);
  gst_buffer_unref(buffer);
  GstPad* src = gst_element_get_static_pad(h->element, "src");
  GstPad* sink = gst_element_get_static_pad(h->element, "sink");
  GstCaps* out = gst_pad_get_current_caps(src);
  GstCaps* wanted = gst_caps_make_writable(gst_pad_get_current_caps(sink));
  gst_caps_set_simple(wanted, "width", G_TYPE_INT, kScales[__i__].width, "height", G_TYPE_INT, kScales[__i__].height, NULL);
  fail_unless(gst_caps_is_equal(out, wanted), "%s", gst_caps_to_string(out));
  gst_caps_unref(out);
  gst_caps_unref(wanted);
  gst_object_unref(src);
  gst_object_unref(sink);
  gst_harness_teardown(h);
  g_free(settings);
  const FlashVsrFakeState state = fake_state();
  fail_unless_equals_int(state.format.color.matrix, 9);
  fail_unless_equals_int(state.format.color.transfer, 16);
  fail_unless_equals_int(state.format.color.primaries, 9);
  fail_unless_equals_int(state.format.color.full_range, 0);
  check_engine_is_clean();
}
GST_END_TEST

static const gchar* const kFormats[] = {"I420", "NV12", "RGB",  "BGR", "RGBx", "BGRx", "xRGB",  "xBGR",      "RGBA",
                                        "BGRA", "ARGB", "ABGR", "GBR", "Y42B", "Y444", "GRAY8", "I420_10LE", "P010_10LE"};

/* Every component is the nearest neighbour of the input's: planes, strides and order are right. */
GST_START_TEST(check_09_formats) {
  const gint sizes[][2] = {{101, 77}, {17, 16}, {64, 48}};
  const GstVideoFormat format = gst_video_format_from_string(kFormats[__i__]);
  for (guint s = 0; s < G_N_ELEMENTS(sizes); ++s) {
    GstHarness* h = make_harness("scale=3");
    GstVideoInfo in_info, out_info;
    gst_video_info_set_format(&in_info, format, sizes[s][0], sizes[s][1]);
    in_info.fps_n = 25;
    gst_video_info_set_format(&out_info, format, 3 * sizes[s][0], 3 * sizes[s][1]);
    gst_harness_set_src_caps(h, gst_video_info_to_caps(&in_info));
    GstBuffer* in = make_frame_of(&in_info, 0);
    GstMapInfo map;
    gst_buffer_map(in, &map, GST_MAP_WRITE);
    for (gsize b = 0; b < map.size; ++b) map.data[b] = (guint8)(b * 37 + b / 251);
    gst_buffer_unmap(in, &map);
    fail_unless_equals_int(gst_harness_push(h, gst_buffer_ref(in)), GST_FLOW_OK);
    gst_harness_push_event(h, gst_event_new_eos());
    GstBuffer* out = gst_harness_pull(h);
    fail_unless(out != NULL);
    GstVideoFrame from, to;
    fail_unless(gst_video_frame_map(&from, &in_info, in, GST_MAP_READ));
    fail_unless(gst_video_frame_map(&to, &out_info, out, GST_MAP_READ));
    for (guint c = 0; c < GST_VIDEO_FRAME_N_COMPONENTS(&to); ++c) {
      const gint w = GST_VIDEO_FRAME_COMP_WIDTH(&to, c), rows = GST_VIDEO_FRAME_COMP_HEIGHT(&to, c);
      const gint in_w = GST_VIDEO_FRAME_COMP_WIDTH(&from, c), in_rows = GST_VIDEO_FRAME_COMP_HEIGHT(&from, c);
      const gint depth = GST_VIDEO_FRAME_COMP_DEPTH(&to, c);
      for (gint y = 0; y < rows; ++y) {
        for (gint x = 0; x < w; ++x) {
          const guint8* a = (guint8*)GST_VIDEO_FRAME_COMP_DATA(&from, c) +
                            (y * in_rows / rows) * GST_VIDEO_FRAME_COMP_STRIDE(&from, c) +
                            (x * in_w / w) * GST_VIDEO_FRAME_COMP_PSTRIDE(&from, c);
          const guint8* b = (guint8*)GST_VIDEO_FRAME_COMP_DATA(&to, c) + y * GST_VIDEO_FRAME_COMP_STRIDE(&to, c) +
                            x * GST_VIDEO_FRAME_COMP_PSTRIDE(&to, c);
          /* GStreamer's table puts Cr of P010 one byte after Cb; it is two. */
          if (format == GST_VIDEO_FORMAT_P010_10LE && c == 2) ++a, ++b;
          gint wanted = a[0], seen = b[0];
          if (depth == 10) {
            const gint shift = GST_VIDEO_FORMAT_INFO_SHIFT(to.info.finfo, c);
            wanted = (GST_READ_UINT16_LE(a) >> shift) & 1023;
            seen = (GST_READ_UINT16_LE(b) >> shift) & 1023;
          }
          fail_unless(wanted == seen, "%s %dx%d component %d at %d,%d: %d, not %d", kFormats[__i__], sizes[s][0],
                      sizes[s][1], c, x, y, seen, wanted);
        }
      }
    }
    gst_video_frame_unmap(&from);
    gst_video_frame_unmap(&to);
    gst_buffer_unref(in);
    gst_buffer_unref(out);
    gst_harness_teardown(h);
  }
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_10_size_from_downstream) {
  GstElement* pipeline = parse("videotestsrc num-buffers=2 ! flashvsr name=el scale=4 ! video/x-raw,width=400,height=200 ! fakesink");
  Outcome outcome = {0};
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  fail_unless_equals_int(gst_element_get_state(pipeline, NULL, NULL, 10 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
  GstElement* element = gst_bin_get_by_name(GST_BIN(pipeline), "el");
  GstPad* pad = gst_element_get_static_pad(element, "sink");
  GstCaps* caps = gst_pad_get_current_caps(pad);
  gint width, height;
  gst_structure_get_int(gst_caps_get_structure(caps, 0), "width", &width);
  gst_structure_get_int(gst_caps_get_structure(caps, 0), "height", &height);
  fail_unless_equals_int(width, 100);
  fail_unless_equals_int(height, 50);
  gst_caps_unref(caps);
  gst_object_unref(pad);
  gst_object_unref(element);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_for_end(pipeline, &outcome, 10 * GST_SECOND);
  fail_unless(outcome.is_eos);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);

  /* 64 x 48 never becomes 100 x 100, and 401 is no multiple of 4: refused while linking or at once. */
  const gchar* const impossible[] = {
      "videotestsrc ! video/x-raw,width=64,height=48 ! flashvsr ! video/x-raw,width=100,height=100 ! fakesink",
      "videotestsrc ! flashvsr ! video/x-raw,width=401,height=200 ! fakesink",
      "videotestsrc ! video/x-raw,width=8,height=8 ! flashvsr ! fakesink"};
  for (guint i = 0; i < G_N_ELEMENTS(impossible); ++i) {
    GError* error = NULL;
    GstElement* refused = gst_parse_launch(impossible[i], &error);
    if (!error) {
      Outcome end = {0};
      gst_element_set_state(refused, GST_STATE_PLAYING);
      wait_for_end(refused, &end, 10 * GST_SECOND);
      fail_unless(end.error != NULL, "%s", impossible[i]);
      error = end.error;
      gst_element_set_state(refused, GST_STATE_NULL);
    }
    fail_unless(error->message[0] != 0);
    g_error_free(error);
    if (refused) gst_object_unref(refused);
  }
}
GST_END_TEST

/* Back from a range or list of output sizes: only sizes that some input gives. */
GST_START_TEST(check_10_sizes_back) {
  static const struct {
    const gchar *scale, *wanted, *sink;
  } table[] = {
      {"4", "width=[100,210],height=68", "width=[25,52],height=17"},
      {"4", "width=[100,210],height=48", NULL}, /* 12 is below the least */
      {"4", "width={64,66,128},height=64", "width={16,32},height=16"},
      {"1.5", "width=98,height={74,75,77}", "width=65,height={49,50,51}"},
      {"1.5", "width=100,height=99", NULL},
      {"2", "width=[33,34],height=[32,16384]", "width=17,height=[16,8192]"},
      {"4", "width=63,height=64", NULL},
  };
  for (guint i = 0; i < G_N_ELEMENTS(table); ++i) {
    GstElement* element = gst_element_factory_make("flashvsr", NULL);
    gst_util_set_object_arg(G_OBJECT(element), "scale", table[i].scale);
    gchar* text = g_strdup_printf("video/x-raw,format=I420,framerate=25/1,%s", table[i].wanted);
    GstElement* filter = gst_element_factory_make("capsfilter", NULL);
    gst_util_set_object_arg(G_OBJECT(filter), "caps", text);
    GstElement* sink = gst_element_factory_make("fakesink", NULL);
    GstElement* bin = gst_pipeline_new(NULL);
    gst_bin_add_many(GST_BIN(bin), element, filter, sink, NULL);
    const gboolean is_linked = gst_element_link_many(element, filter, sink, NULL);
    GstPad* pad = gst_element_get_static_pad(element, "sink");
    GstCaps* caps = is_linked ? gst_pad_query_caps(pad, NULL) : gst_caps_new_empty();
    if (table[i].sink) {
      caps = gst_caps_truncate(caps); /* the same in CUDA memory follows, where that is built */
      gchar* sink_text = g_strdup_printf("video/x-raw,format=I420,framerate=25/1,interlace-mode=progressive,%s", table[i].sink);
      GstCaps* wanted = gst_caps_from_string(sink_text);
      gchar* seen = gst_caps_to_string(caps);
      fail_unless(gst_caps_is_equal(caps, wanted), "%s x %s: %s", table[i].wanted, table[i].scale, seen);
      g_free(seen);
      g_free(sink_text);
      gst_caps_unref(wanted);
    } else {
      fail_unless(gst_caps_is_empty(caps), "%s x %s", table[i].wanted, table[i].scale);
    }
    gst_caps_unref(caps);
    gst_object_unref(pad);
    gst_object_unref(bin);
    g_free(text);
  }
}
GST_END_TEST

GST_START_TEST(check_11_interlaced) {
  GError* error = NULL;
  GstElement* pipeline = gst_parse_launch(
      "videotestsrc num-buffers=2 ! video/x-raw,interlace-mode=interleaved ! flashvsr ! fakesink", &error);
  fail_unless(error != NULL, "interlaced video was linked");
  g_clear_error(&error);
  if (pipeline) gst_object_unref(pipeline);
  pipeline = gst_parse_launch("videotestsrc ! video/x-raw,interlace-mode=mixed ! flashvsr ! fakesink", &error);
  fail_unless(error != NULL, "mixed video was linked");
  g_clear_error(&error);
  if (pipeline) gst_object_unref(pipeline);

  /* What the message says to do works: a frame for each of its own. */
  const Outcome outcome = run_line("videotestsrc num-buffers=30 ! " CAPS_64x48 ",interlace-mode=interleaved ! deinterlace fields=top ! "
                                   "flashvsr ! fakesink name=out", "out");
  fail_unless(outcome.is_eos, "%s", outcome.error ? outcome.error->message : "?");
  fail_unless_equals_int(outcome.frames, 30);

  /* Where only the CAPS event tells: a message that says what to do. */
  GstHarness* h = make_harness(NULL);
  GstBus* bus = gst_bus_new();
  gst_element_set_bus(h->element, bus);
  GstCaps* caps = gst_caps_from_string(CAPS_64x48 ",interlace-mode=interleaved");
  GstPad* pad = gst_element_get_static_pad(h->element, "sink");
  fail_unless(!gst_pad_send_event(pad, gst_event_new_caps(caps)));
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  fail_unless(message != NULL);
  gst_message_parse_error(message, &error, NULL);
  fail_unless(g_error_matches(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT));
  fail_unless(strstr(error->message, "deinterlace") != NULL, "%s", error->message);
  g_error_free(error);
  gst_message_unref(message);
  gst_caps_unref(caps);
  gst_object_unref(pad);
  gst_element_set_bus(h->element, NULL);
  gst_object_unref(bus);
  gst_harness_teardown(h);
}
GST_END_TEST

/* Rows further apart than the caps say, told by a GstVideoMeta. */
GST_START_TEST(check_12_padded_strides) {
  GstHarness* h = make_harness("scale=2");
  gsize offsets[GST_VIDEO_MAX_PLANES] = {160 * 3, 160 * 3 + 160 * 50, 160 * 3 + 160 * 50 + 96 * 30};
  gint strides[GST_VIDEO_MAX_PLANES] = {160, 96, 96};
  GstBuffer* buffer = gst_buffer_new_allocate(NULL, offsets[2] + 96 * 30, NULL);
  gst_buffer_memset(buffer, 0, 7, gst_buffer_get_size(buffer));
  gst_buffer_add_video_meta_full(buffer, 0, GST_VIDEO_FORMAT_I420, 64, 48, 3, offsets, strides);
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, 64, 48);
  GstVideoFrame frame;
  fail_unless(gst_video_frame_map(&frame, &info, buffer, GST_MAP_WRITE));
  for (gint p = 0; p < 3; ++p)
    for (gint y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT(&frame, p); ++y)
      memset((guint8*)GST_VIDEO_FRAME_PLANE_DATA(&frame, p) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, p), 60 + 40 * p + y,
             GST_VIDEO_FRAME_COMP_WIDTH(&frame, p));
  gst_video_frame_unmap(&frame);
  GST_BUFFER_PTS(buffer) = 0;
  fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  gst_harness_push_event(h, gst_event_new_eos());
  GstBuffer* out = gst_harness_pull(h);
  fail_unless(out != NULL);
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_I420, 128, 96);
  fail_unless(gst_video_frame_map(&frame, &info, out, GST_MAP_READ));
  for (gint p = 0; p < 3; ++p)
    for (gint y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT(&frame, p); ++y)
      for (gint x = 0; x < GST_VIDEO_FRAME_COMP_WIDTH(&frame, p); ++x)
        fail_unless_equals_int(((guint8*)GST_VIDEO_FRAME_PLANE_DATA(&frame, p))[y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, p) + x],
                               60 + 40 * p + y / 2);
  gst_video_frame_unmap(&frame);
  gst_buffer_unref(out);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static GstPadProbeReturn offer_pool(GstPad* pad, GstPadProbeInfo* info, gpointer pool) {
  (void)pad;
  GstQuery* query = GST_PAD_PROBE_INFO_QUERY(info);
  if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION) return GST_PAD_PROBE_OK;
  GstCaps* caps;
  GstVideoInfo video;
  gst_query_parse_allocation(query, &caps, NULL);
  fail_unless(gst_video_info_from_caps(&video, caps));
  gst_query_add_allocation_pool(query, pool, GST_VIDEO_INFO_SIZE(&video), 0, 0);
  return GST_PAD_PROBE_HANDLED;
}

/* Downstream asks for edges around its pictures and wide rows: the same picture as in tight ones. */
GST_START_TEST(check_12_padded_pool_of_downstream) {
  GstBuffer* tight = NULL;
  for (gint is_padded = 0; is_padded < 2; ++is_padded) {
    GstHarness* h = gst_harness_new("flashvsr");
    g_object_set(h->element, "scale", 2.0, NULL);
    GstBufferPool* pool = gst_video_buffer_pool_new();
    GstCaps* caps = gst_caps_from_string("video/x-raw,format=I420,width=128,height=96,framerate=25/1");
    GstVideoInfo info;
    fail_unless(gst_video_info_from_caps(&info, caps));
    GstStructure* config = gst_buffer_pool_get_config(pool);
    gst_buffer_pool_config_set_params(config, caps, GST_VIDEO_INFO_SIZE(&info), 0, 0);
    gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
    if (is_padded) {
      GstVideoAlignment edges;
      gst_video_alignment_reset(&edges);
      edges.padding_left = edges.padding_right = 10;
      edges.padding_top = edges.padding_bottom = 4;
      for (guint p = 0; p < 3; ++p) edges.stride_align[p] = 63;
      gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
      gst_buffer_pool_config_set_video_alignment(config, &edges);
    }
    fail_unless(gst_buffer_pool_set_config(pool, config));
    gst_pad_add_probe(h->sinkpad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM | GST_PAD_PROBE_TYPE_PUSH, offer_pool, pool, NULL);
    gst_harness_set_src_caps_str(h, CAPS_64x48);
    GstBuffer* in = make_frame(0);
    GstMapInfo map;
    gst_buffer_map(in, &map, GST_MAP_WRITE);
    for (gsize b = 0; b < map.size; ++b) map.data[b] = (guint8)(b * 37 + b / 251);
    gst_buffer_unmap(in, &map);
    fail_unless_equals_int(gst_harness_push(h, in), GST_FLOW_OK);
    gst_harness_push_event(h, gst_event_new_eos());
    GstBuffer* out = gst_harness_pull(h);
    fail_unless(out != NULL && out->pool == pool);
    if (!is_padded) {
      tight = gst_buffer_copy_deep(out);
    } else {
      GstVideoFrame a, b;
      fail_unless(gst_video_frame_map(&a, &info, tight, GST_MAP_READ));
      fail_unless(gst_video_frame_map(&b, &info, out, GST_MAP_READ));
      for (guint p = 0; p < 3; ++p) {
        fail_unless(GST_VIDEO_FRAME_PLANE_STRIDE(&b, p) > GST_VIDEO_FRAME_PLANE_STRIDE(&a, p), "the rows are no wider");
        for (gint y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT(&a, p); ++y)
          fail_unless(memcmp((guint8*)GST_VIDEO_FRAME_PLANE_DATA(&a, p) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&a, p),
                             (guint8*)GST_VIDEO_FRAME_PLANE_DATA(&b, p) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&b, p),
                             GST_VIDEO_FRAME_COMP_WIDTH(&a, p)) == 0, "plane %u, row %d", p, y);
      }
      gst_video_frame_unmap(&a);
      gst_video_frame_unmap(&b);
      gst_buffer_unref(tight);
    }
    gst_buffer_unref(out);
    gst_caps_unref(caps);
    gst_harness_teardown(h);
    gst_object_unref(pool);
  }
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_13_undersized_buffer) {
  GstHarness* h = make_harness(NULL);
  GstBus* bus = gst_bus_new();
  gst_element_set_bus(h->element, bus);
  push_frames(h, 0, 3);
  GstBuffer* small = gst_buffer_new_allocate(NULL, 100, NULL);
  gst_buffer_memset(small, 0, 0, 100);
  fail_unless_equals_int(gst_harness_push(h, small), GST_FLOW_ERROR);
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  fail_unless(message != NULL);
  gst_message_unref(message);
  /* Those before it are not lost. */
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 0, 3);
  gst_element_set_bus(h->element, NULL);
  gst_object_unref(bus);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_14_allocation) {
  GstHarness* h = make_harness(NULL);
  GstCaps* caps = gst_caps_from_string(CAPS_64x48);
  GstQuery* query = gst_query_new_allocation(caps, TRUE);
  GstPad* pad = gst_element_get_static_pad(h->element, "sink");
  fail_unless(gst_pad_query(pad, query));
  fail_unless(gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL));
  fail_unless(gst_query_get_n_allocation_pools(query) > 0);
  GstBufferPool* pool = NULL;
  guint size, min, max;
  gst_query_parse_nth_allocation_pool(query, 0, &pool, &size, &min, &max);
  fail_unless(pool != NULL);
  GstStructure* config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_set_params(config, caps, size, min, max);
  fail_unless(gst_buffer_pool_set_config(pool, config));
  fail_unless(gst_buffer_pool_set_active(pool, TRUE));
  GstBuffer* buffer = NULL;
  fail_unless_equals_int(gst_buffer_pool_acquire_buffer(pool, &buffer, NULL), GST_FLOW_OK);
  gst_buffer_unref(buffer);
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
  gst_query_unref(query);
  gst_caps_unref(caps);
  gst_object_unref(pad);
  gst_harness_teardown(h);
}
GST_END_TEST

GST_START_TEST(check_14_pool_of_downstream) {
  GstBufferPool* pool = gst_video_buffer_pool_new();
  GstElement* pipeline = parse(SOURCE_64x48(30) " ! flashvsr ! appsink name=out sync=false");
  GstElement* out = gst_bin_get_by_name(GST_BIN(pipeline), "out");
  GstPad* pad = gst_element_get_static_pad(out, "sink");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM | GST_PAD_PROBE_TYPE_PUSH, offer_pool, pool, NULL);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  guint frames = 0;
  for (;;) {
    GstSample* sample = NULL;
    g_signal_emit_by_name(out, "pull-sample", &sample);
    if (!sample) break;
    fail_unless(gst_sample_get_buffer(sample)->pool == pool, "a buffer of another pool");
    gst_sample_unref(sample);
    ++frames;
  }
  fail_unless_equals_int(frames, 30);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pad);
  gst_object_unref(out);
  gst_object_unref(pipeline);
  gst_object_unref(pool);
}
GST_END_TEST

typedef struct {
  GstAllocator parent;
  gint allocations;
} CountingAllocator;
typedef GstAllocatorClass CountingAllocatorClass;
G_DEFINE_TYPE(CountingAllocator, counting_allocator, GST_TYPE_ALLOCATOR)

static GstMemory* count_and_alloc(GstAllocator* allocator, gsize size, GstAllocationParams* params) {
  g_atomic_int_inc(&((CountingAllocator*)allocator)->allocations);
  return gst_allocator_alloc(NULL, size, params); /* which is also who frees it */
}
static void counting_allocator_class_init(CountingAllocatorClass* type) { type->alloc = count_and_alloc; }
static void counting_allocator_init(CountingAllocator* allocator) { (void)allocator; }

GST_START_TEST(check_14_allocator_of_downstream) {
  CountingAllocator* allocator = g_object_new(counting_allocator_get_type(), NULL);
  gst_object_ref_sink(allocator);
  GstAllocationParams params = {.align = 63, .prefix = 64};
  GstHarness* h = gst_harness_new("flashvsr");
  gst_harness_set_propose_allocator(h, gst_object_ref(allocator), &params);
  gst_harness_set_src_caps_str(h, CAPS_64x48);
  push_frames(h, 0, 3);
  gst_harness_push_event(h, gst_event_new_eos());
  for (guint i = 0; i < 3; ++i) {
    GstBuffer* buffer = gst_harness_pull(h);
    fail_unless(buffer != NULL);
    fail_unless_equals_int(gst_buffer_peek_memory(buffer, 0)->offset, 64);
    fail_unless_equals_int(gst_buffer_peek_memory(buffer, 0)->align & 63, 63);
    gst_buffer_unref(buffer);
  }
  fail_unless(g_atomic_int_get(&allocator->allocations) > 0);
  gst_harness_teardown(h);
  gst_object_unref(allocator);
}
GST_END_TEST

/* Inputs go back as they come: a pool of 4 feeds a stream that needs 25 frames for its first. */
GST_START_TEST(check_15_small_pool) {
  GstHarness* h = make_harness(NULL);
  GstBufferPool* pool = gst_buffer_pool_new();
  GstStructure* config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_set_params(config, NULL, 64 * 48 * 3 / 2, 0, 4);
  gst_buffer_pool_set_config(pool, config);
  gst_buffer_pool_set_active(pool, TRUE);
  GstBufferPoolAcquireParams params = {.flags = GST_BUFFER_POOL_ACQUIRE_FLAG_DONTWAIT};
  for (guint i = 0; i < 100; ++i) {
    GstBuffer* buffer = NULL;
    fail_unless_equals_int(gst_buffer_pool_acquire_buffer(pool, &buffer, &params), GST_FLOW_OK);
    gst_buffer_memset(buffer, 0, 16 + i % 200, -1);
    GST_BUFFER_PTS(buffer) = i * FRAME_TIME;
    /* One that refers to another, as a decoder's does. */
    GstBuffer* child = gst_buffer_copy(buffer);
    gst_buffer_add_parent_buffer_meta(child, buffer);
    gst_buffer_unref(buffer);
    fail_unless_equals_int(gst_harness_push(h, child), GST_FLOW_OK);
    if (i == 60) pull_frames(h, 0, 20);
  }
  gst_harness_push_event(h, gst_event_new_eos());
  pull_frames(h, 20, 100);
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

static void expect_latency(GstHarness* h, GstClockTime wanted_min, GstClockTime wanted_max, gboolean wanted_live) {
  GstQuery* query = gst_query_new_latency();
  GstPad* pad = gst_element_get_static_pad(h->element, "src");
  fail_unless(gst_pad_query(pad, query));
  gboolean is_live;
  GstClockTime min, max;
  gst_query_parse_latency(query, &is_live, &min, &max);
  fail_unless_equals_uint64(min, wanted_min);
  fail_unless_equals_uint64(max, wanted_max);
  fail_unless_equals_int(is_live, wanted_live);
  gst_query_unref(query);
  gst_object_unref(pad);
}

static GstPadProbeReturn answer_latency(GstPad* pad, GstPadProbeInfo* info, gpointer max) {
  (void)pad;
  GstQuery* query = GST_PAD_PROBE_INFO_QUERY(info);
  if (GST_QUERY_TYPE(query) != GST_QUERY_LATENCY) return GST_PAD_PROBE_OK;
  gst_query_set_latency(query, TRUE, 10 * GST_MSECOND, *(GstClockTime*)max);
  return GST_PAD_PROBE_HANDLED;
}

GST_START_TEST(check_16_latency) {
  GstHarness* h = gst_harness_new("flashvsr");
  GstClockTime max = GST_CLOCK_TIME_NONE;
  gst_pad_add_probe(h->srcpad, GST_PAD_PROBE_TYPE_QUERY_UPSTREAM | GST_PAD_PROBE_TYPE_PUSH, answer_latency, &max, NULL);
  gst_harness_set_src_caps_str(h, CAPS_64x48);
  /* 24 frames, and 8 for the chunk. */
  expect_latency(h, (24 + 8) * 40 * GST_MSECOND + 10 * GST_MSECOND, GST_CLOCK_TIME_NONE, TRUE);
  max = 10 * GST_MSECOND;
  expect_latency(h, 32 * 40 * GST_MSECOND + 10 * GST_MSECOND, 32 * 40 * GST_MSECOND + 10 * GST_MSECOND, TRUE);
  g_object_set(h->element, "processing-deadline", (guint64)(100 * GST_MSECOND), NULL);
  expect_latency(h, 24 * 40 * GST_MSECOND + 110 * GST_MSECOND, 24 * 40 * GST_MSECOND + 110 * GST_MSECOND, TRUE);
  gst_harness_set_src_caps_str(h, "video/x-raw,format=I420,width=64,height=48,framerate=50/1");
  expect_latency(h, 24 * 20 * GST_MSECOND + 110 * GST_MSECOND, 24 * 20 * GST_MSECOND + 110 * GST_MSECOND, TRUE);
  gst_harness_set_src_caps_str(h, "video/x-raw,format=I420,width=64,height=48,framerate=0/1");
  expect_latency(h, 24 * 40 * GST_MSECOND + 110 * GST_MSECOND, 24 * 40 * GST_MSECOND + 110 * GST_MSECOND, TRUE);
  gst_harness_teardown(h);

  h = make_harness("startup=primed processing-deadline=0");
  gst_harness_set_src_caps_str(h, CAPS_64x48);
  expect_latency(h, 11 * 40 * GST_MSECOND, GST_CLOCK_TIME_NONE, TRUE); /* a harness says that it is live */
  gst_harness_teardown(h);
}
GST_END_TEST

static guint count_latency_messages(GstBus* bus) {
  guint count = 0;
  GstMessage* message;
  while ((message = gst_bus_pop_filtered(bus, GST_MESSAGE_LATENCY))) {
    gst_message_unref(message);
    ++count;
  }
  return count;
}

static GstBusSyncReply query_from_handler(GstBus* bus, GstMessage* message, gpointer user) {
  (void)bus;
  /* Deadlocks here if it is posted under a lock. */
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_LATENCY) {
    GstQuery* query = gst_query_new_latency();
    GstPad* pad = gst_element_get_static_pad(GST_ELEMENT(GST_MESSAGE_SRC(message)), "src");
    if (gst_pad_query(pad, query)) ++*(guint*)user;
    GstStructure* stats = NULL;
    g_object_get(GST_MESSAGE_SRC(message), "stats", &stats, NULL);
    gst_structure_free(stats);
    gst_object_unref(pad);
    gst_query_unref(query);
  }
  return GST_BUS_PASS;
}

GST_START_TEST(check_17_latency_messages) {
  guint answered = 0;
  GstHarness* h = gst_harness_new("flashvsr");
  GstBus* bus = gst_bus_new();
  gst_bus_set_sync_handler(bus, query_from_handler, &answered, NULL);
  gst_element_set_bus(h->element, bus);
  gst_harness_set_src_caps_str(h, CAPS_64x48);
  fail_unless_equals_int(count_latency_messages(bus), 1);
  gst_harness_set_src_caps_str(h, "video/x-raw,format=I420,width=128,height=48,framerate=25/1");
  fail_unless_equals_int(count_latency_messages(bus), 0);
  gst_harness_set_src_caps_str(h, "video/x-raw,format=I420,width=128,height=48,framerate=50/1");
  fail_unless_equals_int(count_latency_messages(bus), 1);
  g_object_set(h->element, "processing-deadline", (guint64)GST_SECOND, NULL);
  fail_unless_equals_int(count_latency_messages(bus), 1);
  g_object_set(h->element, "processing-deadline", (guint64)GST_SECOND, NULL);
  fail_unless_equals_int(count_latency_messages(bus), 0);
  fail_unless_equals_int(answered, 3);
  gst_element_set_bus(h->element, NULL);
  gst_bus_set_sync_handler(bus, NULL, NULL, NULL);
  gst_object_unref(bus);
  gst_harness_teardown(h);
}
GST_END_TEST

static void push_at(GstHarness* h, guint* i, GstClockTime* time, guint count, GstClockTime step) {
  for (; count > 0; --count) {
    GstBuffer* buffer = make_frame((*i)++);
    GST_BUFFER_PTS(buffer) = *time += step;
    GST_BUFFER_DURATION(buffer) = GST_CLOCK_TIME_NONE;
    fail_unless_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  }
}

/* No frame rate, a time base in its place, a wrong one: 25 is assumed or the caps are believed, until
   24 steps between frames tell better. */
GST_START_TEST(check_16_latency_without_frame_rate) {
  for (const gchar* const* rate = (const gchar* const[]){"0/1", "90000/1", "1000000000/1", "25/1", NULL}; *rate; ++rate) {
    GstHarness* h = gst_harness_new("flashvsr");
    GstBus* bus = gst_bus_new();
    gst_element_set_bus(h->element, bus);
    gchar* caps = g_strdup_printf("video/x-raw,format=I420,width=64,height=48,framerate=%s", *rate);
    gst_harness_set_src_caps_str(h, caps);
    g_free(caps);
    guint i = 0;
    GstClockTime time = 0;
    push_at(h, &i, &time, 24, 100 * GST_MSECOND);
    fail_unless_equals_int(count_latency_messages(bus), 1);
    expect_latency(h, 32 * 40 * GST_MSECOND, GST_CLOCK_TIME_NONE, TRUE);
    push_at(h, &i, &time, 1, 100 * GST_MSECOND);
    fail_unless_equals_int(count_latency_messages(bus), 1);
    expect_latency(h, 32 * 100 * GST_MSECOND, GST_CLOCK_TIME_NONE, TRUE);

    /* Lost frames, a stall and other sizes change nothing; nor do faster frames, as each change glitches. */
    push_at(h, &i, &time, 1, 300 * GST_MSECOND);
    push_at(h, &i, &time, 30, 100 * GST_MSECOND);
    push_at(h, &i, &time, 1, 5 * GST_SECOND);
    push_at(h, &i, &time, 40, 20 * GST_MSECOND);
    caps = g_strdup_printf("video/x-raw,format=I420,width=32,height=96,framerate=%s", *rate);
    gst_harness_set_src_caps_str(h, caps);
    g_free(caps);
    fail_unless_equals_int(count_latency_messages(bus), 0);
    expect_latency(h, 32 * 100 * GST_MSECOND, GST_CLOCK_TIME_NONE, TRUE);

    gst_harness_push_event(h, gst_event_new_eos());
    for (guint out = 0; out < i; ++out) gst_buffer_unref(gst_harness_pull(h));
    gst_element_set_bus(h->element, NULL);
    gst_object_unref(bus);
    gst_harness_teardown(h);
  }
  check_engine_is_clean();
}
GST_END_TEST

GST_START_TEST(check_14_engine_options) {
  GstHarness* h = make_harness("scale=1.5 sparse-ratio=1.5 kv-chunks=2 local-range=9 color-fix=wavelet seed=77 max-vram=0.5 startup=primed");
  push_frames(h, 0, 1);
  FlashVsrSessionOptions options = fake_state().options;
  fail_unless_equals_int(options.scale_num, 3);
  fail_unless_equals_int(options.scale_den, 2);
  fail_unless_equals_float(options.sparse_ratio, 1.5);
  fail_unless_equals_int(options.kv_chunks, 2);
  fail_unless_equals_int(options.local_range, 9);
  fail_unless_equals_int(options.color_fix, FLASHVSR_COLOR_FIX_WAVELET);
  fail_unless_equals_int(options.seed, 77);
  fail_unless_equals_float(options.max_vram, 0.5);
  fail_unless_equals_int(options.startup, FLASHVSR_STARTUP_PRIMED);
  g_object_set(h->element, "sparse-ratio", 2.5, "local-range", 11, NULL);
  gst_util_set_object_arg(G_OBJECT(h->element), "color-fix", "none");
  for (int i = 0; i < 2000 && fake_state().options.color_fix != FLASHVSR_COLOR_FIX_NONE; ++i) g_usleep(1000);
  options = fake_state().options;
  fail_unless_equals_float(options.sparse_ratio, 2.5);
  fail_unless_equals_int(options.local_range, 11);
  fail_unless_equals_int(options.color_fix, FLASHVSR_COLOR_FIX_NONE);
  gst_harness_teardown(h);
  check_engine_is_clean();
}
GST_END_TEST

int main(int argc, char** argv) {
  gst_check_init(&argc, &argv);
  Suite* suite = suite_create("flashvsr basics");
  TCase* tcase = tcase_create("basics");
  suite_add_tcase(suite, tcase);
  tcase_add_test(tcase, check_03_engine_missing);
  tcase_add_test(tcase, check_04_model_missing);
  tcase_add_test(tcase, check_04_error_table);
  tcase_add_test(tcase, check_04_progress_messages);
  tcase_add_loop_test(tcase, check_06_every_frame_once, 0, G_N_ELEMENTS(kLengths));
  tcase_add_test(tcase, check_06_before_eos);
  tcase_add_test(tcase, check_07_times_and_flags);
  tcase_add_loop_test(tcase, check_08_caps, 0, G_N_ELEMENTS(kScales));
  tcase_add_loop_test(tcase, check_09_formats, 0, G_N_ELEMENTS(kFormats));
  tcase_add_test(tcase, check_10_size_from_downstream);
  tcase_add_test(tcase, check_10_sizes_back);
  tcase_add_test(tcase, check_11_interlaced);
  tcase_add_test(tcase, check_12_padded_strides);
  tcase_add_test(tcase, check_12_padded_pool_of_downstream);
  tcase_add_test(tcase, check_13_undersized_buffer);
  tcase_add_test(tcase, check_14_allocation);
  tcase_add_test(tcase, check_14_pool_of_downstream);
  tcase_add_test(tcase, check_14_allocator_of_downstream);
  tcase_add_test(tcase, check_14_engine_options);
  tcase_add_test(tcase, check_15_small_pool);
  tcase_add_test(tcase, check_16_latency);
  tcase_add_test(tcase, check_17_latency_messages);
  tcase_add_test(tcase, check_16_latency_without_frame_rate);
  return run_suite(suite);
}
