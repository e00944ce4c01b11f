// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/reference_check.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/log.h"
#include "model/ops.h"
#include "tests/support/random_weights.h"

namespace flashvsr {
namespace {

TEST(ReferenceCheck, TellsHowFarAChunkIs) {
  const c10::InferenceMode guard;
  at::manual_seed(2);
  Upscaler model(random_student_config());
  randomize(model, at::kCPU, at::kBFloat16, false);
  const at::Tensor lq = (at::rand({1, 3, 57, 32, 64}) * 2 - 1).to(at::kBFloat16);
  std::vector<std::string> lines;
  set_log_callback([](LogLevel level, const char* message, void* lines) {
    if (std::string(message).find("against the reference") == std::string::npos) return;
    static_cast<std::vector<std::string>*>(lines)->push_back(concat(static_cast<int>(level), " ", message));
  }, &lines);

  ReferenceCheck check(model);
  StreamState state;
  for (int64_t n = 0; n < 4; ++n) {
    const at::Tensor input = lq.narrow(2, n == 0 ? 0 : 8 * n + 13, Upscaler::inputs_of_run(state));
    const at::Tensor frames = model.run(input, {}, state);
    // Own kernels and oneDNN's epilogues round otherwise; a level of difference everywhere is another matter.
    const double psnr = check.compare(input, {}, n < 2 ? frames : n == 2 ? frames + 0.1 : frames * NAN);
    if (n < 2) EXPECT_GT(psnr, 40);
    else if (n == 2) EXPECT_NEAR(psnr, 26, 1);
    else EXPECT_TRUE(std::isnan(psnr));
  }
  set_log_callback(nullptr, nullptr);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].rfind(concat(static_cast<int>(LogLevel::kInfo), " chunk 0"), 0), 0u) << lines[0];
  EXPECT_EQ(lines[2].rfind(concat(static_cast<int>(LogLevel::kWarning), " chunk 2"), 0), 0u) << lines[2];
  EXPECT_EQ(lines[3].rfind(concat(static_cast<int>(LogLevel::kWarning), " chunk 3"), 0), 0u) << lines[3];
  EXPECT_FALSE(ops::wants_reference());
}

}  // namespace
}  // namespace flashvsr
