/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * RTSP cameras on loopback (examples/rtsp_server.c, named by RTSP_SERVER) and what happens to them:
 * lost packets, stalls, new sizes, restarts, no frame rate. Nothing here depends on the machine's speed:
 * each step waits for what it is about. Suite timing only because cameras are live. */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_US ((gint64)50 * G_USEC_PER_SEC)

typedef struct Camera {
  GPid pid;
  int commands, says; /* its standard input and output */
  gchar* url;
} Camera;

/* A line that the server prints; blocks. */
static gchar* read_line(int from) {
  GString* line = g_string_new(NULL);
  for (gchar c; read(from, &c, 1) == 1 && c != '\n';) g_string_append_c(line, c);
  return g_string_free(line, FALSE);
}

/* port 0: any that is free */
static Camera start_camera(gint port, const gchar* options) {
  Camera camera;
  GError* error = NULL;
  gchar** argv = NULL;
  gchar* line = g_strdup_printf("%s --port %d %s", g_getenv("RTSP_SERVER"), port, options);
  fail_unless(g_shell_parse_argv(line, NULL, &argv, NULL), "no RTSP_SERVER");
  fail_unless(g_spawn_async_with_pipes(NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &camera.pid, &camera.commands,
                                       &camera.says, NULL, &error),
              "%s", error ? error->message : "");
  g_strfreev(argv);
  g_free(line);
  camera.url = read_line(camera.says);
  fail_unless(g_str_has_prefix(camera.url, "rtsp://"), "the server said '%s'", camera.url);
  fcntl(camera.says, F_SETFL, O_NONBLOCK);
  return camera;
}

static void tell(const Camera* camera, const gchar* command) {
  fail_unless(dprintf(camera->commands, "%s\n", command) > 0, "the server is gone");
}

/* Its port, for the next. */
static gint stop_camera(Camera* camera) {
  int status, port = 0;
  sscanf(camera->url, "rtsp://127.0.0.1:%d", &port);
  tell(camera, "quit");
  fail_unless_equals_int(waitpid(camera->pid, &status, 0), camera->pid);
  close(camera->commands);
  close(camera->says);
  g_free(camera->url);
  return port;
}

/* How many lines "lost" there were since the last call. */
static guint count_lost(const Camera* camera) {
  guint count = 0;
  for (gchar c; read(camera->says, &c, 1) == 1;) count += c == '\n';
  return count;
}

typedef struct Client {
  GstElement *pipeline, *element;
  Outcome sent, in, out; /* what the camera encoded, as it came here; into the element; out of it */
  guint wide_in, wide_out; /* of these, more than WIDE pixels wide at the camera */
} Client;

#define WIDE 160

static GstPadProbeReturn count_wide(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  GstCaps* caps = gst_pad_get_current_caps(pad);
  gint width = 0;
  (void)info;
  gst_structure_get_int(gst_caps_get_structure(caps, 0), "width", &width);
  gst_caps_unref(caps);
  const gint scale = GST_PAD_IS_SRC(pad) ? 2 : 1;
  if (width > WIDE * scale) g_atomic_int_inc((gint*)user);
  return GST_PAD_PROBE_OK;
}

static void count_wide_at(GstElement* element, const gchar* pad_name, guint* count) {
  GstPad* pad = gst_element_get_static_pad(element, pad_name);
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, count_wide, count, NULL);
  gst_object_unref(pad);
}

#define FROM_CAMERA(transport) \
  "rtspsrc name=in location=%s latency=100 protocols=" transport " in. ! application/x-rtp,media=video ! rtph264depay ! " \
  "h264parse ! avdec_h264 name=decoder ! videoconvert name=last"

/* The picture alone. With two pads that come at once, gst_parse 1.22 links one of them late, never, or
   with a critical: its handlers race. */
static gboolean select_video(GstElement* source, guint i, GstCaps* caps, gpointer user) {
  (void)source, (void)i, (void)user;
  return g_strcmp0(gst_structure_get_string(gst_caps_get_structure(caps, 0), "media"), "video") == 0;
}

static void only_video(GstElement* bin) {
  GstElement* source = gst_bin_get_by_name(GST_BIN(bin), "in");
  g_signal_connect(source, "select-stream", G_CALLBACK(select_video), NULL);
  gst_object_unref(source);
}

#define TO_SINK " ! flashvsr name=el scale=2 ! fakesink name=out sync=false"

/* No queue anywhere. Takes `line`; `client` stays where it is. */
static void open_client(Client* client, gchar* line) {
  memset(client, 0, sizeof *client);
  client->pipeline = parse(line);
  g_free(line);
  client->element = gst_bin_get_by_name(GST_BIN(client->pipeline), "el");
  GstElement* decoder = gst_bin_get_by_name(GST_BIN(client->pipeline), "decoder");
  if (decoder) { /* not yet, where sources come and go */
    gst_object_unref(decoder);
    only_video(client->pipeline);
    count_at(client->pipeline, "decoder", &client->sent);
  }
  count_at(client->pipeline, "el", &client->in);
  count_at(client->pipeline, "out", &client->out);
  count_wide_at(client->element, "sink", &client->wide_in);
  count_wide_at(client->element, "src", &client->wide_out);
}

static void start_client(Client* client, gchar* line) {
  open_client(client, line);
  gst_element_set_state(client->pipeline, GST_STATE_PLAYING);
}

static gboolean has_ended(Client* client) {
  GstBus* bus = gst_element_get_bus(client->pipeline);
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR | GST_MESSAGE_EOS);
  if (message) gst_message_unref(message);
  gst_object_unref(bus);
  return message != NULL;
}

/* Waits for `condition`, which something that was set going will make true sooner or later. */
#define wait_for(condition)                                                             \
  do {                                                                                  \
    const gint64 until_ = g_get_monotonic_time() + WAIT_US;                             \
    while (!(condition)) {                                                              \
      fail_unless(g_get_monotonic_time() < until_, "waited in vain for " #condition);   \
      g_usleep(5000);                                                                   \
    }                                                                                   \
  } while (0)

static guint frames_in(const Client* client) { return g_atomic_int_get((gint*)&client->in.frames); }
static guint frames_out(const Client* client) { return g_atomic_int_get((gint*)&client->out.frames); }

/* Every frame that went in has come out, once the stream has ended. */
static void end_client(Client* client) {
  Outcome end = {0};
  gst_element_send_event(client->pipeline, gst_event_new_eos());
  wait_for_end(client->pipeline, &end, WAIT_US * 1000);
  fail_unless(end.is_eos, "%s", end.error ? end.error->message : "?");
  fail_unless_equals_int(frames_out(client), frames_in(client));
}

static void close_client(Client* client) {
  gst_element_set_state(client->pipeline, GST_STATE_NULL);
  gst_object_unref(client->element);
  gst_object_unref(client->pipeline);
  check_engine_is_clean();
}

/* 1 % of the packets. The decoder patches; the element sees broken pictures and holes in the time, and goes on. */
GST_START_TEST(camera_loses_packets) {
  Camera camera = start_camera(0, "--size 320x240 --loss 1");
  Client client;
  start_client(&client, g_strdup_printf(FROM_CAMERA("udp") TO_SINK, camera.url));
  guint lost = 0;
  wait_for(frames_in(&client) >= 60 && (lost += count_lost(&camera)) >= 4);
  const guint before = frames_in(&client);
  wait_for(frames_out(&client) >= before);
  /* Not a start of the model for each of them. One drain may come from a machine that stood still. */
  fail_unless(stat_of(client.element, "drains") < lost / 2, "%d drains for %u packets", (int)stat_of(client.element, "drains"), lost);
  end_client(&client);
  close_client(&client);
  stop_camera(&camera);
}
GST_END_TEST

/* What is inside leaves by itself, all of it; then the camera goes on, and so do we. */
GST_START_TEST(camera_stalls) {
  Camera camera = start_camera(0, "--rate 50/1");
  Client client;
  start_client(&client, g_strdup_printf(FROM_CAMERA("tcp") TO_SINK, camera.url));
  for (guint stalls = 1; stalls <= 2; ++stalls) {
    const guint before = frames_in(&client);
    wait_for(frames_in(&client) >= before + 30);
    tell(&camera, "stall");
    wait_for(stat_of(client.element, "drains") >= stalls && stat_of(client.element, "inside-frames") == 0);
    wait_for(frames_out(&client) == frames_in(&client));
    fail_unless(!has_ended(&client));
    tell(&camera, "go");
  }
  const guint before = frames_out(&client);
  wait_for(frames_out(&client) >= before + 22);
  end_client(&client);
  fail_unless_equals_int(client.sent.frames, client.out.frames);
  close_client(&client);
  stop_camera(&camera);
}
GST_END_TEST

GST_START_TEST(camera_changes_its_size) {
  Camera camera = start_camera(0, "--rate 50/1");
  Client client;
  start_client(&client, g_strdup_printf(FROM_CAMERA("tcp") TO_SINK, camera.url));
  wait_for(frames_in(&client) >= 30);
  tell(&camera, "size 208x96");
  wait_for(g_atomic_int_get((gint*)&client.wide_in) >= 30);
  tell(&camera, "size 96x80");
  const guint before = frames_in(&client);
  wait_for(frames_in(&client) >= before + 30);
  end_client(&client);
  fail_unless_equals_int(client.wide_out, client.wide_in);
  fail_unless(client.out.frames >= client.wide_out + 60);
  fail_unless_equals_int(client.sent.frames, client.out.frames);
  close_client(&client);
  stop_camera(&camera);
}
GST_END_TEST

/* An end of the source is not the end of the stream: another source follows. */
static GstPadProbeReturn drop_eos(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  (void)pad;
  if (GST_EVENT_TYPE(GST_PAD_PROBE_INFO_EVENT(info)) != GST_EVENT_EOS) return GST_PAD_PROBE_OK;
  g_atomic_int_set((gint*)user, TRUE);
  return GST_PAD_PROBE_DROP;
}

static GstElement* add_source(Client* client, const Camera* camera, gint* is_over) {
  gchar* line = g_strdup_printf(FROM_CAMERA("tcp"), camera->url);
  GError* error = NULL;
  GstElement* source = gst_parse_bin_from_description(line, FALSE, &error);
  fail_unless(source && !error, "%s", error ? error->message : "");
  g_free(line);
  only_video(source);
  /* Not by the parser, which would take the depayloader's pad too: it is linked only later. */
  GstElement* last = gst_bin_get_by_name(GST_BIN(source), "last");
  GstPad* pad = gst_element_get_static_pad(last, "src");
  gst_element_add_pad(source, gst_ghost_pad_new("src", pad));
  gst_object_unref(pad);
  gst_object_unref(last);
  gst_bin_add(GST_BIN(client->pipeline), source);
  fail_unless(gst_element_link(source, client->element));
  count_at(client->pipeline, "decoder", &client->sent);
  pad = gst_element_get_static_pad(source, "src");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, drop_eos, is_over, NULL);
  gst_object_unref(pad);
  gst_element_sync_state_with_parent(source);
  return source;
}

static void remove_source(Client* client, GstElement* source) {
  gst_element_unlink(source, client->element);
  gst_element_set_state(source, GST_STATE_NULL);
  gst_bin_remove(GST_BIN(client->pipeline), source);
}

/* The camera goes away and comes back. The application gives the pipeline another source, first while
   the rest plays on, then with a stop between; what was inside leaves, and the same element goes on. */
GST_START_TEST(camera_restarts) {
  Camera camera = start_camera(0, "--rate 50/1");
  Client client;
  gint is_over = FALSE;
  open_client(&client, g_strdup("flashvsr name=el scale=2 ! fakesink name=out sync=false"));
  GstElement* source = add_source(&client, &camera, &is_over);
  for (guint restarts = 0; restarts < 3; ++restarts) {
    gst_element_set_state(client.pipeline, GST_STATE_PLAYING);
    const guint out = frames_out(&client);
    wait_for(frames_out(&client) >= out + 30);
    if (restarts == 2) break;
    const gint port = stop_camera(&camera);
    wait_for(g_atomic_int_get(&is_over) || has_ended(&client));
    wait_for(frames_out(&client) == frames_in(&client));
    if (restarts == 1) gst_element_set_state(client.pipeline, GST_STATE_NULL);
    remove_source(&client, source);
    camera = start_camera(port, "--rate 50/1");
    is_over = FALSE;
    source = add_source(&client, &camera, &is_over);
  }
  gst_element_set_state(source, GST_STATE_NULL);
  const guint in = frames_in(&client);
  GstBus* bus = gst_element_get_bus(client.pipeline);
  gst_bus_set_flushing(bus, TRUE); /* what the old sources complained of */
  gst_bus_set_flushing(bus, FALSE);
  gst_object_unref(bus);
  remove_source(&client, source);
  GstPad* pad = gst_element_get_static_pad(client.element, "sink");
  gst_pad_send_event(pad, gst_event_new_eos());
  gst_object_unref(pad);
  wait_for(has_ended(&client));
  fail_unless_equals_int(frames_out(&client), in);
  close_client(&client);
  stop_camera(&camera);
}
GST_END_TEST

static GstClockTime latency_at(GstElement* element, const gchar* name, GstPadDirection direction) {
  GstQuery* query = gst_query_new_latency();
  GstClockTime min = 0;
  GstPad* pad = gst_element_get_static_pad(element, name);
  fail_unless(direction == GST_PAD_SRC ? gst_pad_query(pad, query) : gst_pad_peer_query(pad, query));
  gst_query_parse_latency(query, NULL, &min, NULL);
  gst_object_unref(pad);
  gst_query_unref(query);
  return min;
}

/* 15 frames/s, and a stream that tells nothing of it, or 25: the element finds out, and says so. */
GST_START_TEST(camera_tells_no_frame_rate) {
  for (guint i = 0; i < 2; ++i) {
    Camera camera = start_camera(0, i == 0 ? "--rate 15/1 --claim 0/1" : "--rate 15/1 --claim 25/1");
    Client client;
    start_client(&client, g_strdup_printf(FROM_CAMERA("tcp") TO_SINK, camera.url));
    wait_for(frames_out(&client) >= 8);
    const GstClockTime own = latency_at(client.element, "src", GST_PAD_SRC) - latency_at(client.element, "sink", GST_PAD_SINK);
    /* 24 frames and the 8 of a chunk; 1.28 s at 25 frames/s. */
    fail_unless(own >= 32 * GST_SECOND / 15 * 9 / 10, "%d ms", (int)(own / GST_MSECOND));
    /* No frame was taken for a stall. */
    fail_unless(stat_of(client.element, "drains") < 3, "%d drains", (int)stat_of(client.element, "drains"));
    end_client(&client);
    fail_unless_equals_int(client.sent.frames, client.out.frames);
    close_client(&client);
    stop_camera(&camera);
  }
}
GST_END_TEST

/* The launch line below "## RTSP to RTSP" in the cookbook (named by COOKBOOK), between our two ends. */
static gchar* line_of_cookbook(void) {
  gchar *text = NULL, **parts;
  fail_unless(g_file_get_contents(g_getenv("COOKBOOK"), &text, NULL, NULL), "no COOKBOOK");
  gchar* begin = strstr(text, "## RTSP to RTSP");
  fail_unless(begin && (begin = strstr(begin, "gst-launch-1.0 rtspsrc ")), "no RTSP to RTSP there");
  begin += strlen("gst-launch-1.0 ");
  *strstr(begin, "\n\n") = '\0';
  parts = g_strsplit(begin, "\\\n", -1);
  gchar* line = g_strjoinv(" ", parts);
  g_strfreev(parts);
  g_free(text);
  return line;
}

static gchar* replace(gchar* text, const gchar* what, const gchar* with) {
  gchar** parts = g_strsplit(text, what, -1);
  fail_unless(parts[0] && parts[1], "no %s in the line", what);
  g_free(text);
  text = g_strjoinv(with, parts);
  g_strfreev(parts);
  return text;
}

GST_START_TEST(check_18_cookbook_rtsp_to_rtsp) {
  Camera camera = start_camera(0, "--rate 50/1"), recorder = start_camera(0, "");
  gchar* url = replace(g_strdup(recorder.url), "/camera", "/record");
  gchar* line = replace(replace(line_of_cookbook(), "rtsp://camera.local/stream1", camera.url), "rtsp://server.local/enlarged", url);
  g_free(url);
  line = replace(line, "latency=200", "latency=200 protocols=tcp");
  line = replace(line, "rtspsrc", "rtspsrc name=in");
  line = replace(line, "avdec_h264", "avdec_h264 name=decoder");
  line = replace(line, "flashvsr", "flashvsr name=el");
  line = replace(line, "rtspclientsink", "rtspclientsink protocols=tcp");
  line = replace(line, "x264enc", "x264enc name=out");
  Client client;
  start_client(&client, line);
  wait_for(frames_out(&client) >= 60);
  end_client(&client);
  fail_unless_equals_int(client.sent.frames, client.out.frames);
  close_client(&client);
  /* How many it got is the network's affair: the end may overtake the last of them. */
  gchar* said = NULL;
  wait_for(*(said = (g_free(said), read_line(recorder.says))) != '\0');
  guint received = 0;
  fail_unless(sscanf(said, "received %u", &received) == 1 && received > 0, "%s", said);
  g_print("# %u of %u frames received\n", received, client.out.frames);
  g_free(said);
  stop_camera(&camera);
  stop_camera(&recorder);
}
GST_END_TEST

int main(int argc, char** argv) {
  gst_check_init(&argc, &argv);
  for (const gchar* const* name = (const gchar* const[]){"rtspsrc", "avdec_h264", "x264enc", "avenc_aac", "capssetter", NULL}; *name; ++name) {
    GstElementFactory* factory = gst_element_factory_find(*name);
    if (!factory) {
      g_print("1..0 # SKIP no element %s here\n", *name);
      return 0;
    }
    gst_object_unref(factory);
  }
  Suite* suite = suite_create("flashvsr cameras");
  TCase* tcase = tcase_create("cameras");
  suite_add_tcase(suite, tcase);
  tcase_add_test(tcase, camera_loses_packets);
  tcase_add_test(tcase, camera_stalls);
  tcase_add_test(tcase, camera_changes_its_size);
  tcase_add_test(tcase, camera_restarts);
  tcase_add_test(tcase, camera_tells_no_frame_rate);
  GstElementFactory* factory = gst_element_factory_find("rtspclientsink");
  if (factory) tcase_add_test(tcase, check_18_cookbook_rtsp_to_rtsp);
  else g_printerr("no element rtspclientsink here: the cookbook's line is not run\n");
  return run_suite(suite);
}
