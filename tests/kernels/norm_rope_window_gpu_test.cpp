// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "kernels/norm_rope_window.h"
#include "tests/kernels/device.h"

namespace flashvsr {
namespace {

using device::Buffer;

TEST(NormRopeWindowGpu, EqualsTwin) {
  FLASHVSR_NEEDS_GPU();
  struct Case {
    int frames, height, width, dim, head_dim;
    bool means;
    bool value = true;
  };
  uint32_t seed = 1;
  for (const Case& c : {Case{2, 8, 8, 64, 64, true}, Case{2, 16, 24, 192, 64, true}, Case{4, 8, 16, 384, 128, true},
                        Case{6, 16, 8, 1536, 128, true}, Case{2, 24, 16, 1536, 128, false},
                        Case{4, 16, 8, 192, 64, true, false}, Case{2, 8, 16, 1536, 128, true, false}, Case{2, 64, 64, 64, 64, true}, Case{2, 64, 64, 384, 128, true}}) {
    SCOPED_TRACE(::testing::Message() << c.frames << "x" << c.height << "x" << c.width << " dim " << c.dim);
    const int tokens = c.frames * c.height * c.width, half = c.head_dim / 2, windows = tokens / 128;
    const size_t count = size_t(tokens) * c.dim;
    const auto qkv = device::random_bf16(3 * count, seed++);
    const auto q_weight = device::random_bf16(c.dim, seed++, 0.3f, 1.f),
               k_weight = device::random_bf16(c.dim, seed++, 0.3f, 1.f);
    std::vector<double> cosine(size_t(tokens) * half), sine(cosine.size());
    std::mt19937 engine(seed++);
    std::uniform_real_distribution<double> angles(-3.2, 3.2);
    for (size_t i = 0; i < cosine.size(); ++i) {
      const double angle = angles(engine);
      cosine[i] = std::cos(angle);
      sine[i] = std::sin(angle);
    }
    std::vector<uint16_t> q(count), k(count), v(count), q_mean(size_t(windows) * c.dim), k_mean(q_mean.size());
    std::vector<float> twin_workspace(4);
    NormRopeWindowParams p;
    p.frames = c.frames;
    p.height = c.height;
    p.width = c.width;
    p.dim = c.dim;
    p.head_dim = c.head_dim;
    p.eps = 1e-6f;
    p.qkv = qkv.data();
    p.q_weight = q_weight.data();
    p.k_weight = k_weight.data();
    p.cosine = cosine.data();
    p.sine = sine.data();
    p.q = q.data();
    p.k = k.data();
    p.v = c.value ? v.data() : nullptr;
    if (c.means) {
      p.q_mean = q_mean.data();
      p.k_mean = k_mean.data();
      p.workspace = twin_workspace.data();
    }
    ASSERT_EQ(norm_rope_window_ref(p), 0);

    Buffer<uint16_t> d_qkv(qkv), d_qw(q_weight), d_kw(k_weight), d_q(count), d_k(count), d_v(count),
        d_qm(q_mean.size()), d_km(q_mean.size());
    Buffer<double> d_cos(cosine), d_sin(sine);
    Buffer<uint8_t> workspace(norm_rope_window_workspace_bytes(p));
    p.qkv = d_qkv.get();
    p.q_weight = d_qw.get();
    p.k_weight = d_kw.get();
    p.cosine = d_cos.get();
    p.sine = d_sin.get();
    p.q = d_q.get();
    p.k = d_k.get();
    p.v = c.value ? d_v.get() : nullptr;
    if (c.means) {
      p.q_mean = d_qm.get();
      p.k_mean = d_km.get();
      p.workspace = workspace.get();
    }
    ASSERT_EQ(launch_norm_rope_window(p, nullptr), 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    if (c.value) {
      EXPECT_EQ(d_v.download(), v);
    }
    EXPECT_TRUE(device::compare(d_q.download(), q).relative <= 2e-3);
    EXPECT_TRUE(device::compare(d_k.download(), k).relative <= 2e-3);
    if (c.means) {
      EXPECT_TRUE(device::compare(d_qm.download(), q_mean).relative <= 2e-3);
      EXPECT_TRUE(device::compare(d_km.download(), k_mean).relative <= 2e-3);
    }
    EXPECT_TRUE(d_q.guard_is_intact() && d_k.guard_is_intact() && d_v.guard_is_intact() && d_qm.guard_is_intact() &&
                d_km.guard_is_intact() && workspace.guard_is_intact());
  }
}

}  // namespace
}  // namespace flashvsr
