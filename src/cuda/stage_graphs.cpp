// SPDX-License-Identifier: LGPL-2.1-or-later
//
// model/stage_graphs.h with CUDA graphs, by LibTorch's own class for them: it turns the caching allocator to a pool of
// the graphs' own while a body is recorded.
#include "model/stage_graphs.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>
#include <set>

#include "base/log.h"
#include "model/ops.h"

namespace flashvsr {
namespace {

// Recording needs a stream that is not the default one. One for each device: cuBLAS keeps a workspace for every stream
// that it has seen.
c10::cuda::CUDAStream recording_stream(c10::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::cuda::CUDAStream> streams;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = streams.find(device.index());
  if (found != streams.end()) return found->second;
  const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(false, device.index());
  // Those workspaces, lest they be taken from the pool of the first graphs and outlive them.
  const c10::cuda::CUDAStreamGuard guard(stream);
  const auto options = at::TensorOptions().device(device).dtype(at::kBFloat16);
  const at::Tensor x = at::zeros({64, 64}, options), bias = at::zeros({64}, options);
  at::linear(x, x, bias);
  at::mm(x, x);
  at::bmm(x.unsqueeze(0), x.unsqueeze(0));
  at::_addmm_activation(bias, x, x, 1, 1, /*use_gelu=*/true);
  stream.synchronize();
  streams.emplace(device.index(), stream);
  return stream;
}

class CudaStageGraphs final : public StageGraphs {
 public:
  explicit CudaStageGraphs(c10::Device device) : device_(device), pool_(at::cuda::graph_pool_handle()) {}

  ~CudaStageGraphs() override {
    if (graphs_.empty()) return;
    try {
      const c10::cuda::CUDAGuard guard(device_);
      // The allocator does not know that a graph in flight uses their memory.
      c10::cuda::device_synchronize();
      graphs_.clear();
      c10::cuda::CUDACachingAllocator::emptyCache(pool_);
    } catch (const std::exception& e) {
      log(LogLevel::kWarning, "stage_graphs: ", e.what());
    }
  }

  bool run(int64_t key, const std::function<void()>& body) override {
    const c10::cuda::CUDAGuard guard(device_);
    const auto found = graphs_.find(key);
    if (found != graphs_.end()) {
      found->second->replay();
      return false;
    }
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    record(*graph, body);
    graph->replay();
    graphs_.emplace(key, std::move(graph));
    return true;
  }

 private:
  void record(at::cuda::CUDAGraph& graph, const std::function<void()>& body) {
    static std::mutex one_at_a_time;  // all record on that stream
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const c10::cuda::CUDAStreamGuard guard(recording_stream(device_));
    // Other threads go on as they like.
    graph.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
    try {
      body();
    } catch (...) {
      try {
        graph.capture_end();
      } catch (const std::exception& e) {
        log(LogLevel::kDebug, "stage_graphs: ", e.what());
      }
      throw;
    }
    graph.capture_end();
  }

  const c10::Device device_;
  const c10::cuda::MempoolId_t pool_;
  std::map<int64_t, std::unique_ptr<at::cuda::CUDAGraph>> graphs_;
};

// The reference operations, which are all that other types have, wait for the device.
std::unique_ptr<StageGraphs> make(c10::Device device, c10::ScalarType dtype) {
  if (!device.is_cuda() || dtype != c10::kBFloat16 || ops::wants_reference()) return nullptr;
  return std::make_unique<CudaStageGraphs>(device);
}

[[maybe_unused]] const bool is_set = [] {
  set_stage_graphs_maker(make);
  return true;
}();

}  // namespace
}  // namespace flashvsr
