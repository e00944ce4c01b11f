/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_cuda.h"

#include <cuda.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { kMaxDevices = 4, kMaxStack = 64, kPitch = 512 };
static const CUdeviceptr kBehind = 1ull << 62; /* no address of x86-64 */

struct CUctx_st {
  int device;
  bool is_primary;
};

typedef struct Allocation {
  struct Allocation* next;
  CUcontext context;
  uint8_t* bytes;
  size_t size;
} Allocation;

typedef struct Copy {
  struct Copy* next;
  CUstream stream;
  CUDA_MEMCPY2D what;
} Copy;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUctx_st g_primary[kMaxDevices];
static int64_t g_retains[kMaxDevices];
static Allocation* g_allocations;
static Copy* g_copies;
static FakeCudaState g_state;
static __thread CUcontext g_stack[kMaxStack];
static __thread int g_depth;

static int devices(void) {
  const char* text = getenv("FAKE_CUDA_DEVICES");
  const int count = text ? atoi(text) : 1;
  return count < kMaxDevices ? count : kMaxDevices;
}

static CUresult refuse(CUresult result) {
  __atomic_fetch_add(&g_state.errors, 1, __ATOMIC_RELAXED);
  return result;
}

static CUcontext current(void) { return g_depth > 0 ? g_stack[g_depth - 1] : NULL; }

static Allocation* find(CUdeviceptr address, size_t size) {
  const CUdeviceptr bytes = address ^ kBehind;
  for (Allocation* a = g_allocations; a; a = a->next)
    if (bytes >= (CUdeviceptr)a->bytes && bytes + size <= (CUdeviceptr)a->bytes + a->size) return a;
  return NULL;
}

EXPORT void fake_cuda_get_state(FakeCudaState* state) {
  pthread_mutex_lock(&g_lock);
  *state = g_state;
  pthread_mutex_unlock(&g_lock);
}

EXPORT void* fake_cuda_primary_bytes(const void* address, uint64_t size, int device) {
  pthread_mutex_lock(&g_lock);
  const Allocation* a = find((CUdeviceptr)address, size);
  const bool is_primary = a && a->context == &g_primary[device] && g_retains[device] > 0;
  pthread_mutex_unlock(&g_lock);
  return is_primary && !current() ? (void*)((CUdeviceptr)address ^ kBehind) : NULL;
}

/* ---- devices and contexts */

EXPORT CUresult cuInit(unsigned int flags) { return flags ? refuse(CUDA_ERROR_INVALID_VALUE) : CUDA_SUCCESS; }

EXPORT CUresult cuDriverGetVersion(int* version) {
  *version = 13000;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char** text) {
  *text = error == CUDA_SUCCESS ? "CUDA_SUCCESS" : "FAKE_CUDA_ERROR";
  return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = error == CUDA_SUCCESS ? "no error" : "a call that the fake driver refuses";
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int* count) {
  *count = devices();
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (ordinal < 0 || ordinal >= devices()) return refuse(CUDA_ERROR_INVALID_DEVICE);
  *device = ordinal;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char* name, int size, CUdevice device) {
  (void)device;
  strncpy(name, "Fake", (size_t)size);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  (void)device;
  *value = attribute == CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT          ? kPitch
           : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9
                                                                       : 0;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  (void)device;
  (void)peer;
  *can = 0;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  (void)peer;
  (void)flags;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxDisablePeerAccess(CUcontext peer) {
  (void)peer;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPushCurrent(CUcontext context) {
  if (!context || g_depth == kMaxStack || (context->is_primary && g_retains[context->device] == 0))
    return refuse(CUDA_ERROR_INVALID_CONTEXT);
  g_stack[g_depth++] = context;
  __atomic_fetch_add(&g_state.current, 1, __ATOMIC_RELAXED);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPopCurrent(CUcontext* context) {
  if (g_depth == 0) return refuse(CUDA_ERROR_INVALID_CONTEXT);
  --g_depth;
  if (context) *context = g_stack[g_depth];
  __atomic_fetch_sub(&g_state.current, 1, __ATOMIC_RELAXED);
  return CUDA_SUCCESS;
}

/* Current afterwards, as with a true driver. */
EXPORT CUresult cuCtxCreate_v2(CUcontext* context, unsigned int flags, CUdevice device) {
  (void)flags;
  *context = calloc(1, sizeof **context);
  (*context)->device = device;
  __atomic_fetch_add(&g_state.contexts, 1, __ATOMIC_RELAXED);
  return cuCtxPushCurrent(*context);
}

EXPORT CUresult cuCtxDestroy(CUcontext context) {
  if (context->is_primary) return refuse(CUDA_ERROR_INVALID_CONTEXT);
  pthread_mutex_lock(&g_lock);
  bool is_used = false;
  for (Allocation* a = g_allocations; a; a = a->next) is_used = is_used || a->context == context;
  g_state.contexts--;
  pthread_mutex_unlock(&g_lock);
  if (current() == context) cuCtxPopCurrent(NULL);
  free(context);
  return is_used ? refuse(CUDA_ERROR_CONTEXT_ALREADY_IN_USE) : CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (device < 0 || device >= devices()) return refuse(CUDA_ERROR_INVALID_DEVICE);
  pthread_mutex_lock(&g_lock);
  g_primary[device] = (struct CUctx_st){device, true};
  g_retains[device]++;
  g_state.primary_retains++;
  g_state.primaries++;
  *context = &g_primary[device];
  pthread_mutex_unlock(&g_lock);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  pthread_mutex_lock(&g_lock);
  const bool is_held = g_retains[device] > 0;
  if (is_held) {
    g_retains[device]--;
    g_state.primary_retains--;
  }
  pthread_mutex_unlock(&g_lock);
  return is_held ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_CONTEXT);
}

/* ---- memory */

EXPORT CUresult cuMemAlloc(CUdeviceptr* address, size_t size) {
  if (!current()) return refuse(CUDA_ERROR_INVALID_CONTEXT);
  Allocation* a = calloc(1, sizeof *a);
  a->context = current();
  a->size = size;
  a->bytes = malloc(size);
  memset(a->bytes, 0xA5, size);
  pthread_mutex_lock(&g_lock);
  a->next = g_allocations;
  g_allocations = a;
  g_state.allocations++;
  pthread_mutex_unlock(&g_lock);
  *address = (CUdeviceptr)a->bytes ^ kBehind;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAllocPitch(CUdeviceptr* address, size_t* pitch, size_t width, size_t height, unsigned int element) {
  (void)element;
  *pitch = (width + kPitch - 1) / kPitch * kPitch;
  return cuMemAlloc(address, *pitch * height);
}

EXPORT CUresult cuMemFree(CUdeviceptr address) {
  if (!current()) return refuse(CUDA_ERROR_INVALID_CONTEXT);
  pthread_mutex_lock(&g_lock);
  Allocation** at = &g_allocations;
  while (*at && (CUdeviceptr)(*at)->bytes != (address ^ kBehind)) at = &(*at)->next;
  Allocation* a = *at;
  if (a) {
    *at = a->next;
    g_state.allocations--;
    free(a->bytes);
    free(a);
  }
  pthread_mutex_unlock(&g_lock);
  return a ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE);
}

EXPORT CUresult cuMemAllocHost(void** bytes, size_t size) {
  *bytes = malloc(size);
  __atomic_fetch_add(&g_state.host_allocations, 1, __ATOMIC_RELAXED);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void* bytes) {
  free(bytes);
  __atomic_fetch_sub(&g_state.host_allocations, 1, __ATOMIC_RELAXED);
  return CUDA_SUCCESS;
}

/* One end of a copy: where it begins, or NULL. With the lock held. */
static uint8_t* end_of_copy(CUmemorytype type, void* host, CUdeviceptr device, size_t pitch, size_t x, size_t y,
                            const CUDA_MEMCPY2D* copy, CUcontext* context) {
  const size_t offset = y * pitch + x;
  const size_t size = copy->Height ? (copy->Height - 1) * pitch + copy->WidthInBytes : 0;
  *context = NULL;
  if (pitch < copy->WidthInBytes) return NULL;
  if (type == CU_MEMORYTYPE_HOST) return (uint8_t*)host + offset;
  Allocation* a = type == CU_MEMORYTYPE_DEVICE ? find(device + offset, size) : NULL;
  if (!a) return NULL;
  *context = a->context;
  return (uint8_t*)((device + offset) ^ kBehind);
}

/* With the lock held. */
static CUresult copy_now(const CUDA_MEMCPY2D* copy, bool is_trial) {
  CUcontext from_context, to_context;
  const uint8_t* from = end_of_copy(copy->srcMemoryType, (void*)copy->srcHost, copy->srcDevice, copy->srcPitch,
                                    copy->srcXInBytes, copy->srcY, copy, &from_context);
  uint8_t* to = end_of_copy(copy->dstMemoryType, copy->dstHost, copy->dstDevice, copy->dstPitch, copy->dstXInBytes,
                            copy->dstY, copy, &to_context);
  if (!from || !to) return refuse(CUDA_ERROR_INVALID_VALUE);
  if (from_context && to_context && from_context->device != to_context->device) return refuse(CUDA_ERROR_INVALID_VALUE);
  if (is_trial) return CUDA_SUCCESS;
  if (from_context && to_context && from_context != to_context) g_state.copies_across++;
  if (from_context && !to_context) g_state.copies_down += (int64_t)(copy->WidthInBytes * copy->Height);
  for (size_t y = 0; y < copy->Height; ++y)
    memcpy(to + y * copy->dstPitch, from + y * copy->srcPitch, copy->WidthInBytes);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpy2D(const CUDA_MEMCPY2D* copy) {
  if (!current()) return refuse(CUDA_ERROR_INVALID_CONTEXT);
  pthread_mutex_lock(&g_lock);
  const CUresult result = copy_now(copy, false);
  pthread_mutex_unlock(&g_lock);
  return result;
}

EXPORT CUresult cuMemcpy2DAsync(const CUDA_MEMCPY2D* what, CUstream stream) {
  if (!current()) return refuse(CUDA_ERROR_INVALID_CONTEXT);
  pthread_mutex_lock(&g_lock);
  const CUresult result = copy_now(what, true);
  if (result == CUDA_SUCCESS) {
    Copy* copy = calloc(1, sizeof *copy);
    copy->stream = stream;
    copy->what = *what;
    Copy** at = &g_copies;
    while (*at) at = &(*at)->next;
    *at = copy;
    g_state.pending++;
  }
  pthread_mutex_unlock(&g_lock);
  return result;
}

/* ---- streams: only the default one and tokens */

EXPORT CUresult cuStreamCreate(CUstream* stream, unsigned int flags) {
  (void)flags;
  *stream = malloc(1);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream) {
  if (!current()) return refuse(CUDA_ERROR_INVALID_CONTEXT);
  CUresult result = CUDA_SUCCESS;
  pthread_mutex_lock(&g_lock);
  for (Copy** at = &g_copies; *at;) {
    Copy* copy = *at;
    if (copy->stream != stream) {
      at = &copy->next;
      continue;
    }
    if (copy_now(&copy->what, false) != CUDA_SUCCESS) result = CUDA_ERROR_INVALID_VALUE;
    *at = copy->next;
    free(copy);
    g_state.pending--;
  }
  pthread_mutex_unlock(&g_lock);
  return result;
}

EXPORT CUresult cuStreamDestroy(CUstream stream) {
  const CUresult result = cuStreamSynchronize(stream);
  free(stream);
  return result;
}

/* GStreamer looks for the name without a version. */
EXPORT CUresult old_stream_destroy(CUstream stream) __asm__("cuStreamDestroy");
CUresult old_stream_destroy(CUstream stream) { return cuStreamDestroy(stream); }

/* ---- looked up, never called by what is tested here */

#define UNUSED(symbol)                                      \
  EXPORT CUresult unused_##symbol(void) __asm__(#symbol);   \
  CUresult unused_##symbol(void) { return refuse(CUDA_ERROR_NOT_SUPPORTED); }
UNUSED(cuModuleLoadData)
UNUSED(cuModuleUnload)
UNUSED(cuModuleGetFunction)
UNUSED(cuTexObjectCreate)
UNUSED(cuTexObjectDestroy)
UNUSED(cuLaunchKernel)
UNUSED(cuGLGetDevices_v2)
UNUSED(cuGraphicsGLRegisterBuffer)
UNUSED(cuGraphicsGLRegisterImage)
UNUSED(cuGraphicsMapResources)
UNUSED(cuGraphicsUnmapResources)
UNUSED(cuGraphicsUnregisterResource)
UNUSED(cuGraphicsResourceGetMappedPointer_v2)
UNUSED(cuGraphicsResourceSetMapFlags_v2)
UNUSED(cuGraphicsSubResourceGetMappedArray)
