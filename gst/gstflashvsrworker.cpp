// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The worker's thread: runs the engine, chooses what becomes of late chunks.
#include "gstflashvsrprivate.h"

#include <algorithm>

#include "gstflashvsrerror.h"

#define GST_CAT_DEFAULT gst_flash_vsr_debug

using flashvsr_gst::Queue;

void gst_flash_vsr_interrupt(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->session_mutex);
  if (stream->session) stream->api->interrupt(stream->session);
}

static GstClockTime running_time_now(GstFlashVsr* self) {
  GstClock* clock = gst_element_get_clock(GST_ELEMENT(self));
  if (!clock) return GST_CLOCK_TIME_NONE;
  const GstClockTime now = gst_clock_get_time(clock), base = gst_element_get_base_time(GST_ELEMENT(self));
  gst_object_unref(clock);
  return GST_CLOCK_TIME_IS_VALID(now) && now > base ? now - base : 0;
}

// Whether frames at running time `time` would come too late if a run of `cost` began now.
static bool is_late(GstFlashVsr* self, GstClockTime time, double cost, GstClockTimeDiff* jitter) {
  Stream* stream = self->stream;
  GstClockTime qos_earliest, latency;
  bool is_live;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    qos_earliest = stream->qos_earliest;
    // Never less than what frames need to come and to fill a chunk: a sink that does not wait
    // for the clock (a recording) leaves the pipeline with a latency of 0.
    latency = stream->reported;
    if (GST_CLOCK_TIME_IS_VALID(latency)) latency += stream->upstream_min;
    if (GST_CLOCK_TIME_IS_VALID(stream->configured))
      latency = GST_CLOCK_TIME_IS_VALID(latency) ? std::max(latency, stream->configured) : stream->configured;
    is_live = stream->is_live;
  }
  *jitter = 0;
  if (GST_CLOCK_TIME_IS_VALID(qos_earliest) && time < qos_earliest) {
    *jitter = GST_CLOCK_DIFF(time, qos_earliest);
    return true;
  }
  if (!is_live || !GST_CLOCK_TIME_IS_VALID(latency) || GST_STATE(self) != GST_STATE_PLAYING) return false;
  const GstClockTime now = running_time_now(self);
  if (!GST_CLOCK_TIME_IS_VALID(now)) return false;
  *jitter = GST_CLOCK_DIFF(time + latency, now + static_cast<GstClockTime>(cost));
  return *jitter > 0;
}

// A step down: less attention, and where there is no less, the embedded model.
static void degrade_further(Stream* stream) {
  std::lock_guard<std::mutex> lock(stream->clock_mutex);
  SmallModel loaded = SmallModel::kLoaded;
  if (stream->degrade > 0.15 && stream->small_state != SmallModel::kInUse) {
    stream->degrade *= 0.7;
    stream->chunk_ns *= 0.8;
    stream->is_guess = true;
    stream->queue.request_options();
  } else {
    stream->small_state.compare_exchange_strong(loaded, SmallModel::kWanted);
  }
}

// The mode of the next run, and the mark for its frames.
static Mark choose_mode(GstFlashVsr* self, const Settings& settings, GstClockTimeDiff* jitter) {
  Stream* stream = self->stream;
  *jitter = 0;
  if (settings.bypass || stream->is_trick_mode) return kMarkPassthrough;
  bool is_live, has_qos;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    is_live = stream->is_live;
    has_qos = GST_CLOCK_TIME_IS_VALID(stream->qos_earliest);
  }
  gint policy = settings.overload_policy;
  if (policy == kOverloadAuto) policy = is_live ? kOverloadPassthrough : has_qos ? kOverloadDropChunk : kOverloadWait;
  const gint64 time = stream->queue.time_of_next_result();
  if (policy == kOverloadWait || time < 0) {
    stream->is_passing = false;
    return kMarkModel;
  }
  // A run that starts a new state computes 25 frames where a later one computes 12.
  const double cost = stream->chunk_ns * (stream->is_passing || stream->was_fresh ? 2.1 : 1.0);
  bool late = is_late(self, static_cast<GstClockTime>(time), cost, jitter);
  if (stream->is_passing) {
    // Comes back only when a fresh start and half a chunk more would be in time, and not at once.
    GstClockTimeDiff unused;
    late = late || (policy != kOverloadDropChunk && stream->passthrough_chunks < 2) ||
           is_late(self, static_cast<GstClockTime>(time), cost + stream->chunk_ns / 2, &unused);
  }
  if (!late) {
    stream->is_passing = false;
    stream->passthrough_chunks = 0;
    return kMarkModel;
  }
  // This chunk is late whatever we do; those after it find a faster model. While that is not fast
  // enough either, each second chunk goes a step further.
  if (policy == kOverloadDegrade && (!stream->is_passing || stream->passthrough_chunks % 2 == 0)) degrade_further(stream);
  stream->is_passing = true;
  ++stream->passthrough_chunks;
  return policy == kOverloadDropChunk ? kMarkDrop : kMarkPassthrough;
}

static void post_qos(GstFlashVsr* self, GstClockTime running_time, GstClockTimeDiff jitter) {
  Stream* stream = self->stream;
  GstMessage* message;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    ++stream->late_chunks;
    const GstClockTime pts = gst_segment_position_from_running_time(&stream->out_segment, GST_FORMAT_TIME, running_time);
    message = gst_message_new_qos(GST_OBJECT(self), stream->is_live, running_time,
                                  gst_segment_to_stream_time(&stream->out_segment, GST_FORMAT_TIME, pts), pts,
                                  8 * stream->frame_duration);
    const double budget = static_cast<double>(8 * stream->frame_duration);
    gst_message_set_qos_values(message, jitter, budget > 0 ? stream->chunk_ns / budget : 1.0, 1000000);
    gst_message_set_qos_stats(message, GST_FORMAT_BUFFERS,
                              stream->frames_out - stream->frames_passthrough,
                              stream->frames_dropped + stream->frames_passthrough);
  }
  gst_element_post_message(GST_ELEMENT(self), message);
}

void gst_flash_vsr_fail(GstFlashVsr* self, const FlashVsrError& error, const gchar* doing) {
  Stream* stream = self->stream;
  GST_WARNING_OBJECT(self, "%s: status %d: %s", doing, error.status, error.message);
  gst_flash_vsr_post_error(GST_ELEMENT(self), &error,
                           stream->model_name.empty() ? nullptr : stream->model_name.c_str());
  // Only now, or upstream's complaint about our ERROR is on the bus before ours.
  stream->queue.fail();
}

static void run_chunk(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = gst_flash_vsr_copy_settings(self);
  // By the queue's count, not the engine's: the engine has a frame a moment before the queue, and a
  // run in that moment would bypass the policy.
  if (!stream->queue.has_complete_chunk()) {
    stream->queue.run_done(Queue::RunResult::kNothing);
    return;
  }
  GstClockTimeDiff jitter = 0;
  const gint64 time = stream->queue.time_of_next_result();
  const Mark mark = choose_mode(self, settings, &jitter);
  // Before the run: the push thread may take the first frame before it has returned.
  stream->queue.mark_next(mark);
  FlashVsrError error = {};
  const gint64 begin = g_get_monotonic_time();
  const FlashVsrStatus status =
      stream->api->run(stream->session, mark == kMarkModel ? FLASHVSR_RUN_MODEL : FLASHVSR_RUN_PASSTHROUGH, &error);
  const double took = static_cast<double>(g_get_monotonic_time() - begin) * 1000;

  if (status == FLASHVSR_AGAIN) {
    stream->queue.run_done(Queue::RunResult::kNothing);
  } else if (status == FLASHVSR_ERROR_INTERRUPTED) {
    stream->queue.run_done(Queue::RunResult::kInterrupted);
  } else if (status != FLASHVSR_OK) {
    error.status = status;
    gst_flash_vsr_fail(self, error, "running the model");
    stream->queue.run_done(Queue::RunResult::kFailed);
  } else {
    if (mark == kMarkModel) {
      if (stream->was_fresh) {
        if (stream->is_guess) stream->chunk_ns = std::max(stream->chunk_ns, took / 2.1);
      } else {
        stream->chunk_ns = stream->is_guess ? took : 0.7 * stream->chunk_ns + 0.3 * took;
        stream->is_guess = false;
      }
      stream->was_fresh = false;
      GST_DEBUG_OBJECT(self, "chunk took %.1f ms", took / 1e6);
    } else {
      stream->was_fresh = true;
    }
    stream->queue.run_done(Queue::RunResult::kRan);
    if (mark == kMarkModel) {
      gst_flash_vsr_raise_deadline(self, static_cast<GstClockTime>(stream->chunk_ns));
    } else if (!settings.bypass && !stream->is_trick_mode && time >= 0) {
      post_qos(self, static_cast<GstClockTime>(time), jitter);
    }
  }
}

static void drain_engine(GstFlashVsr* self) {
  Stream* stream = self->stream;
  FlashVsrError error = {};
  FlashVsrStatus status;
  {
    std::scoped_lock lock(stream->send_mutex, stream->receive_mutex);
    status = stream->api->drain(stream->session, &error);
  }
  stream->was_fresh = true;
  if (status != FLASHVSR_OK) {
    error.status = status;
    gst_flash_vsr_fail(self, error, "draining");
    stream->queue.run_done(Queue::RunResult::kFailed);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    ++stream->drains;
  }
  stream->queue.drain_done();
}

static void apply_options(GstFlashVsr* self) {
  Stream* stream = self->stream;
  const Settings settings = gst_flash_vsr_copy_settings(self);
  double degrade;
  {
    std::lock_guard<std::mutex> lock(stream->clock_mutex);
    if (settings.overload_policy != kOverloadDegrade) {
      stream->degrade = 1;
      SmallModel used = SmallModel::kInUse, wanted = SmallModel::kWanted;
      if (!stream->small_state.compare_exchange_strong(wanted, SmallModel::kLoaded))
        stream->small_state.compare_exchange_strong(used, SmallModel::kReturn);
    }
    degrade = stream->degrade;
  }
  FlashVsrError error = {};
  FlashVsrStatus status = FLASHVSR_OK;
  {
    std::scoped_lock lock(stream->send_mutex, stream->receive_mutex);
    if (!stream->session) return;
    FlashVsrSessionOptions options = stream->options;
    const FlashVsrSessionOptions wanted = gst_flash_vsr_session_options(stream, settings, stream->scale, degrade);
    options.sparse_ratio = wanted.sparse_ratio;
    options.local_range = wanted.local_range;
    options.color_fix = wanted.color_fix;
    status = stream->api->set_options(stream->session, &options, &error);
    if (status == FLASHVSR_OK) stream->options = options;
  }
  if (status != FLASHVSR_OK) {
    error.status = status;
    gst_flash_vsr_fail(self, error, "changing settings");
  }
}

void gst_flash_vsr_work(GstFlashVsr* self) {
  for (;;) {
    switch (self->stream->queue.next_work()) {
      case Queue::WorkKind::kStop:
        return;
      case Queue::WorkKind::kOptions:
        apply_options(self);
        break;
      case Queue::WorkKind::kDrain:
        drain_engine(self);
        break;
      case Queue::WorkKind::kRun:
        run_chunk(self);
        break;
    }
  }
}
