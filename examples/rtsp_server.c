/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp_server: a test camera, and what bad cameras and networks do.
 *
 *     rtsp_server [--port 8554] [--size 160x120] [--rate 25/1] [--claim 0/1] [--loss 1]
 *
 * H.264 with AAC sound at rtsp://127.0.0.1:PORT/camera, once for all who watch. --loss: per cent
 * of the video's packets that get lost, the same ones at every run. --claim: the frame rate that
 * the stream tells of itself, true or not; 0/1: none. Commands on standard input, one a line:
 *
 *     size WxH    another resolution, in mid-stream
 *     stall       the camera takes no more pictures; its connections stay
 *     go          it goes on
 *     quit        all connections break
 *
 * At rtsp://127.0.0.1:PORT/record it takes H.264 from others (rtspclientsink), and says how many
 * frames it could decode when they have gone.
 */
#include <gst/gst.h>
#include <gst/rtsp-server/rtsp-server.h>
#include <stdio.h>
#include <string.h>

static gdouble loss = 0;
static GRand* dice; /* of the one streaming thread */
static gint is_stalled = 0, lost = 0, received = 0;
static GWeakRef size; /* the capsfilter of the media that is served now */

static GstPadProbeReturn stall(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  (void)pad, (void)info, (void)user;
  return g_atomic_int_get(&is_stalled) ? GST_PAD_PROBE_DROP : GST_PAD_PROBE_OK;
}

static gboolean lose(GstBuffer** buffer, guint i, gpointer user) {
  (void)i, (void)user;
  if (g_rand_double(dice) * 100 >= loss) return TRUE;
  g_clear_pointer(buffer, gst_buffer_unref); /* and so leaves its list */
  g_print("lost %d\n", ++lost);
  return TRUE;
}

static GstPadProbeReturn lose_some(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  (void)pad;
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
    GstBuffer* buffer = gst_buffer_ref(GST_PAD_PROBE_INFO_BUFFER(info));
    lose(&buffer, 0, user);
    if (!buffer) return GST_PAD_PROBE_DROP;
    gst_buffer_unref(buffer);
    return GST_PAD_PROBE_OK;
  }
  GstBufferList* list = gst_buffer_list_make_writable(GST_PAD_PROBE_INFO_BUFFER_LIST(info));
  info->data = list;
  gst_buffer_list_foreach(list, lose, user);
  return gst_buffer_list_length(list) > 0 ? GST_PAD_PROBE_OK : GST_PAD_PROBE_DROP;
}

static GstPadProbeReturn count(GstPad* pad, GstPadProbeInfo* info, gpointer user) {
  (void)pad, (void)info, (void)user;
  g_atomic_int_inc(&received);
  return GST_PAD_PROBE_OK;
}

static void probe(GstElement* bin, const gchar* name, const gchar* pad_name, GstPadProbeType type, GstPadProbeCallback call) {
  GstElement* element = gst_bin_get_by_name(GST_BIN(bin), name);
  GstPad* pad = gst_element_get_static_pad(element, pad_name);
  gst_pad_add_probe(pad, type, call, NULL, NULL);
  gst_object_unref(pad);
  gst_object_unref(element);
}

static void configure_camera(GstRTSPMediaFactory* factory, GstRTSPMedia* media, gpointer user) {
  (void)factory, (void)user;
  GstElement* bin = gst_rtsp_media_get_element(media);
  GstElement* filter = gst_bin_get_by_name(GST_BIN(bin), "size");
  g_weak_ref_set(&size, filter);
  gst_object_unref(filter);
  probe(bin, "size", "src", GST_PAD_PROBE_TYPE_BUFFER, stall);
  probe(bin, "pay0", "src", GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_BUFFER_LIST, lose_some);
  gst_object_unref(bin);
}

static void tell_received(GstRTSPMedia* media, gpointer user) {
  (void)media, (void)user;
  g_print("received %d\n", g_atomic_int_get(&received));
}

static void configure_record(GstRTSPMediaFactory* factory, GstRTSPMedia* media, gpointer user) {
  (void)factory, (void)user;
  GstElement* bin = gst_rtsp_media_get_element(media);
  probe(bin, "received", "sink", GST_PAD_PROBE_TYPE_BUFFER, count);
  gst_object_unref(bin);
  g_signal_connect(media, "unprepared", G_CALLBACK(tell_received), NULL);
}

static gboolean obey(GIOChannel* channel, GIOCondition condition, gpointer user) {
  gchar* line = NULL;
  gint width, height;
  (void)condition, (void)user;
  if (g_io_channel_read_line(channel, &line, NULL, NULL, NULL) != G_IO_STATUS_NORMAL) return G_SOURCE_REMOVE;
  g_strchomp(line);
  if (g_str_equal(line, "quit")) exit(0);
  if (g_str_equal(line, "stall") || g_str_equal(line, "go")) g_atomic_int_set(&is_stalled, line[0] == 's');
  GstElement* filter = g_weak_ref_get(&size);
  if (filter && sscanf(line, "size %dx%d", &width, &height) == 2) {
    GstCaps* caps;
    g_object_get(filter, "caps", &caps, NULL);
    caps = gst_caps_make_writable(caps);
    gst_caps_set_simple(caps, "width", G_TYPE_INT, width, "height", G_TYPE_INT, height, NULL);
    g_object_set(filter, "caps", caps, NULL);
    gst_caps_unref(caps);
  }
  if (filter) gst_object_unref(filter);
  g_free(line);
  return G_SOURCE_CONTINUE;
}

int main(int argc, char** argv) {
  gint port = 8554, width = 0, height = 0;
  gchar *dimensions = "160x120", *rate = "25/1", *claim = NULL;
  GOptionEntry entries[] = {{"port", 0, 0, G_OPTION_ARG_INT, &port, "Port to serve on (8554; 0: any that is free)", "N"},
                            {"size", 0, 0, G_OPTION_ARG_STRING, &dimensions, "Resolution (160x120)", "WxH"},
                            {"rate", 0, 0, G_OPTION_ARG_STRING, &rate, "Frames per second (25/1)", "N/D"},
                            {"claim", 0, 0, G_OPTION_ARG_STRING, &claim, "Frame rate the stream tells of (the true one)", "N/D"},
                            {"loss", 0, 0, G_OPTION_ARG_DOUBLE, &loss, "Lost video packets in per cent (0)", "P"},
                            {NULL, 0, 0, 0, NULL, NULL, NULL}};
  GError* error = NULL;
  GOptionContext* context = g_option_context_new(NULL);
  g_option_context_add_main_entries(context, entries, NULL);
  g_option_context_add_group(context, gst_init_get_option_group());
  if (!g_option_context_parse(context, &argc, &argv, &error) || sscanf(dimensions, "%dx%d", &width, &height) != 2) {
    g_printerr("%s\n", error ? error->message : "The size is WxH.");
    return 2;
  }
  g_option_context_free(context);
  setvbuf(stdout, NULL, _IOLBF, 0); /* for those who read it through a pipe */
  dice = g_rand_new_with_seed(1);
  g_weak_ref_init(&size, NULL);

  GstRTSPServer* server = gst_rtsp_server_new();
  gchar* service = g_strdup_printf("%d", port);
  gst_rtsp_server_set_service(server, service);
  gst_rtsp_server_set_address(server, "127.0.0.1");
  GstRTSPMountPoints* mounts = gst_rtsp_server_get_mount_points(server);

  GstRTSPMediaFactory* camera = gst_rtsp_media_factory_new();
  gchar* line = g_strdup_printf(
      "( videotestsrc is-live=true pattern=ball ! capsfilter name=size caps=video/x-raw,format=I420,width=%d,height=%d,framerate=%s ! "
      "capssetter caps=video/x-raw,framerate=%s ! x264enc tune=zerolatency key-int-max=25 ! "
      "rtph264pay name=pay0 pt=96 config-interval=-1 mtu=400  audiotestsrc is-live=true volume=0.1 ! audioconvert ! "
      "avenc_aac ! aacparse ! rtpmp4gpay name=pay1 pt=97 )",
      width, height, rate, claim ? claim : rate);
  gst_rtsp_media_factory_set_launch(camera, line);
  gst_rtsp_media_factory_set_shared(camera, TRUE);
  g_signal_connect(camera, "media-configure", G_CALLBACK(configure_camera), NULL);
  gst_rtsp_mount_points_add_factory(mounts, "/camera", camera);

  GstRTSPMediaFactory* record = gst_rtsp_media_factory_new();
  gst_rtsp_media_factory_set_launch(record, "( rtph264depay name=depay0 ! h264parse ! avdec_h264 ! fakesink name=received sync=false )");
  gst_rtsp_media_factory_set_transport_mode(record, GST_RTSP_TRANSPORT_MODE_RECORD);
  g_signal_connect(record, "media-configure", G_CALLBACK(configure_record), NULL);
  gst_rtsp_mount_points_add_factory(mounts, "/record", record);
  g_object_unref(mounts);

  if (gst_rtsp_server_attach(server, NULL) == 0) {
    g_printerr("Port %d is taken.\n", port);
    return 1;
  }
  GIOChannel* input = g_io_channel_unix_new(0);
  g_io_add_watch(input, G_IO_IN | G_IO_HUP, obey, NULL);
  g_print("rtsp://127.0.0.1:%d/camera\n", gst_rtsp_server_get_bound_port(server));
  g_main_loop_run(g_main_loop_new(NULL, FALSE));
  return 0;
}
