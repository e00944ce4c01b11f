// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu/cpu_isa.h"

#include <initializer_list>

namespace flashvsr {

const char* name_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512Bf16: return "avx512bf16";
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kPortable: break;
  }
  return "portable";
}

bool runs_here(CpuIsa isa) {
#ifdef FLASHVSR_X86_ISAS
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case CpuIsa::kAvx512Bf16: return has_avx512 && __builtin_cpu_supports("avx512bf16");
    case CpuIsa::kAvx512: return has_avx512;
    case CpuIsa::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case CpuIsa::kPortable: break;
  }
#endif
  return isa == CpuIsa::kPortable;
}

CpuIsa best_cpu_isa() {
  for (const CpuIsa isa : {CpuIsa::kAvx512Bf16, CpuIsa::kAvx512, CpuIsa::kAvx2}) {
    if (runs_here(isa)) {
      return isa;
    }
  }
  return CpuIsa::kPortable;
}

}  // namespace flashvsr
