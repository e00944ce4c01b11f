/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A driver without a device: libcuda.so.1 with what GStreamer's CUDA library looks up, for tests
 * of the element's CUDA memory. LD_LIBRARY_PATH names its folder.
 *
 * Device memory is host memory behind addresses that no host code can follow: whoever
 * dereferences one dies of it. Asynchronous copies happen when their stream is synchronised, and
 * not before. A call that needs a current context fails without one; so does one that reaches
 * past an allocation, or to another device.
 *
 * FAKE_CUDA_DEVICES=2: that many devices; default 1.
 */
#ifndef FLASHVSR_TESTS_SUPPORT_FAKE_CUDA_H_
#define FLASHVSR_TESTS_SUPPORT_FAKE_CUDA_H_

#include <stdint.h>

typedef struct FakeCudaState {
  int64_t contexts;        /* cuCtxCreate without cuCtxDestroy */
  int64_t primary_retains; /* without a release, all devices */
  int64_t primaries;       /* retains there ever were */
  int64_t allocations;     /* on devices, now */
  int64_t host_allocations;
  int64_t current;         /* contexts pushed and not popped, all threads */
  int64_t pending;         /* copies that no one waited for */
  int64_t copies_across;   /* from the memory of one context into another's */
  int64_t copies_down;     /* bytes from a device to the host */
  int64_t errors;          /* calls that a driver would have refused */
} FakeCudaState;

typedef void (*FakeCudaGetStateFunc)(FakeCudaState* state); /* fake_cuda_get_state */

/* fake_cuda_primary_bytes: where the host finds `size` bytes at a device address. NULL unless they lie
 * in one allocation of the device's primary context and the calling thread has no context current. */
typedef void* (*FakeCudaPrimaryBytesFunc)(const void* address, uint64_t size, int device);

#endif /* FLASHVSR_TESTS_SUPPORT_FAKE_CUDA_H_ */
