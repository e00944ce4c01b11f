// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Operations of model/ops.h with own CPU kernels, for tensors that `takes` accepts: host memory, bf16 or fp32,
// no gradient asked for. ops.cpp asks and goes to the reference otherwise.
//
// FLASHVSR_CPU_ISA=portable|avx2|avx512|avx512bf16 in the environment chooses the instruction set (for tests and
// benchmarks); without it the best that runs here. Another name, or one that does not run here: kInvalidArgument.
//
// Threads: LibTorch's. What a call needs beside its result is kept by each thread for the next call.
// Thread-safety: safe.
#ifndef FLASHVSR_MODEL_OPS_CPU_H_
#define FLASHVSR_MODEL_OPS_CPU_H_

#include <initializer_list>
#include <tuple>

#include "model/ops.h"

namespace flashvsr::cpu {

// bf16 or fp32, head_dim 64 or 128.
bool takes_attention(const at::Tensor& q, const AttentionKv& kv, int64_t heads);
// kernels/cpu/block_sparse_attention_cpu.h
at::Tensor block_sparse_attention(const at::Tensor& q, const AttentionKv& kv, const at::Tensor& slot_map,
                                  const BlockPairs& pairs, int64_t heads, const TokenGrid& grid);

// kernels/cpu/rows_cpu.h. Rows x [S, D]: bf16, D a multiple of 16; in fp32 the reference stays, whose order of
// sums the golden tests hold to the last digits. Undefined tensors are not looked at.
bool takes_rows(std::initializer_list<const at::Tensor*> rows);
at::Tensor layer_norm_modulate(const at::Tensor& x, const at::Tensor& scale1, const at::Tensor& shift, double eps);
at::Tensor layer_norm_affine(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);
at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor gated_residual(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate);
std::tuple<at::Tensor, at::Tensor> residual_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                                                 const at::Tensor& scale, const at::Tensor& shift, double eps,
                                                 bool affine);
at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// As takes_rows, head_dim 64 or 128 and D up to 1536.
bool takes_norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight, const at::Tensor& k_weight,
                            int64_t heads, const at::Tensor& cos, const at::Tensor& sin);
WindowedQkv norm_rope_window(const at::Tensor& qkv, const at::Tensor& q_weight, const at::Tensor& k_weight, double eps,
                             int64_t heads, const TokenGrid& grid, const at::Tensor& cos, const at::Tensor& sin,
                             const KvPlace& place);

// oneDNN's 3x3 convolution with bias, sum and ReLU in its epilogue: the reference's values, rounded once. x and weight
// channels_last, bf16 (AVX-512) or fp32 (AVX2), no gradient.
bool takes_conv3x3(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
at::Tensor conv3x3_relu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
// sum += the convolution; then ReLU. `sum` is like the convolution's result, channels_last. (oneDNN's form that leaves
// the addend alone copies it first, which costs what the epilogue saves.)
void add_conv3x3(at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool relu);

}  // namespace flashvsr::cpu

#endif  // FLASHVSR_MODEL_OPS_CPU_H_
