// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu/rows_cpu.h"

#include "kernels/cpu/isa.h"

namespace flashvsr {
namespace {

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue

bool is_part(int64_t begin, int64_t end, int64_t count) { return 0 <= begin && begin <= end && end <= count; }

#ifdef FLASHVSR_X86_ISAS
#define FLASHVSR_CALL_ISA(isa, call)                         \
  switch (isa) {                                             \
    case CpuIsa::kAvx512Bf16: avx512bf16::call; break;       \
    case CpuIsa::kAvx512: avx512::call; break;               \
    case CpuIsa::kAvx2: avx2::call; break;                   \
    default: portable::call;                                 \
  }
#else
#define FLASHVSR_CALL_ISA(isa, call) portable::call
#endif

}  // namespace

int layer_norm_modulate_cpu(const LayerNormModulateParams& params, CpuIsa isa, int64_t begin, int64_t end) {
  if (check_layer_norm_modulate(params) || params.out8 || params.norm == RowNorm::kChannelRms || params.dim % 16 ||
      !is_part(begin, end, params.rows) || !runs_here(isa)) {
    return kInvalidValue;
  }
  FLASHVSR_CALL_ISA(isa, layer_norm_rows(params, begin, end));
  return 0;
}

int norm_rope_window_cpu(const NormRopeWindowParams& params, CpuIsa isa, int64_t begin, int64_t end) {
  NormRopeWindowParams checked = params;
  checked.workspace = params.q_mean;  // means need none here
  const int64_t windows = int64_t{params.frames} / 2 * (params.height / 8) * (params.width / 8);
  if (check_norm_rope_window(checked) || params.dim % 16 || !is_part(begin, end, windows) || !runs_here(isa)) {
    return kInvalidValue;
  }
  FLASHVSR_CALL_ISA(isa, norm_rope_windows(params, begin, end));
  return 0;
}

int gelu_cpu(uint16_t* values, CpuIsa isa, int64_t begin, int64_t end) {
  if (!values || begin % 16 || end % 16 || !is_part(begin, end, end) || !runs_here(isa)) return kInvalidValue;
  FLASHVSR_CALL_ISA(isa, gelu(values, begin, end));
  return 0;
}

}  // namespace flashvsr
