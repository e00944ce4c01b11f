// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/GradMode.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/error.h"
#include "train/checkpoint.h"

namespace flashvsr::train {
namespace {

using Clock = std::chrono::steady_clock;

// cuDNN tries its algorithms in the first iterations: they tell nothing about the speed.
constexpr int64_t kSpeedFrom = 40, kSpeedTo = 140;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string describe(const ModelConfig& model) {
  const TcDecoderConfig& c = model.tc_decoder;
  std::string text;
  const auto add = [&](const auto& values) {
    for (const int64_t value : values) text += std::to_string(value) + ",";
    text += ";";
  };
  add(c.channels);
  add(c.mem_blocks);
  add(c.up);
  add(c.grow);
  return text + std::to_string(c.latent_channels) + "," + std::to_string(c.cond_unshuffle) + "," +
         std::to_string(c.deepen) + "," + std::to_string(c.final_shuffle) + "," + std::to_string(c.skip) + "," +
         std::to_string(c.residual);
}

// Sizes of projector and transformer, for the stage that has them.
std::string describe_transformer(const ModelConfig& c) {
  std::string text;
  for (const int64_t value : {c.dit.dim, c.dit.heads, c.dit.layers, c.dit.ffn_dim, c.dit.freq_dim, c.lq_projector.unshuffle,
                              c.lq_projector.hidden1, c.lq_projector.hidden2, c.blocks_per_query, c.kv_chunks, c.local_range}) {
    text += std::to_string(value) + ",";
  }
  return text;
}

std::string format(const char* pattern, double a, double b = 0, double c = 0, double d = 0) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, a, b, c, d);
  return text;
}

std::string json_of(const Quality& q) {
  return format("{\"psnr_y\":%.4f,\"ssim\":%.5f,\"gmsd\":%.5f,\"temporal_error\":%.4f}", q.psnr_y, q.ssim, q.gmsd,
                q.temporal_error);
}

}  // namespace

TcDecoderConfig nano_decoder_config() {
  TcDecoderConfig config;
  config.latent_channels = 16;
  config.cond_unshuffle = 2;
  config.channels = {64, 48, 32, 0};
  config.mem_blocks = {2, 2, 2};
  config.up = {2, 1, 1};
  config.grow = {2, 2, 1};
  config.deepen = true;
  config.final_shuffle = 4;
  config.skip = true;
  config.residual = true;
  return config;
}

ModelConfig exported_config(const TcDecoderConfig& decoder) {
  ModelConfig config;
  config.name = "nano";
  config.tc_decoder = decoder;
  config.input_scale = 4;
  config.has_transformer = false;
  config.noise_scale = 0;
  // What the transformer of this family will be; not there as long as has_transformer is false.
  config.blocks_per_query = 6;
  config.dit.dim = 192;
  config.dit.heads = 3;
  config.dit.layers = 6;
  config.dit.ffn_dim = 768;
  config.dit.has_text = false;
  config.lq_projector.unshuffle = 4;
  config.lq_projector.hidden1 = 96;
  config.lq_projector.hidden2 = 192;
  config.lq_projector.out_dim = 192;
  return config;
}

Trainer::Trainer(const TrainerOptions& options, Dataset training, Dataset validation)
    : options_(options),
      training_(std::move(training)),
      validation_(std::move(validation)),
      stage_(options.stage, options.model, options.seed, options.device),
      iterations_(options.iterations) {
  stage_.mse_share = options.mse_share;
  FLASHVSR_CHECK(options.samples.frames % 4 == 1, ErrorCode::kInvalidArgument, "frames is ", options.samples.frames,
                 ", expected 4n+1");
  FLASHVSR_CHECK(options.samples.size % 8 == 0 && options.samples.size >= 16, ErrorCode::kInvalidArgument, "crop is ",
                 options.samples.size, ", expected a multiple of 8 from 16");
  FLASHVSR_CHECK(options.iterations > 0 || options.minutes > 0, ErrorCode::kInvalidArgument,
                 "neither iterations nor minutes given");
  FLASHVSR_CHECK(options.stage != StageKind::kStudent ||
                     (options.samples.frames >= 25 && options.samples.frames % 8 == 1 && options.samples.size % 128 == 0),
                 ErrorCode::kInvalidArgument, "the student stage needs 25 + 8n frames and a crop that is a multiple of 128; got ",
                 options.samples.frames, " and ", options.samples.size);
  options_.model.has_transformer = options.stage == StageKind::kStudent;
  const auto walk = [&](const ParameterVisitor& visit) { stage_.visit_parameters(visit); };
  parameters_.emplace(walk, options.device, options.compute_dtype);
  if (options_.device.is_cuda()) at::globalContext().setBenchmarkCuDNN(true);
  if (!options_.out.empty()) std::filesystem::create_directories(options_.out);
}

double Trainer::learning_rate() const {
  const double step = static_cast<double>(iteration_ + 1);
  const double warm = std::min(1.0, step / static_cast<double>(std::max<int64_t>(1, options_.warm_up)));
  if (iterations_ == 0) return options_.learning_rate * warm;
  const double progress = static_cast<double>(iteration_) / static_cast<double>(iterations_);
  return options_.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + std::cos(M_PI * progress)));
}

void Trainer::log(const std::string& line) const {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  if (options_.out.empty()) return;
  std::ofstream(options_.out + "/log.jsonl", std::ios::app) << line << "\n";
}

void Trainer::run(int64_t at_most) {
  FLASHVSR_CHECK(options_.stage != StageKind::kStudent || has_frozen_, ErrorCode::kInvalidArgument,
                 "the student stage starts from the checkpoint of an autoencoder run");
  const auto walk = [&](const ParameterVisitor& visit) { stage_.visit_parameters(visit); };
  const int64_t stop = at_most < 0 ? INT64_MAX : iteration_ + at_most;
  Clock::time_point start = Clock::now(), speed_start = start;
  const double seconds_before = seconds_;
  const int64_t first = iteration_;  // of this piece of the run
  double validation_seconds = 0;
  at::Tensor loss_sum, norm_sum;
  int64_t summed = 0;
  while (iteration_ < stop && (iterations_ == 0 || iteration_ < iterations_)) {
    // Everything random is a function of (seed, iteration): see checkpoint.h.
    Random random(options_.seed, static_cast<uint64_t>(iteration_));
    at::manual_seed(random.next());
    parameters_->attach_leaves(walk);
    parameters_->begin_iteration();
    Batch batch;
    {
      const c10::NoGradGuard no_grad;
      const Samples samples = training_.sample(options_.samples, random);
      batch.hq = samples.hq;
      batch.lq = degrade(batch.hq, options_.degradation, random, samples.lq);
      batch.base = enlarge(batch.lq);
    }
    const double progress =
        iterations_ == 0 ? 0.0 : static_cast<double>(iteration_) / static_cast<double>(iterations_);
    const at::Tensor loss = stage_.loss(batch, progress, random);
    loss.backward();
    const at::Tensor norm = parameters_->step(iteration_ + 1, learning_rate(), options_.adam);
    const double rate = learning_rate();
    ++iteration_;
    ++summed;
    loss_sum = loss_sum.defined() ? loss_sum + loss.detach() : loss.detach();
    norm_sum = norm_sum.defined() ? norm_sum + norm : norm;

    if (iterations_ == 0 && iteration_ - first == kSpeedFrom) {
      loss_sum.item<double>();
      speed_start = Clock::now();
    }
    if (iterations_ == 0 && iteration_ - first == kSpeedTo) {
      loss_sum.item<double>();
      const double per_iteration = seconds_since(speed_start) / (kSpeedTo - kSpeedFrom);
      const double left = options_.minutes * 60 - seconds_before - seconds_since(start);
      iterations_ = iteration_ + std::max<int64_t>(1, static_cast<int64_t>(left / per_iteration));
      log(format("{\"iterations\":%.0f,\"per_second\":%.2f}", static_cast<double>(iterations_), 1 / per_iteration));
    }
    seconds_ = seconds_before + seconds_since(start) - validation_seconds;
    const bool is_last = iterations_ > 0 && iteration_ == iterations_;
    if (iteration_ % options_.log_every == 0 || is_last || iteration_ == stop) {
      last_loss_ = loss_sum.item<double>() / static_cast<double>(summed);
      FLASHVSR_CHECK(std::isfinite(last_loss_), ErrorCode::kInternal, "the loss is ", last_loss_, " at iteration ",
                     iteration_);
      log(format("{\"iteration\":%.0f,\"loss\":%.6f,\"gradient_norm\":%.4f,", static_cast<double>(iteration_),
                 last_loss_, norm_sum.item<double>() / static_cast<double>(summed)) +
          format("\"learning_rate\":%.3g,\"seconds\":%.1f}", rate, seconds_));
      loss_sum = norm_sum = at::Tensor();
      summed = 0;
    }
    if (iteration_ % options_.validate_every == 0 || is_last) {
      const Clock::time_point validation_start = Clock::now();
      report_validation(is_last);
      validation_seconds += seconds_since(validation_start);
    }
  }
}

std::vector<ClipResult> Trainer::validate(bool psnr_only) {
  const c10::NoGradGuard no_grad;
  // Clips have many sizes; trying cuDNN's algorithms for each would take longer than running one.
  at::globalContext().setBenchmarkCuDNN(false);
  const auto measured = [&](const at::Tensor& clip, const at::Tensor& truth) {
    const at::Tensor frames = to_eight_bit_frames(clip);
    if (!psnr_only) return measure(frames, truth);
    Quality quality;
    quality.psnr_y = psnr_y(luma(frames), luma(truth));
    return quality;
  };
  const auto walk = [&](const ParameterVisitor& visit) { stage_.visit_parameters(visit); };
  parameters_->attach_ema(walk);
  std::vector<ClipResult> results;
  for (const Clip& clip : validation_.videos()) {
    const bool is_student = options_.stage == StageKind::kStudent;
    const int64_t most = std::min(options_.validation_frames, clip.frames.size(0)), multiple = is_student ? 128 : 8;
    const int64_t count = is_student ? (most - 1) / 8 * 8 + 1 : (most - 1) / 4 * 4 + 1;
    const int64_t h = clip.frames.size(1) / multiple * multiple, w = clip.frames.size(2) / multiple * multiple;
    if ((is_student && count < 25) || h == 0 || w == 0) continue;
    const at::Tensor input = clip.frames.narrow(0, 0, count).narrow(1, 0, h).narrow(2, 0, w);
    const at::Tensor truth = input.narrow(0, 0, stage_.outputs_of(count));
    Batch batch;
    batch.hq = to_model_range(input);
    batch.lq = reduce(batch.hq);
    batch.base = enlarge(batch.lq);
    ClipResult result;
    result.name = clip.name;
    result.bicubic = measured(batch.base.narrow(2, 0, truth.size(0)), truth);
    result.zero_latents = measured(stage_.restore(batch, Latents::kZero), truth);
    if (options_.stage != StageKind::kDecoder) result.true_latents = measured(stage_.restore(batch, Latents::kTrue), truth);
    if (is_student) result.student = measured(stage_.restore(batch, Latents::kStudent), truth);
    results.push_back(result);
  }
  at::globalContext().setBenchmarkCuDNN(options_.device.is_cuda());
  return results;
}

void Trainer::report_validation(bool is_final) {
  double bicubic = 0, zero = 0, truth = 0, student = 0;
  const std::vector<ClipResult> results = validate(!is_final);
  for (const ClipResult& result : results) {
    bicubic += result.bicubic.psnr_y;
    zero += result.zero_latents.psnr_y;
    if (result.true_latents) truth += result.true_latents->psnr_y;
    if (result.student) student += result.student->psnr_y;
    if (is_final) {
      log("{\"clip\":\"" + result.name + "\",\"bicubic\":" + json_of(result.bicubic) +
          ",\"zero_latents\":" + json_of(result.zero_latents) +
          (result.true_latents ? ",\"true_latents\":" + json_of(*result.true_latents) : "") +
          (result.student ? ",\"student\":" + json_of(*result.student) : "") + "}");
    }
  }
  if (!results.empty()) {
    const double count = static_cast<double>(results.size());
    log(format("{\"validation\":%.0f,\"bicubic_psnr_y\":%.3f,\"psnr_y\":%.3f,\"gain\":%.3f",
               static_cast<double>(iteration_), bicubic / count, zero / count, (zero - bicubic) / count) +
        (results.front().true_latents ? format(",\"true_latents_psnr_y\":%.3f", truth / count) : "") +
        (results.front().student ? format(",\"student_psnr_y\":%.3f", student / count) : "") + "}");
  }
  if (options_.out.empty()) return;
  save_checkpoint(options_.out + "/checkpoint.safetensors");
  save_export(options_.out);
}

void Trainer::save_checkpoint(const std::string& path) {
  TensorFile file;
  parameters_->save(file.tensors);
  stage_.visit_buffers([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    file.tensors["buffer." + key] = tensor.cpu();
  });
  file.metadata = {{"stage", name_of(options_.stage)},
                   {"decoder", describe(options_.model)},
                   {"transformer", describe_transformer(options_.model)},
                   {"seed", std::to_string(options_.seed)},
                   {"iteration", std::to_string(iteration_)},
                   {"iterations", std::to_string(iterations_)},
                   {"seconds", std::to_string(seconds_)}};
  write_file(path, file);
}

void Trainer::resume(const std::string& path) {
  const TensorFile file = read_file(path);
  const auto expect = [&](const char* key, const std::string& mine) {
    const std::string& theirs = metadata_of(file, key, path);
    FLASHVSR_CHECK(theirs == mine, ErrorCode::kInvalidArgument, path, ": ", key, " is ", theirs, ", this run has ", mine);
  };
  expect("stage", name_of(options_.stage));
  expect("decoder", describe(options_.model));
  if (options_.stage == StageKind::kStudent) expect("transformer", describe_transformer(options_.model));
  expect("seed", std::to_string(options_.seed));
  parameters_->load(file.tensors);
  stage_.visit_buffers([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    const auto found = file.tensors.find("buffer." + key);
    FLASHVSR_CHECK(found != file.tensors.end(), ErrorCode::kModelInvalid, path, ": no tensor \"buffer.", key, "\"");
    tensor.copy_(found->second);
  });
  has_frozen_ = true;
  iteration_ = std::stoll(metadata_of(file, "iteration", path));
  seconds_ = std::stod(metadata_of(file, "seconds", path));
  // A run of a given length keeps it; one measured in minutes keeps what was settled.
  if (options_.iterations == 0) iterations_ = std::stoll(metadata_of(file, "iterations", path));
}

void Trainer::initialise_from(const std::string& path) {
  const TensorFile file = read_file(path);
  const auto walk = [&](const ParameterVisitor& visit) { stage_.visit_parameters(visit); };
  // The averaged weights of a checkpoint, or an exported model's.
  int64_t taken = 0, frozen = 0, frozen_taken = 0;
  const auto take = [&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    auto found = file.tensors.find("ema." + key);
    if (found == file.tensors.end()) found = file.tensors.find("buffer." + key);
    if (found == file.tensors.end()) found = file.tensors.find(key);
    if (found == file.tensors.end()) return false;
    FLASHVSR_CHECK(found->second.sizes() == at::IntArrayRef(shape), ErrorCode::kModelInvalid, path, ": \"", key,
                   "\" is ", found->second.sizes(), ", expected ", at::IntArrayRef(shape));
    tensor = found->second.to(options_.device, at::kFloat);
    return true;
  };
  walk([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    if (take(key, tensor, shape)) ++taken;
  });
  stage_.visit_buffers([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    ++frozen;
    if (take(key, tensor, shape)) ++frozen_taken;
  });
  FLASHVSR_CHECK(taken + frozen_taken > 0, ErrorCode::kModelInvalid, path, ": holds none of this stage's tensors");
  FLASHVSR_CHECK(options_.stage != StageKind::kStudent || frozen == frozen_taken, ErrorCode::kModelInvalid, path, ": holds ",
                 frozen_taken, " of the ", frozen, " tensors of decoder and encoder; the student stage needs the checkpoint of an "
                 "autoencoder run");
  has_frozen_ = frozen_taken == frozen;
  parameters_.emplace(walk, options_.device, options_.compute_dtype);
}

void Trainer::save_export(const std::string& directory) {
  TensorMap weights;
  for (auto& [key, tensor] : parameters_->ema_weights()) {
    if (key.rfind("encoder.", 0) != 0) weights[key] = tensor;
  }
  stage_.visit_buffers([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    if (key.rfind("tc_decoder.", 0) == 0) weights[key] = tensor.cpu();
  });
  export_model(directory, options_.model, weights,
               {{"stage", name_of(options_.stage)}, {"iteration", std::to_string(iteration_)}});
}

}  // namespace flashvsr::train
