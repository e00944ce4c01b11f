// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrcuda.h"

#include <gmodule.h>
#include <gst/cuda/gstcudabufferpool.h>
#include <gst/cuda/gstcudaloader.h>
#include <gst/cuda/gstcudautils.h>

#include <algorithm>

#include "gstflashvsrframe.h"

GST_DEBUG_CATEGORY_EXTERN(gst_flash_vsr_debug);
#define GST_CAT_DEFAULT gst_flash_vsr_debug

// New in 1.24, whose producers may leave work on a stream; a build with 1.22 has to call it too when it
// runs with a later one. NULL where the library has no such function.
extern "C" void gst_cuda_memory_sync(GstCudaMemory* memory) __attribute__((weak));

namespace flashvsr_gst {
namespace {

// The two functions of the driver that GStreamer's loader leaves out.
struct PrimaryContexts {
  CUresult (*retain)(CUcontext* context, CUdevice device) = nullptr;
  CUresult (*release)(CUdevice device) = nullptr;
};

const PrimaryContexts& primary_contexts() {
  static const PrimaryContexts functions = [] {
    PrimaryContexts found;
    // GStreamer has it open already and never closes it.
    GModule* driver = g_module_open("libcuda.so.1", static_cast<GModuleFlags>(G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL));
    gpointer retain, release;
    if (driver && g_module_symbol(driver, "cuDevicePrimaryCtxRetain", &retain) &&
        g_module_symbol(driver, "cuDevicePrimaryCtxRelease_v2", &release)) {
      found.retain = reinterpret_cast<decltype(found.retain)>(retain);
      found.release = reinterpret_cast<decltype(found.release)>(release);
    }
    return found;
  }();
  return functions;
}

std::string text_of(CUresult result) {
  const char* text = nullptr;
  if (CuGetErrorString(result, &text) != CUDA_SUCCESS || !text) return "CUDA error " + std::to_string(result);
  return text;
}

bool say(FlashVsrError* error, FlashVsrStatus status, const std::string& text) {
  error->status = status;
  g_strlcpy(error->message, text.c_str(), sizeof error->message);
  return false;
}

int device_of(GstCudaContext* context) {
  guint device = 0;
  g_object_get(context, "cuda-device-id", &device, nullptr);
  return static_cast<int>(device);
}

// The memory that holds all of a frame; NULL: it is none of CUDA's.
GstCudaMemory* memory_of(GstBuffer* buffer) {
  if (gst_buffer_n_memory(buffer) != 1) return nullptr;
  GstMemory* memory = gst_buffer_peek_memory(buffer, 0);
  return gst_is_cuda_memory(memory) ? GST_CUDA_MEMORY_CAST(memory) : nullptr;
}

bool map(GstBuffer* buffer, const GstVideoInfo* caps, GstMapFlags access, GstVideoFrame* mapped, FlashVsrFrame* planes) {
  const auto flags = static_cast<GstMapFlags>(access | GST_MAP_CUDA);
  if (!gst_flash_vsr_frame_map(mapped, caps, buffer, flags, planes)) return false;
  if (gst_cuda_memory_sync) gst_cuda_memory_sync(memory_of(buffer));
  return true;
}

// Queues copies on the default stream of `context` and waits for them.
class Copier {
 public:
  explicit Copier(GstCudaContext* context) : is_current_(gst_cuda_context_push(context)) {}
  ~Copier() {
    if (is_current_) gst_cuda_context_pop(nullptr);
  }
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;

  bool add(const CUDA_MEMCPY2D& copy) {
    return is_current_ && result_ == CUDA_SUCCESS && (result_ = CuMemcpy2DAsync(&copy, nullptr)) == CUDA_SUCCESS;
  }
  bool wait() {
    if (!is_current_) return false;
    const CUresult waited = CuStreamSynchronize(nullptr);
    if (result_ == CUDA_SUCCESS) result_ = waited;
    return result_ == CUDA_SUCCESS;
  }
  std::string text() const { return is_current_ ? text_of(result_) : "the context cannot be made current"; }

 private:
  const bool is_current_;
  CUresult result_ = CUDA_SUCCESS;
};

// Between two contexts of one device, as GStreamer's own elements do: with the foreign one current.
bool copy_frame(GstBuffer* from, GstBuffer* to, const GstVideoInfo* caps, GstCudaContext* foreign, FlashVsrError* error) {
  GstVideoFrame source, target;
  FlashVsrFrame source_planes, target_planes;
  if (!map(from, caps, GST_MAP_READ, &source, &source_planes)) return false;
  if (!map(to, caps, GST_MAP_WRITE, &target, &target_planes)) {
    gst_video_frame_unmap(&source);
    return false;
  }
  bool is_copied;
  {
    Copier copier(foreign);
    for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(&source); ++plane) {
      gint components[GST_VIDEO_MAX_COMPONENTS];
      gst_video_format_info_component(source.info.finfo, plane, components);
      CUDA_MEMCPY2D copy = {};
      copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
      copy.srcDevice = reinterpret_cast<CUdeviceptr>(source_planes.data[plane]);
      copy.srcPitch = source_planes.stride[plane];
      copy.dstDevice = reinterpret_cast<CUdeviceptr>(target_planes.data[plane]);
      copy.dstPitch = target_planes.stride[plane];
      copy.WidthInBytes = static_cast<size_t>(GST_VIDEO_FRAME_COMP_WIDTH(&source, components[0])) *
                          static_cast<size_t>(GST_VIDEO_FRAME_COMP_PSTRIDE(&source, components[0]));
      copy.Height = static_cast<size_t>(GST_VIDEO_FRAME_COMP_HEIGHT(&source, components[0]));
      copier.add(copy);
    }
    is_copied = copier.wait();
    if (!is_copied) say(error, FLASHVSR_ERROR_INTERNAL, "copying a frame between CUDA contexts: " + copier.text());
  }
  gst_video_frame_unmap(&target);
  gst_video_frame_unmap(&source);
  return is_copied;
}

// Configured, not active. NULL: the library does not allocate this format.
GstBufferPool* pool_of(GstCudaContext* context, const GstCaps* caps, guint* size) {
  GstVideoInfo info;
  if (!gst_video_info_from_caps(&info, caps)) return nullptr;
  GstBufferPool* pool = gst_cuda_buffer_pool_new(context);
  GstStructure* config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_set_params(config, const_cast<GstCaps*>(caps), static_cast<guint>(GST_VIDEO_INFO_SIZE(&info)), 0, 0);
  gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  if (!gst_buffer_pool_set_config(pool, config)) {
    gst_object_unref(pool);
    return nullptr;
  }
  // Rows are padded on the device, so it has grown.
  config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_get_params(config, nullptr, size, nullptr, nullptr);
  gst_structure_free(config);
  return pool;
}

// Of an object's data NULL means none: a device's number is kept plus one.
void release_primary(gpointer device_plus_one) {
  primary_contexts().release(static_cast<CUdevice>(GPOINTER_TO_INT(device_plus_one) - 1));
}

// The context that `context` carries, if it is the device's. A reference.
GstCudaContext* unpack(GstElement* element, GstContext* context, int device) {
  GstCudaContext* found = nullptr;
  gst_cuda_handle_set_context(element, context, device, &found);
  return found;
}

GstCudaContext* stored_on(GstElement* element, int device) {
  GstContext* context = gst_element_get_context(element, GST_CUDA_CONTEXT_TYPE);
  if (!context) return nullptr;
  GstCudaContext* found = unpack(element, context, device);
  gst_context_unref(context);
  return found;
}

GstCudaContext* ask_peer(GstElement* element, const gchar* name, int device) {
  GstCudaContext* found = nullptr;
  GstPad* pad = gst_element_get_static_pad(element, name);
  GstQuery* query = gst_query_new_context(GST_CUDA_CONTEXT_TYPE);
  if (gst_pad_peer_query(pad, query)) {
    GstContext* context = nullptr;
    gst_query_parse_context(query, &context);
    if (context) found = unpack(element, context, device);
  }
  gst_query_unref(query);
  gst_object_unref(pad);
  return found;
}

}  // namespace

bool is_cuda_caps(const GstCaps* caps) {
  return gst_caps_features_contains(gst_caps_get_features(caps, 0), GST_FLASH_VSR_CUDA_FEATURE);
}

bool CudaMemory::wrap_primary(int device, std::string* why) {
  if (!gst_cuda_load_library() || !primary_contexts().retain) {
    *why = "GStreamer's CUDA library found no driver";
    return false;
  }
  gst_cuda_memory_init_once();
  CUdevice handle = 0;
  CUcontext context = nullptr;
  CUresult result = CuInit(0);
  if (result == CUDA_SUCCESS) result = CuDeviceGet(&handle, device);
  if (result == CUDA_SUCCESS) result = primary_contexts().retain(&context, handle);
  if (result != CUDA_SUCCESS) {
    *why = "CUDA device " + std::to_string(device) + ": " + text_of(result);
    return false;
  }
  primary_ = gst_cuda_context_new_wrapped(context, handle);
  if (!primary_) {
    release_primary(GINT_TO_POINTER(handle + 1));
    *why = "GStreamer cannot use the context of CUDA device " + std::to_string(device);
    return false;
  }
  // Bins and neighbours may keep it for longer than we do.
  g_object_set_data_full(G_OBJECT(primary_), "flashvsr-primary-context", GINT_TO_POINTER(handle + 1), release_primary);
  return true;
}

// NULL: nobody has one.
GstCudaContext* CudaMemory::find_shared(GstElement* element, int device) const {
  GstCudaContext* found = stored_on(element, device);
  for (const gchar* pad : {"src", "sink"})
    if (!found) found = ask_peer(element, pad, device);
  if (found) return found;
  gst_element_post_message(element, gst_message_new_need_context(GST_OBJECT(element), GST_CUDA_CONTEXT_TYPE));
  return stored_on(element, device);
}

void CudaMemory::open(GstElement* element, int device) {
  std::string why;
  if (device < 0) {
    why = "the model runs on the CPU";
  } else if (wrap_primary(device, &why)) {
    GstCudaContext* shared = find_shared(element, device);
    const bool is_ours = !shared;
    if (is_ours) shared = static_cast<GstCudaContext*>(gst_object_ref(primary_));
    GST_INFO_OBJECT(element, "%s context of CUDA device %d, %s", is_ours ? "own" : "shared", device,
                    is_primary(shared) ? "the primary one" : "frames are copied");
    {
      std::lock_guard<std::mutex> lock(mutex_);
      shared_ = shared;
    }
    if (is_ours) {
      GstContext* context = gst_context_new_cuda_context(shared);
      gst_element_set_context(element, context);
      gst_element_post_message(element, gst_message_new_have_context(GST_OBJECT(element), context));
    }
  }
  if (!why.empty()) GST_INFO_OBJECT(element, "no CUDA memory: %s", why.c_str());
  std::lock_guard<std::mutex> lock(mutex_);
  device_ = why.empty() ? device : kNone;
  why_ = why;
}

void CudaMemory::close() {
  clear(&input_);
  clear(&output_);
  GstCudaContext* shared;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    shared = shared_;
    shared_ = nullptr;
    why_.clear();
    device_ = kUnknown;
  }
  if (shared) gst_object_unref(shared);
  gst_clear_object(&primary_);
}

GstCaps* CudaMemory::both_memories(GstCaps* caps) const {
  static GstStaticCaps cuda_formats = GST_STATIC_CAPS("video/x-raw(" GST_FLASH_VSR_CUDA_FEATURE "), format=" GST_FLASH_VSR_CUDA_FORMATS);
  if (gst_caps_is_any(caps)) return caps;
  GstCaps* same = gst_caps_new_empty();
  GstCaps* other = gst_caps_new_empty();
  GstCapsFeatures* cuda = gst_caps_features_new(GST_FLASH_VSR_CUDA_FEATURE, nullptr);
  const bool may_be_cuda = device_ != kNone;
  for (guint i = 0; i < gst_caps_get_size(caps); ++i) {
    const GstStructure* structure = gst_caps_get_structure(caps, i);
    const GstCapsFeatures* features = gst_caps_get_features(caps, i);
    const bool is_system = gst_caps_features_is_equal(features, GST_CAPS_FEATURES_MEMORY_SYSTEM_MEMORY);
    const bool is_cuda = gst_caps_features_is_equal(features, cuda);
    if (is_cuda && !may_be_cuda) continue;
    gst_caps_append_structure_full(same, gst_structure_copy(structure), gst_caps_features_copy(features));
    if ((is_system && may_be_cuda) || is_cuda)
      gst_caps_append_structure_full(other, gst_structure_copy(structure), is_cuda ? nullptr : gst_caps_features_copy(cuda));
  }
  gst_caps_features_free(cuda);
  gst_caps_unref(caps);
  // Of the other memory's structures those in CUDA memory lose the formats that it does not have.
  GstCaps* formats = gst_caps_copy(gst_static_caps_get(&cuda_formats));
  gst_caps_append(formats, gst_caps_new_empty_simple("video/x-raw"));
  GstCaps* narrowed = gst_caps_intersect_full(other, formats, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref(other);
  gst_caps_unref(formats);
  return gst_caps_merge(same, narrowed);
}

std::string CudaMemory::refusal() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return why_;
}

bool CudaMemory::answer_context(GstElement* element, GstQuery* query) const {
  GstCudaContext* shared;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    shared = shared_ ? static_cast<GstCudaContext*>(gst_object_ref(shared_)) : nullptr;
  }
  if (!shared) return false;
  const gboolean is_answered = gst_cuda_handle_context_query(element, query, shared);
  gst_object_unref(shared);
  return is_answered;
}

GstBufferPool* CudaMemory::new_pool(const GstCaps* caps, guint* size) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return shared_ ? pool_of(shared_, caps, size) : nullptr;
}

bool CudaMemory::is_primary(GstCudaContext* context) const {
  return gst_cuda_context_get_handle(context) == gst_cuda_context_get_handle(primary_);
}

GstBuffer* CudaMemory::staging(Staging* staging, const GstVideoInfo* caps, FlashVsrError* error) const {
  if (staging->buffer && gst_video_info_is_equal(&staging->info, caps)) return staging->buffer;
  clear(staging);
  GstCaps* wanted = gst_video_info_to_caps(caps);
  gst_caps_set_features_simple(wanted, gst_caps_features_new(GST_FLASH_VSR_CUDA_FEATURE, nullptr));
  guint size;
  GstBufferPool* pool = pool_of(primary_, wanted, &size);
  gst_caps_unref(wanted);
  if (pool && gst_buffer_pool_set_active(pool, TRUE)) {
    gst_buffer_pool_acquire_buffer(pool, &staging->buffer, nullptr);
    gst_buffer_pool_set_active(pool, FALSE);  // the buffer goes with its last reference
  }
  if (pool) gst_object_unref(pool);
  staging->info = *caps;
  if (!staging->buffer) say(error, FLASHVSR_ERROR_OUT_OF_MEMORY, "no CUDA memory for a frame that comes from another context");
  return staging->buffer;
}

void CudaMemory::clear(Staging* staging) {
  if (staging->buffer) gst_buffer_unref(staging->buffer);
  staging->buffer = nullptr;
}

bool CudaMemory::map_input(GstBuffer* buffer, const GstVideoInfo* caps, GstVideoFrame* mapped, FlashVsrFrame* planes,
                           FlashVsrError* error) {
  const GstCudaMemory* memory = memory_of(buffer);
  if (!memory) return false;
  if (is_primary(memory->context)) return map(buffer, caps, GST_MAP_READ, mapped, planes);
  const int theirs = device_of(memory->context);
  if (theirs != device_) {
    return say(error, FLASHVSR_ERROR_INVALID_ARGUMENT,
               "the video is in the memory of CUDA device " + std::to_string(theirs) + ", the model on device " +
                   std::to_string(device_) + "; set device=cuda:" + std::to_string(theirs) +
                   ", or cuda-device-id of the elements around");
  }
  GstBuffer* ours = staging(&input_, caps, error);
  return ours && copy_frame(buffer, ours, caps, memory->context, error) && map(ours, caps, GST_MAP_READ, mapped, planes);
}

bool CudaMemory::fetch_rows(CutPlane* plane) {
  rows_.resize(plane->stride * static_cast<size_t>(plane->height));
  Copier copier(primary_);
  for (int row = 0; row < CutDetector::kRows; ++row) {
    const auto first = static_cast<size_t>(CutDetector::first_line(row, plane->height));
    CUDA_MEMCPY2D copy = {};
    copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.srcDevice = reinterpret_cast<CUdeviceptr>(plane->data) + first * plane->stride;
    copy.dstMemoryType = CU_MEMORYTYPE_HOST;
    copy.dstHost = rows_.data() + first * plane->stride;
    copy.srcPitch = copy.dstPitch = plane->stride;
    copy.WidthInBytes = static_cast<size_t>(plane->width - 1) * static_cast<size_t>(plane->step) + 1 + (plane->shift ? 1 : 0);
    copy.Height = std::min<size_t>(2, static_cast<size_t>(plane->height) - first);
    copier.add(copy);
  }
  plane->data = rows_.data();
  return copier.wait();
}

bool CudaMemory::map_output(GstBuffer* buffer, const GstVideoInfo* caps, GstVideoFrame* mapped, FlashVsrFrame* planes,
                            FlashVsrError* error) {
  const GstCudaMemory* memory = memory_of(buffer);
  if (!memory) return false;
  if (is_primary(memory->context)) return map(buffer, caps, GST_MAP_WRITE, mapped, planes);
  GstBuffer* ours = staging(&output_, caps, error);
  return ours && map(ours, caps, GST_MAP_WRITE, mapped, planes);
}

bool CudaMemory::finish_output(GstBuffer* buffer, const GstVideoInfo* caps, FlashVsrError* error) {
  const GstCudaMemory* memory = memory_of(buffer);
  if (is_primary(memory->context)) return true;
  return copy_frame(output_.buffer, buffer, caps, memory->context, error);
}

}  // namespace flashvsr_gst
