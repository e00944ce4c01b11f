// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/block_sparse_attention.h"

#include <cuda_runtime.h>

#include "kernels/block_sparse_attention_launch.cuh"

namespace flashvsr {
namespace {

constexpr int kOrderThreads = 256;
constexpr int kOrderChunk = 1024;

__device__ int row_length(const int32_t* row_begin, int shared_columns, int q_blocks, int item) {
  if (row_begin == nullptr) {
    return shared_columns;
  }
  const int32_t* bounds = row_begin + item + item / q_blocks;
  return bounds[1] - bounds[0];
}

// One CTA ranks the rows of one group of heads: n^2 / 256 comparisons, a few microseconds.
__global__ void __launch_bounds__(kOrderThreads)
    attention_order_kernel(const int32_t* row_begin, int shared_columns, int rows, int q_blocks,
                           int group_rows, int ctas, AttentionCounter* counter, AttentionRow* order) {
  __shared__ int lengths[kOrderChunk];
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
  const int first = blockIdx.x * group_rows;
  const int count = min(group_rows, rows - first);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    counter->taken = 0;
  }
  for (int base = 0; base < count; base += kOrderThreads) {
    const int mine = base + threadIdx.x;
    const int length = mine < count ? row_length(row_begin, shared_columns, q_blocks, first + mine) : 0;
    int rank = 0;
    for (int chunk = 0; chunk < count; chunk += kOrderChunk) {
      const int chunk_count = min(kOrderChunk, count - chunk);
      __syncthreads();
      for (int i = threadIdx.x; i < chunk_count; i += kOrderThreads) {
        lengths[i] = row_length(row_begin, shared_columns, q_blocks, first + chunk + i);
      }
      __syncthreads();
      for (int i = 0; i < chunk_count; ++i) {
        const int other = lengths[i];
        rank += other > length || (other == length && chunk + i < mine);
      }
    }
    if (mine < count) {
      const int item = first + mine;
      const int head = item / q_blocks;
      AttentionRow row;
      row.head = head;
      row.q_block = item - head * q_blocks;
      row.begin = row_begin != nullptr ? row_begin[item + head] : 0;
      row.length = rank / ctas % 2 == 0 ? length : -length;
      order[first + rank] = row;
    }
  }
}

// `ctas`: rows that the machine works on at once.
cudaError_t launch_order(const BlockSparseAttentionParams& params, int ctas, cudaStream_t stream) {
  const int rows = params.heads * params.q_blocks;
  const int group_heads = (ctas + params.q_blocks - 1) / params.q_blocks;
  const int group_rows = group_heads * params.q_blocks;
  auto* counter = static_cast<AttentionCounter*>(params.workspace);
  auto* order = reinterpret_cast<AttentionRow*>(counter + 1);
  attention_order_kernel<<<(rows + group_rows - 1) / group_rows, kOrderThreads, 0, stream>>>(
      params.row_begin, params.shared_columns, rows, params.q_blocks, group_rows, ctas, counter, order);
  return cudaGetLastError();
}

cudaError_t choose(AttentionKernel wanted, AttentionKernel* chosen, int* multiprocessors) {
  int device = 0;
  int major = 0;
  int minor = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  }
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (status != cudaSuccess) {
    return status;
  }
#ifdef FLASHVSR_HAVE_SM90A
  const bool has_sm90 = major == 9 && minor == 0;
#else
  const bool has_sm90 = false;
#endif
  if (wanted == AttentionKernel::kAuto) {
    wanted = has_sm90 ? AttentionKernel::kSm90 : AttentionKernel::kSm80;
  }
  if (major < 8 || (wanted == AttentionKernel::kSm90 && !has_sm90)) {
    return cudaErrorNoKernelImageForDevice;
  }
  *chosen = wanted;
  return cudaSuccess;
}

}  // namespace

size_t block_sparse_attention_workspace_bytes(int32_t heads, int32_t q_blocks) {
  return sizeof(AttentionCounter) +
         sizeof(AttentionRow) * static_cast<size_t>(heads) * static_cast<size_t>(q_blocks);
}

int choose_attention_kernel(AttentionKernel* kernel) {
  int multiprocessors = 0;
  return choose(AttentionKernel::kAuto, kernel, &multiprocessors);
}

int launch_block_sparse_attention(const BlockSparseAttentionParams& params, void* stream) {
  if (check_block_sparse_attention(params) != 0 || params.workspace == nullptr ||
      (reinterpret_cast<uintptr_t>(params.workspace) & 15u) != 0) {
    return cudaErrorInvalidValue;
  }
  AttentionKernel kernel = params.kernel;
  int multiprocessors = 0;
  cudaError_t status = choose(params.kernel, &kernel, &multiprocessors);
  if (status != cudaSuccess) {
    return status;
  }
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const int ctas = kernel == AttentionKernel::kSm90 ? multiprocessors : 2 * multiprocessors;
  status = launch_order(params, ctas, cuda_stream);
  if (status != cudaSuccess) {
    return status;
  }
#ifdef FLASHVSR_HAVE_SM90A
  if (kernel == AttentionKernel::kSm90) {
    return launch_block_sparse_attention_sm90(params, multiprocessors, cuda_stream);
  }
#endif
  return launch_block_sparse_attention_sm80(params, cuda_stream);
}

}  // namespace flashvsr
