// SPDX-License-Identifier: LGPL-2.1-or-later
//
// All trained tensors of a stage as a few flat vectors, so that the optimiser is a
// dozen operations whatever the number of layers.
//
//   master, ema, adam_m, adam_v   [n] fp32
//   compute, grad                 [n] compute dtype: what modules see as leaves and
//                                 what backward adds to
//
// Convolution weights lie channels-last inside the vectors; saved tensors are plain.
//
// AdamW with decoupled decay on matrices only (dimension > 1), one clip of the
// gradient's norm, and an average of the weights: after step t (from 1)
//
//   ema += (1 - d) (master - ema),  d = min(decay, t / (t + 9))
//
// Thread-safety: unsafe.
#ifndef FLASHVSR_TRAIN_PARAMETER_SET_H_
#define FLASHVSR_TRAIN_PARAMETER_SET_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/parameters.h"

namespace flashvsr::train {

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.01;
  double clip_norm = 1.0;
  double ema_decay = 0.998;
};

class ParameterSet {
 public:
  // Takes the module's current tensors as the start.
  using Walk = std::function<void(const ParameterVisitor&)>;
  ParameterSet(const Walk& walk, c10::Device device, c10::ScalarType compute_dtype);

  // Makes the module's tensors the leaves; its next forward is differentiable in them.
  void attach_leaves(const Walk& walk) const;
  // Makes the module's tensors views of the averaged weights (fp32, no gradient).
  void attach_ema(const Walk& walk) const;

  // Copies master to the leaves and zeroes the gradient: before each forward.
  void begin_iteration();
  // One AdamW step; `step` counts from 1. Returns the gradient's norm before clipping (a scalar tensor).
  at::Tensor step(int64_t step, double learning_rate, const AdamOptions& options);

  // "master.KEY" ... of the checkpoint, plain CPU tensors; and back (missing or misshapen: throws Error).
  void save(TensorMap& tensors) const;
  void load(const TensorMap& tensors);
  // KEY -> averaged weights, CPU.
  TensorMap ema_weights() const;

  int64_t count() const { return count_; }

 private:
  struct Entry {
    std::string key;
    std::vector<int64_t> shape;
    int64_t begin = 0;
    int64_t size = 0;
  };
  at::Tensor view(const at::Tensor& flat, const Entry& entry) const;
  const Entry& entry(const std::string& key) const;

  std::vector<Entry> entries_;
  std::map<std::string, size_t> index_;
  int64_t count_ = 0;
  at::Tensor master_, ema_, adam_m_, adam_v_, decay_mask_;
  at::Tensor compute_, grad_;
  std::vector<at::Tensor> leaves_;
};

}  // namespace flashvsr::train

#endif  // FLASHVSR_TRAIN_PARAMETER_SET_H_
