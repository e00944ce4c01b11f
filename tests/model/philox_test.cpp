// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/philox.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/ops.h"
#include "tests/support/near.h"

namespace flashvsr {
namespace {

// Known answers of Random123's test vectors for philox4x32-10.
TEST(Philox, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32_10(0, {0, 0, 0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10(~uint64_t{0}, {~0u, ~0u, ~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32_10(0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxNoise, IsStandardNormal) {
  at::Tensor noise = at::empty({16, 6, 48, 80});
  ops::philox_noise(noise, 7, 0);
  EXPECT_NEAR(noise.mean().item<double>(), 0, 0.006);
  EXPECT_NEAR(noise.std().item<double>(), 1, 0.006);
  EXPECT_NEAR(noise.pow(4).mean().item<double>(), 3, 0.06);
}

TEST(PhiloxNoise, DoesNotDependOnChunking) {
  at::Tensor whole = at::empty({4, 6, 8, 8}), part = at::empty({4, 2, 8, 8});
  ops::philox_noise(whole, 42, 100);
  ops::philox_noise(part, 42, 104);
  expect_equal("frames 4, 5", part, whole.narrow(1, 4, 2));
  at::Tensor other = at::empty({4, 2, 8, 8});
  ops::philox_noise(other, 43, 104);
  EXPECT_GT((other - part).abs().mean().item<double>(), 0.5);
}

}  // namespace
}  // namespace flashvsr
