// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which frames the next run of one stream takes and which it gives.
//
// Frames are counted from the start of the stream. A run takes the model frames
// [inputs.begin, inputs.end); indices below 0 mean copies of the first frame,
// indices past the last frame of an ended stream copies of that last frame. It gives
// the frames [outputs.begin, outputs.end), each exactly once over the stream, in order.
//
//   kFull, at frame 0          inputs [0, 25)          outputs [0, 21)
//   kPrimed, or a restart at p inputs [p-13, p+12)     outputs [p, p+8)    first 13 results dropped
//   a later run                inputs [p, p+12)        outputs [p, p+8)
//
// where p is the number of frames given before. With kFull this is the reference
// schedule: p = 8n+13 in run n >= 1. Why 13 copies: a run's last result looks 4 frames
// ahead, so the first run of 25 frames with k copies in front needs 25-k frames of the
// stream before it gives frame 0, which waits for 24-k others. A later run makes its
// first frame wait for 11. 24-k <= 11 asks for k >= 13, k <= 20 that frame 0 is among
// the 21 results; 13 computes the least for nothing, and the first run then asks for 12
// frames and gives 8, just as every later one. The same run restarts the model in mid-stream
// (after frames that went past it), with 13 real frames before p instead of copies.
//
// At the end of a stream of N frames the runs go on until p = N: the last frame is
// repeated and results past N are dropped (kFull: the reference's N' = 5 mod 8, >= 21).
//
// Source: model.md 2.3-2.5; element.md 2.4 for the priming.
// Thread-safety: unsafe; a value.
#ifndef FLASHVSR_STREAM_CHUNK_SCHEDULE_H_
#define FLASHVSR_STREAM_CHUNK_SCHEDULE_H_

#include <cstdint>

namespace flashvsr {

enum class Startup { kFull, kPrimed };

struct FrameRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

struct ChunkRun {
  FrameRange inputs;   // 25 frames when the model's state is new, else 12
  FrameRange results;  // frames that the model returns for them: 21 or 8, from inputs.begin on
  FrameRange outputs;  // those of the results that leave; within the stream
  bool is_new_state = true;
};

class ChunkSchedule {
 public:
  static constexpr int64_t kFirstRunInputs = 25;
  static constexpr int64_t kFirstRunOutputs = 21;
  static constexpr int64_t kLaterRunInputs = 12;
  static constexpr int64_t kLaterRunOutputs = 8;
  static constexpr int64_t kLookAhead = 4;
  static constexpr int64_t kPrimingFrames = 13;

  explicit ChunkSchedule(Startup startup = Startup::kFull) : startup_(startup) {}

  // Frames the slowest result waits for after its own input: 24, or 11 when primed.
  static int64_t max_delay(Startup startup);

  // One more frame of the stream has arrived.
  void add_frame();
  // No more frames will come. `end` twice is once.
  void end() { is_ended_ = true; }

  // True when `next` may run: its frames have arrived, or the stream has ended and
  // frames are still inside.
  bool is_ready() const;
  // True when the stream has ended and every frame has left.
  bool is_done() const { return is_ended_ && next_output_ == frames_; }

  // The next run. Valid once is_ready().
  ChunkRun next() const;

  // `next` was done by the model, whose state now continues.
  void advance_model();
  // The frames of `next` left without the model: its state starts anew with the next run.
  void advance_passthrough();

  int64_t frames() const { return frames_; }
  int64_t next_output() const { return next_output_; }
  bool is_ended() const { return is_ended_; }

  // Frames below this are never asked for again.
  int64_t oldest_needed() const;

 private:
  int64_t needed_frames() const;

  Startup startup_;
  int64_t frames_ = 0;
  int64_t next_output_ = 0;
  bool is_ended_ = false;
  bool has_state_ = false;
};

}  // namespace flashvsr

#endif  // FLASHVSR_STREAM_CHUNK_SCHEDULE_H_
