// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda/operands.h"

#include <ATen/core/grad_mode.h>

#include <set>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "model/ops.h"

namespace flashvsr {

bool is_plain_bf16(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 && !(at::GradMode::is_enabled() && x.requires_grad());
}

void note_reference(const char* name, const at::Tensor& x) {
  FLASHVSR_CHECK(!ops::is_strict() || x.scalar_type() != at::kBFloat16, ErrorCode::kInternal, name, ": no kernel takes ",
                 x.sizes(), ", and FLASHVSR_STRICT is set");
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard<std::mutex> lock(mutex);
  if (said.insert(name).second) log(LogLevel::kInfo, name, ": no kernel takes ", x.sizes(), ", running the reference");
}

DerivedWeights& derived_weights() {
  static DerivedWeights* weights = new DerivedWeights;  // outlives every tensor
  return *weights;
}

}  // namespace flashvsr
