// SPDX-License-Identifier: LGPL-2.1-or-later
//
// model/stage_graphs.h with CUDA graphs, in a pool of their own of LibTorch's caching allocator.
#include "model/stage_graphs.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <map>
#include <mutex>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "cuda/recording.h"
#include "model/ops.h"

namespace flashvsr {

std::mutex& recording_mutex() {
  static std::mutex* mutex = new std::mutex;  // outlives every session
  return *mutex;
}

namespace {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next launch takes it for its own
  throw Error(ErrorCode::kInternal, concat(call, ": ", cudaGetErrorString(status)));
}

// Recording needs a stream that is not the default one, and that nobody else uses: what they ask for would be recorded
// too. LibTorch's pool of streams is everybody's. One for each device, for the rest of the process; under recording_mutex.
c10::cuda::CUDAStream recording_stream(c10::Device device) {
  static std::map<c10::DeviceIndex, cudaStream_t>* streams = new std::map<c10::DeviceIndex, cudaStream_t>;
  cudaStream_t& raw = (*streams)[device.index()];
  if (raw == nullptr) check(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromExternal(raw, device.index());
  // cuBLAS keeps a workspace for each stream and thread: made here, lest it be taken from the graphs' pool and outlive them.
  thread_local std::set<c10::DeviceIndex> known;
  if (!known.insert(device.index()).second) return stream;
  const c10::cuda::CUDAStreamGuard guard(stream);
  const auto options = at::TensorOptions().device(device).dtype(at::kBFloat16);
  const at::Tensor x = at::zeros({64, 64}, options), bias = at::zeros({64}, options);
  at::linear(x, x, bias);
  at::mm(x, x);
  at::bmm(x.unsqueeze(0), x.unsqueeze(0));
  at::_addmm_activation(bias, x, x, 1, 1, /*use_gelu=*/true);
  stream.synchronize();
  return stream;
}

// The caching allocator takes what is asked for on `stream` from that pool meanwhile. LibTorch's own class for graphs also
// turns the application's random generator, which nothing here uses, to recording; and leaves it so when that fails.
class PoolForStream {
 public:
  PoolForStream(c10::DeviceIndex device, c10::cuda::MempoolId_t pool, cudaStream_t stream) : device_(device), pool_(pool) {
    c10::cuda::CUDACachingAllocator::beginAllocateToPool(device, pool, [stream](cudaStream_t s) { return s == stream; });
  }
  ~PoolForStream() { c10::cuda::CUDACachingAllocator::endAllocateToPool(device_, pool_); }
  PoolForStream(const PoolForStream&) = delete;
  PoolForStream& operator=(const PoolForStream&) = delete;

 private:
  c10::DeviceIndex device_;
  c10::cuda::MempoolId_t pool_;
};

class CudaStageGraphs final : public StageGraphs {
 public:
  explicit CudaStageGraphs(c10::Device device) : device_(device), pool_(at::cuda::graph_pool_handle()) {}

  ~CudaStageGraphs() override {
    if (recordings_ == 0) return;
    try {
      const c10::cuda::CUDAGuard guard(device_);
      // The allocator does not know that a graph in flight uses their memory.
      if (launched_ != nullptr) {
        check(cudaEventSynchronize(launched_), "cudaEventSynchronize");
        cudaEventDestroy(launched_);
      }
      // Giving the pool's memory back may wait for the stream that others record on.
      const std::lock_guard<std::mutex> lock(recording_mutex());
      for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
      // Each recording is a user of the pool.
      for (; recordings_ > 0; --recordings_) c10::cuda::CUDACachingAllocator::releasePool(device_.index(), pool_);
      c10::cuda::CUDACachingAllocator::emptyCache(pool_);
    } catch (const std::exception& e) {
      log(LogLevel::kWarning, "stage_graphs: ", e.what());
    }
  }

  bool run(int64_t key, const std::function<void()>& body) override {
    const c10::cuda::CUDAGuard guard(device_);
    const auto found = graphs_.find(key);
    const bool is_new = found == graphs_.end();
    const cudaGraphExec_t graph = is_new ? record(body) : found->second;
    if (is_new) graphs_.emplace(key, graph);
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream(device_.index());
    check(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
    if (launched_ == nullptr) check(cudaEventCreateWithFlags(&launched_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventRecord(launched_, stream), "cudaEventRecord");
    return is_new;
  }

 private:
  cudaGraphExec_t record(const std::function<void()>& body) {
    const std::lock_guard<std::mutex> lock(recording_mutex());
    const c10::cuda::CUDAStream stream = recording_stream(device_);
    const c10::cuda::CUDAStreamGuard guard(stream);
    cudaGraph_t graph = nullptr;
    {
      const PoolForStream pool(device_.index(), pool_, stream);
      ++recordings_;
      // Other threads go on as they like.
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
      try {
        body();
      } catch (...) {
        cudaStreamEndCapture(stream, &graph);  // fails where that was the reason
        cudaGetLastError();
        if (graph != nullptr) cudaGraphDestroy(graph);
        throw;
      }
      check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    }
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
    return executable;
  }

  const c10::Device device_;
  const c10::cuda::MempoolId_t pool_;
  int recordings_ = 0;
  cudaEvent_t launched_ = nullptr;  // behind the newest launch
  std::map<int64_t, cudaGraphExec_t> graphs_;
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
