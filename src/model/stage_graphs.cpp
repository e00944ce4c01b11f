// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model/stage_graphs.h"

#include <atomic>

namespace flashvsr {
namespace {
std::atomic<StageGraphsMaker> g_maker{nullptr};
}  // namespace

StageGraphsMaker set_stage_graphs_maker(StageGraphsMaker maker) { return g_maker.exchange(maker); }

std::unique_ptr<StageGraphs> make_stage_graphs(c10::Device device, c10::ScalarType dtype) {
  const StageGraphsMaker maker = g_maker;
  return maker != nullptr ? maker(device, dtype) : nullptr;
}

}  // namespace flashvsr
