/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The fake engine (fake_engine.c): flashvsr.h without a model, for tests of the element.
 *
 * Pictures: "ours" is the nearest-neighbour enlargement. "Bicubic" (passthrough chunks, view
 * strength 0, the left of a comparison) is the same with plane 0 inverted, so that a test
 * sees in every byte which of the two it got.
 * Schedule: the true one; full and primed start, restarts after passthrough.
 *
 * Faults and delays, from the environment. Read by flashvsr_get_api (ABI), model_open (OPEN_*)
 * and session_open (the rest):
 *   FLASHVSR_FAKE_NO_ABI=1         get_api returns NULL
 *   FLASHVSR_FAKE_OPEN_STATUS=-5   model_open fails with that status
 *   FLASHVSR_FAKE_OPEN_MS=50       model_open takes that long
 *   FLASHVSR_FAKE_SESSION_STATUS=-5
 *   FLASHVSR_FAKE_CHUNK_MS=240     a model run takes that long (interruptible)
 *   FLASHVSR_FAKE_DENSE_MS=100     and that much more for each 1.0 of sparse_ratio
 *   FLASHVSR_FAKE_SMALL_MS=20      instead of both, for sessions of the embedded model
 *   FLASHVSR_FAKE_RUN_LAG_MS=50    every call of run waits that long before it looks for frames
 *   FLASHVSR_FAKE_FAIL_CHUNK=1     run number 1 of the session (from 0) fails ...
 *   FLASHVSR_FAKE_FAIL_STATUS=-7   ... with this status; default INTERNAL
 *   FLASHVSR_FAKE_FAIL_SEND=3      frame number 3 of the session (from 0) is refused, same status
 *   FLASHVSR_FAKE_FAIL_RECEIVE=3   so is the third result
 *   FLASHVSR_FAKE_CUDA_DEVICE=0    the model is on that device of the fake driver (fake_cuda.h): frames may be in
 *                                  CUDA memory, which must lie in the primary context of that device, with
 *                                  no context current in the thread that calls
 */
#ifndef FLASHVSR_TESTS_SUPPORT_FAKE_ENGINE_H_
#define FLASHVSR_TESTS_SUPPORT_FAKE_ENGINE_H_

#include <flashvsr/flashvsr.h>

/* What happened since the library was opened. Counters only grow. */
typedef struct FlashVsrFakeState {
  int64_t models_open;   /* distinct weights now in memory */
  int64_t model_loads;   /* times weights were loaded */
  int64_t sessions_open; /* now */
  int64_t sessions;
  int64_t sends;
  int64_t runs_model;
  int64_t runs_passthrough;
  int64_t receives;
  int64_t drains;
  int64_t flushes;
  int64_t interrupts;
  int64_t protocol_errors; /* calls that overlapped although the header forbids it, frames inside at close not counted */
  FlashVsrSessionOptions options; /* of the last session_open or set_options */
  FlashVsrFormat format;          /* of the last session_open */
} FlashVsrFakeState;

typedef void (*FlashVsrFakeGetStateFunc)(FlashVsrFakeState* state);
FLASHVSR_EXPORT void flashvsr_fake_get_state(FlashVsrFakeState* state);

#endif /* FLASHVSR_TESTS_SUPPORT_FAKE_ENGINE_H_ */
