// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How modules name their weights. Each module has one
//
//     void visit_parameters(const std::string& prefix, const ParameterVisitor& visit);
//
// that calls `visit(key, tensor, shape)` for each tensor with its checkpoint key
// and the shape the config asks for. Loading, strict checking, random
// initialisation, saving, moving to a device and the optimiser's list are all
// this one walk.
//
//   tensor   undefined before loading; any dtype and device after
//   shape    what the checkpoint must hold
//
// Thread-safety: unsafe while weights change; modules are read-only afterwards.
#ifndef FLASHVSR_MODEL_PARAMETERS_H_
#define FLASHVSR_MODEL_PARAMETERS_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace flashvsr {

using ParameterVisitor =
    std::function<void(const std::string& key, at::Tensor& tensor, const std::vector<int64_t>& shape)>;

// Key -> tensor, as read from a file (CPU, the file's dtype) or given by a caller.
using TensorMap = std::map<std::string, at::Tensor>;

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_PARAMETERS_H_
