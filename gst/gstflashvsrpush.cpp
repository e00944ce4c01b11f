// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The source pad's task: fills output buffers and pushes them. How it is halted and let go on.
#include "gstflashvsrprivate.h"

#include "gstflashvsrframe.h"

#define GST_CAT_DEFAULT gst_flash_vsr_debug

using flashvsr_gst::Queue;

static GstFlowReturn acquire(GstFlashVsr* self, GstBuffer** buffer) {
  Stream* stream = self->stream;
  for (;;) {
    GstBufferPool* pool;
    {
      std::lock_guard<std::mutex> lock(stream->pool_mutex);
      pool = stream->pool ? static_cast<GstBufferPool*>(gst_object_ref(stream->pool)) : nullptr;
    }
    if (!pool) return GST_FLOW_NOT_NEGOTIATED;
    const GstFlowReturn flow = gst_buffer_pool_acquire_buffer(pool, buffer, nullptr);
    bool is_swapped;
    {
      std::lock_guard<std::mutex> lock(stream->pool_mutex);
      is_swapped = pool != stream->pool;
    }
    gst_object_unref(pool);
    // A RECONFIGURE replaces the pool while we wait in the old one.
    if (flow == GST_FLOW_OK || !is_swapped || stream->queue.is_flushing()) return flow;
  }
}

static bool map_output([[maybe_unused]] Stream* stream, GstBuffer* buffer, const GstVideoInfo* info, GstVideoFrame* mapped,
                       FlashVsrFrame* frame, [[maybe_unused]] FlashVsrError* error) {
#ifdef FLASHVSR_HAVE_GST_CUDA
  if (stream->format.output_memory == FLASHVSR_MEMORY_CUDA)
    return stream->cuda.map_output(buffer, info, mapped, frame, error);
#endif
  return gst_flash_vsr_frame_map(mapped, info, buffer, GST_MAP_WRITE, frame);
}

// Returns what push_done is to be told; kNoResult: nothing was there.
static constexpr int kNoResult = 1000;

static int push_frame(GstFlashVsr* self, const Queue::Output& output) {
  Stream* stream = self->stream;
  GstVideoFilter* filter = GST_VIDEO_FILTER(self);
  GstBuffer* buffer = nullptr;
  GstFlowReturn flow = acquire(self, &buffer);
  if (flow == GST_FLOW_FLUSHING) return flow;
  GstVideoFrame mapped;
  FlashVsrFrame frame = {};
  FlashVsrError error = {};
  if (flow != GST_FLOW_OK || !map_output(stream, buffer, &filter->out_info, &mapped, &frame, &error)) {
    if (buffer) gst_buffer_unref(buffer);
    const gchar* why = flow != GST_FLOW_OK ? gst_flow_get_name(flow) : error.message[0] ? error.message : "mapping failed";
    GST_ELEMENT_ERROR(self, RESOURCE, WRITE, ("No buffer for the enlarged picture."), ("%s", why));
    stream->queue.fail();
    return GST_FLOW_ERROR;
  }

  GstBuffer* shell = static_cast<GstBuffer*>(output.payload);
  if (GST_BUFFER_PTS_IS_VALID(shell)) {
    GstClockTime stream_time = GST_CLOCK_TIME_NONE;
    {
      std::lock_guard<std::mutex> lock(stream->clock_mutex);
      if (stream->out_segment.format == GST_FORMAT_TIME)
        stream_time = gst_segment_to_stream_time(&stream->out_segment, GST_FORMAT_TIME, GST_BUFFER_PTS(shell));
    }
    if (GST_CLOCK_TIME_IS_VALID(stream_time)) gst_object_sync_values(GST_OBJECT(self), stream_time);
  }
  const Settings settings = gst_flash_vsr_copy_settings(self);
  const FlashVsrView view = {sizeof view, settings.strength, settings.compare, settings.compare_position};
  FlashVsrStatus status;
  {
    std::lock_guard<std::mutex> lock(stream->receive_mutex);
    status = stream->api->receive(stream->session, &view, &frame, &error);
  }
  gst_video_frame_unmap(&mapped);
  if (status == FLASHVSR_AGAIN) {
    gst_buffer_unref(buffer);
    return kNoResult;
  }
  if (status == FLASHVSR_OK && frame.frame_id != output.id) {
    status = FLASHVSR_ERROR_INTERNAL;
    g_snprintf(error.message, sizeof error.message, "frame %" G_GUINT64_FORMAT " came back in place of %" G_GUINT64_FORMAT,
               static_cast<guint64>(frame.frame_id), static_cast<guint64>(output.id));
  }
#ifdef FLASHVSR_HAVE_GST_CUDA
  if (status == FLASHVSR_OK && stream->format.output_memory == FLASHVSR_MEMORY_CUDA &&
      !stream->cuda.finish_output(buffer, &filter->out_info, &error))
    status = error.status;
#endif
  if (status != FLASHVSR_OK) {
    gst_buffer_unref(buffer);
    error.status = status;
    gst_flash_vsr_fail(self, error, "receiving a frame");
    return GST_FLOW_ERROR;
  }

  const int mark = stream->queue.take_frame();
  if (!stream->queue.is_current(output.epoch)) {
    gst_buffer_unref(buffer);
    gst_buffer_unref(shell);
    return GST_FLOW_FLUSHING;
  }
  // GstBaseTransform's own: flags, times, and metas through transform_meta.
  GST_BASE_TRANSFORM_GET_CLASS(self)->copy_metadata(GST_BASE_TRANSFORM(self), shell, buffer);
  gst_buffer_unref(shell);
  const GstClockTime pts = GST_BUFFER_PTS(buffer);
  if (mark == kMarkDrop) {
    gst_buffer_unref(buffer);
  } else {
    flow = gst_pad_push(GST_BASE_TRANSFORM_SRC_PAD(self), buffer);
  }
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (mark == kMarkDrop) {
      ++stream->frames_dropped;
    } else if (flow == GST_FLOW_OK) {
      ++stream->frames_out;
      if (mark == kMarkPassthrough) ++stream->frames_passthrough;
      if (GST_CLOCK_TIME_IS_VALID(pts)) stream->out_pts = pts;
      stream->last_out = g_get_monotonic_time();
      if (stream->first_out == 0) stream->first_out = stream->last_out;
    }
  }
  if (flow == GST_FLOW_OK) gst_flash_vsr_post_stats(self);
  return flow;
}

static void push_loop(gpointer user) {
  GstFlashVsr* self = GST_FLASH_VSR(user);
  Stream* stream = self->stream;
  GstPad* pad = GST_BASE_TRANSFORM_SRC_PAD(self);
  const Queue::Output output = stream->queue.next_output();
  switch (output.kind) {
    case Queue::OutputKind::kEvent:
      gst_pad_push_event(pad, static_cast<GstEvent*>(output.payload));
      stream->queue.push_done(0, output.epoch);
      return;
    case Queue::OutputKind::kFrame: {
      const int flow = push_frame(self, output);
      if (flow == kNoResult) {
        stream->queue.no_result(output.runs);
        return;
      }
      // FLUSHING without our own flush comes from a pad that is being shut; ours follows.
      if (flow != GST_FLOW_OK) GST_DEBUG_OBJECT(self, "push returned %s", gst_flow_get_name(static_cast<GstFlowReturn>(flow)));
      stream->queue.push_done(flow, output.epoch);
      return;
    }
    case Queue::OutputKind::kLost: {
      FlashVsrError error = {FLASHVSR_ERROR_INTERNAL, "drained, but frames did not come back"};
      gst_flash_vsr_fail(self, error, "receiving a frame");
      return;
    }
    case Queue::OutputKind::kPark: {
      std::lock_guard<std::mutex> lock(stream->task_mutex);
      if (stream->queue.is_flushing() || stream->queue.has_failed() || stream->queue.flow() != 0)
        gst_pad_pause_task(pad);
      return;
    }
  }
}

void gst_flash_vsr_start_task(GstFlashVsr* self) {
  std::lock_guard<std::mutex> lock(self->stream->task_mutex);
  gst_pad_start_task(GST_BASE_TRANSFORM_SRC_PAD(self), push_loop, self, nullptr);
}

void gst_flash_vsr_set_pool_flushing(Stream* stream, gboolean is_flushing) {
  std::lock_guard<std::mutex> lock(stream->pool_mutex);
  if (stream->pool) gst_buffer_pool_set_flushing(stream->pool, is_flushing);
}

void gst_flash_vsr_replace_pool(Stream* stream, GstBufferPool* pool) {
  GstBufferPool* old;
  {
    std::lock_guard<std::mutex> lock(stream->pool_mutex);
    old = stream->pool;
    stream->pool = pool;
  }
  if (!old) return;
  gst_buffer_pool_set_active(old, FALSE);
  gst_object_unref(old);
}

void gst_flash_vsr_drop_items(const std::vector<Queue::Item>& items) {
  for (const Queue::Item& item : items) gst_mini_object_unref(static_cast<GstMiniObject*>(item.payload));
}

void gst_flash_vsr_halt(GstFlashVsr* self) {
  Stream* stream = self->stream;
  stream->queue.set_flushing(true);
  gst_flash_vsr_interrupt(stream);
  gst_flash_vsr_set_pool_flushing(stream, TRUE);
  gst_pad_pause_task(GST_BASE_TRANSFORM_SRC_PAD(self));
  gst_flash_vsr_drop_items(stream->queue.clear());
  std::scoped_lock lock(stream->send_mutex, stream->receive_mutex);
  if (stream->session) stream->api->flush(stream->session);
}

void gst_flash_vsr_close_gate(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->gate_mutex);
  stream->may_run = false;
  stream->queue.set_flushing(true);
}

void gst_flash_vsr_shut_gate(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->gate_mutex);
  stream->may_run = stream->is_active = false;
  stream->queue.set_flushing(true);
}

// A FLUSH_STOP may come between the source pad's end and the sink pad's: if it let P go on, P would wait in the queue
// for frames that no longer come, and gst_pad_stop_task for P.
void gst_flash_vsr_open_gate(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->gate_mutex);
  stream->may_run = stream->is_active;
}

void gst_flash_vsr_resume(GstFlashVsr* self) {
  Stream* stream = self->stream;
  std::lock_guard<std::mutex> lock(stream->gate_mutex);
  if (!stream->may_run) return;
  gst_flash_vsr_set_pool_flushing(stream, FALSE);
  stream->queue.set_flushing(false);
  gst_flash_vsr_start_task(self);
}

gboolean gst_flash_vsr_src_activate_mode(GstPad* pad, GstObject* parent, GstPadMode mode, gboolean active) {
  GstFlashVsr* self = GST_FLASH_VSR(parent);
  if (mode != GST_PAD_MODE_PUSH) return FALSE;
  if (active) {
    {
      std::lock_guard<std::mutex> lock(self->stream->gate_mutex);
      self->stream->may_run = self->stream->is_active = true;
    }
    gst_flash_vsr_resume(self);
    return TRUE;
  }
  gst_flash_vsr_shut_gate(self->stream);
  gst_flash_vsr_interrupt(self->stream);
  gst_flash_vsr_set_pool_flushing(self->stream, TRUE);
  return gst_pad_stop_task(pad);
}
