// SPDX-License-Identifier: LGPL-2.1-or-later
#include "api/tile_runner.h"

#include <ATen/ATen.h>

namespace flashvsr {
namespace {

// Visits every tensor of a state but the KV cache, which keeps its own where it should be.
template <typename State, typename Visit>
void visit_memories(State& state, const Visit& visit) {
  visit(state.lq.conv1);
  visit(state.lq.conv2);
  for (auto& step : state.decoder.steps) visit(step);
  for (auto& step : state.vae.steps) visit(step);
}

void move_memories(StreamState& state, c10::Device device) {
  visit_memories(state, [&](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.to(device);
  });
}

at::Tensor cut(const at::Tensor& frames, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  return frames.narrow(3, row, rows).narrow(4, column, columns);
}

// Frame by frame: the fp32 sums stay small.
void add_weighted(const at::Tensor& frames, const at::Tensor& weights, const at::Tensor& target) {
  for (int64_t i = 0; i < frames.size(2); ++i) target.select(2, i).add_(frames.select(2, i) * weights);
}

}  // namespace

TileRunner::TileRunner(const Upscaler& upscaler, const MemoryPlan& plan)
    : upscaler_(upscaler), tiles_(plan.tiles), cache_(plan.cache), parks_in_host_(plan.parks_in_host) {
  const c10::Device device = parks_in_host_ ? c10::Device(c10::kCPU) : upscaler_.device();
  for (size_t i = 0; i < tiles_.rows.count(); ++i) {
    row_weights_.push_back(at::tensor(tiles_.rows.weights(i), at::kFloat).unsqueeze(1).to(device));
  }
  for (size_t i = 0; i < tiles_.columns.count(); ++i) {
    column_weights_.push_back(at::tensor(tiles_.columns.weights(i), at::kFloat).to(device));
  }
  if (tiles_.count() == 1 && ReferenceCheck::is_wanted()) check_.emplace(upscaler_);
  reset();
}

void TileRunner::reset() {
  states_.assign(tiles_.count(), StreamState());
  for (StreamState& state : states_) state.kv = KvCache(cache_);
  if (check_) check_->reset();
}

at::Tensor TileRunner::run(const at::Tensor& lq, const RunOptions& options, const std::atomic<bool>* cancel,
                           StageClock& clock) {
  if (tiles_.count() == 1) {
    const at::Tensor frames = upscaler_.run(lq, options, states_[0], {}, cancel, &clock);
    if (check_) check_->compare(lq, options, frames, cancel);
    return frames;
  }
  const int64_t scale = upscaler_.config().input_scale;
  const int64_t height = lq.size(3) * scale, width = lq.size(4) * scale;
  const int64_t outputs = Upscaler::outputs_of_run(states_[0]);
  const at::Tensor noise = upscaler_.make_noise(options.seed, states_[0].latent_frames,
                                                Upscaler::latents_of_run(states_[0]), height / 8, width / 8);
  const int64_t rows = tiles_.rows.size, columns = tiles_.columns.size;
  at::Tensor picture;
  for (size_t i = 0; i < states_.size(); ++i) {
    const size_t down = i / tiles_.columns.count(), across = i % tiles_.columns.count();
    const int64_t row = tiles_.rows.begin[down], column = tiles_.columns.begin[across];
    StreamState& state = states_[i];
    if (parks_in_host_) move_memories(state, upscaler_.device());
    const at::Tensor input = cut(lq, row / scale, rows / scale, column / scale, columns / scale);
    at::Tensor frames = upscaler_.run(
        input.contiguous().to(upscaler_.device()), options, state,
        noise.defined() ? cut(noise, row / 8, rows / 8, column / 8, columns / 8) : noise, cancel, &clock);
    state.kv.rest();
    if (parks_in_host_) {
      move_memories(state, at::kCPU);
      frames = frames.to(at::kCPU);
    }
    if (!picture.defined()) picture = at::zeros({1, 3, outputs, height, width}, frames.options());
    add_weighted(frames, row_weights_[down] * column_weights_[across], cut(picture, row, rows, column, columns));
  }
  return picture;
}

uint64_t TileRunner::bytes() const {
  uint64_t total = 0;
  for (const StreamState& state : states_) {
    total += static_cast<uint64_t>(state.kv.bytes());
    visit_memories(state, [&](const at::Tensor& tensor) { total += tensor.defined() ? tensor.nbytes() : 0; });
  }
  return total;
}

uint64_t TileRunner::device_bytes() const {
  uint64_t total = 0;
  for (const StreamState& state : states_) {
    total += static_cast<uint64_t>(state.kv.device_bytes());
    visit_memories(state, [&](const at::Tensor& tensor) {
      total += tensor.defined() && tensor.device() == upscaler_.device() ? tensor.nbytes() : 0;
    });
  }
  return total;
}

}  // namespace flashvsr
