// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The C table over models and sessions: the only place where exceptions end.
#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <flashvsr/flashvsr.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "api/devices.h"
#include "api/model.h"
#include "api/plan.h"
#include "api/session.h"
#include "base/error.h"
#include "base/log.h"

struct FlashVsrModel {
  std::shared_ptr<const flashvsr::Model> model;
};

struct FlashVsrSession {
  flashvsr::Session session;
};

namespace flashvsr {
namespace {

static_assert(static_cast<int>(ErrorCode::kInternal) == FLASHVSR_ERROR_INTERNAL);
static_assert(static_cast<int>(ErrorCode::kInvalidArgument) == FLASHVSR_ERROR_INVALID_ARGUMENT);

FlashVsrStatus fail(FlashVsrError* error, FlashVsrStatus status, const char* message) {
  if (error != nullptr) {
    error->status = status;
    std::snprintf(error->message, sizeof(error->message), "%s", message);
  }
  return status;
}

// Runs `body`, which returns a status, and turns what it throws into one.
template <typename Body>
FlashVsrStatus guarded(FlashVsrError* error, const Body& body) {
  if (error != nullptr) {
    error->status = FLASHVSR_OK;
    error->message[0] = '\0';
  }
  try {
    c10::InferenceMode inference;
    return body();
  } catch (const Error& e) {
    return fail(error, static_cast<FlashVsrStatus>(e.code()), e.what());
  } catch (const c10::OutOfMemoryError& e) {
    return fail(error, FLASHVSR_ERROR_OUT_OF_MEMORY, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    // LibTorch's CPU allocator reports a failed allocation as an ordinary error.
    const char* what = e.what_without_backtrace();
    const bool is_memory = std::strstr(what, "can't allocate memory") != nullptr;
    return fail(error, is_memory ? FLASHVSR_ERROR_OUT_OF_MEMORY : FLASHVSR_ERROR_INTERNAL, what);
  } catch (const std::bad_alloc&) {
    return fail(error, FLASHVSR_ERROR_OUT_OF_MEMORY, "not enough memory");
  } catch (const std::exception& e) {
    return fail(error, FLASHVSR_ERROR_INTERNAL, e.what());
  } catch (...) {
    return fail(error, FLASHVSR_ERROR_INTERNAL, "unknown error");
  }
}

template <typename Body>
void guarded(const Body& body) {
  guarded(nullptr, [&] {
    body();
    return FLASHVSR_OK;
  });
}

void check_pointer(const void* pointer, const char* name) {
  FLASHVSR_CHECK(pointer != nullptr, ErrorCode::kInvalidArgument, name, " is NULL");
}

// A caller's structure of its own size over our defaults: older callers know fewer fields.
template <typename Options>
Options with_defaults(const Options* options, const Options& defaults, const char* name) {
  check_pointer(options, name);
  FLASHVSR_CHECK(options->struct_size >= sizeof(uint32_t), ErrorCode::kInvalidArgument, name,
                 ": struct_size is not set");
  Options result = defaults;
  std::memcpy(&result, options, std::min<size_t>(options->struct_size, sizeof(Options)));
  result.struct_size = sizeof(Options);
  return result;
}

// Our structure into as much of the caller's as it has.
template <typename Result>
void give(const Result& ours, Result* theirs) {
  const uint32_t size = theirs->struct_size;
  FLASHVSR_CHECK(size >= sizeof(uint32_t), ErrorCode::kInvalidArgument, "struct_size is not set");
  std::memcpy(theirs, &ours, std::min<size_t>(size, sizeof(Result)));
  theirs->struct_size = size;
}

template <size_t kSize>
void copy_text(const std::string& text, char (&target)[kSize]) {
  std::snprintf(target, kSize, "%s", text.c_str());
}

void set_log(FlashVsrLogFunc log, void* user) {
  // Both callbacks take the level as an int of the same values.
  set_log_callback(reinterpret_cast<LogCallback>(log), user);
}

void default_model_options(FlashVsrModelOptions* options) {
  if (options == nullptr) return;
  *options = FlashVsrModelOptions{};
  options->struct_size = sizeof(*options);
}

void default_session_options(FlashVsrSessionOptions* options) {
  if (options == nullptr) return;
  *options = FlashVsrSessionOptions{};
  options->struct_size = sizeof(*options);
  options->scale_num = 4;
  options->scale_den = 1;
  options->color_fix = FLASHVSR_COLOR_FIX_AUTO;
  options->startup = FLASHVSR_STARTUP_FULL;
}

FlashVsrSessionOptions session_options(const FlashVsrSessionOptions* options) {
  FlashVsrSessionOptions defaults;
  default_session_options(&defaults);
  return with_defaults(options, defaults, "session options");
}

FlashVsrStatus model_open(const FlashVsrModelOptions* options, FlashVsrModel** model, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(model, "model");
    *model = nullptr;
    FlashVsrModelOptions defaults;
    default_model_options(&defaults);
    *model = new FlashVsrModel{open_model(with_defaults(options, defaults, "model options"))};
    return FLASHVSR_OK;
  });
}

void model_close(FlashVsrModel* model) {
  guarded([&] { delete model; });
}

FlashVsrStatus model_info(const FlashVsrModel* model, FlashVsrModelInfo* info, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(model, "model");
    check_pointer(info, "info");
    FlashVsrModelInfo result{};
    copy_text(model->model->name, result.name);
    copy_text(model->model->device_name, result.device);
    copy_text(model->model->precision_name, result.precision);
    result.is_embedded = model->model->is_embedded;
    result.has_transformer = model->model->config().has_transformer;
    result.weight_bytes = model->model->weight_bytes;
    const c10::Device device = model->model->device();
    result.cuda_device = device.is_cuda() ? std::max<int32_t>(device.index(), 0) : -1;
    give(result, info);
    return FLASHVSR_OK;
  });
}

uint64_t memory_limit(const DeviceMemory& memory, double max_vram) {
  if (max_vram > 1) return static_cast<uint64_t>(max_vram);
  if (max_vram > 0) return static_cast<uint64_t>(static_cast<double>(memory.total) * max_vram);
  return memory.free - memory.free / 20;  // a margin of 5 %
}

// The plan for a session, and what it had to fit in.
struct SessionPlan {
  MemoryPlan memory;
  uint64_t limit;
};

SessionPlan plan_session(const Model& model, const Geometry& geometry, const FlashVsrSessionOptions& options) {
  const c10::Device device = model.device();
  const uint64_t limit = memory_limit(device_memory(device), options.max_vram);
  const uint64_t host_limit = device.is_cpu() ? limit : memory_limit(device_memory(c10::kCPU), 0);
  const int64_t kv_chunks = options.kv_chunks == 0 ? model.config().kv_chunks : options.kv_chunks;
  return {plan_memory({model.config(), geometry, kv_chunks, model.decoder, c10::elementSize(model.dtype()),
                       device.is_cpu(), limit, host_limit}),
          limit};
}

Geometry geometry_of(const Model& model, const FlashVsrFormat& format, const FlashVsrSessionOptions& options) {
  return Geometry(model.config(), format.width, format.height, options.scale_num, options.scale_den);
}

FlashVsrStatus model_plan(const FlashVsrModel* model, const FlashVsrFormat* format,
                          const FlashVsrSessionOptions* options, FlashVsrPlan* plan, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(model, "model");
    check_pointer(format, "format");
    check_pointer(plan, "plan");
    const FlashVsrSessionOptions known = session_options(options);
    const Geometry geometry = geometry_of(*model->model, *format, known);
    const auto [memory, limit] = plan_session(*model->model, geometry, known);
    FlashVsrPlan result{};
    result.weight_bytes = model->model->weight_bytes;
    result.session_bytes = memory.session_bytes;
    result.tiles_x = static_cast<int32_t>(memory.tiles.columns.count());
    result.tiles_y = static_cast<int32_t>(memory.tiles.rows.count());
    copy_text(concat(geometry.in.width, "x", geometry.in.height, " to ", geometry.out.width, "x", geometry.out.height,
                     ", computed at ", geometry.padded_decoded.width, "x", geometry.padded_decoded.height, " on ",
                     model->model->device_name, " in ", model->model->precision_name, ": ", describe(memory),
                     "; weights ", readable_bytes(result.weight_bytes), ", this session about ",
                     readable_bytes(result.session_bytes), " (state ", readable_bytes(memory.state_bytes), ", frames ",
                     readable_bytes(memory.frame_bytes), ", activations ", readable_bytes(memory.activation_bytes), "); ",
                     readable_bytes(limit), " may be taken", memory.fits ? "" : ", which is not enough",
                     memory.refused.empty() ? "" : "; too large: ", memory.refused, "."),
              result.text);
    give(result, plan);
    return FLASHVSR_OK;
  });
}

FlashVsrStatus session_open(FlashVsrModel* model, const FlashVsrFormat* format, const FlashVsrSessionOptions* options,
                            FlashVsrSession** session, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(session, "session");
    *session = nullptr;
    check_pointer(model, "model");
    check_pointer(format, "format");
    const FlashVsrSessionOptions known = session_options(options);
    const auto [memory, limit] = plan_session(*model->model, geometry_of(*model->model, *format, known), known);
    auto opened = std::unique_ptr<FlashVsrSession>(new FlashVsrSession{{model->model, *format, known, memory}});
    if (model->model->device().is_cpu()) {
      if (!memory.fits) {
        log(LogLevel::kWarning, "session: ", format->width, "x", format->height, " may need ",
            readable_bytes(memory.session_bytes), " even as ", describe(memory), "; ", readable_bytes(limit),
            " may be taken");
      }
    } else {
      FLASHVSR_CHECK(memory.fits, ErrorCode::kOutOfMemory, "not enough memory for ", format->width, "x",
                     format->height, " even as ", describe(memory), ": about ", readable_bytes(memory.session_bytes),
                     " needed on the GPU, ", readable_bytes(limit), " may be taken");
    }
    *session = opened.release();
    return FLASHVSR_OK;
  });
}

void session_close(FlashVsrSession* session) {
  guarded([&] { delete session; });
}

FlashVsrStatus send(FlashVsrSession* session, const FlashVsrFrame* frame, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(session, "session");
    check_pointer(frame, "frame");
    session->session.send(*frame);
    return FLASHVSR_OK;
  });
}

FlashVsrStatus run(FlashVsrSession* session, FlashVsrRunMode mode, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(session, "session");
    return session->session.run(mode) ? FLASHVSR_OK : FLASHVSR_AGAIN;
  });
}

FlashVsrStatus receive(FlashVsrSession* session, const FlashVsrView* view, FlashVsrFrame* frame,
                       FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(session, "session");
    check_pointer(frame, "frame");
    FlashVsrView plain{};
    plain.struct_size = sizeof(plain);
    plain.strength = 1.0f;
    const FlashVsrView known = view == nullptr ? plain : with_defaults(view, plain, "view");
    return session->session.receive(view == nullptr ? nullptr : &known, *frame) ? FLASHVSR_OK : FLASHVSR_AGAIN;
  });
}

FlashVsrStatus drain(FlashVsrSession* session, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(session, "session");
    session->session.drain();
    return FLASHVSR_OK;
  });
}

void flush(FlashVsrSession* session) {
  if (session != nullptr) guarded([&] { session->session.flush(); });
}

void interrupt(FlashVsrSession* session) {
  if (session != nullptr) session->session.interrupt();
}

FlashVsrStatus set_options(FlashVsrSession* session, const FlashVsrSessionOptions* options, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(session, "session");
    session->session.set_options(session_options(options));
    return FLASHVSR_OK;
  });
}

int32_t max_delay(const FlashVsrSession* session) { return session == nullptr ? 0 : session->session.max_delay(); }

FlashVsrStatus stats(const FlashVsrSession* session, FlashVsrStats* stats, FlashVsrError* error) {
  return guarded(error, [&] {
    check_pointer(session, "session");
    check_pointer(stats, "stats");
    FlashVsrStats result{};
    session->session.stats(result);
    give(result, stats);
    return FLASHVSR_OK;
  });
}

constexpr FlashVsrApi kApi = {
    FLASHVSR_ABI_VERSION,
    "FlashVSR engine " FLASHVSR_VERSION_TEXT " (LibTorch " TORCH_VERSION ")",
    set_log,
    default_model_options,
    default_session_options,
    model_open,
    model_close,
    model_info,
    model_plan,
    session_open,
    session_close,
    send,
    run,
    receive,
    drain,
    flush,
    interrupt,
    set_options,
    max_delay,
    stats,
};

}  // namespace
}  // namespace flashvsr

extern "C" FLASHVSR_EXPORT const FlashVsrApi* flashvsr_get_api(uint32_t abi_version) {
  return abi_version == FLASHVSR_ABI_VERSION ? &flashvsr::kApi : nullptr;
}
