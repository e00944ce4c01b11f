// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Runs every golden case found below the fixtures' root (FLASHVSR_FIXTURES, else the
// project's copy) through the stages that can read it, in fp32 and in bf16, on
// FLASHVSR_TEST_DEVICE. A case that no stage takes is a failure.
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "base/error.h"
#include "tests/parity/parity.h"

namespace flashvsr {

c10::Device test_device() {
  const char* name = std::getenv("FLASHVSR_TEST_DEVICE");
  return c10::Device(name != nullptr ? name : "cpu");
}

bool is_cuda_wanted() { return test_device().is_cuda(); }

namespace {

class ParityTest : public testing::Test {
 public:
  ParityTest(const ParityStage& stage, std::string folder, std::string name, c10::ScalarType dtype)
      : stage_(stage), folder_(std::move(folder)), name_(std::move(name)), dtype_(dtype) {}

  void TestBody() override {
    const c10::InferenceMode guard;
    const Fixture fixture(folder_);
    ParityRun run;
    run.fixture = &fixture;
    run.name = name_ + (dtype_ == at::kFloat ? " fp32" : " bf16");
    run.dtype = dtype_;
    stage_.run(run);
  }

 private:
  ParityStage stage_;
  std::string folder_, name_;
  c10::ScalarType dtype_;
};

void register_cases() {
  std::vector<ParityStage> stages = model_stages();
  for (const ParityStage& stage : pipeline_stages()) stages.push_back(stage);
  const std::string root = fixtures_root();
  for (const std::string& name : find_cases(root)) {
    const std::string folder = root + "/" + name;
    const Fixture fixture(folder);
    bool is_taken = false;
    for (const ParityStage& stage : stages) {
      for (const bool bf16 : {false, true}) {
        if (!stage.takes(fixture, bf16)) continue;
        is_taken = true;
        const auto dtype = bf16 ? at::kBFloat16 : at::kFloat;
        testing::RegisterTest(stage.name, (name + (bf16 ? "/bf16" : "/fp32")).c_str(), nullptr, nullptr,
                              __FILE__, __LINE__, [=]() -> testing::Test* {
                                return new ParityTest(stage, folder, name, dtype);
                              });
      }
    }
    if (!is_taken) {
      testing::RegisterTest("unknown", name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                            [name]() -> testing::Test* {
                              class Unknown : public testing::Test {
                               public:
                                explicit Unknown(std::string n) : name(std::move(n)) {}
                                void TestBody() override { ADD_FAILURE() << name << ": no stage can run this case"; }
                                std::string name;
                              };
                              return new Unknown(name);
                            });
    }
  }
}

}  // namespace
}  // namespace flashvsr

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (flashvsr::is_cuda_wanted()) {
    // Before the first question about CUDA to ATen.
    const char* library = std::getenv("FLASHVSR_CUDA_LIBRARY");
    if (dlopen(library != nullptr ? library : "libflashvsr_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      std::fprintf(stderr, "FLASHVSR_TEST_DEVICE=cuda, but the CUDA library cannot be opened: %s\n", dlerror());
      return 1;
    }
  }
  // fp32 means fp32: no TF32 on a GPU.
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
  flashvsr::register_cases();
  flashvsr::print_table_at_exit();
  return RUN_ALL_TESTS();
}
