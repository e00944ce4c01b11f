// SPDX-License-Identifier: LGPL-2.1-or-later
//
// video/x-raw(memory:CUDAMemory) on the pads. Compiled where the option memory_cuda found GStreamer's
// CUDA library, and then FLASHVSR_HAVE_GST_CUDA is defined.
//
// Two contexts of one device. The engine computes in the device's primary context and is given
// pointers of that one alone. Buffers belong to the *shared* context, which is, in this order: the one
// that was set on the element; a neighbour's, downstream first; what the application gives to
// NEED_CONTEXT; else the primary context itself, which is then published with HAVE_CONTEXT. Frames of
// any other context of the device are copied once, on the device, through a staging buffer.
//
// No context is current when a call here returns, as LibTorch uses what is current.
//
// Errors: status OK in `error`: the buffer itself is unfit; else INVALID_ARGUMENT, OUT_OF_MEMORY or
//   INTERNAL with the reason.
// Thread-safety: each call by the thread named above it; open and close while U and P do not run.
#ifndef FLASHVSR_GST_GSTFLASHVSRCUDA_H_
#define FLASHVSR_GST_GSTFLASHVSRCUDA_H_

#include <flashvsr/flashvsr.h>
#include <gst/video/video.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "gstflashvsrcut.h"

typedef struct _GstCudaContext GstCudaContext;

// What both the engine and GStreamer 1.22's CUDA memory know.
#define GST_FLASH_VSR_CUDA_FORMATS                                                                  \
  "{ NV12, P010_10LE, I420, I420_10LE, RGB, BGR, RGBx, BGRx, RGBA, BGRA, ARGB, ABGR, GBR, Y42B, Y444 }"
#define GST_FLASH_VSR_CUDA_FEATURE "memory:CUDAMemory"

namespace flashvsr_gst {

bool is_cuda_caps(const GstCaps* caps);  // fixed ones

class CudaMemory {
 public:
  ~CudaMemory() { close(); }

  // ---- state changes

  // After the model has been opened. device: the model's, -1: it is on the CPU. May post messages.
  void open(GstElement* element, int device);
  void close();

  // ---- any thread

  // Takes `caps`. Each structure may also come in the other memory, its own first. Where frames in CUDA
  // memory are known to be of no use, there are none.
  GstCaps* both_memories(GstCaps* caps) const;
  // Why frames in CUDA memory cannot be taken; empty: they can, or open has not been called yet.
  std::string refusal() const;
  bool answer_context(GstElement* element, GstQuery* query) const;

  // ---- U

  // A pool in the shared context, configured and not active; NULL: there is none.
  GstBufferPool* new_pool(const GstCaps* caps, guint* size) const;
  // Maps `buffer`, or a copy of it in the primary context, for the engine. Unmap as any frame.
  bool map_input(GstBuffer* buffer, const GstVideoInfo* caps, GstVideoFrame* mapped, FlashVsrFrame* planes,
                 FlashVsrError* error);
  // The rows of `plane`, of a mapped input, that the detector looks at, on the host.
  bool fetch_rows(CutPlane* plane);

  // ---- P

  // What the engine may write; after it has been unmapped, finish_output brings it into `buffer`.
  bool map_output(GstBuffer* buffer, const GstVideoInfo* caps, GstVideoFrame* mapped, FlashVsrFrame* planes,
                  FlashVsrError* error);
  bool finish_output(GstBuffer* buffer, const GstVideoInfo* caps, FlashVsrError* error);

 private:
  // One frame in the primary context.
  struct Staging {
    GstBuffer* buffer = nullptr;
    GstVideoInfo info;
  };
  static constexpr int kUnknown = -2, kNone = -1;

  bool wrap_primary(int device, std::string* why);
  GstCudaContext* find_shared(GstElement* element, int device) const;
  bool is_primary(GstCudaContext* context) const;
  GstBuffer* staging(Staging* staging, const GstVideoInfo* caps, FlashVsrError* error) const;
  static void clear(Staging* staging);

  mutable std::mutex mutex_;           // shared_, why_
  GstCudaContext* shared_ = nullptr;
  std::string why_;
  GstCudaContext* primary_ = nullptr;  // holds the device's primary context for as long as it lives
  std::atomic<int> device_{kUnknown};
  Staging input_, output_;
  std::vector<guint8> rows_;
};

}  // namespace flashvsr_gst

#endif  // FLASHVSR_GST_GSTFLASHVSRCUDA_H_
