/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What strangers may do to the element, at random: caps strings, buffers of any size and layout,
 * orders of events, properties, state changes. Nothing may crash, hang, warn of a critical, break
 * the engine's protocol or be left behind. Each round has a seed, which is printed when it fails:
 * FLASHVSR_FUZZ_SEED repeats it. FLASHVSR_FUZZ_SECONDS (default 8) says how long. */
#include "support.h"

static const gchar* const kTokens[] = {
    "video/x-raw", "audio/x-raw", "video/x-raw(memory:CUDAMemory)", ",format=I420", ",format=RGB", ",format=GRAY8",
    ",format=P010_10LE", ",format={I420,NV12}", ",format=YUY2", ",format=(string)bogus", ",width=64", ",width=16", ",width=15",
    ",width=2147483647", ",width=-1", ",width=[16,64]", ",width=101", ",height=48", ",height=16", ",height=77", ",height=0",
    ",height=8192", ",height={48,50}", ",framerate=25/1", ",framerate=0/1", ",framerate=2147483647/1", ",framerate=30000/1001",
    ",interlace-mode=interleaved", ",interlace-mode=progressive", ",interlace-mode=mixed", ",colorimetry=bt709",
    ",colorimetry=1:4:0:1", ",colorimetry=nonsense", ",pixel-aspect-ratio=8/9", ",pixel-aspect-ratio=0/1", ",multiview-mode=mono",
    ",chroma-site=jpeg", ",views=2", ",extra=(buffer)00ff"};

static GstCaps* random_caps(GRand* rand) {
  GString* text = g_string_new(g_rand_int_range(rand, 0, 8) ? "video/x-raw,format=I420,framerate=25/1" : kTokens[g_rand_int_range(rand, 0, 3)]);
  if (g_rand_int_range(rand, 0, 3))
    g_string_append_printf(text, ",width=%d,height=%d", g_rand_int_range(rand, 14, 90), g_rand_int_range(rand, 14, 90));
  for (int n = g_rand_int_range(rand, 0, 5); n > 0; --n) g_string_append(text, kTokens[g_rand_int_range(rand, 3, G_N_ELEMENTS(kTokens))]);
  GstCaps* caps = gst_caps_from_string(text->str);
  g_string_free(text, TRUE);
  if (caps && !gst_caps_is_empty(caps) && !gst_caps_is_any(caps) && g_rand_boolean(rand)) caps = gst_caps_fixate(caps);
  return caps;
}

static GstBuffer* random_buffer(GRand* rand, guint i) {
  if (g_rand_int_range(rand, 0, 3)) return make_frame(i);
  const gsize size = g_rand_int_range(rand, 0, 4) ? (gsize)g_rand_int_range(rand, 1, 20000) : 0;
  GstBuffer* buffer = size ? gst_buffer_new_allocate(NULL, size, NULL) : gst_buffer_new();
  if (size) gst_buffer_memset(buffer, 0, i, size);
  if (size && g_rand_boolean(rand)) {
    gsize offsets[4];
    gint strides[4];
    for (int p = 0; p < 4; ++p) {
      offsets[p] = g_rand_int_range(rand, 0, 30000);
      strides[p] = g_rand_int_range(rand, 0, 300);
    }
    gst_buffer_add_video_meta_full(buffer, 0, g_rand_boolean(rand) ? GST_VIDEO_FORMAT_I420 : GST_VIDEO_FORMAT_NV12,
                                   g_rand_boolean(rand) ? 64 : 60, 48, g_rand_int_range(rand, 1, 4), offsets, strides);
  }
  if (g_rand_boolean(rand)) GST_BUFFER_PTS(buffer) = g_rand_int_range(rand, 0, 1000000) * (guint64)1000000;
  return buffer;
}

static void random_property(GRand* rand, GstElement* element) {
  guint count;
  GParamSpec** specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(element), &count);
  GParamSpec* spec = specs[g_rand_int_range(rand, 0, count)];
  g_free(specs);
  GValue value = G_VALUE_INIT;
  if (!(spec->flags & G_PARAM_WRITABLE) || spec->owner_type != G_OBJECT_TYPE(element)) {
    if (spec->flags & G_PARAM_READABLE) {
      g_value_init(&value, spec->value_type);
      g_object_get_property(G_OBJECT(element), spec->name, &value);
      g_value_unset(&value);
    }
    return;
  }
  if (g_str_equal(spec->name, "model") || g_str_equal(spec->name, "device")) return; /* would only fail to start */
  g_value_init(&value, spec->value_type);
  if (G_IS_PARAM_SPEC_ENUM(spec)) {
    GEnumClass* values = G_PARAM_SPEC_ENUM(spec)->enum_class;
    g_value_set_enum(&value, values->values[g_rand_int_range(rand, 0, values->n_values)].value);
  } else if (G_IS_PARAM_SPEC_BOOLEAN(spec)) {
    g_value_set_boolean(&value, g_rand_boolean(rand));
  } else if (G_IS_PARAM_SPEC_FLOAT(spec)) {
    g_value_set_float(&value, g_rand_double_range(rand, 0, 8.0));
  } else if (G_IS_PARAM_SPEC_DOUBLE(spec)) {
    static const gdouble some[] = {1.5, 2, 3, 4, 2.2};
    g_value_set_double(&value, some[g_rand_int_range(rand, 0, 5)]);
  } else if (G_IS_PARAM_SPEC_INT(spec)) {
    g_value_set_int(&value, g_rand_int_range(rand, 0, 9));
  } else if (G_IS_PARAM_SPEC_UINT64(spec)) {
    g_value_set_uint64(&value, g_rand_boolean(rand) ? G_MAXUINT64 : g_rand_int(rand));
  }
  g_param_value_validate(spec, &value);
  g_object_set_property(G_OBJECT(element), spec->name, &value);
  g_value_unset(&value);
}

static void run_round(guint32 seed) {
  GRand* rand = g_rand_new_with_seed(seed);
  GstElement* element = gst_element_factory_make("flashvsr", NULL);
  g_object_set(element, "stats-interval", (guint64)0, NULL);
  GstHarness* h = gst_harness_new_with_element(element, "sink", "src");
  gst_object_unref(element);
  GstBus* bus = gst_bus_new(); /* takes messages, so that errors are not printed */
  gst_bus_set_flushing(bus, TRUE);
  gst_element_set_bus(element, bus);
  gst_harness_set_drop_buffers(h, TRUE);
  if (g_rand_int_range(rand, 0, 4)) gst_harness_set_src_caps_str(h, CAPS_64x48);
  for (int n = g_rand_int_range(rand, 1, 150); n > 0; --n) {
    switch (g_rand_int_range(rand, 0, 24)) {
      case 0: {
        GstCaps* caps = random_caps(rand);
        if (caps && gst_caps_is_fixed(caps)) gst_harness_push_event(h, gst_event_new_caps(caps));
        if (caps) gst_caps_unref(caps);
        break;
      }
      case 1: {
        GstCaps* caps = random_caps(rand);
        if (!caps) break;
        GstPad* pad = gst_element_get_static_pad(element, g_rand_boolean(rand) ? "sink" : "src");
        gst_caps_unref(gst_pad_query_caps(pad, g_rand_boolean(rand) ? caps : NULL));
        if (gst_caps_is_fixed(caps)) gst_pad_query_accept_caps(pad, caps);
        gst_object_unref(pad);
        gst_caps_unref(caps);
        break;
      }
      case 2:
        gst_harness_push_event(h, gst_event_new_flush_start());
        if (g_rand_int_range(rand, 0, 4) == 0) gst_harness_push(h, make_frame(0));
        gst_harness_push_event(h, gst_event_new_flush_stop(g_rand_boolean(rand)));
        break;
      case 3: {
        GstSegment segment;
        gst_segment_init(&segment, g_rand_int_range(rand, 0, 5) ? GST_FORMAT_TIME : GST_FORMAT_BYTES);
        static const gdouble rates[] = {1, -1, 2, 0.5, 8};
        segment.rate = rates[g_rand_int_range(rand, 0, 5)];
        if (segment.rate < 0) segment.stop = 100 * GST_SECOND;
        segment.start = g_rand_int_range(rand, 0, 50) * GST_SECOND;
        if (g_rand_int_range(rand, 0, 4) == 0) segment.flags = GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS;
        gst_harness_push_event(h, gst_event_new_segment(&segment));
        break;
      }
      case 4:
        gst_harness_push_event(h, gst_event_new_gap(0, g_rand_boolean(rand) ? GST_CLOCK_TIME_NONE : FRAME_TIME));
        break;
      case 5:
        gst_harness_push_event(h, g_rand_boolean(rand) ? gst_event_new_eos() : gst_event_new_stream_start("again"));
        break;
      case 6:
        gst_harness_push_event(h, gst_event_new_tag(gst_tag_list_new(GST_TAG_TITLE, "x", NULL)));
        break;
      case 7:
        gst_harness_push_upstream_event(h, g_rand_boolean(rand) ? gst_event_new_reconfigure()
                                                                : gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 1.5, GST_SECOND, 0));
        break;
      case 8:
      case 9:
      case 10:
        random_property(rand, element);
        break;
      case 11: {
        GstQuery* query = g_rand_boolean(rand) ? gst_query_new_drain() : gst_query_new_latency();
        GstPad* pad = gst_element_get_static_pad(element, GST_QUERY_TYPE(query) == GST_QUERY_DRAIN ? "sink" : "src");
        gst_pad_query(pad, query);
        gst_query_unref(query);
        gst_object_unref(pad);
        break;
      }
      case 12: {
        GstStructure* s = gst_structure_new("application/x-gst-navigation", "event", G_TYPE_STRING,
                                            g_rand_boolean(rand) ? "mouse-button-press" : "mouse-move", "pointer_x", G_TYPE_DOUBLE,
                                            g_rand_double_range(rand, -100, 1e9), "pointer_y", G_TYPE_DOUBLE, 3.0, NULL);
        gst_harness_push_upstream_event(h, gst_event_new_navigation(s));
        break;
      }
      default:
        gst_harness_push(h, random_buffer(rand, n));
        break;
    }
  }
  gst_element_set_bus(element, NULL);
  gst_harness_teardown(h);
  gst_object_unref(bus);
  g_rand_free(rand);
}

static void log_nothing(GstDebugCategory* c, GstDebugLevel l, const gchar* f, const gchar* fu, gint li, GObject* o, GstDebugMessage* m, gpointer u) {
  (void)c, (void)l, (void)f, (void)fu, (void)li, (void)o, (void)m, (void)u;
}

static void ignore(const gchar* domain, GLogLevelFlags level, const gchar* message, gpointer user) {
  (void)domain, (void)level, (void)message, (void)user;
}

GST_START_TEST(fuzz_element) {
  /* The core warns of our own wrong order, "data flow before segment"; criticals still end it. */
  g_log_set_handler("GStreamer", G_LOG_LEVEL_WARNING, ignore, NULL);
  const gchar* fixed = g_getenv("FLASHVSR_FUZZ_SEED");
  const gchar* seconds = g_getenv("FLASHVSR_FUZZ_SECONDS");
  const gint64 until = g_get_monotonic_time() + (seconds ? atoi(seconds) : 8) * G_USEC_PER_SEC;
  guint32 seed = fixed ? (guint32)strtoul(fixed, NULL, 0) : 1;
  guint rounds = 0;
  gst_debug_remove_log_function(gst_debug_log_default);
  gst_debug_add_log_function(log_nothing, NULL, NULL);
  do {
    /* Printed when the process dies: the last line in this file. */
    gchar* text = g_strdup_printf("seed %u\n", seed);
    const gchar* file = g_getenv("FLASHVSR_FUZZ_LOG");
    if (file) g_file_set_contents(file, text, -1, NULL);
    g_free(text);
    run_round(seed++);
    ++rounds;
    const FlashVsrFakeState state = fake_state();
    fail_unless(state.protocol_errors == 0 && state.sessions_open == 0 && state.models_open == 0, "seed %u", seed - 1);
  } while (!fixed && g_get_monotonic_time() < until);
  g_print("# %u rounds\n", rounds);
}
GST_END_TEST

int main(int argc, char** argv) {
  gst_check_init(&argc, &argv);
  Suite* suite = suite_create("flashvsr fuzz");
  TCase* tcase = tcase_create("fuzz");
  suite_add_tcase(suite, tcase);
  const gchar* seconds = g_getenv("FLASHVSR_FUZZ_SECONDS");
  tcase_set_timeout(tcase, 60 + (seconds ? atoi(seconds) : 8) * 2);
  tcase_add_test(tcase, fuzz_element);
  return run_suite(suite);
}
