// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FLASHVSR_VECTORIZED before a plain loop function: the compiler writes it for two
// widths of vectors and the loader picks the one for this machine. Neither
// allows fused multiply-add, so both give the same bits.
//
// A function so marked must not be a template or inline; let it call FLASHVSR_INLINE ones.
#ifndef FLASHVSR_IMAGE_VECTORIZE_H_
#define FLASHVSR_IMAGE_VECTORIZE_H_

// Rows never overlap.
#define FLASHVSR_RESTRICT __restrict__

#define FLASHVSR_INLINE inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define FLASHVSR_VECTORIZED __attribute__((target_clones("avx2", "default")))
#else
#define FLASHVSR_VECTORIZED
#endif

#endif  // FLASHVSR_IMAGE_VECTORIZE_H_
