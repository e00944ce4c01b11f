// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Launchers whose kernels are assembly, by their plain twins: with them and the translated kernels, src/cuda
// runs over host tensors.
#include "kernels/block_sparse_attention.h"
#include "kernels/conv_nhwc.h"
#include "kernels/conv_to_planes.h"
#include "kernels/linear.h"

namespace flashvsr {

int launch_pack_conv_weights(const PackConvWeightsParams& params, void*) { return pack_conv_weights_ref(params); }
int launch_conv_nhwc(const ConvNhwcParams& params, void*) { return conv_nhwc_ref(params); }
int launch_conv_to_planes(const ConvToPlanesParams& params, void*) { return conv_to_planes_ref(params); }
int launch_linear(const LinearParams& params, void*) { return linear_ref(params); }
double linear_share(int64_t, int32_t) { return 1; }
int launch_block_sparse_attention(const BlockSparseAttentionParams& params, void*) {
  return block_sparse_attention_ref(params);
}
size_t block_sparse_attention_workspace_bytes(int32_t heads, int32_t q_blocks) { return size_t(heads) * q_blocks * 4; }

}  // namespace flashvsr
