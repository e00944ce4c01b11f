// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the element answers to LATENCY, and when it says that the answer changed.
#include "gstflashvsrprivate.h"

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
