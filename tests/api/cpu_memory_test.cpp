// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A stream on the CPU takes no memory for its tensors once it runs: counted below the engine's cache (model/cpu_arena.h).
#include "engine.h"
#include "tests/support/counting_allocator.h"

namespace flashvsr {
namespace {

// The first with its 21 frames, for which nothing is cached; the first of those that are all alike; and one in which what
// the first had left to it is replaced.
constexpr int kWarmChunks = 3;

void send_until_ready(Player& player, int& time) {
  FlashVsrStatus status;
  do {
    player.send(time++);
    status = api().run(player.session, FLASHVSR_RUN_MODEL, &player.error);
  } while (status == FLASHVSR_AGAIN);
  ASSERT_EQ(status, FLASHVSR_OK) << player.error.message;
  player.receive();
}

void expect_steady(FlashVsrModel* model, int width, int height) {
  CountingAllocator& below = CountingAllocator::get();
  const int64_t before = below.live();
  const FlashVsrFormat format = make_format(FLASHVSR_PIXEL_FORMAT_I420, width, height);
  const FlashVsrSessionOptions options = make_options(4);
  SessionPtr session = open_session(model, format, options);
  Player player{session.get(), format, options};
  int time = 0;
  for (int chunk = 0; chunk < kWarmChunks; ++chunk) send_until_ready(player, time);
  // Longer than unused blocks are kept.
  int64_t live = 0;
  for (int chunk = 0; chunk < 12; ++chunk) {
    below.restart();
    send_until_ready(player, time);
    EXPECT_EQ(below.requests(), 0) << "chunk " << chunk;
    if (chunk >= 8) {
      EXPECT_TRUE(live == 0 || live == below.live());
      live = below.live();
    }
  }
  EXPECT_GT(live, before);
  // A chunk that starts anew may take more; the model stays, the session's memory goes.
  api().flush(session.get());
  for (int chunk = 0; chunk < 2; ++chunk) send_until_ready(player, time);
  session.reset();
  EXPECT_EQ(below.live(), before);
}

TEST(CpuMemory, EmbeddedModel) {
  CountingAllocator::get();
  for (const FlashVsrPrecision precision : {FLASHVSR_PRECISION_BF16, FLASHVSR_PRECISION_FP32}) {
    expect_steady(open_model("", precision).get(), 64, 36);
  }
}

TEST(CpuMemory, Transformer) {
  CountingAllocator::get();
  for (const char* kind : {"student", "enlarged"}) {
    for (const FlashVsrPrecision precision : {FLASHVSR_PRECISION_BF16, FLASHVSR_PRECISION_FP32}) {
      expect_steady(open_model(kind, precision).get(), 64, 36);
    }
  }
}

}  // namespace
}  // namespace flashvsr
