// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The model's run on a whole picture, or tile by tile as a plan says, in the same terms as
// Upscaler::run. Each tile is a stream of its own, with its own KV cache and memories; what
// they return is added up with the weights of api/tiles.h, in fp32, rounded once to its type for each tile.
//
// Noise is that of the whole picture, so that overlapping tiles begin from the same values.
// RoPE positions count from a tile's corner: attention sees differences of positions only. The
// budget of key blocks for each query is the whole picture's, chosen among the tile's own.
//
// With parks_in_host the frames given and returned are in host memory, and so are the states of
// tiles that wait.
//
// Errors: as Upscaler::run; reset before the next run then.
// Thread-safety: unsafe.
#ifndef FLASHVSR_API_TILE_RUNNER_H_
#define FLASHVSR_API_TILE_RUNNER_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "api/plan.h"
#include "model/reference_check.h"
#include "model/state.h"
#include "model/upscaler.h"

namespace flashvsr {

class TileRunner {
 public:
  // `upscaler` outlives it.
  TileRunner(const Upscaler& upscaler, const MemoryPlan& plan);

  // The next chunk: lq [1, 3, F, Hm, Wm] of the whole padded picture -> [1, 3, F', H, W].
  at::Tensor run(const at::Tensor& lq, const RunOptions& options, const std::atomic<bool>* cancel, StageClock& clock);

  // Forgets the past.
  void reset();

  // Held from chunk to chunk, on the model's device and in host memory together.
  uint64_t bytes() const;
  // Of them on the model's device.
  uint64_t device_bytes() const;

 private:
  const Upscaler& upscaler_;
  const TileGrid tiles_;
  const CacheStorage cache_;
  const bool parks_in_host_;
  std::vector<at::Tensor> row_weights_, column_weights_;  // [H, 1] and [W] of each row and column of tiles
  std::vector<StreamState> states_;
  std::optional<ReferenceCheck> check_;  // FLASHVSR_COMPARE
};

}  // namespace flashvsr

#endif  // FLASHVSR_API_TILE_RUNNER_H_
