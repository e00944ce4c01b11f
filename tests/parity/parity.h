// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the parity files share: the device and dtype under test, the checkpoint that a case names,
// and the list of stages, each of which says which cases it can run.
//
// FLASHVSR_TEST_DEVICE ("cpu", "cuda") chooses the device; every case found below the fixtures'
// root is run, with all sizes from its case.json and tensors.
#ifndef FLASHVSR_TESTS_PARITY_PARITY_H_
#define FLASHVSR_TESTS_PARITY_PARITY_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/upscaler.h"
#include "tests/support/fixture.h"
#include "tests/support/near.h"

namespace flashvsr {

c10::Device test_device();

// One run of a case: what is computed in, and the name for the table.
struct ParityRun {
  const Fixture* fixture = nullptr;
  std::string name;  // "dit/block fp32"
  c10::ScalarType dtype = c10::kFloat;
  bool is_bf16() const { return dtype == c10::kBFloat16; }
  const Fixture& f() const { return *fixture; }
  // To the device and dtype under test.
  at::Tensor on(const at::Tensor& x) const { return x.to(test_device(), dtype); }
  void near(const std::string& what, const at::Tensor& actual, const at::Tensor& expected,
            const Tolerance& tolerance) const {
    expect_near(name + ": " + what, actual, expected, tolerance);
  }
  void equal(const std::string& what, const at::Tensor& actual, const at::Tensor& expected) const {
    expect_equal(name + ": " + what, actual, expected);
  }
};

struct ParityStage {
  const char* name;
  // Does this stage test the case, in this dtype?
  bool (*takes)(const Fixture& fixture, bool bf16);
  void (*run)(const ParityRun& run);
};

// The checkpoint folder of a case, loaded once per (folder, version, dtype) and moved to the
// device. `need_vae` loads the VAE decoder too.
std::shared_ptr<Upscaler> checkpoint_of(const ParityRun& run, Version version = Version::kV1_1);

std::vector<ParityStage> model_stages();     // model_parity.cpp
std::vector<ParityStage> pipeline_stages();  // pipeline_parity.cpp: image and end to end

}  // namespace flashvsr

#endif  // FLASHVSR_TESTS_PARITY_PARITY_H_
