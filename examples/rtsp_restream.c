/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp_restream: RTSP in, flashvsr, RTSP out.
 *
 *     rtsp_restream [--port 8554] [--scale 2] [--filter "PROPERTY=VALUE ..."] rtsp://CAMERA/...
 *     rtsp_restream --camera        a test camera at /camera, enlarged at /enlarged
 *
 * The stream is at rtsp://127.0.0.1:PORT/enlarged; it runs while somebody watches, once for all.
 * Video is H.264; sound, where it is AAC, is passed on as it is. Lost packets, a camera that
 * stalls, or a change of its resolution need nothing special: the element drains, reports its
 * delay, and starts anew. When the camera goes away the stream ends, and the next viewer
 * connects to it again.
 */
#include <gst/gst.h>
#include <gst/rtsp-server/rtsp-server.h>
#include <string.h>

/* Links a pad of the camera's to the branch for its kind, if there is one that is still free: "video" or "audio", which is
   also what the branch's first element is called. By hand, since GStreamer's own late links trip over each other (1.22)
   when sound and pictures come at the same time. */
static void on_pad_added(GstElement* camera, GstPad* pad, gpointer user) {
  GstObject* bin = gst_object_get_parent(GST_OBJECT(camera));
  GstCaps* caps = gst_pad_query_caps(pad, NULL);
  const GstStructure* stream = gst_caps_is_any(caps) || gst_caps_is_empty(caps) ? NULL : gst_caps_get_structure(caps, 0);
  const gchar* media = stream ? gst_structure_get_string(stream, "media") : NULL;
  const gchar* encoding = stream ? gst_structure_get_string(stream, "encoding-name") : NULL;
  GstElement* branch = media ? gst_bin_get_by_name(GST_BIN(bin), media) : NULL;
  GstPad* sink = branch ? gst_element_get_static_pad(branch, "sink") : NULL;
  (void)user;
  if (sink && !gst_pad_is_linked(sink) && GST_PAD_LINK_FAILED(gst_pad_link(pad, sink)))
    g_printerr("The camera's %s is %s, which is not passed on.\n", media, encoding ? encoding : "of no known kind");
  g_clear_object(&sink);
  g_clear_object(&branch);
  gst_caps_unref(caps);
  gst_object_unref(bin);
}

static void on_no_more_pads(GstElement* camera, gpointer user) {
  static const gchar* const kBranches[] = {"video", "audio"};
  GstObject* bin = gst_object_get_parent(GST_OBJECT(camera));
  (void)user;
  for (guint i = 0; i < G_N_ELEMENTS(kBranches); ++i) {
    GstElement* branch = gst_bin_get_by_name(GST_BIN(bin), kBranches[i]);
    GstPad* sink = branch ? gst_element_get_static_pad(branch, "sink") : NULL;
    /* Whoever watches would wait for it in vain. */
    if (sink && !gst_pad_is_linked(sink)) {
      g_printerr("The camera has no %s.\n", i == 0 ? "H.264 video" : "AAC sound: leave --sound away");
      GST_ELEMENT_ERROR(camera, STREAM, WRONG_TYPE, ("No %s.", kBranches[i]), (NULL));
    }
    g_clear_object(&sink);
    g_clear_object(&branch);
  }
  gst_object_unref(bin);
}

static void configure(GstRTSPMediaFactory* factory, GstRTSPMedia* media, gpointer user) {
  GstElement* bin = gst_rtsp_media_get_element(media);
  GstElement* camera = gst_bin_get_by_name(GST_BIN(bin), "in");
  (void)factory, (void)user;
  if (camera) {
    g_signal_connect(camera, "pad-added", G_CALLBACK(on_pad_added), NULL);
    g_signal_connect(camera, "no-more-pads", G_CALLBACK(on_no_more_pads), NULL);
    gst_object_unref(camera);
  }
  gst_object_unref(bin);
}

static void add(GstRTSPServer* server, const gchar* path, const gchar* line) {
  GstRTSPMountPoints* mounts = gst_rtsp_server_get_mount_points(server);
  GstRTSPMediaFactory* factory = gst_rtsp_media_factory_new();
  gst_rtsp_media_factory_set_launch(factory, line);
  gst_rtsp_media_factory_set_shared(factory, TRUE); /* one model, however many watch */
  g_signal_connect(factory, "media-configure", G_CALLBACK(configure), NULL);
  gst_rtsp_mount_points_add_factory(mounts, path, factory);
  g_object_unref(mounts);
}

int main(int argc, char** argv) {
  gint port = 8554, latency = 200;
  gdouble scale = 2;
  gboolean has_camera = FALSE, has_sound = FALSE;
  gchar* filter = NULL;
  GOptionEntry entries[] = {
      {"port", 0, 0, G_OPTION_ARG_INT, &port, "Port to serve on (8554)", "N"},
      {"scale", 0, 0, G_OPTION_ARG_DOUBLE, &scale, "1.5, 2, 3 or 4 (2)", "X"},
      {"latency", 0, 0, G_OPTION_ARG_INT, &latency, "Jitter buffer in ms (200)", "MS"},
      {"filter", 0, 0, G_OPTION_ARG_STRING, &filter, "Further properties of flashvsr", "P=V"},
      {"sound", 0, 0, G_OPTION_ARG_NONE, &has_sound, "Pass the camera's AAC sound on", NULL},
      {"camera", 0, 0, G_OPTION_ARG_NONE, &has_camera, "Serve a test camera too, and enlarge that", NULL},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  GError* error = NULL;
  GOptionContext* context = g_option_context_new("rtsp://CAMERA/...");
  g_option_context_add_main_entries(context, entries, NULL);
  g_option_context_add_group(context, gst_init_get_option_group());
  if (!g_option_context_parse(context, &argc, &argv, &error) || (argc < 2 && !has_camera)) {
    g_printerr("%s\n", error ? error->message : "Name a camera, or say --camera.");
    return 2;
  }
  g_option_context_free(context);

  GstRTSPServer* server = gst_rtsp_server_new();
  gchar* service = g_strdup_printf("%d", port);
  gst_rtsp_server_set_service(server, service);
  gst_rtsp_server_set_address(server, "127.0.0.1");

  /* A thread for each client: ours is one of them where --camera is given. */
  GstRTSPThreadPool* threads = gst_rtsp_server_get_thread_pool(server);
  gst_rtsp_thread_pool_set_max_threads(threads, -1);
  g_object_unref(threads);

  gchar* uri = g_strdup_printf("rtsp://127.0.0.1:%d/camera", port);
  if (has_camera) {
    has_sound = TRUE;
    add(server, "/camera",
        "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=25/1 ! x264enc tune=zerolatency "
        "key-int-max=25 ! rtph264pay name=pay0 pt=96 config-interval=1  audiotestsrc is-live=true volume=0.1 ! "
        "audioconvert ! avenc_aac ! aacparse ! rtpmp4gpay name=pay1 pt=97 )");
  } else {
    g_free(uri);
    uri = g_strdup(argv[1]);
  }
  /* The sound must be held back as long as the model looks ahead; its queue has room for that. */
  gchar* line = g_strdup_printf(
      "( rtspsrc name=in location=\"%s\" latency=%d  rtph264depay name=video ! h264parse ! "
      "avdec_h264 ! videoconvert ! flashvsr scale=%.6g %s ! videoconvert ! x264enc tune=zerolatency key-int-max=50 ! "
      "rtph264pay name=pay0 pt=96 config-interval=1 %s )",
      uri, latency, scale, filter ? filter : "",
      has_sound ? "rtpmp4gdepay name=audio ! aacparse ! queue max-size-buffers=0 max-size-bytes=0 "
                  "max-size-time=5000000000 ! rtpmp4gpay name=pay1 pt=97"
                : "");
  add(server, "/enlarged", line);
  g_free(line);

  if (gst_rtsp_server_attach(server, NULL) == 0) {
    g_printerr("Port %d is taken.\n", port);
    return 1;
  }
  g_print("%s -> rtsp://127.0.0.1:%d/enlarged\n", uri, port);
  g_main_loop_run(g_main_loop_new(NULL, FALSE));
  return 0;
}
