// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One stream of frames through the model: the protocol of flashvsr.h (send, run, receive,
// drain, flush, interrupt) with the schedule, the pictures and the model's state.
//
//   send     pixel format -> planar R'G'B'                  into the newest stream
//   run      schedule -> bicubic, normalise, upscaler, colours, quantise -> results
//   receive  view, planar R'G'B' -> pixel format
//
// On a GPU `run` also asks for the pixel format and the way to pinned memory, and returns without them when
// another chunk is ready: once the device is at this one's decoder. It then has the next in time, and receive
// waits for what it gives. Otherwise run waits for the end. What has to be done to a picture besides (a view, a
// switch's blending, alpha) is done on the CPU.
//
// A drain ends the newest stream; frames sent after it begin the next, which may wait while
// the ended one is still run. Each stream starts with a fresh state.
//
// Frames that went past the model (passthrough) restart it 13 frames in the past, whose
// results are dropped. The first 4 frames after each switch are blended: back to the model
// from the enlargement to ours; away from it, our last frame's detail fades out where the
// picture has not changed.
//
// Chunks of the model take turns: one at a time on a device, whatever the session and the model, in the
// order in which `run` was called. Chunks that go past the model wait for nobody. An interrupt reaches
// a run that waits at once, and nothing has been begun then. send and receive never wait for a turn.
//
// Memory: pictures come from pools; what a session holds is bounded by the frames inside.
// Errors: throws Error and LibTorch's own. After anything thrown by run, run throws until
// flush; finished frames may still be received. After anything thrown by receive, its frame is still there.
// Thread-safety: send, run and receive may overlap, each by one thread at a time; interrupt
// and stats by any thread at any time; the rest alone.
#ifndef FLASHVSR_API_SESSION_H_
#define FLASHVSR_API_SESSION_H_

#include <flashvsr/flashvsr.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/device_chunk.h"
#include "api/geometry.h"
#include "api/image_pool.h"
#include "api/model.h"
#include "api/plan.h"
#include "api/tile_runner.h"
#include "image/bicubic.h"
#include "image/frame.h"
#include "image/image_ops.h"
#include "image/postprocess.h"
#include "model/cpu_arena.h"
#include "stream/chunk_schedule.h"
#include "stream/frame_ring.h"
#include "stream/turns.h"

namespace flashvsr {

class Session {
 public:
  // `plan` is that of plan_session for the same three. `pictures_on_device`, for tests: the GPU's way of pictures on
  // any device, "CUDA memory" being that device's.
  Session(std::shared_ptr<const Model> model, const FlashVsrFormat& format, const FlashVsrSessionOptions& options,
          const MemoryPlan& plan, bool pictures_on_device = false);

  void send(const FlashVsrFrame& frame);
  bool run(FlashVsrRunMode mode);                                   // false: no complete chunk
  bool receive(const FlashVsrView* view, FlashVsrFrame& frame);     // false: no frame ready
  void drain();
  void flush();
  void interrupt() {
    is_interrupted_ = true;
    turns_->wake();
  }
  void set_options(const FlashVsrSessionOptions& options);
  int max_delay() const { return static_cast<int>(ChunkSchedule::max_delay(startup_)); }
  void stats(FlashVsrStats& stats) const;

 private:
  struct InputFrame {
    std::shared_ptr<PlanarImage> picture;  // what the caller sent; null: it is still on the device only
    at::Tensor samples;                    // the same there, [1, 3, height, width]; undefined where it came to the host
    std::mutex mutex;                      // `picture`, where there are samples
    std::shared_ptr<PlanarImage> enlarged;  // its bicubic enlargement to the output size; may be null
    uint64_t id = 0;
  };
  using InputFramePtr = std::shared_ptr<InputFrame>;

  struct OutputFrame {
    std::shared_ptr<const PlanarImage> picture;  // null: in `chunk`
    InputFramePtr source;
    std::shared_ptr<const DeviceChunk> chunk;
    int64_t index = 0;  // in `chunk`
  };

  struct Stream {
    explicit Stream(Startup startup) : schedule(startup), frames(kMaxFramesInside) {}
    ChunkSchedule schedule;  // under mutex_
    FrameRing<InputFramePtr> frames;
  };

  static constexpr size_t kMaxFramesInside = 1 << 16;

  std::vector<InputFramePtr> frames_of(const Stream& stream, const FrameRange& range) const;
  const PlanarImage& picture_of(InputFrame& frame) const;
  std::shared_ptr<const PlanarImage> picture_of(const OutputFrame& frame) const;
  void enlarge(InputFrame& frame, bool parallel) const;
  void run_model(const ChunkRun& chunk, const Stream& stream, std::vector<OutputFrame>& results,
                 double& preprocess_ms);
  void finish_on_cpu(const at::Tensor& frames, const at::Tensor& lq, int64_t first,
                     const std::vector<InputFramePtr>& sources, std::vector<OutputFrame>& results);
  void finish_on_device(const at::Tensor& frames, const at::Tensor& lq, int64_t first,
                        const std::vector<InputFramePtr>& sources, std::vector<OutputFrame>& results);
  void wait_for_device(bool may_go_on);
  void run_passthrough(const ChunkRun& chunk, const Stream& stream, std::vector<OutputFrame>& results);
  PostprocessOptions postprocess_options() const;
  at::Tensor samples_of(const std::vector<InputFrame*>& frames) const;
  at::Tensor style_of(const at::Tensor& lq, int64_t first, const std::vector<InputFramePtr>& sources) const;
  at::Tensor model_input(const ChunkRun& chunk, const std::vector<InputFramePtr>& inputs);
  void reset_state();
  void check_frame(const FlashVsrFrame& frame, const PictureSize& size, FlashVsrMemory memory) const;
  void check_supported_memory(const FlashVsrFormat& format) const;

  const std::shared_ptr<const Model> model_;
  const CpuArena cpu_arena_;  // closes behind the tensors below
  const std::shared_ptr<Turns> turns_;  // of the model's device
  const FlashVsrFormat format_;
  FlashVsrSessionOptions options_;
  const PixelFormat pixel_format_;
  const ColorSpec color_;
  const Geometry geometry_;
  const Startup startup_;
  const int depth_;
  const c10::Device picture_device_;  // where the model's input and output are kept
  RunOptions run_options_;
  ColorFix color_fix_ = ColorFix::kNone;
  const bool pictures_on_device_;  // what the device can do with them is done there

  const BicubicResizer enlarger_;                   // in -> out
  std::unique_ptr<BicubicResizer> reference_;       // in -> decoded, when that is not `out`
  std::unique_ptr<BicubicResizer> reducer_;         // decoded -> out, when they differ
  std::unique_ptr<TensorResizer> device_enlarger_;  // in -> out, where picture_device_ is not the CPU
  // The same two for pictures that stay on the device.
  std::unique_ptr<TensorResizer> device_reference_, device_reducer_;
  const std::shared_ptr<ImagePool> input_pool_;
  const std::shared_ptr<ImagePool> output_pool_;

  mutable std::mutex mutex_;  // streams_ and their schedules, stats_
  std::deque<std::unique_ptr<Stream>> streams_;
  FrameRing<OutputFrame> results_;
  FlashVsrStats stats_{};

  std::atomic<bool> is_interrupted_{false};
  const std::shared_ptr<std::atomic<uint64_t>> chunk_bytes_;  // what the finished pictures' chunks hold on the host

  // Of `run`'s thread.
  bool is_broken_ = false;
  TileRunner runner_;
  // Asked of the device by the newest runs: the one before, until its times are known, and this one.
  std::optional<StageClock> clock_before_, clock_;
  std::deque<std::weak_ptr<DeviceChunk>> device_chunks_;
  StageTimes times_;         // of the newest run that is done
  at::Tensor tail_;          // the last 4 frames of the run before, as the model saw them
  OutputFrame last_;         // the newest result
  bool last_was_model_ = false;
  bool has_last_ = false;
  int blend_left_ = 0;       // frames until a switch is over
  // Our last frame before the model was left, and its enlargement.
  std::shared_ptr<const PlanarImage> fade_from_;
  std::shared_ptr<PlanarImage> fade_base_;

  // Of `receive`'s thread.
  PlanarImage view_, view_base_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_API_SESSION_H_
