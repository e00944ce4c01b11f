// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/philox_noise.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

TEST(PhiloxNoiseGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  PhiloxNoiseParams p;
  p.channels = 3;
  p.frames = 2;
  p.height = 7;
  p.width = 33;
  p.first_frame = 4094;
  p.seed = 0x123456789abcdefULL;
  std::vector<float> expected(3 * 2 * 7 * 33);
  p.output = expected.data();
  ASSERT_EQ(philox_noise_ref(p), 0);
  device::Buffer<float> output(expected.size());
  p.output = output.get();
  ASSERT_EQ(launch_philox_noise(p, nullptr), 0);
  const std::vector<float> actual = output.download();
  for (size_t i = 0; i < actual.size(); ++i) ASSERT_TRUE(std::fabs(actual[i] - expected[i]) <= 1e-6f) << i;
  EXPECT_TRUE(output.guard_is_intact());
}

}  // namespace
}  // namespace flashvsr
