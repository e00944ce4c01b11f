// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/tensor_info.h"

#include <limits>

#include "base/error.h"

namespace flashvsr {
namespace {

struct Entry {
  DType dtype;
  const char* name;
  size_t size;
};
constexpr Entry kTypes[] = {{DType::kF64, "F64", 8}, {DType::kF32, "F32", 4}, {DType::kF16, "F16", 2},
                            {DType::kBF16, "BF16", 2}, {DType::kI64, "I64", 8}, {DType::kI32, "I32", 4},
                            {DType::kI16, "I16", 2}, {DType::kI8, "I8", 1}, {DType::kU8, "U8", 1},
                            {DType::kBool, "BOOL", 1}};

}  // namespace

size_t dtype_size(DType dtype) { return kTypes[static_cast<int>(dtype)].size; }
const char* dtype_name(DType dtype) { return kTypes[static_cast<int>(dtype)].name; }

bool parse_dtype(const std::string& name, DType* dtype) {
  for (const Entry& entry : kTypes) {
    if (name == entry.name) {
      *dtype = entry.dtype;
      return true;
    }
  }
  return false;
}

std::string printable(const std::string& text) {
  constexpr size_t kLongest = 200;
  std::string out = text.substr(0, kLongest);
  for (char& c : out) c = c >= ' ' && c <= '~' ? c : '?';
  return text.size() > kLongest ? out + "..." : out;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return out + "]";
}

bool checked_bytes(const std::vector<int64_t>& shape, DType dtype, uint64_t* bytes) {
  uint64_t product = dtype_size(dtype);
  bool is_empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return false;
    if (size == 0) is_empty = true;
    const uint64_t factor = size == 0 ? 1 : static_cast<uint64_t>(size);
    if (product > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / factor) return false;
    product *= factor;
  }
  *bytes = is_empty ? 0 : product;
  return true;
}

void check_shapes(const ShapeMap& expected, const ShapeMap& found, const std::string& file,
                  const std::function<bool(const std::string& name)>& ignore) {
  std::string first;
  size_t faults = 0;
  const auto fault = [&](const std::string& name, const std::string& what) {
    if (faults++ == 0) first = concat("tensor \"", printable(name), "\" ", what);
  };
  for (const auto& [name, shape] : expected) {
    const auto match = found.find(name);
    if (match == found.end()) {
      fault(name, concat("of shape ", shape_text(shape), " is missing"));
    } else if (match->second != shape) {
      fault(name, concat("has shape ", shape_text(match->second), ", expected ", shape_text(shape)));
    }
  }
  for (const auto& [name, shape] : found) {
    if (expected.count(name) == 0 && !(ignore && ignore(name))) {
      fault(name, concat("of shape ", shape_text(shape), " is not part of the model"));
    }
  }
  FLASHVSR_CHECK(faults == 0, ErrorCode::kModelInvalid, file, ": ", first,
                 faults > 1 ? concat(" (and ", faults - 1, " more that do not fit)") : std::string());
}

}  // namespace flashvsr
