// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/session.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "api/devices.h"
#include "base/error.h"
#include "base/log.h"
#include "image/color_convert.h"
#include "image/device_pictures.h"
#include "image/preprocess.h"

namespace flashvsr {
namespace {

// Frames over which a switch between model and enlargement is spread.
constexpr int kBlendFrames = 4;
constexpr size_t kFreePictures = 64;
constexpr int64_t kReducedAtOnce = 4;
// One that the device is at, one before it that is being received, one more.
constexpr size_t kChunksOnDevice = 3;

class Stopwatch {
 public:
  double lap_ms() {
    const auto now = std::chrono::steady_clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - begin_).count();
    begin_ = now;
    return ms;
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

size_t picture_bytes(const PictureSize& size, int depth, bool has_alpha) {
  return static_cast<size_t>(size.width) * static_cast<size_t>(size.height) * (depth > 8 ? 2 : 1) *
         (has_alpha ? 4 : 3);
}

uint64_t tensor_bytes(const at::Tensor& tensor) { return tensor.defined() ? tensor.nbytes() : 0; }

FramePlanes planes_of(const FlashVsrFrame& frame) {
  FramePlanes planes;
  for (int i = 0; i < 4; ++i) {
    planes.data[i] = frame.data[i];
    planes.stride[i] = frame.stride[i];
  }
  return planes;
}

// Host memory in the shape of the caller's planes, for planes that are on the device.
struct StagedPlanes {
  FramePlanes planes;
  std::vector<at::Tensor> host;

  StagedPlanes(PixelFormat format, const PictureSize& size) {
    for (int p = 0; p < format_planes(format); ++p) {
      const int64_t row = static_cast<int64_t>(plane_row_bytes(format, p, size.width));
      host.push_back(at::empty({plane_rows(format, p, size.height), row}, at::kByte));
      planes.data[p] = host.back().data_ptr();
      planes.stride[p] = static_cast<size_t>(row);
    }
  }
  at::Tensor device_plane(size_t p, const FlashVsrFrame& frame, c10::Device device) const {
    return at::from_blob(frame.data[p], host[p].sizes(), {static_cast<int64_t>(frame.stride[p]), 1},
                         at::TensorOptions().dtype(at::kByte).device(device));
  }
  void download(const FlashVsrFrame& frame, c10::Device device) {
    for (size_t p = 0; p < host.size(); ++p) host[p].copy_(device_plane(p, frame, device));
  }
  void upload(const FlashVsrFrame& frame, c10::Device device) const {
    for (size_t p = 0; p < host.size(); ++p) device_plane(p, frame, device).copy_(host[p]);
  }
};

RunOptions run_options(const ModelConfig& config, const FlashVsrSessionOptions& options, DecoderKind decoder) {
  RunOptions result;
  result.sparse_ratio = options.sparse_ratio == 0 ? config.sparse_ratio : static_cast<double>(options.sparse_ratio);
  result.kv_chunks = options.kv_chunks == 0 ? config.kv_chunks : options.kv_chunks;
  result.local_range = options.local_range == 0 ? config.local_range : options.local_range;
  result.seed = options.seed;
  result.decoder = decoder;
  FLASHVSR_CHECK(result.sparse_ratio >= 0.25 && result.sparse_ratio <= 8.0, ErrorCode::kInvalidArgument,
                 "sparse-ratio is ", result.sparse_ratio, "; it must be 0.25 .. 8, or 0 for the model's own");
  FLASHVSR_CHECK(result.kv_chunks >= 1 && result.kv_chunks <= 8, ErrorCode::kInvalidArgument, "kv-chunks is ",
                 result.kv_chunks, "; it must be 1 .. 8, or 0 for the model's own");
  FLASHVSR_CHECK(result.local_range >= 1 && result.local_range <= 31, ErrorCode::kInvalidArgument, "local-range is ",
                 result.local_range, "; it must be 1 .. 31, or 0 for the model's own");
  return result;
}

ColorFix color_fix_of(const ModelConfig& config, FlashVsrColorFix fix) {
  switch (fix) {
    case FLASHVSR_COLOR_FIX_NONE: return ColorFix::kNone;
    case FLASHVSR_COLOR_FIX_ADAIN: return ColorFix::kAdain;
    case FLASHVSR_COLOR_FIX_WAVELET: return ColorFix::kWavelet;
    // A decoder whose result is added to the enlargement has its colours already.
    case FLASHVSR_COLOR_FIX_AUTO: return config.tc_decoder.residual ? ColorFix::kNone : ColorFix::kAdain;
  }
  throw Error(ErrorCode::kInvalidArgument, concat("color-fix ", static_cast<int>(fix), " is not known"));
}

PixelFormat checked_format(FlashVsrPixelFormat format) {
  FLASHVSR_CHECK(format >= 0 && format < FLASHVSR_PIXEL_FORMAT_COUNT, ErrorCode::kInvalidArgument, "pixel format ",
                 static_cast<int>(format), " is not known");
  return static_cast<PixelFormat>(format);
}

// Where asking for a chunk takes the host long beside what it takes the device: small pictures. Above, graphs win nothing
// and hold the memory of a chunk's stages (docs/performance.md). FLASHVSR_GRAPHS=0 does without:
// for hosts that wait for whole devices in other threads, which must not meet a recording (model/stage_graphs.h).
bool records_stages(c10::Device device, const MemoryPlan& plan) {
  const char* wanted = std::getenv("FLASHVSR_GRAPHS");
  return device.is_cuda() && plan.records_stages && (wanted == nullptr || std::string(wanted) != "0");
}

Startup startup_of(FlashVsrStartup startup) {
  FLASHVSR_CHECK(startup == FLASHVSR_STARTUP_FULL || startup == FLASHVSR_STARTUP_PRIMED, ErrorCode::kInvalidArgument,
                 "startup ", static_cast<int>(startup), " is not known");
  return startup == FLASHVSR_STARTUP_FULL ? Startup::kFull : Startup::kPrimed;
}

}  // namespace

static_assert(kPixelFormatCount == FLASHVSR_PIXEL_FORMAT_COUNT);
static_assert(static_cast<int>(PixelFormat::kNv12) == FLASHVSR_PIXEL_FORMAT_NV12);
static_assert(static_cast<int>(PixelFormat::kXbgr) == FLASHVSR_PIXEL_FORMAT_XBGR);
static_assert(static_cast<int>(PixelFormat::kAbgr) == FLASHVSR_PIXEL_FORMAT_ABGR);
static_assert(static_cast<int>(PixelFormat::kGray8) == FLASHVSR_PIXEL_FORMAT_GRAY8);
static_assert(static_cast<int>(PixelFormat::kP010_10le) == FLASHVSR_PIXEL_FORMAT_P010_10LE);

Session::Session(std::shared_ptr<const Model> model, const FlashVsrFormat& format,
                 const FlashVsrSessionOptions& options, const MemoryPlan& plan, bool pictures_on_device)
    : model_(std::move(model)),
      cpu_arena_(model_->device()),
      turns_(device_turns(model_->device())),
      format_(format),
      options_(options),
      pixel_format_(checked_format(format.pixel_format)),
      color_{format.color.matrix, format.color.full_range != 0},
      geometry_(model_->config(), format.width, format.height, options.scale_num, options.scale_den),
      startup_(startup_of(options.startup)),
      depth_(format_depth(pixel_format_)),
      picture_device_(plan.parks_in_host ? c10::Device(c10::kCPU) : model_->device()),
      run_options_(run_options(model_->config(), options, model_->decoder)),
      color_fix_(color_fix_of(model_->config(), options.color_fix)),
      pictures_on_device_((pictures_on_device || picture_device_.is_cuda()) && !format_has_alpha(pixel_format_)),
      enlarger_(geometry_.in.width, geometry_.in.height, geometry_.out.width, geometry_.out.height, depth_),
      input_pool_(std::make_shared<ImagePool>(
          kFreePictures, picture_bytes(geometry_.in, depth_, format_has_alpha(pixel_format_)))),
      output_pool_(std::make_shared<ImagePool>(
          kFreePictures, picture_bytes(geometry_.out, depth_, format_has_alpha(pixel_format_)))),
      results_(kMaxFramesInside),
      chunk_bytes_(std::make_shared<std::atomic<uint64_t>>(0)),
      runner_(model_->upscaler, plan) {
  check_supported_memory(format);
  run_options_.decode_latents = plan.decode_latents;
  run_options_.record_stages = records_stages(model_->device(), plan);
  if (geometry_.decoded != geometry_.out) {
    reference_ = std::make_unique<BicubicResizer>(geometry_.in.width, geometry_.in.height, geometry_.decoded.width,
                                                  geometry_.decoded.height, depth_);
    reducer_ = std::make_unique<BicubicResizer>(geometry_.decoded.width, geometry_.decoded.height, geometry_.out.width,
                                                geometry_.out.height, depth_);
  }
  if (pictures_on_device_) {
    const auto resizer = [&](const PictureSize& from, const PictureSize& to) {
      return std::make_unique<TensorResizer>(from.width, from.height, to.width, to.height, depth_, picture_device_);
    };
    if (reducer_) device_reducer_ = resizer(geometry_.decoded, geometry_.out);
    if (model_->config().input_scale != 1) device_reference_ = resizer(geometry_.in, geometry_.decoded);
  }
  if (!picture_device_.is_cpu() && model_->config().input_scale == 1) {
    device_enlarger_ = std::make_unique<TensorResizer>(geometry_.in.width, geometry_.in.height, geometry_.out.width,
                                                       geometry_.out.height, depth_, picture_device_);
  }
  stats_.struct_size = sizeof(stats_);
}

void Session::check_supported_memory(const FlashVsrFormat& format) const {
  for (FlashVsrMemory memory : {format.input_memory, format.output_memory}) {
    FLASHVSR_CHECK(memory == FLASHVSR_MEMORY_HOST || memory == FLASHVSR_MEMORY_CUDA, ErrorCode::kInvalidArgument,
                   "memory kind ", static_cast<int>(memory), " is not known");
    FLASHVSR_CHECK(memory == FLASHVSR_MEMORY_HOST || model_->device().is_cuda() || pictures_on_device_,
                   ErrorCode::kInvalidArgument,
                   "frames in CUDA memory need a model on CUDA; this one is on ", model_->device_name);
  }
}

void Session::check_frame(const FlashVsrFrame& frame, const PictureSize& size, FlashVsrMemory memory) const {
  const bool in_words = depth_ > 8 && memory == FLASHVSR_MEMORY_CUDA;  // kernels read whole samples
  for (int p = 0; p < format_planes(pixel_format_); ++p) {
    FLASHVSR_CHECK(frame.data[p] != nullptr, ErrorCode::kInvalidArgument, "plane ", p, " of the frame is missing");
    const size_t row = plane_row_bytes(pixel_format_, p, size.width), stride = frame.stride[p];
    FLASHVSR_CHECK(stride >= row, ErrorCode::kInvalidArgument, "stride of plane ", p, " is ", stride, ", shorter than a row of ",
                   row, " bytes");
    FLASHVSR_CHECK(!in_words || stride % 2 == 0, ErrorCode::kInvalidArgument, "stride of plane ", p, " is ", stride,
                   "; in CUDA memory, where samples have 2 bytes, it must be a multiple of 2");
    const auto address = reinterpret_cast<uintptr_t>(frame.data[p]);
    FLASHVSR_CHECK(!in_words || address % 2 == 0, ErrorCode::kInvalidArgument, "plane ", p, " begins at the odd address ", address,
                   "; in CUDA memory, where samples have 2 bytes, it must be a multiple of 2");
  }
}

void Session::send(const FlashVsrFrame& frame) {
  check_frame(frame, geometry_.in, format_.input_memory);
  auto input = std::make_shared<InputFrame>();
  input->id = frame.frame_id;
  if (format_.input_memory == FLASHVSR_MEMORY_CUDA && pictures_on_device_) {
    const c10::Device device = model_->device();
    const auto beside = beside_the_model(device);
    input->samples = planes_to_samples({planes_of(frame)}, pixel_format_, color_, geometry_.in.width, geometry_.in.height, device);
    DeviceMark(device).wait();
  } else if (input->picture = input_pool_->take(); format_.input_memory == FLASHVSR_MEMORY_CUDA) {
    StagedPlanes staged(pixel_format_, geometry_.in);
    staged.download(frame, model_->device());
    convert_to_rgb(staged.planes, pixel_format_, color_, geometry_.in.width, geometry_.in.height, *input->picture);
  } else {
    convert_to_rgb(planes_of(frame), pixel_format_, color_, geometry_.in.width, geometry_.in.height, *input->picture);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (streams_.empty() || streams_.back()->schedule.is_ended()) streams_.push_back(std::make_unique<Stream>(startup_));
  Stream& stream = *streams_.back();
  FLASHVSR_CHECK(stream.frames.push(std::move(input)).has_value(), ErrorCode::kInvalidArgument, "more than ",
                 kMaxFramesInside, " frames are inside; call run");
  stream.schedule.add_frame();
  ++stats_.frames_in;
}

std::vector<Session::InputFramePtr> Session::frames_of(const Stream& stream, const FrameRange& range) const {
  std::vector<InputFramePtr> frames;
  const int64_t newest = stream.frames.end() - 1;
  for (int64_t i = range.begin; i < range.end; ++i) {
    auto frame = stream.frames.at(std::clamp<int64_t>(i, 0, newest));
    FLASHVSR_CHECK(frame.has_value(), ErrorCode::kInternal, "session: frame ", i, " was forgotten");
    frames.push_back(*frame);
  }
  return frames;
}

const PlanarImage& Session::picture_of(InputFrame& frame) const {
  if (!frame.samples.defined()) return *frame.picture;
  const std::lock_guard<std::mutex> lock(frame.mutex);
  if (!frame.picture) {
    const auto beside = beside_the_model(frame.samples.device());
    auto picture = input_pool_->take();
    picture->reset(geometry_.in.width, geometry_.in.height, depth_, false);
    download_samples(frame.samples.transpose(0, 1).unsqueeze(0), {picture.get()});
    frame.picture = std::move(picture);
  }
  return *frame.picture;
}

std::shared_ptr<const PlanarImage> Session::picture_of(const OutputFrame& frame) const {
  if (frame.picture) return frame.picture;
  auto picture = output_pool_->take();
  frame.chunk->read(frame.index, *picture);
  return picture;
}

void Session::enlarge(InputFrame& frame, bool parallel) const {
  if (frame.enlarged) return;
  auto enlarged = output_pool_->take();
  enlarger_.resize(picture_of(frame), *enlarged, parallel);
  frame.enlarged = std::move(enlarged);
}

// [F, 3, height, width] on the pictures' device.
at::Tensor Session::samples_of(const std::vector<InputFrame*>& frames) const {
  if (!frames[0]->samples.defined()) {
    std::vector<const PlanarImage*> pictures;
    for (const InputFrame* frame : frames) pictures.push_back(frame->picture.get());
    return upload_samples(pictures, picture_device_);
  }
  const c10::impl::VirtualGuardImpl device(picture_device_.type());
  std::vector<at::Tensor> samples;
  for (const InputFrame* frame : frames) {
    samples.push_back(frame->samples);
    // Made on another stream, whose allocator is not to give the memory away before this one has read it.
    device.recordDataPtrOnStream(samples.back().storage().data_ptr(), device.getStream(picture_device_));
  }
  return at::cat(samples, 0);
}

// Pictures that the model saw a run ago are not enlarged and normalised again.
at::Tensor Session::model_input(const ChunkRun& chunk, const std::vector<InputFramePtr>& inputs) {
  const bool has_tail = !chunk.is_new_state && tail_.defined();
  const int64_t known = has_tail ? tail_.size(2) : 0;
  const bool is_enlarged = model_->config().input_scale == 1;
  const int64_t height = geometry_.padded_model.height, width = geometry_.padded_model.width;
  std::vector<InputFrame*> fresh;
  for (size_t i = static_cast<size_t>(known); i < inputs.size(); ++i) fresh.push_back(inputs[i].get());
  at::Tensor lq;
  if (picture_device_.is_cuda()) {
    at::Tensor samples = samples_of(fresh);
    if (device_enlarger_) samples = device_enlarger_->resize(samples);
    lq = normalize_samples(samples, (1 << depth_) - 1, height, width, model_->dtype());
  } else {
    std::vector<const PlanarImage*> pictures;
    for (InputFrame* frame : fresh) {
      if (is_enlarged) enlarge(*frame, true);
      pictures.push_back(is_enlarged ? frame->enlarged.get() : &picture_of(*frame));
    }
    lq = images_to_tensor(pictures, height, width, picture_device_, model_->dtype());
  }
  if (has_tail) lq = at::cat({tail_, lq}, 2);
  tail_ = lq.narrow(2, lq.size(2) - ChunkSchedule::kLookAhead, ChunkSchedule::kLookAhead).clone();
  return lq;
}

void Session::run_model(const ChunkRun& chunk, const Stream& stream, std::vector<OutputFrame>& results,
                        double& preprocess_ms) {
  Stopwatch stopwatch;
  if (chunk.is_new_state) runner_.reset();
  const std::vector<InputFramePtr> inputs = frames_of(stream, chunk.inputs);
  const at::Tensor lq = model_input(chunk, inputs);
  preprocess_ms = stopwatch.lap_ms();

  clock_before_ = std::move(clock_);
  clock_.emplace(model_->device());
  const at::Tensor frames = runner_.run(lq, run_options_, &is_interrupted_, *clock_);
  if (has_last_ && !last_was_model_) {
    blend_left_ = kBlendFrames;
    fade_from_.reset();
    fade_base_.reset();
  }
  const int64_t first = chunk.outputs.begin - chunk.results.begin;
  const std::vector<InputFramePtr> sources(inputs.begin() + first, inputs.begin() + first + chunk.outputs.size());
  const c10::OptionalStreamGuard beside(run_options_.decode_stream);
  if (pictures_on_device_) {
    finish_on_device(frames, lq, first, sources, results);
  } else {
    DeviceMark(model_->device()).wait(&is_interrupted_);
    finish_on_cpu(frames, lq, first, sources, results);
  }
  clock_->end_stage(&StageTimes::finish_ms);

  for (OutputFrame& result : results) {
    if (blend_left_ == 0) break;
    if (result.chunk) result.chunk->wait(&is_interrupted_);
    auto picture = output_pool_->take();
    *picture = *picture_of(result);
    enlarge(*result.source, true);
    blend(*result.source->enlarged, static_cast<float>(kBlendFrames + 1 - blend_left_) / (kBlendFrames + 1), *picture);
    result.picture = std::move(picture);
    --blend_left_;
  }
}

PostprocessOptions Session::postprocess_options() const {
  PostprocessOptions options;
  options.color_fix = color_fix_;
  // The reference truncates; that is half a level of bias, which the student was not trained with.
  options.quantization = model_->config().tc_decoder.residual || depth_ > 8 ? Quantization::kNearest
                                                                              : Quantization::kTruncate;
  return options;
}

// The pictures whose colours these frames shall have: what the model saw where that is the enlargement, else made here.
at::Tensor Session::style_of(const at::Tensor& lq, int64_t first, const std::vector<InputFramePtr>& sources) const {
  if (color_fix_ == ColorFix::kNone) return {};
  if (!device_reference_) return lq.narrow(2, first, static_cast<int64_t>(sources.size()));
  std::vector<InputFrame*> frames;
  for (const InputFramePtr& source : sources) frames.push_back(source.get());
  return normalize_samples(device_reference_->resize(samples_of(frames)), (1 << depth_) - 1, geometry_.decoded.height,
                           geometry_.decoded.width, model_->dtype());
}

void Session::finish_on_device(const at::Tensor& frames, const at::Tensor& lq, int64_t first,
                               const std::vector<InputFramePtr>& sources, std::vector<OutputFrame>& results) {
  const int64_t count = static_cast<int64_t>(sources.size());
  // A few at a time where they are larger than what comes out.
  const int64_t step = device_reducer_ ? kReducedAtOnce : count;
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < count; begin += step) {
    const int64_t size = std::min(step, count - begin);
    const at::Tensor style = style_of(lq, first + begin, {sources.begin() + begin, sources.begin() + begin + size});
    const at::Tensor whole = finish_frames(frames.narrow(2, first + begin, size), style, geometry_.decoded.height,
                                           geometry_.decoded.width, (1 << depth_) - 1, postprocess_options());
    parts.push_back(device_reducer_ ? device_reducer_->resize(whole) : whole);
  }
  const at::Tensor samples = parts.size() == 1 ? parts[0] : at::cat(parts, 0);
  const auto chunk = std::make_shared<DeviceChunk>(samples, pixel_format_, color_, format_.output_memory == FLASHVSR_MEMORY_HOST,
                                                   chunk_bytes_);
  for (int64_t i = 0; i < count; ++i) results.push_back({nullptr, sources[static_cast<size_t>(i)], chunk, i});
  // Frames that nobody receives are not to fill the device.
  device_chunks_.push_back(chunk);
  while (device_chunks_.size() > kChunksOnDevice) {
    if (const auto old = device_chunks_.front().lock(); old && !old->is_settled()) old->settle();
    device_chunks_.pop_front();
  }
}

void Session::finish_on_cpu(const at::Tensor& frames, const at::Tensor& lq, int64_t first,
                            const std::vector<InputFramePtr>& sources, std::vector<OutputFrame>& results) {
  std::vector<const PlanarImage*> references;
  std::vector<std::shared_ptr<PlanarImage>> decoded, reference_pictures;
  std::vector<PlanarImage*> targets;
  for (const InputFramePtr& source : sources) {
    if (color_fix_ != ColorFix::kNone && !device_enlarger_) {
      if (reference_) {
        reference_pictures.push_back(output_pool_->take());
        reference_->resize(picture_of(*source), *reference_pictures.back(), true);
        references.push_back(reference_pictures.back().get());
      } else {
        enlarge(*source, true);
        references.push_back(source->enlarged.get());
      }
    }
    decoded.push_back(output_pool_->take());
    decoded.back()->reset(geometry_.decoded.width, geometry_.decoded.height, depth_, false);
    targets.push_back(decoded.back().get());
  }
  // what the model saw is the enlargement already, on its device
  const bool has_style = device_enlarger_ && color_fix_ != ColorFix::kNone;
  tensor_to_images(frames, first, references, postprocess_options(), targets, has_style ? lq : at::Tensor());

  for (size_t i = 0; i < sources.size(); ++i) {
    std::shared_ptr<PlanarImage> picture = decoded[i];
    if (reducer_) {
      picture = output_pool_->take();
      reducer_->resize(*decoded[i], *picture, true);
    }
    if (format_has_alpha(pixel_format_)) {
      picture->add_alpha();
      enlarger_.resize_alpha(*sources[i]->picture, *picture, true);
    }
    results.push_back({picture, sources[i], nullptr, 0});
  }
}

// The times of a run come when the device has passed it: here those of the run before, where this one goes on.
void Session::wait_for_device(bool may_go_on) {
  if (may_go_on) clock_->wait_until_begun(&StageTimes::decoder_ms, &is_interrupted_);
  else clock_->wait(&is_interrupted_);
  if (clock_before_) times_ = clock_before_->times();
  clock_before_.reset();
  if (may_go_on) return;
  times_ = clock_->times();
  clock_.reset();
}

void Session::run_passthrough(const ChunkRun& chunk, const Stream& stream, std::vector<OutputFrame>& results) {
  runner_.reset();
  tail_ = at::Tensor();
  if (has_last_ && last_was_model_) {
    if (last_.chunk) last_.chunk->wait(&is_interrupted_);
    fade_from_ = picture_of(last_);
    // apart from the frame: it has left, and `receive` may be looking at it
    fade_base_ = output_pool_->take();
    enlarger_.resize(picture_of(*last_.source), *fade_base_, true);
    blend_left_ = kBlendFrames;
  }
  for (const InputFramePtr& source : frames_of(stream, chunk.outputs)) {
    enlarge(*source, true);
    std::shared_ptr<const PlanarImage> picture = source->enlarged;
    if (blend_left_ > 0 && fade_from_) {
      auto blended = output_pool_->take();
      *blended = *source->enlarged;
      carry_detail(*fade_from_, *fade_base_, static_cast<float>(blend_left_) / (kBlendFrames + 1), *blended);
      picture = blended;
      --blend_left_;
    }
    results.push_back({picture, source, nullptr, 0});
  }
  if (blend_left_ == 0) {
    fade_from_.reset();
    fade_base_.reset();
  }
}

void Session::reset_state() {
  runner_.reset();
  tail_ = at::Tensor();
  last_ = {};
  fade_from_.reset();
  fade_base_.reset();
  has_last_ = false;
  blend_left_ = 0;
  clock_.reset();
  clock_before_.reset();
}

bool Session::run(FlashVsrRunMode mode) {
  FLASHVSR_CHECK(mode == FLASHVSR_RUN_MODEL || mode == FLASHVSR_RUN_PASSTHROUGH, ErrorCode::kInvalidArgument,
                 "run mode ", static_cast<int>(mode), " is not known");
  FLASHVSR_CHECK(!is_interrupted_, ErrorCode::kInterrupted, "interrupted");
  FLASHVSR_CHECK(!is_broken_, ErrorCode::kInternal, "an earlier run failed; flush the session or close it");
  Stream* stream = nullptr;
  ChunkRun chunk;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    while (!streams_.empty() && streams_.front()->schedule.is_done()) {
      streams_.pop_front();
      reset_state();
    }
    if (streams_.empty() || !streams_.front()->schedule.is_ready()) return false;
    stream = streams_.front().get();
    chunk = stream->schedule.next();
  }

  const bool is_model = mode == FLASHVSR_RUN_MODEL;
  Stopwatch stopwatch;
  double preprocess_ms = 0;
  std::vector<OutputFrame> results;
  if (is_model) {
    // The whole chunk: beside another one its work on the CPU would only take the cores from that one.
    const Turns::Turn turn = turns_->take(is_interrupted_);
    FLASHVSR_CHECK(turn, ErrorCode::kInterrupted, "interrupted");
    const CpuArena::Run reusing_memory(cpu_arena_, /*is_first=*/chunk.is_new_state);
    is_broken_ = true;  // until this run is whole
    run_model(chunk, *stream, results, preprocess_ms);
    bool is_next_ready;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stream->schedule.advance_model();
      is_next_ready = stream->schedule.is_ready();
    }
    // Not behind a first chunk: the caller would count its long decoder to the next one's time.
    wait_for_device(is_next_ready && !chunk.is_new_state && results.back().chunk);
  } else {
    is_broken_ = true;
    run_passthrough(chunk, *stream, results);
  }
  last_ = results.back();
  last_was_model_ = is_model;
  has_last_ = true;
  const double ms = stopwatch.lap_ms();

  int64_t oldest_needed = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (is_model) {
      stats_.preprocess_ms = preprocess_ms;
      stats_.projector_ms = times_.projector_ms;
      stats_.transformer_ms = times_.transformer_ms;
      stats_.decoder_ms = times_.decoder_ms;
      stats_.postprocess_ms = times_.finish_ms;
      stats_.chunk_ms = ms;
      stats_.chunk_ms_mean += (ms - stats_.chunk_ms_mean) / static_cast<double>(++stats_.chunks);
      stats_.chunk_ms_max = std::max(stats_.chunk_ms_max, ms);
      if (chunk.is_new_state) ++stats_.resets;
    } else {
      stream->schedule.advance_passthrough();
      ++stats_.chunks_passthrough;
      stats_.frames_passthrough += results.size();
    }
    const uint64_t held = runner_.bytes() + tensor_bytes(tail_);
    if (model_->device().is_cuda()) {
      stats_.device_bytes = runner_.device_bytes() + (picture_device_.is_cuda() ? tensor_bytes(tail_) : 0);
      stats_.device_bytes_peak = std::max(stats_.device_bytes_peak, stats_.device_bytes);
      stats_.host_bytes = held - stats_.device_bytes;
    } else {
      stats_.host_bytes = held;
    }
    oldest_needed = stream->schedule.oldest_needed();
  }
  stream->frames.drop_before(oldest_needed);
  for (OutputFrame& result : results) {
    FLASHVSR_CHECK(results_.push(std::move(result)).has_value(), ErrorCode::kInvalidArgument, "more than ",
                   kMaxFramesInside, " finished frames wait; call receive");
  }
  is_broken_ = false;
  return true;
}

bool Session::receive(const FlashVsrView* view, FlashVsrFrame& frame) {
  check_frame(frame, geometry_.out, format_.output_memory);
  const bool is_compared = view != nullptr && view->compare != FLASHVSR_COMPARE_OFF;
  const bool is_blended = view != nullptr && !(view->strength >= 1.0f);
  if (view != nullptr) {
    FLASHVSR_CHECK(view->compare >= FLASHVSR_COMPARE_OFF && view->compare <= FLASHVSR_COMPARE_SIDE_BY_SIDE &&
                       !std::isnan(view->strength) && !std::isnan(view->compare_position),
                   ErrorCode::kInvalidArgument, "the view is not valid");
  }
  // Stays inside until it is written: what fails here can be asked for again.
  const std::optional<OutputFrame> result = results_.at(results_.begin());
  if (!result) return false;

  // Straight from the device, where nothing has to be done to it.
  const bool is_direct = !result->picture && !is_compared && !is_blended;
  const std::shared_ptr<const PlanarImage> whole = is_direct ? nullptr : picture_of(*result);
  const PlanarImage* picture = whole.get();
  if (is_compared || is_blended) {
    // The frame's own enlargement where there is one; else made here, out of the worker's way.
    const PlanarImage* base = result->source->enlarged.get();
    if (base == nullptr) {
      enlarger_.resize(picture_of(*result->source), view_base_, false);
      base = &view_base_;
    }
    view_ = *picture;
    if (is_blended) blend(*base, view->strength, view_);
    if (is_compared) compare(*base, static_cast<Compare>(view->compare), view->compare_position, view_);
    picture = &view_;
  }
  if (is_direct) {
    result->chunk->write(result->index, planes_of(frame));
  } else if (format_.output_memory == FLASHVSR_MEMORY_CUDA) {
    StagedPlanes staged(pixel_format_, geometry_.out);
    convert_from_rgb(*picture, pixel_format_, color_, staged.planes);
    staged.upload(frame, model_->device());
  } else {
    convert_from_rgb(*picture, pixel_format_, color_, planes_of(frame));
  }
  frame.frame_id = result->source->id;
  results_.pop();
  std::lock_guard<std::mutex> lock(mutex_);
  ++stats_.frames_out;
  return true;
}

void Session::drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!streams_.empty()) streams_.back()->schedule.end();
}

void Session::flush() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    streams_.clear();
  }
  results_.clear();
  device_chunks_.clear();
  reset_state();
  is_broken_ = false;
  is_interrupted_ = false;
}

void Session::set_options(const FlashVsrSessionOptions& options) {
  FLASHVSR_CHECK(options.scale_num == options_.scale_num && options.scale_den == options_.scale_den &&
                     options.kv_chunks == options_.kv_chunks && options.seed == options_.seed &&
                     options.startup == options_.startup && options.max_vram == options_.max_vram,
                 ErrorCode::kInvalidArgument,
                 "only sparse-ratio, local-range and color-fix may change while a session is open");
  RunOptions changed = run_options(model_->config(), options, model_->decoder);
  changed.decode_latents = run_options_.decode_latents;
  changed.record_stages = run_options_.record_stages;
  color_fix_ = color_fix_of(model_->config(), options.color_fix);
  run_options_ = changed;
  options_ = options;
}

void Session::stats(FlashVsrStats& stats) const {
  std::lock_guard<std::mutex> lock(mutex_);
  stats = stats_;
  stats.host_bytes += input_pool_->bytes() + output_pool_->bytes() + *chunk_bytes_;
}

}  // namespace flashvsr
