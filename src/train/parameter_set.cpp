// SPDX-License-Identifier: LGPL-2.1-or-later
#include "train/parameter_set.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace flashvsr::train {

at::Tensor ParameterSet::view(const at::Tensor& flat, const Entry& entry) const {
  const at::Tensor part = flat.narrow(0, entry.begin, entry.size);
  const auto& s = entry.shape;
  if (s.size() != 4) return part.view(s);
  return part.view({s[0], s[2], s[3], s[1]}).permute({0, 3, 1, 2});
}

const ParameterSet::Entry& ParameterSet::entry(const std::string& key) const {
  const auto found = index_.find(key);
  FLASHVSR_CHECK(found != index_.end(), ErrorCode::kInternal, "parameter set: no \"", key, "\"");
  return entries_[found->second];
}

ParameterSet::ParameterSet(const Walk& walk, c10::Device device, c10::ScalarType compute_dtype) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> start;
  walk([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape) {
    Entry entry{key, shape, count_, 1};
    for (const int64_t length : shape) entry.size *= length;
    count_ += entry.size;
    index_[key] = entries_.size();
    entries_.push_back(std::move(entry));
    start.push_back(tensor);
  });
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  master_ = at::zeros({count_}, options);
  adam_m_ = at::zeros({count_}, options);
  adam_v_ = at::zeros({count_}, options);
  decay_mask_ = at::zeros({count_}, options);
  compute_ = at::zeros({count_}, options.dtype(compute_dtype));
  grad_ = at::zeros({count_}, options.dtype(compute_dtype));
  for (size_t i = 0; i < entries_.size(); ++i) {
    view(master_, entries_[i]).copy_(start[i]);
    const std::string& key = entries_[i].key;
    const bool is_matrix = entries_[i].shape.size() > 1 && key.find("gamma") == std::string::npos &&
                           key.find("modulation") == std::string::npos;
    if (is_matrix) view(decay_mask_, entries_[i]).fill_(1);
    at::Tensor leaf = view(compute_, entries_[i]).detach().requires_grad_(true);
    leaf.mutable_grad() = view(grad_, entries_[i]);
    leaves_.push_back(leaf);
  }
  ema_ = master_.clone();
}

void ParameterSet::attach_leaves(const Walk& walk) const {
  walk([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    entry(key);
    tensor = leaves_[index_.at(key)];
  });
}

void ParameterSet::attach_ema(const Walk& walk) const {
  walk([&](const std::string& key, at::Tensor& tensor, const std::vector<int64_t>&) {
    tensor = view(ema_, entry(key));
  });
}

void ParameterSet::begin_iteration() {
  const c10::NoGradGuard no_grad;
  compute_.copy_(master_);
  grad_.zero_();
}

at::Tensor ParameterSet::step(int64_t step, double learning_rate, const AdamOptions& options) {
  const c10::NoGradGuard no_grad;
  at::Tensor gradient = grad_.to(at::kFloat);
  const at::Tensor norm = gradient.norm();
  gradient = gradient * (options.clip_norm / (norm + 1e-6)).clamp_max(1.0);
  adam_m_.lerp_(gradient, 1 - options.beta1);
  adam_v_.mul_(options.beta2).addcmul_(gradient, gradient, 1 - options.beta2);
  const double t = static_cast<double>(step);
  const double correction1 = 1 - std::pow(options.beta1, t);
  const double correction2 = std::sqrt(1 - std::pow(options.beta2, t));
  master_.addcmul_(master_, decay_mask_, -learning_rate * options.weight_decay);
  master_.addcdiv_(adam_m_, (adam_v_.sqrt() / correction2).add_(options.eps), -learning_rate / correction1);
  ema_.lerp_(master_, 1 - std::min(options.ema_decay, t / (t + 9)));
  return norm;
}

void ParameterSet::save(TensorMap& tensors) const {
  for (const Entry& entry : entries_) {
    tensors["master." + entry.key] = view(master_, entry).cpu().contiguous();
    tensors["ema." + entry.key] = view(ema_, entry).cpu().contiguous();
    tensors["adam_m." + entry.key] = view(adam_m_, entry).cpu().contiguous();
    tensors["adam_v." + entry.key] = view(adam_v_, entry).cpu().contiguous();
  }
}

void ParameterSet::load(const TensorMap& tensors) {
  const c10::NoGradGuard no_grad;
  const auto take = [&](const std::string& key, const Entry& entry, const at::Tensor& flat) {
    const auto found = tensors.find(key);
    FLASHVSR_CHECK(found != tensors.end(), ErrorCode::kModelInvalid, "checkpoint: no tensor \"", key, "\"");
    FLASHVSR_CHECK(found->second.sizes() == at::IntArrayRef(entry.shape) && found->second.scalar_type() == at::kFloat,
                   ErrorCode::kModelInvalid, "checkpoint: \"", key, "\" is ", found->second.scalar_type(), " ",
                   found->second.sizes(), ", expected float ", at::IntArrayRef(entry.shape));
    view(flat, entry).copy_(found->second);
  };
  for (const Entry& entry : entries_) {
    take("master." + entry.key, entry, master_);
    take("ema." + entry.key, entry, ema_);
    take("adam_m." + entry.key, entry, adam_m_);
    take("adam_v." + entry.key, entry, adam_v_);
  }
}

TensorMap ParameterSet::ema_weights() const {
  TensorMap weights;
  for (const Entry& entry : entries_) weights[entry.key] = view(ema_, entry).cpu().contiguous().clone();
  return weights;
}

}  // namespace flashvsr::train
