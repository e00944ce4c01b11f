// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Expandable segments for LibTorch's caching allocator. Without them each large block is a segment of its own and a free
// one serves only what fits into it; the first chunk's tensors then stay as free blocks beside those of the later chunks.
//
// The settings are the process's, and setting some takes back the others: they are left alone, which the log says at INFO,
// where the environment has some (PYTORCH_ALLOC_CONF, also as PYTORCH_CUDA_ALLOC_CONF), where the application has
// set some by LibTorch's setAllocatorSettings, or where it has allocated CUDA memory already.
//
// Errors: none; what LibTorch throws is logged. Thread-safety: unsafe.
#ifndef FLASHVSR_CUDA_ALLOCATOR_SETTINGS_H_
#define FLASHVSR_CUDA_ALLOCATOR_SETTINGS_H_

namespace flashvsr {

// Whether they were set. `devices`: how many there are; 0 where one lacks virtual memory management, which they need.
bool prefer_expandable_segments(int devices);

}  // namespace flashvsr

#endif  // FLASHVSR_CUDA_ALLOCATOR_SETTINGS_H_
