// SPDX-License-Identifier: LGPL-2.1-or-later
//
// kernels/layer_norm_modulate.h and kernels/norm_rope_window.h on the CPU: the same parameters, meaning and
// rounding, all pointers host memory, for a part of the work: rows [begin, end), windows [begin, end). The
// caller splits the whole over its threads in any way; the bits do not depend on it. `workspace` is not
// looked at. The rotation is in double, as the reference's.
//
// gelu: values[begin .. end) become round(gelu_tanh(value)), bf16, in place; within one bf16 unit in the last place.
//
// Limits: as there; dim, begin and end of gelu multiples of 16; layer norms without e4m3 output, kNone,
// kModulate, kAffine and kRms only.
// Errors: 1 (cudaErrorInvalidValue's value) for arguments. Thread-safety: safe. No allocation.
// Tolerance against the twins: norm-relative 2e-3.
#ifndef FLASHVSR_KERNELS_CPU_ROWS_CPU_H_
#define FLASHVSR_KERNELS_CPU_ROWS_CPU_H_

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/layer_norm_modulate.h"
#include "kernels/norm_rope_window.h"

namespace flashvsr {

int layer_norm_modulate_cpu(const LayerNormModulateParams& params, CpuIsa isa, int64_t begin, int64_t end);
int norm_rope_window_cpu(const NormRopeWindowParams& params, CpuIsa isa, int64_t begin, int64_t end);
int gelu_cpu(uint16_t* values, CpuIsa isa, int64_t begin, int64_t end);

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_CPU_ROWS_CPU_H_
