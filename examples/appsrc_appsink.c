/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * appsrc_appsink: frames from your own program through flashvsr and back.
 *
 *     appsrc ! flashvsr scale=2 ! appsink
 *
 * One thread pushes 50 small frames and says that there are no more; the main thread pulls. They
 * must be two: the first result needs 25 frames, and appsrc's queue is bounded.
 */
#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>
#include <gst/video/video.h>

enum { kWidth = 96, kHeight = 64, kFrames = 50 };

static gpointer feed(gpointer user) {
  GstAppSrc* source = GST_APP_SRC(user);
  for (int i = 0; i < kFrames; ++i) {
    GstBuffer* buffer = gst_buffer_new_allocate(NULL, kWidth * kHeight * 3, NULL);
    GstMapInfo map;
    gst_buffer_map(buffer, &map, GST_MAP_WRITE);
    for (int y = 0; y < kHeight; ++y) /* a white square that walks over a ramp */
      for (int x = 0; x < kWidth; ++x)
        for (int c = 0; c < 3; ++c)
          map.data[(y * kWidth + x) * 3 + c] = x > i && x < i + 20 && y > 20 && y < 40 ? 255 : x + y + 30 * c;
    gst_buffer_unmap(buffer, &map);
    GST_BUFFER_PTS(buffer) = gst_util_uint64_scale(i, GST_SECOND, 25);
    GST_BUFFER_DURATION(buffer) = GST_SECOND / 25;
    if (gst_app_src_push_buffer(source, buffer) != GST_FLOW_OK) return NULL; /* takes the buffer */
  }
  gst_app_src_end_of_stream(source);
  return NULL;
}

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  GError* error = NULL;
  GstElement* pipeline = gst_parse_launch("appsrc name=in format=time block=true max-buffers=40 ! flashvsr scale=2 ! "
                                          "appsink name=out sync=false", &error);
  if (error) {
    g_printerr("%s\n", error->message);
    return 1;
  }
  GstElement* in = gst_bin_get_by_name(GST_BIN(pipeline), "in");
  GstElement* out = gst_bin_get_by_name(GST_BIN(pipeline), "out");
  GstCaps* caps = gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, "RGB", "width", G_TYPE_INT, kWidth, "height",
                                      G_TYPE_INT, kHeight, "framerate", GST_TYPE_FRACTION, 25, 1, NULL);
  gst_app_src_set_caps(GST_APP_SRC(in), caps);
  gst_caps_unref(caps);

  /* The model loads here, and a failure is told on the bus. */
  int frames = 0;
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  GThread* feeder = g_thread_new("feed", feed, in);
  GstSample* sample;
  while ((sample = gst_app_sink_pull_sample(GST_APP_SINK(out)))) { /* NULL: the end, or an error */
    GstVideoInfo info;
    gst_video_info_from_caps(&info, gst_sample_get_caps(sample));
    if (frames++ == 0) g_print("%d x %d\n", GST_VIDEO_INFO_WIDTH(&info), GST_VIDEO_INFO_HEIGHT(&info));
    gst_sample_unref(sample);
  }
  GstBus* bus = gst_element_get_bus(pipeline);
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  if (message) {
    gst_message_parse_error(message, &error, NULL);
    g_printerr("%s\n", error->message);
    gst_message_unref(message);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  g_thread_join(feeder);
  g_print("%d frames\n", frames);
  gst_object_unref(bus);
  gst_object_unref(in);
  gst_object_unref(out);
  gst_object_unref(pipeline);
  return frames == kFrames ? 0 : 1;
}
