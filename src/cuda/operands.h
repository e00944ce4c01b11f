// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the files that register kernels ask of tensors before they take them, and what they keep of weights.
//
// Thread-safety: safe.
#ifndef FLASHVSR_CUDA_OPERANDS_H_
#define FLASHVSR_CUDA_OPERANDS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <utility>

namespace flashvsr {

// The kernels compute in bf16 and have no gradients.
bool is_plain_bf16(const at::Tensor& x);

// Says once that operation `name` runs the reference for want of a kernel. FLASHVSR_STRICT=1 makes it an error
// (kInternal) in bf16; fp32 has no kernels by design, the reference is the implementation there.
void note_reference(const char* name, const at::Tensor& x);

// Constants made from weights, kept as long as the weight lives. Variants tell several of one weight apart.
class DerivedWeights {
 public:
  template <typename Make>
  at::Tensor get(const at::Tensor& weight, int64_t variant, const Make& make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Key key{weight.unsafeGetTensorImpl(), variant};
    const auto found = entries_.find(key);
    if (found != entries_.end()) {
      if (!found->second.source.expired() && found->second.data == weight.data_ptr()) return found->second.derived;
      entries_.erase(found);
    }
    for (auto it = entries_.begin(); it != entries_.end();) {
      it = it->second.source.expired() ? entries_.erase(it) : std::next(it);
    }
    at::Tensor derived = make();
    entries_.emplace(key, Entry{c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>(weight.getIntrusivePtr()),
                                weight.data_ptr(), derived});
    return derived;
  }

 private:
  using Key = std::pair<const void*, int64_t>;
  struct Entry {
    c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> source;
    const void* data;
    at::Tensor derived;
  };
  std::mutex mutex_;
  std::map<Key, Entry> entries_;
};

DerivedWeights& derived_weights();

}  // namespace flashvsr

#endif  // FLASHVSR_CUDA_OPERANDS_H_
