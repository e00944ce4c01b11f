// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Instruction sets that kernels/cpu is compiled for; callers choose one at run time. Thread-safety: safe.
#ifndef FLASHVSR_KERNELS_CPU_CPU_ISA_H_
#define FLASHVSR_KERNELS_CPU_CPU_ISA_H_

#include <cstdint>

namespace flashvsr {

enum class CpuIsa : int32_t {
  kPortable = 0,    // the compiler's vectors of four floats
  kAvx2 = 1,        // with FMA
  kAvx512 = 2,      // F, BW, DQ, VL
  kAvx512Bf16 = 3,  // and products of bf16 pairs; fp32 runs as kAvx512
};

const char* name_of(CpuIsa isa);

// Is it in this build and can this CPU and its system run it? kPortable always.
bool runs_here(CpuIsa isa);

// The last one that runs here.
CpuIsa best_cpu_isa();

}  // namespace flashvsr

#endif  // FLASHVSR_KERNELS_CPU_CPU_ISA_H_
