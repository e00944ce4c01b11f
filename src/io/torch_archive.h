// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Tensors of a torch.save archive (.ckpt, .pth): a zip with a pickle and raw storages.
// The pickle is read as data by a machine that knows the few instructions a state dict
// needs; nothing in it is executed. Globals that may occur: collections.OrderedDict,
// torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter, torch.FloatStorage,
// torch.BFloat16Storage, torch.HalfStorage; any other is refused by name.
//
// Views are honoured: tensors may share a storage, begin anywhere in it and have any
// strides; `read` copies them to row-major. A device in the storage's location is ignored.
// The top level is a dict of tensors, a dict that holds such a dict under `model_state`, or
// one bare tensor, whose name is then "".
//
// Errors: throws Error (kModelNotFound, else kModelInvalid) naming the file and the tensor.
// Memory: the pickle (at most 16 MiB), at most 2^18 values, and the shared storages read so far. All
// tensors together have at most twice the file's size, whatever views of one storage they are.
// Thread-safety: unsafe. Source: model.md 1.7.
#ifndef FLASHVSR_IO_TORCH_ARCHIVE_H_
#define FLASHVSR_IO_TORCH_ARCHIVE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/tensor_info.h"
#include "io/zip_archive.h"

namespace flashvsr {

struct TorchTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<int64_t> stride;  // elements
  int64_t offset = 0;           // elements
  std::string storage;          // member name
  uint64_t bytes() const;       // of the row-major copy
  bool is_row_major() const;    // strides are those of the copy
};

class TorchArchive {
 public:
  explicit TorchArchive(const std::string& path);

  const std::map<std::string, TorchTensor>& tensors() const { return tensors_; }
  // Row-major copy, tensor.bytes() bytes.
  void read(const TorchTensor& tensor, void* out);

 private:
  ZipArchive zip_;
  std::map<std::string, TorchTensor> tensors_;
  std::map<std::string, std::vector<char>> storages_;
};

}  // namespace flashvsr

#endif  // FLASHVSR_IO_TORCH_ARCHIVE_H_
