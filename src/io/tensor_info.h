// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the checkpoint readers say about a tensor, without any tensor library.
#ifndef FLASHVSR_IO_TENSOR_INFO_H_
#define FLASHVSR_IO_TENSOR_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

namespace flashvsr {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

size_t dtype_size(DType dtype);
const char* dtype_name(DType dtype);  // as safetensors writes it: "F32", "BF16", ...
bool parse_dtype(const std::string& name, DType* dtype);

std::string shape_text(const std::vector<int64_t>& shape);  // "[2, 3]"

// Product of the sizes times dtype_size; false when a size is negative or the product does not fit.
bool checked_bytes(const std::vector<int64_t>& shape, DType dtype, uint64_t* bytes);

}  // namespace flashvsr

#endif  // FLASHVSR_IO_TENSOR_INFO_H_
