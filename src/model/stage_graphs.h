// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a device does for one stage of a chunk, recorded once and asked for in one call from then on (CUDA graphs).
//
//     const auto graphs = make_stage_graphs(device, dtype);   // null where the device has none for it
//     if (!graphs->run(key, [&] { y = stage(x); })) { ... }   // body was not run: y is where it was recorded
//
// A body is recorded as it stands: addresses, sizes and host values of that call. Tensors that it reads from outside, and
// those it changes, must keep their memory. What it allocates lies in memory of the graphs' own, which all keys share: it
// is valid until the next run, and the keys must always follow each other in the order of their recording.
// A body may not wait for the device or copy from the host.
//
// While something is recorded, nobody in the process may wait for the whole device (cudaDeviceSynchronize): their call
// fails, and so does the recording.
// Errors: what the body throws, or kInternal when it cannot be recorded; nothing was asked of the device then, though the
// body may have run to its end.
// Thread-safety: unsafe. Other threads may use the device meanwhile.
#ifndef FLASHVSR_MODEL_STAGE_GRAPHS_H_
#define FLASHVSR_MODEL_STAGE_GRAPHS_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace flashvsr {

class StageGraphs {
 public:
  virtual ~StageGraphs() = default;
  // On the current stream. True: `body` ran to be recorded; false: only what was recorded is done again.
  virtual bool run(int64_t key, const std::function<void()>& body) = 0;
};

using StageGraphsMaker = std::unique_ptr<StageGraphs> (*)(c10::Device device, c10::ScalarType dtype);
// The CUDA library's, as it is opened; tests may set their own. Returns the one before.
StageGraphsMaker set_stage_graphs_maker(StageGraphsMaker maker);
std::unique_ptr<StageGraphs> make_stage_graphs(c10::Device device, c10::ScalarType dtype);

}  // namespace flashvsr

#endif  // FLASHVSR_MODEL_STAGE_GRAPHS_H_
