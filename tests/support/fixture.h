// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One golden case: its tensors and its case.json.
//
//   Fixture f(folder);   f["noise"]   f.number("config.topk")   f.text("config.version")
//
// Errors: a missing tensor or field throws Error naming the case and the name.
#ifndef FLASHVSR_TESTS_SUPPORT_FIXTURE_H_
#define FLASHVSR_TESTS_SUPPORT_FIXTURE_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

namespace flashvsr {

class Fixture {
 public:
  explicit Fixture(const std::string& folder);

  const std::string& folder() const { return folder_; }
  bool has(const std::string& tensor) const { return tensors_.count(tensor) != 0; }
  const at::Tensor& operator[](const std::string& tensor) const;
  // x/255*2-1 of bytes [F, H, W, 3] as [1, 3, F, H, W] fp32.
  at::Tensor frames(const std::string& tensor) const;

  // Dotted path into case.json; array elements by index ("config.cases.0.w0").
  bool has_field(const std::string& path) const { return fields_.count(path) != 0; }
  double number(const std::string& path) const;
  std::string text(const std::string& path) const;
  int64_t length(const std::string& path) const;  // of an array

 private:
  std::string folder_;
  std::map<std::string, at::Tensor> tensors_;
  std::map<std::string, std::string> fields_;
};

// Folders below `root` that hold a case.json, sorted, relative to `root`.
std::vector<std::string> find_cases(const std::string& root);

// The fixtures' root: FLASHVSR_FIXTURES, else the project's own copy.
std::string fixtures_root();

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_SUPPORT_FIXTURE_H_
