// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Events and queries.
#include "gstflashvsrprivate.h"

#include <gst/video/navigation.h>

#define GST_CAT_DEFAULT gst_flash_vsr_debug

using flashvsr_gst::Queue;

Queue::Go gst_flash_vsr_drain_all(GstFlashVsr* self) {
  const Queue::Go go = self->stream->queue.drain(true);
  if (go != Queue::Go::kYes) GST_DEBUG_OBJECT(self, "drain gave up: %d", static_cast<int>(go));
  return go;
}

static void reset_position(Stream* stream) {
  stream->cut_detector.reset();
  stream->interval_meter.reset();
  stream->last_pts = stream->last_duration = GST_CLOCK_TIME_NONE;
}

static gboolean forward(GstBaseTransform* transform, GstEvent* event) {
  return gst_flash_vsr_parent()->sink_event(transform, event);
}

static void take_segment(Stream* stream, const GstSegment* segment) {
  stream->segment = *segment;
  stream->is_trick_mode = (segment->flags & GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS) != 0;
  reset_position(stream);
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  stream->out_segment = *segment;
}

gboolean gst_flash_vsr_sink_event(GstBaseTransform* transform, GstEvent* event) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  gboolean is_still;
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_FLUSH_START: {
      gst_flash_vsr_close_gate(stream);
      gst_flash_vsr_interrupt(stream);
      gst_flash_vsr_set_pool_flushing(stream, TRUE);
      const gboolean ok = forward(transform, event);
      gst_pad_pause_task(GST_BASE_TRANSFORM_SRC_PAD(self));
      return ok;
    }
    case GST_EVENT_FLUSH_STOP: {
      gst_flash_vsr_halt(self);
      reset_position(stream);
      stream->is_passing = false;
      stream->was_fresh = true;
      {
        std::lock_guard<std::mutex> lock(stream->clock_mutex);
        stream->qos_earliest = stream->out_pts = GST_CLOCK_TIME_NONE;
      }
      const gboolean ok = forward(transform, event);
      gst_flash_vsr_open_gate(stream);
      gst_flash_vsr_resume(self);
      return ok;
    }
    case GST_EVENT_STREAM_START:
    case GST_EVENT_SEGMENT_DONE:
    case GST_EVENT_STREAM_GROUP_DONE:
      gst_flash_vsr_drain_all(self);
      return forward(transform, event);
    case GST_EVENT_EOS: {
      if (gst_flash_vsr_drain_all(self) == Queue::Go::kFailed) {
        // The worker posts the error, or has: an EOS that overtook it would look like success.
        gst_event_unref(event);
        return FALSE;
      }
      reset_position(stream);
      const GstFlowReturn flow = static_cast<GstFlowReturn>(stream->queue.flow());
      // Upstream has no more buffers to be told by. Where it was told, the message is its own.
      if (!stream->queue.has_failed() && flow != stream->told && (flow == GST_FLOW_NOT_LINKED || flow < GST_FLOW_EOS))
        GST_ELEMENT_FLOW_ERROR(self, flow);
      return forward(transform, event);
    }
    case GST_EVENT_SEGMENT: {
      const GstSegment* segment;
      gst_event_parse_segment(event, &segment);
      // The same again changes nothing, and a restart of the model would show.
      if (gst_segment_is_equal(segment, &stream->segment) && stream->queue.add_event(event)) return TRUE;
      gst_flash_vsr_drain_all(self);
      take_segment(stream, segment);
      return forward(transform, event);
    }
    case GST_EVENT_GAP: {
      GstClockTime start, duration;
      gst_event_parse_gap(event, &start, &duration);
      if (!GST_CLOCK_TIME_IS_VALID(duration) || duration > GST_SECOND) {
        gst_flash_vsr_drain_all(self);
        return forward(transform, event);
      }
      return stream->queue.add_event(event) ? TRUE : forward(transform, event);
    }
    case GST_EVENT_CAPS:
      return forward(transform, event);  // set_info drains where they changed
    default:
      if (!GST_EVENT_IS_SERIALIZED(event)) return forward(transform, event);
      if (gst_video_event_parse_still_frame(event, &is_still)) {
        gst_flash_vsr_drain_all(self);
        return forward(transform, event);
      }
      return stream->queue.add_event(event) ? TRUE : forward(transform, event);
  }
}

gboolean gst_flash_vsr_src_event(GstBaseTransform* transform, GstEvent* event) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  switch (GST_EVENT_TYPE(event)) {
    case GST_EVENT_QOS: {
      GstClockTimeDiff diff;
      GstClockTime time;
      gst_event_parse_qos(event, nullptr, nullptr, &diff, &time);
      if (!gst_base_transform_is_qos_enabled(transform)) {
        // A decoder that hears of it drops frames, and tears holes into what the model sees.
        gst_event_unref(event);
        return TRUE;
      }
      {
        std::lock_guard<std::mutex> lock(stream->clock_mutex);
        stream->qos_earliest = GST_CLOCK_TIME_IS_VALID(time) && static_cast<GstClockTimeDiff>(time) + diff > 0
                                   ? static_cast<GstClockTime>(static_cast<GstClockTimeDiff>(time) + diff)
                                   : GST_CLOCK_TIME_NONE;
        if (diff <= 0) stream->qos_earliest = GST_CLOCK_TIME_NONE;
      }
      // Past the base class, which would drop single frames.
      return gst_pad_push_event(GST_BASE_TRANSFORM_SINK_PAD(self), event);
    }
    case GST_EVENT_LATENCY: {
      GstClockTime latency;
      gst_event_parse_latency(event, &latency);
      std::lock_guard<std::mutex> lock(stream->clock_mutex);
      stream->configured = latency;
      break;
    }
    case GST_EVENT_RECONFIGURE:
      // Linked again, perhaps: as queue does, try anew.
      if (stream->queue.flow() == GST_FLOW_NOT_LINKED) {
        stream->queue.set_flow(0);
        if (GST_PAD_IS_ACTIVE(GST_BASE_TRANSFORM_SRC_PAD(self))) gst_flash_vsr_start_task(self);
      }
      break;
    case GST_EVENT_NAVIGATION: {
      gdouble x, y;
      const Settings settings = gst_flash_vsr_copy_settings(self);
      const GstStructure* was = gst_event_get_structure(event);
      if (!was || !gst_structure_get_double(was, "pointer_x", &x) || !gst_structure_get_double(was, "pointer_y", &y)) break;
      gint button = 0;
      const gchar* kind = gst_structure_get_string(was, "event");
      gst_structure_get_int(was, "button", &button);
      gint state = 0;
      gst_structure_get_int(was, "state", &state);
      const gint width = GST_VIDEO_INFO_WIDTH(&GST_VIDEO_FILTER(self)->out_info);
      // Dragging, or a click, moves the bar.
      if (settings.compare == FLASHVSR_COMPARE_SPLIT && width > 0 && kind &&
          (g_str_equal(kind, "mouse-button-press") ||
           (g_str_equal(kind, "mouse-move") && (state & GST_NAVIGATION_MODIFIER_BUTTON1_MASK) != 0)))
        g_object_set(self, "compare-position", CLAMP(x / width, 0.0, 1.0), nullptr);
      event = gst_event_make_writable(event);
      gst_structure_set(gst_event_writable_structure(event), "pointer_x", G_TYPE_DOUBLE, x / settings.scale,
                        "pointer_y", G_TYPE_DOUBLE, y / settings.scale, nullptr);
      return gst_pad_push_event(GST_BASE_TRANSFORM_SINK_PAD(self), event);
    }
    default:
      break;
  }
  return gst_flash_vsr_parent()->src_event(transform, event);
}

gboolean gst_flash_vsr_query(GstBaseTransform* transform, GstPadDirection direction, GstQuery* query) {
  GstFlashVsr* self = GST_FLASH_VSR(transform);
  Stream* stream = self->stream;
  switch (GST_QUERY_TYPE(query)) {
    case GST_QUERY_LATENCY:
      if (direction == GST_PAD_SRC) return gst_flash_vsr_query_latency(self, query);
      break;
    case GST_QUERY_SCHEDULING:
      if (direction == GST_PAD_SRC) return FALSE;  // nobody pulls: frames leave from our own thread
      break;
    case GST_QUERY_POSITION: {
      GstFormat format;
      gst_query_parse_position(query, &format, nullptr);
      if (direction != GST_PAD_SRC || format != GST_FORMAT_TIME) break;
      std::lock_guard<std::mutex> lock(stream->clock_mutex);
      if (!GST_CLOCK_TIME_IS_VALID(stream->out_pts) || stream->out_segment.format != GST_FORMAT_TIME) break;
      gst_query_set_position(query, GST_FORMAT_TIME,
                             static_cast<gint64>(gst_segment_to_stream_time(&stream->out_segment, GST_FORMAT_TIME, stream->out_pts)));
      return TRUE;
    }
#ifdef FLASHVSR_HAVE_GST_CUDA
    case GST_QUERY_CONTEXT:
      if (stream->cuda.answer_context(GST_ELEMENT(self), query)) return TRUE;
      break;
#endif
    case GST_QUERY_DRAIN:
      if (direction == GST_PAD_SINK) gst_flash_vsr_drain_all(self);
      break;
    default:
      break;
  }
  return gst_flash_vsr_parent()->query(transform, direction, query);
}
