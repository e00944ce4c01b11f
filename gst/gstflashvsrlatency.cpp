// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the element answers to LATENCY, and when it says that the answer changed.
#include "gstflashvsrprivate.h"

#include <algorithm>
#include <chrono>

#define GST_CAT_DEFAULT gst_flash_vsr_debug

void gst_flash_vsr_update_latency(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = gst_flash_vsr_copy_settings(self);
  bool is_changed = false;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (stream->frame_duration == 0) return;  // no caps yet
    GstClockTime deadline = settings.processing_deadline;
    if (!GST_CLOCK_TIME_IS_VALID(deadline)) {
      deadline = 8 * stream->frame_duration;
      // Raised by what was measured, never lowered while it runs: each change glitches.
      if (stream->deadline > deadline && GST_CLOCK_TIME_IS_VALID(stream->reported)) deadline = stream->deadline;
    }
    stream->deadline = deadline;
    const GstClockTime sum = static_cast<GstClockTime>(stream->max_delay) * stream->frame_duration + deadline;
    is_changed = sum != stream->reported;
    stream->reported = sum;
  }
  if (is_changed) gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}

// A live source that stalls: what waits inside leaves after twice the longest wait.
static void set_idle_timeout(Stream* stream) {
  gint64 timeout = 0;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (stream->is_live) timeout = std::max<gint64>(GST_SECOND, 2 * stream->max_delay * static_cast<gint64>(stream->frame_duration));
  }
  stream->queue.set_idle_timeout(std::chrono::nanoseconds(timeout));
}

void gst_flash_vsr_set_frame_duration(GstFlashVsr* self, GstClockTime duration) {
  Stream* stream = self->stream;
  // Nobody films 500 pictures a second and wants them enlarged: that is a time base (1000/1,
  // 90000/1, 1000000000/1) which came through in place of a rate.
  if (duration < 2 * GST_MSECOND) duration = GST_SECOND / 25;
  if (duration != stream->caps_duration) {
    stream->caps_duration = duration;
    stream->interval_meter.reset();
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    stream->frame_duration = duration;
    stream->deadline = 0;
  }
  gst_flash_vsr_update_latency(self);
  set_idle_timeout(stream);
}

void gst_flash_vsr_measure_interval(GstFlashVsr* self, gint64 time) {
  Stream* stream = self->stream;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    stream->interval_meter.add(time, static_cast<size_t>(stream->max_delay));
    if (!stream->is_live) return;
    // More than a tenth longer, as with the deadline; and only longer: each change glitches.
    const gint64 interval = stream->interval_meter.median(), now = static_cast<gint64>(stream->frame_duration);
    if (interval <= now + now / 10) return;
    GST_INFO_OBJECT(self, "frames come every %" GST_TIME_FORMAT ", not %" GST_TIME_FORMAT,
                    GST_TIME_ARGS(interval), GST_TIME_ARGS(now));
    stream->frame_duration = static_cast<GstClockTime>(interval);
  }
  gst_flash_vsr_update_latency(self);
  set_idle_timeout(stream);
}

void gst_flash_vsr_raise_deadline(GstFlashVsr* self, GstClockTime measured) {
  Stream* stream = self->stream;
  if (GST_CLOCK_TIME_IS_VALID(gst_flash_vsr_copy_settings(self).processing_deadline)) return;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    // More than a tenth late; never beyond four times real time, which no delay would cure.
    if (measured <= stream->deadline + stream->deadline / 10 || measured > 32 * stream->frame_duration) return;
    stream->deadline = measured;
  }
  gst_flash_vsr_update_latency(self);
}

gboolean gst_flash_vsr_query_latency(GstFlashVsr* self, GstQuery* query) {
  Stream* stream = self->stream;
  if (!gst_pad_peer_query(GST_BASE_TRANSFORM_SINK_PAD(self), query)) return FALSE;
  gboolean is_live;
  GstClockTime min, max;
  gst_query_parse_latency(query, &is_live, &min, &max);
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  stream->is_live = is_live;
  stream->upstream_min = min;
  const GstClockTime own = GST_CLOCK_TIME_IS_VALID(stream->reported) ? stream->reported : 0;
  min += own;
  if (GST_CLOCK_TIME_IS_VALID(max)) max += own;
  gst_query_set_latency(query, is_live, min, max);
  return TRUE;
}
