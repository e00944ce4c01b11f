/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Check 38: what the scenarios of gst-validate do to a player of a file, under their names, with videoscale in our place as
 * the baseline. A sink's pad must see the same events and frames in the same order with both, and ours the same pictures
 * at each of three runs.
 * A step waits for a frame and holds it (and so the streaming thread) until the step is done: what comes before it is no
 * matter of speed. */
#include <glib/gstdio.h>

#include "support.h"

#define CLIP_SECONDS 10
#define NOW (-1.0)
#define END (-1.0)

typedef enum { kSeek, kPause, kPlay, kState, kStop, kToTheEnd } Action;

typedef struct {
  gdouble at; /* the frame that it waits for, in seconds; NOW: at once, and what it does is waited for */
  Action action;
  gdouble rate, start, stop; /* kSeek; END: the clip's */
  GstState state;            /* kState: from there to PLAYING again */
} Step;

#define SEEK(at, rate, start, stop) {at, kSeek, rate, start, stop, 0}
#define DO(at, action) {at, action, 0, 0, 0, 0}
#define RESTART(at, state) {at, kState, 0, 0, 0, state}
#define SCRUB(step) \
  SEEK(NOW, 1, step(0), END), SEEK(NOW, 1, step(1), END), SEEK(NOW, 1, step(2), END), SEEK(NOW, 1, step(3), END), \
  SEEK(NOW, 1, step(4), END), SEEK(NOW, 1, step(5), END), SEEK(NOW, 1, step(6), END), SEEK(NOW, 1, step(7), END)
#define FORWARD(i) (0.12 * ((i) + 1))
#define BACKWARD(i) (9.6 - 0.12 * (i))

static const struct {
  const gchar *name;
  Step steps[14]; /* kStop or kToTheEnd is the last */
} kScenarios[] = {
    {"play_5s", {DO(5, kStop)}},
    {"simple_seeks", {SEEK(1, 1, 2, END), SEEK(3, 1, 0, END), SEEK(1, 1, 2, 3), DO(NOW, kToTheEnd)}},
    {"scrub_forward_seeking", {SCRUB(FORWARD), DO(NOW, kPlay), DO(2, kStop)}},
    {"scrub_backward_seeking", {SCRUB(BACKWARD), DO(NOW, kPlay), DO(NOW, kToTheEnd)}},
    {"seek_with_stop", {SEEK(1, 1, 4, 6), DO(NOW, kToTheEnd)}},
    {"seek_forward",
     {SEEK(0.8, 1, 2, END), SEEK(2.8, 1, 4, END), SEEK(4.8, 1, 6, END), SEEK(7, 1, 8, END), DO(NOW, kToTheEnd)}},
    {"seek_backward", {SEEK(4, 1, 3, END), SEEK(3.8, 1, 2, END), SEEK(2.8, 1, 0, END), DO(2, kStop)}},
    {"seek_forward_backward",
     {SEEK(1, 1, 6, END), SEEK(7, 1, 1, END), SEEK(2, 1, 8, END), SEEK(9, 1, 0, END), DO(1, kStop)}},
    {"pause_resume",
     {DO(1, kPause), DO(NOW, kPlay), DO(1.04, kPause), DO(NOW, kPlay), DO(3, kPause), DO(NOW, kPlay), DO(NOW, kToTheEnd)}},
    {"fast_forward",
     {SEEK(NOW, 2, 0, END), SEEK(2, 4, 0, END), SEEK(2, 8, 0, END), SEEK(2, 16, 0, END), SEEK(2, 32, 0, END), DO(NOW, kToTheEnd)}},
    {"fast_backward",
     {SEEK(NOW, -2, 0, END), SEEK(8, -4, 0, END), SEEK(8, -8, 0, END), SEEK(8, -16, 0, END), SEEK(8, -32, 0, END), DO(NOW, kToTheEnd)}},
    {"alternate_fast_backward_forward",
     {SEEK(1, 2, 3, END), SEEK(5, -2, 0, 5), SEEK(4, 4, 4, END), SEEK(6, -4, 0, 6), SEEK(3, 1, 3, 5), DO(NOW, kToTheEnd)}},
    {"reverse_playback", {SEEK(NOW, -1, 0, END), DO(NOW, kToTheEnd)}},
    {"change_state_intensive",
     {RESTART(0.4, GST_STATE_READY), RESTART(1.2, GST_STATE_NULL), RESTART(0, GST_STATE_NULL), RESTART(0.04, GST_STATE_READY),
      RESTART(1.4, GST_STATE_NULL), SEEK(0.2, 1, 9, END), DO(NOW, kToTheEnd)}},
};

typedef struct {
  GstElement *pipeline;
  GMutex lock;
  GCond changed;
  GString *log;       /* what videoscale gives too */
  GChecksum *pictures;
  gdouble wanted, rate;
  gboolean is_waited_for, is_held, is_over;
} Player;

static void log_event(Player *p, GstEvent *event) {
  GstCaps *caps;
  GstTagList *tags;
  const GstSegment *s;
  gchar *text = NULL;
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_CAPS:
      gst_event_parse_caps(event, &caps);
      text = gst_caps_to_string(caps);
      break;
    case GST_EVENT_SEGMENT:
      gst_event_parse_segment(event, &s);
      text = g_strdup_printf("rate %g flags %d start %" GST_TIME_FORMAT " stop %" GST_TIME_FORMAT
                             " time %" GST_TIME_FORMAT " base %" GST_TIME_FORMAT, s->rate, s->flags, GST_TIME_ARGS(s->start), GST_TIME_ARGS(s->stop), GST_TIME_ARGS(s->time), GST_TIME_ARGS(s->base));
      break;
    case GST_EVENT_TAG:
      gst_event_parse_tag(event, &tags);
      text = gst_tag_list_to_string(tags);
      break;
    default:
      break;
  }
  g_string_append_printf(p->log, "%s %s\n", GST_EVENT_TYPE_NAME(event), text ? text : "");
  g_free(text);
}

static void log_frame(Player *p, GstBuffer *buffer) {
  g_string_append_printf(p->log, "frame %" GST_TIME_FORMAT " for %" GST_TIME_FORMAT "%s%s %" G_GSIZE_FORMAT " bytes\n",
                         GST_TIME_ARGS(GST_BUFFER_PTS(buffer)), GST_TIME_ARGS(GST_BUFFER_DURATION(buffer)),
                         GST_BUFFER_IS_DISCONT(buffer) ? " discont" : "", GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_GAP) ? " gap" : "",
                         gst_buffer_get_size(buffer));
  GstMapInfo map;
  fail_unless(gst_buffer_map(buffer, &map, GST_MAP_READ));
  g_checksum_update(p->pictures, map.data, (gssize)map.size);
  gst_buffer_unmap(buffer, &map);
}

static GstPadProbeReturn watch(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  Player *p = user;
  (void)pad;
  g_mutex_lock(&p->lock);
  if (p->is_over) {
    /* stopped: what still comes is a matter of speed */
  } else if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
    GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER(info);
    log_frame(p, buffer);
    const gdouble time = (gdouble)GST_BUFFER_PTS(buffer) / GST_SECOND;
    if (p->is_waited_for && (p->rate > 0 ? time >= p->wanted - 1e-6 : time <= p->wanted + 1e-6)) {
      p->is_waited_for = FALSE;
      p->is_held = TRUE;
      g_cond_broadcast(&p->changed);
      while (p->is_held) g_cond_wait(&p->changed, &p->lock);
    }
  } else if (GST_EVENT_TYPE(GST_PAD_PROBE_INFO_EVENT(info)) == GST_EVENT_FLUSH_START) {
    p->is_held = FALSE;
    g_cond_broadcast(&p->changed);
  } else {
    log_event(p, GST_PAD_PROBE_INFO_EVENT(info));
  }
  g_mutex_unlock(&p->lock);
  return GST_PAD_PROBE_OK;
}

static void wait_for_frame(Player *p, gdouble at, const gchar *name) {
  const gint64 end = g_get_monotonic_time() + 2 * WAIT_S * G_TIME_SPAN_SECOND;
  g_mutex_lock(&p->lock);
  p->wanted = at;
  p->is_waited_for = TRUE;
  gboolean is_in_time = TRUE;
  g_mutex_unlock(&p->lock);
  gst_element_set_state(p->pipeline, GST_STATE_PLAYING);
  g_mutex_lock(&p->lock);
  while (!p->is_held && is_in_time) is_in_time = g_cond_wait_until(&p->changed, &p->lock, end);
  g_mutex_unlock(&p->lock);
  fail_unless(is_in_time, "%s: no frame at %.2f s", name, at);
}

static void let_go(Player *p, gboolean is_over) {
  g_mutex_lock(&p->lock);
  p->is_over = is_over;
  p->is_held = FALSE;
  g_cond_broadcast(&p->changed);
  g_mutex_unlock(&p->lock);
}

static void settle(Player *p) {
  fail_unless_equals_int(gst_element_get_state(p->pipeline, NULL, NULL, WAIT_S * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
}

static gint64 in_ns(gdouble seconds) { return (gint64)(seconds * GST_SECOND + 0.5); }

static void take_step(Player *p, const Step *step, const gchar *name) {
  if (step->at != NOW) wait_for_frame(p, step->at, name);
  switch (step->action) {
    case kSeek:
      p->rate = step->rate; /* the streaming thread is held or prerolled */
      fail_unless(gst_element_seek(p->pipeline, step->rate, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE,
                                   GST_SEEK_TYPE_SET, in_ns(step->start), GST_SEEK_TYPE_SET,
                                   in_ns(step->stop == END ? CLIP_SECONDS : step->stop)), "%s: a seek", name);
      if (step->at == NOW) settle(p);
      break;
    case kPause:
      gst_element_set_state(p->pipeline, GST_STATE_PAUSED);
      let_go(p, FALSE);
      settle(p);
      break;
    case kPlay:
      gst_element_set_state(p->pipeline, GST_STATE_PLAYING);
      break;
    case kState:
      /* Frames that a stopping pipeline may or may not still show are none of the baseline's either. */
      let_go(p, TRUE);
      gst_element_set_state(p->pipeline, step->state);
      settle(p);
      p->is_over = FALSE;
      g_string_append_printf(p->log, "again from %s\n", gst_element_state_get_name(step->state));
      break;
    case kStop:
      let_go(p, TRUE);
      break;
    case kToTheEnd: {
      gst_element_set_state(p->pipeline, GST_STATE_PLAYING);
      GstBus *bus = gst_element_get_bus(p->pipeline);
      GstMessage *m = gst_bus_timed_pop_filtered(bus, 2 * WAIT_S * GST_SECOND, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
      fail_unless(m != NULL && GST_MESSAGE_TYPE(m) == GST_MESSAGE_EOS, "%s does not end", name);
      gst_message_unref(m);
      gst_object_unref(bus);
      break;
    }
  }
}

/* The demuxer's pad comes anew with each start. */
static void link_pad(GstElement *demuxer, GstPad *pad, gpointer decoder) {
  (void)demuxer;
  GstPad *sink = gst_element_get_static_pad(decoder, "sink");
  fail_unless_equals_int(gst_pad_link(pad, sink), GST_PAD_LINK_OK);
  gst_object_unref(sink);
}

/* What was seen, and in *pictures a digest of it; the caller's. */
static gchar *play(const gchar *file, const gchar *filter, guint which, gchar **pictures) {
  GError *error = NULL;
  gchar *text = g_strdup_printf("filesrc location=%s ! matroskademux name=demuxer jpegdec name=decoder ! %s ! "
                                "fakesink name=sink sync=false", file, filter);
  Player p = {.pipeline = gst_parse_launch(text, &error), .log = g_string_new(NULL), .rate = 1};
  p.pictures = g_checksum_new(G_CHECKSUM_SHA256);
  fail_unless(error == NULL, "%s", error ? error->message : "");
  g_free(text);
  GstElement *demuxer = gst_bin_get_by_name(GST_BIN(p.pipeline), "demuxer"), *decoder = gst_bin_get_by_name(GST_BIN(p.pipeline), "decoder");
  g_signal_connect(demuxer, "pad-added", G_CALLBACK(link_pad), decoder);
  GstElement *sink = gst_bin_get_by_name(GST_BIN(p.pipeline), "sink");
  GstPad *pad = gst_element_get_static_pad(sink, "sink");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM | GST_PAD_PROBE_TYPE_EVENT_FLUSH, watch, &p, NULL);
  gst_element_set_state(p.pipeline, GST_STATE_PAUSED);
  settle(&p);
  const Step *step = kScenarios[which].steps;
  for (;; step++) {
    take_step(&p, step, kScenarios[which].name);
    if (step->action == kStop || step->action == kToTheEnd) break;
  }
  fail_unless_equals_int(gst_element_set_state(p.pipeline, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  gst_object_unref(pad);
  gst_object_unref(sink);
  gst_object_unref(demuxer);
  gst_object_unref(decoder);
  gst_object_unref(p.pipeline);
  *pictures = g_strdup(g_checksum_get_string(p.pictures));
  g_checksum_free(p.pictures);
  return g_string_free(p.log, FALSE);
}

/* The first line in which two logs differ. */
static void expect_same(const gchar *ours, const gchar *theirs, const gchar *name, const gchar *whose) {
  if (strcmp(ours, theirs) == 0) return;
  gchar **a = g_strsplit(ours, "\n", -1), **b = g_strsplit(theirs, "\n", -1);
  guint line = 0;
  while (a[line] && b[line] && g_str_equal(a[line], b[line])) line++;
  fail("%s, line %u: '%s', and %s '%s'", name, line, a[line] ? a[line] : "", whose, b[line] ? b[line] : "");
}

GST_START_TEST(check_38_scenario) {
  const gchar *name = kScenarios[__i__].name;
  gchar *folder = g_dir_make_tmp("flashvsr-check-38-XXXXXX", NULL);
  gchar *file = g_build_filename(folder, "clip.mkv", NULL);
  gchar *text = g_strdup_printf("videotestsrc num-buffers=%d pattern=ball ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! "
                                "jpegenc ! matroskamux ! filesink location=%s", 25 * CLIP_SECONDS, file);
  GstElement *maker = gst_parse_launch(text, NULL);
  fail_unless(run_to_end(maker, 20) == NULL);
  gst_element_set_state(maker, GST_STATE_NULL);
  gst_object_unref(maker);
  g_free(text);

  gchar *pictures, *first_pictures = NULL;
  gchar *baseline = play(file, "videoscale ! video/x-raw,width=256,height=192", __i__, &pictures);
  g_free(pictures);
  fail_unless(strstr(baseline, "\nframe ") != NULL, "%s", baseline);
  for (guint run = 0; run < 3; run++) {
    gchar *ours = play(file, "flashvsr", __i__, &pictures);
    expect_same(ours, baseline, name, "videoscale's");
    if (first_pictures) fail_unless_equals_string(pictures, first_pictures);
    g_free(first_pictures);
    first_pictures = pictures;
    g_free(ours);
  }
  gchar **lines = g_strsplit(baseline, "\n", -1);
  g_print("# %s: %u lines the same\n", name, g_strv_length(lines) - 1);
  g_strfreev(lines);
  g_free(first_pictures);
  g_free(baseline);
  g_unlink(file);
  g_rmdir(folder);
  g_free(file);
  g_free(folder);
}
GST_END_TEST

static Suite *scenarios_suite(void) {
  Suite *s = suite_create("scenarios");
  TCase *t = tcase_create("scenarios");
  suite_add_tcase(s, t);
  tcase_add_loop_test(t, check_38_scenario, 0, G_N_ELEMENTS(kScenarios));
  return s;
}

int main(int argc, char **argv) {
  gst_check_init(&argc, &argv);
  return run_suite(scenarios_suite());
}
