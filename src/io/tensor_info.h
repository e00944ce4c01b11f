// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the checkpoint readers say about a tensor, without any tensor library.
#ifndef FLASHVSR_IO_TENSOR_INFO_H_
#define FLASHVSR_IO_TENSOR_INFO_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace flashvsr {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

size_t dtype_size(DType dtype);
const char* dtype_name(DType dtype);  // as safetensors writes it: "F32", "BF16", ...
bool parse_dtype(const std::string& name, DType* dtype);

// A name from a file, for a message: at most 200 characters, '?' for what is not printable ASCII.
std::string printable(const std::string& text);

std::string shape_text(const std::vector<int64_t>& shape);  // "[2, 3]"

// Product of the sizes times dtype_size; false when a size is negative or the product does not fit.
bool checked_bytes(const std::vector<int64_t>& shape, DType dtype, uint64_t* bytes);

// Name -> shape, as a config asks for it or as a file has it.
using ShapeMap = std::map<std::string, std::vector<int64_t>>;

// Throws Error (kModelInvalid) unless `found` has exactly the tensors of `expected`, in their shapes.
// Surplus names that `ignore` accepts may be there. The message names the file, the first tensor that does
// not fit, the shape expected and found, and how many more there are.
void check_shapes(const ShapeMap& expected, const ShapeMap& found, const std::string& file,
                  const std::function<bool(const std::string& name)>& ignore = {});

}  // namespace flashvsr

#endif  // FLASHVSR_IO_TENSOR_INFO_H_
