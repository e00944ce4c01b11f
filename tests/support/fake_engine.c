/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_engine.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake_cuda/fake_cuda.h"

enum { kFirstInputs = 25, kFirstOutputs = 21, kLaterInputs = 12, kLaterOutputs = 8, kPriming = 13 };

typedef struct Picture {
  struct Picture* next;
  uint64_t id;
  bool is_passthrough;
  uint8_t data[]; /* planes one after the other, tight rows */
} Picture;

typedef struct Fifo {
  Picture* head;
  Picture* tail;
  int64_t length;
} Fifo;

/* One stream between two drains. */
typedef struct Stream {
  struct Stream* next;
  Fifo inputs; /* not yet given to a run's outputs */
  int64_t frames;
  int64_t next_output;
  bool has_ended;
  bool has_state;
} Stream;

struct FlashVsrModel {
  struct FlashVsrModel* next;
  char* key;
  char* path;
  int cuda_device; /* -1: none */
  int64_t users;
};

typedef struct Plane {
  int width; /* samples */
  int height;
  int sample_bytes; /* of one group: 3 for RGB */
  int depth;        /* bits of a component: 8, 10 (low bits), -10 (high bits) */
} Plane;

struct FlashVsrSession {
  FlashVsrModel* model;
  FlashVsrFormat format;
  FlashVsrSessionOptions options;
  int planes;
  Plane in[4];
  Plane out[4];
  size_t in_bytes;

  pthread_mutex_t lock;
  Stream* streams; /* oldest first */
  Fifo results;
  atomic_bool is_interrupted;
  bool is_broken;
  FlashVsrStats stats;
  atomic_int in_send, in_run, in_receive;

  int chunk_ms, dense_ms, run_lag_ms;
  int64_t fail_chunk, fail_send, fail_receive;
  FlashVsrStatus fail_status;
  int64_t runs, sends, receives;
};

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static FlashVsrModel* g_models;
static FlashVsrFakeState g_state;
static FlashVsrLogFunc g_log;
static void* g_log_user;

static void count(int64_t* counter, int64_t by) {
  pthread_mutex_lock(&g_lock);
  *counter += by;
  pthread_mutex_unlock(&g_lock);
}

void flashvsr_fake_get_state(FlashVsrFakeState* state) {
  pthread_mutex_lock(&g_lock);
  *state = g_state;
  pthread_mutex_unlock(&g_lock);
}

static int64_t env_int(const char* name, int64_t otherwise) {
  const char* text = getenv(name);
  return text && *text ? atoll(text) : otherwise;
}

__attribute__((format(printf, 3, 4))) static FlashVsrStatus fail(FlashVsrError* error,
                                                                 FlashVsrStatus status,
                                                                 const char* format, ...) {
  if (error) {
    va_list arguments;
    va_start(arguments, format);
    error->status = status;
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
  }
  return status;
}

static void say(FlashVsrLogLevel level, const char* message) {
  pthread_mutex_lock(&g_lock);
  FlashVsrLogFunc log = g_log;
  void* user = g_log_user;
  pthread_mutex_unlock(&g_lock);
  if (log) log(level, message, user);
}

static void sleep_ms(int64_t ms) {
  struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
  nanosleep(&t, NULL);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* ---- pictures ---- */

static int layout(FlashVsrPixelFormat format, int w, int h, Plane planes[4]) {
  const int half_w = (w + 1) / 2, half_h = (h + 1) / 2;
  switch (format) {
    case FLASHVSR_PIXEL_FORMAT_I420:
      planes[0] = (Plane){w, h, 1, 8};
      planes[1] = planes[2] = (Plane){half_w, half_h, 1, 8};
      return 3;
    case FLASHVSR_PIXEL_FORMAT_NV12:
      planes[0] = (Plane){w, h, 1, 8};
      planes[1] = (Plane){half_w, half_h, 2, 8};
      return 2;
    case FLASHVSR_PIXEL_FORMAT_RGB:
    case FLASHVSR_PIXEL_FORMAT_BGR:
      planes[0] = (Plane){w, h, 3, 8};
      return 1;
    case FLASHVSR_PIXEL_FORMAT_GBR:
    case FLASHVSR_PIXEL_FORMAT_Y444:
      planes[0] = planes[1] = planes[2] = (Plane){w, h, 1, 8};
      return 3;
    case FLASHVSR_PIXEL_FORMAT_Y42B:
      planes[0] = (Plane){w, h, 1, 8};
      planes[1] = planes[2] = (Plane){half_w, h, 1, 8};
      return 3;
    case FLASHVSR_PIXEL_FORMAT_GRAY8:
      planes[0] = (Plane){w, h, 1, 8};
      return 1;
    case FLASHVSR_PIXEL_FORMAT_I420_10LE:
      planes[0] = (Plane){w, h, 2, 10};
      planes[1] = planes[2] = (Plane){half_w, half_h, 2, 10};
      return 3;
    case FLASHVSR_PIXEL_FORMAT_P010_10LE:
      planes[0] = (Plane){w, h, 2, -10};
      planes[1] = (Plane){half_w, half_h, 4, -10};
      return 2;
    default: /* the packed four-byte ones */
      planes[0] = (Plane){w, h, 4, 8};
      return 1;
  }
}

/* The x byte or the alpha byte of a packed format; -1: none. Never inverted. */
static int fourth_byte(FlashVsrPixelFormat format) {
  switch (format) {
    case FLASHVSR_PIXEL_FORMAT_RGBX:
    case FLASHVSR_PIXEL_FORMAT_BGRX:
    case FLASHVSR_PIXEL_FORMAT_RGBA:
    case FLASHVSR_PIXEL_FORMAT_BGRA:
      return 3;
    case FLASHVSR_PIXEL_FORMAT_XRGB:
    case FLASHVSR_PIXEL_FORMAT_XBGR:
    case FLASHVSR_PIXEL_FORMAT_ARGB:
    case FLASHVSR_PIXEL_FORMAT_ABGR:
      return 0;
    default:
      return -1;
  }
}

static bool has_alpha(FlashVsrPixelFormat format) {
  return format >= FLASHVSR_PIXEL_FORMAT_RGBA && format <= FLASHVSR_PIXEL_FORMAT_ABGR;
}

static void push_picture(Fifo* fifo, Picture* picture) {
  picture->next = NULL;
  if (fifo->tail) fifo->tail->next = picture;
  else fifo->head = picture;
  fifo->tail = picture;
  fifo->length++;
}

static Picture* pop_picture(Fifo* fifo) {
  Picture* picture = fifo->head;
  if (!picture) return NULL;
  fifo->head = picture->next;
  if (!fifo->head) fifo->tail = NULL;
  fifo->length--;
  return picture;
}

static void clear_fifo(Fifo* fifo) {
  Picture* picture;
  while ((picture = pop_picture(fifo))) free(picture);
}

/* The frame with planes that the host can reach. False: not as flashvsr.h asks. */
static bool reach(const FlashVsrSession* s, FlashVsrMemory memory, const Plane planes[4], FlashVsrFrame* frame) {
  if (memory == FLASHVSR_MEMORY_HOST) return true;
  static FakeCudaPrimaryBytesFunc primary_bytes;
  if (!primary_bytes) {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (driver) primary_bytes = (FakeCudaPrimaryBytesFunc)dlsym(driver, "fake_cuda_primary_bytes");
  }
  for (int p = 0; p < s->planes && primary_bytes; ++p) {
    const uint64_t size = (uint64_t)(planes[p].height - 1) * frame->stride[p] + (uint64_t)planes[p].width * planes[p].sample_bytes;
    frame->data[p] = primary_bytes(frame->data[p], size, s->model->cuda_device);
    if (!frame->data[p]) return false;
  }
  return primary_bytes != NULL;
}

/* weight of the bicubic picture, 0 .. 256 */
static int bicubic_weight(const FlashVsrView* view, int x, int width, bool is_passthrough) {
  if (is_passthrough) return 256;
  int weight = (int)((1.0f - view->strength) * 256.0f + 0.5f);
  if (view->compare == FLASHVSR_COMPARE_SPLIT && x < (int)(view->compare_position * width)) weight = 256;
  if (view->compare == FLASHVSR_COMPARE_SIDE_BY_SIDE && x < width / 2) weight = 256;
  return weight;
}

static void write_picture(const FlashVsrSession* s, const Picture* picture, const FlashVsrView* view,
                          const FlashVsrFrame* frame) {
  const uint8_t* source = picture->data;
  const int fourth = fourth_byte(s->format.pixel_format);
  const bool alpha = has_alpha(s->format.pixel_format);
  for (int p = 0; p < s->planes; ++p) {
    const Plane in = s->in[p], out = s->out[p];
    for (int y = 0; y < out.height; ++y) {
      const uint8_t* row = source + (size_t)((int64_t)y * in.height / out.height) * in.width * in.sample_bytes;
      uint8_t* to = (uint8_t*)frame->data[p] + (size_t)y * frame->stride[p];
      for (int x = 0; x < out.width; ++x) {
        int shown = x; /* side by side: the middle half of each */
        if (view->compare == FLASHVSR_COMPARE_SIDE_BY_SIDE) shown = (x + out.width / 4) % out.width;
        if (view->compare == FLASHVSR_COMPARE_SIDE_BY_SIDE && x >= out.width / 2) shown = x - out.width / 4;
        const uint8_t* from = row + (size_t)((int64_t)shown * in.width / out.width) * in.sample_bytes;
        const int weight = p == 0 ? bicubic_weight(view, x, out.width, picture->is_passthrough) : 0;
        if (in.depth == 8) {
          for (int c = 0; c < in.sample_bytes; ++c) {
            int value = from[c];
            if (c == fourth) value = alpha ? value : 255;
            else value = ((255 - value) * weight + value * (256 - weight) + 128) / 256;
            to[c] = (uint8_t)value;
          }
        } else {
          const int shift = in.depth < 0 ? 6 : 0;
          for (int c = 0; c < in.sample_bytes; c += 2) {
            int value = (from[c] | from[c + 1] << 8) >> shift;
            value = ((1023 - value) * weight + value * (256 - weight) + 128) / 256;
            value <<= shift;
            to[c] = (uint8_t)value;
            to[c + 1] = (uint8_t)(value >> 8);
          }
        }
        to += in.sample_bytes;
      }
    }
    source += (size_t)in.width * in.height * in.sample_bytes;
  }
}

/* ---- the table ---- */

static void set_log(FlashVsrLogFunc log, void* user) {
  pthread_mutex_lock(&g_lock);
  g_log = log;
  g_log_user = user;
  pthread_mutex_unlock(&g_lock);
}

static void default_model_options(FlashVsrModelOptions* options) {
  memset(options, 0, sizeof *options);
  options->struct_size = sizeof *options;
}

static void default_session_options(FlashVsrSessionOptions* options) {
  memset(options, 0, sizeof *options);
  options->struct_size = sizeof *options;
  options->scale_num = 4;
  options->scale_den = 1;
  options->color_fix = FLASHVSR_COLOR_FIX_ADAIN;
}

static FlashVsrStatus model_open(const FlashVsrModelOptions* options, FlashVsrModel** model,
                                 FlashVsrError* error) {
  *model = NULL;
  const char* path = options->path ? options->path : "";
  const char* device = options->device ? options->device : "auto";
  if (options->progress) options->progress(options->progress_user, 0, "reading weights");
  if (*path && access(path, R_OK) != 0) return fail(error, FLASHVSR_ERROR_MODEL_NOT_FOUND, "no file \"%s\"", path);
  const FlashVsrStatus status = (FlashVsrStatus)env_int("FLASHVSR_FAKE_OPEN_STATUS", 0);
  if (status) return fail(error, status, "fake failure %d of model_open", status);
  const int cuda_device = (int)env_int("FLASHVSR_FAKE_CUDA_DEVICE", -1);
  if (strncmp(device, "cuda", 4) == 0 && cuda_device < 0) return fail(error, FLASHVSR_ERROR_NO_DEVICE, "the fake engine has no CUDA device");
  sleep_ms(env_int("FLASHVSR_FAKE_OPEN_MS", 0));
  if (options->progress) options->progress(options->progress_user, 50, "placing weights");

  char key[1200];
  snprintf(key, sizeof key, "%s|%s|%d|%d|%d", path, device, options->version, options->precision, options->decoder);
  pthread_mutex_lock(&g_lock);
  FlashVsrModel* found = g_models;
  while (found && strcmp(found->key, key) != 0) found = found->next;
  if (!found) {
    found = calloc(1, sizeof *found);
    found->key = strdup(key);
    found->path = strdup(path);
    found->cuda_device = cuda_device;
    found->next = g_models;
    g_models = found;
    g_state.models_open++;
    g_state.model_loads++;
  }
  found->users++;
  pthread_mutex_unlock(&g_lock);
  if (options->progress) options->progress(options->progress_user, 100, "done");
  say(FLASHVSR_LOG_INFO, "fake model opened");
  *model = found;
  return FLASHVSR_OK;
}

static void release_model(FlashVsrModel* model) {
  pthread_mutex_lock(&g_lock);
  if (--model->users == 0) {
    FlashVsrModel** at = &g_models;
    while (*at != model) at = &(*at)->next;
    *at = model->next;
    g_state.models_open--;
    free(model->key);
    free(model->path);
    free(model);
  }
  pthread_mutex_unlock(&g_lock);
}

static void model_close(FlashVsrModel* model) {
  if (model) release_model(model);
}

static FlashVsrStatus model_info(const FlashVsrModel* model, FlashVsrModelInfo* info, FlashVsrError* error) {
  (void)error;
  const uint32_t size = info->struct_size;
  memset(info, 0, sizeof *info);
  info->struct_size = size;
  snprintf(info->name, sizeof info->name, "%s", *model->path ? "fake" : "fake embedded");
  if (model->cuda_device < 0) snprintf(info->device, sizeof info->device, "CPU (fake)");
  else snprintf(info->device, sizeof info->device, "fake (cuda:%d)", model->cuda_device);
  info->cuda_device = model->cuda_device;
  snprintf(info->precision, sizeof info->precision, "fp32");
  info->is_embedded = model->path[0] == 0;
  info->has_transformer = 1;
  info->weight_bytes = 1 << 20;
  return FLASHVSR_OK;
}

static FlashVsrStatus check_options(const FlashVsrSessionOptions* o, FlashVsrError* error) {
  if (o->scale_num < 1 || o->scale_den < 1 || o->scale_num < o->scale_den || o->scale_num > 4 * o->scale_den)
    return fail(error, FLASHVSR_ERROR_INVALID_ARGUMENT, "scale %d/%d is outside 1 .. 4", o->scale_num, o->scale_den);
  if (o->sparse_ratio != 0 && !(o->sparse_ratio >= 0.25f && o->sparse_ratio <= 8))
    return fail(error, FLASHVSR_ERROR_INVALID_ARGUMENT, "sparse-ratio %g is outside 0.25 .. 8", o->sparse_ratio);
  if (o->kv_chunks < 0 || o->kv_chunks > 8)
    return fail(error, FLASHVSR_ERROR_INVALID_ARGUMENT, "kv-chunks %d is outside 1 .. 8", o->kv_chunks);
  if (o->local_range < 0 || o->local_range > 31)
    return fail(error, FLASHVSR_ERROR_INVALID_ARGUMENT, "local-range %d is outside 1 .. 31", o->local_range);
  return FLASHVSR_OK;
}

static FlashVsrStatus model_plan(const FlashVsrModel* model, const FlashVsrFormat* format,
                                 const FlashVsrSessionOptions* options, FlashVsrPlan* plan, FlashVsrError* error) {
  (void)model;
  const FlashVsrStatus status = check_options(options, error);
  if (status) return status;
  plan->weight_bytes = 1 << 20;
  plan->session_bytes = (uint64_t)format->width * format->height * 100;
  plan->tiles_x = plan->tiles_y = 1;
  snprintf(plan->text, sizeof plan->text, "fake plan for %d x %d", format->width, format->height);
  return FLASHVSR_OK;
}

static FlashVsrStatus session_open(FlashVsrModel* model, const FlashVsrFormat* format,
                                   const FlashVsrSessionOptions* options, FlashVsrSession** session,
                                   FlashVsrError* error) {
  *session = NULL;
  FlashVsrStatus status = (FlashVsrStatus)env_int("FLASHVSR_FAKE_SESSION_STATUS", 0);
  if (status) return fail(error, status, "fake failure %d of session_open", status);
  if ((status = check_options(options, error))) return status;
  if ((unsigned)format->pixel_format >= FLASHVSR_PIXEL_FORMAT_COUNT || format->width < 16 || format->height < 16 ||
      format->width > 8192 || format->height > 8192)
    return fail(error, FLASHVSR_ERROR_INVALID_ARGUMENT, "format %d of %d x %d", format->pixel_format, format->width,
                format->height);
  if ((format->input_memory != FLASHVSR_MEMORY_HOST || format->output_memory != FLASHVSR_MEMORY_HOST) && model->cuda_device < 0)
    return fail(error, FLASHVSR_ERROR_INVALID_ARGUMENT, "frames in CUDA memory need a model on CUDA");

  FlashVsrSession* s = calloc(1, sizeof *s);
  pthread_mutex_init(&s->lock, NULL);
  s->model = model;
  s->format = *format;
  s->options = *options;
  const int out_w = (format->width * options->scale_num + options->scale_den / 2) / options->scale_den;
  const int out_h = (format->height * options->scale_num + options->scale_den / 2) / options->scale_den;
  s->planes = layout(format->pixel_format, format->width, format->height, s->in);
  layout(format->pixel_format, out_w, out_h, s->out);
  for (int p = 0; p < s->planes; ++p) s->in_bytes += (size_t)s->in[p].width * s->in[p].height * s->in[p].sample_bytes;
  s->chunk_ms = (int)env_int("FLASHVSR_FAKE_CHUNK_MS", 0);
  s->dense_ms = (int)env_int("FLASHVSR_FAKE_DENSE_MS", 0);
  if (!*model->path && getenv("FLASHVSR_FAKE_SMALL_MS")) {
    s->chunk_ms = (int)env_int("FLASHVSR_FAKE_SMALL_MS", 0);
    s->dense_ms = 0;
  }
  s->run_lag_ms = (int)env_int("FLASHVSR_FAKE_RUN_LAG_MS", 0);
  s->fail_chunk = env_int("FLASHVSR_FAKE_FAIL_CHUNK", -1);
  s->fail_send = env_int("FLASHVSR_FAKE_FAIL_SEND", -1);
  s->fail_receive = env_int("FLASHVSR_FAKE_FAIL_RECEIVE", -1);
  s->fail_status = (FlashVsrStatus)env_int("FLASHVSR_FAKE_FAIL_STATUS", FLASHVSR_ERROR_INTERNAL);
  pthread_mutex_lock(&g_lock);
  model->users++;
  g_state.sessions_open++;
  g_state.sessions++;
  g_state.options = *options;
  g_state.format = *format;
  pthread_mutex_unlock(&g_lock);
  *session = s;
  return FLASHVSR_OK;
}

static void clear_streams(FlashVsrSession* s) {
  while (s->streams) {
    Stream* stream = s->streams;
    s->streams = stream->next;
    clear_fifo(&stream->inputs);
    free(stream);
  }
}

static void check_alone(FlashVsrSession* s, const atomic_int* except) {
  if (((&s->in_send != except && s->in_send) || (&s->in_run != except && s->in_run) ||
       (&s->in_receive != except && s->in_receive)))
    count(&g_state.protocol_errors, 1);
}

static void session_close(FlashVsrSession* s) {
  if (!s) return;
  check_alone(s, NULL);
  clear_streams(s);
  clear_fifo(&s->results);
  pthread_mutex_destroy(&s->lock);
  count(&g_state.sessions_open, -1);
  release_model(s->model);
  free(s);
}

static void enter(atomic_int* who) {
  if (atomic_fetch_add(who, 1) != 0) count(&g_state.protocol_errors, 1);
}

static FlashVsrStatus send_frame(FlashVsrSession* s, const FlashVsrFrame* frame, FlashVsrError* error) {
  enter(&s->in_send);
  FlashVsrStatus status = FLASHVSR_OK;
  FlashVsrFrame reached = *frame;
  if (s->sends++ == s->fail_send) {
    status = fail(error, s->fail_status, "fake failure of send");
  } else if (!reach(s, s->format.input_memory, s->in, &reached)) {
    status = fail(error, FLASHVSR_ERROR_INTERNAL, "send: not memory of the primary context, or a context is current");
  } else {
    Picture* picture = malloc(sizeof *picture + s->in_bytes);
    picture->id = frame->frame_id;
    picture->is_passthrough = false;
    uint8_t* to = picture->data;
    for (int p = 0; p < s->planes; ++p) {
      const size_t row = (size_t)s->in[p].width * s->in[p].sample_bytes;
      for (int y = 0; y < s->in[p].height; ++y, to += row)
        memcpy(to, (const uint8_t*)reached.data[p] + (size_t)y * reached.stride[p], row);
    }
    pthread_mutex_lock(&s->lock);
    Stream** at = &s->streams;
    while (*at && ((*at)->has_ended)) at = &(*at)->next;
    if (!*at) *at = calloc(1, sizeof **at);
    (*at)->frames++;
    push_picture(&(*at)->inputs, picture);
    s->stats.frames_in++;
    pthread_mutex_unlock(&s->lock);
    count(&g_state.sends, 1);
  }
  atomic_fetch_sub(&s->in_send, 1);
  return status;
}

/* How many frames the next run of this stream gives; 0: it cannot run yet. */
static int64_t ready_outputs(const FlashVsrSession* s, const Stream* stream) {
  const int64_t p = stream->next_output;
  const bool is_full = p == 0 && s->options.startup == FLASHVSR_STARTUP_FULL;
  const int64_t gives = is_full ? kFirstOutputs : kLaterOutputs;
  const int64_t needed = is_full ? kFirstInputs : p + kLaterInputs;
  if (stream->has_ended) return stream->frames - p < gives ? stream->frames - p : gives;
  return stream->frames >= needed ? gives : 0;
}

static FlashVsrStatus run_chunk(FlashVsrSession* s, FlashVsrRunMode mode, FlashVsrError* error) {
  enter(&s->in_run);
  FlashVsrStatus status = FLASHVSR_OK;
  sleep_ms(s->run_lag_ms);
  const double start = now_ms();
  pthread_mutex_lock(&s->lock);
  while (s->streams && s->streams->has_ended && s->streams->next_output == s->streams->frames) {
    Stream* done = s->streams;
    s->streams = done->next;
    free(done);
  }
  Stream* stream = s->streams;
  const int64_t gives = stream ? ready_outputs(s, stream) : 0;
  pthread_mutex_unlock(&s->lock);

  if (s->is_broken) status = fail(error, FLASHVSR_ERROR_INTERNAL, "run after a failure");
  else if (s->is_interrupted) status = fail(error, FLASHVSR_ERROR_INTERRUPTED, "interrupted");
  else if (gives == 0) status = FLASHVSR_AGAIN;

  if (status == FLASHVSR_OK) {
    const bool is_model = mode == FLASHVSR_RUN_MODEL;
    const float density = s->options.sparse_ratio > 0 ? s->options.sparse_ratio : 2.0f;
    const double until = start + (is_model ? s->chunk_ms + s->dense_ms * density : 0);
    while (now_ms() < until && !s->is_interrupted) {
      const double left = until - now_ms();
      if (left > 0) sleep_ms(left < 2 ? 1 : 2);
    }
    if (s->is_interrupted) {
      status = fail(error, FLASHVSR_ERROR_INTERRUPTED, "interrupted");
    } else if (s->runs++ == s->fail_chunk) {
      s->is_broken = true;
      status = fail(error, s->fail_status, "fake failure of run %d", (int)s->runs - 1);
    } else {
      pthread_mutex_lock(&s->lock);
      if (!stream->has_state) s->stats.resets += is_model;
      for (int64_t i = 0; i < gives; ++i) {
        Picture* picture = pop_picture(&stream->inputs);
        picture->is_passthrough = !is_model;
        push_picture(&s->results, picture);
      }
      stream->next_output += gives;
      stream->has_state = is_model;
      const double ms = now_ms() - start;
      s->stats.chunk_ms = ms;
      if (ms > s->stats.chunk_ms_max) s->stats.chunk_ms_max = ms;
      if (is_model) {
        s->stats.chunk_ms_mean += (ms - s->stats.chunk_ms_mean) / (double)++s->stats.chunks;
        s->stats.transformer_ms = ms;
      } else {
        s->stats.chunks_passthrough++;
        s->stats.frames_passthrough += gives;
      }
      pthread_mutex_unlock(&s->lock);
      count(is_model ? &g_state.runs_model : &g_state.runs_passthrough, 1);
    }
  }
  atomic_fetch_sub(&s->in_run, 1);
  return status;
}

static FlashVsrStatus receive_frame(FlashVsrSession* s, const FlashVsrView* view, FlashVsrFrame* frame,
                                    FlashVsrError* error) {
  static const FlashVsrView plain = {sizeof plain, 1.0f, FLASHVSR_COMPARE_OFF, 0.5f};
  enter(&s->in_receive);
  FlashVsrStatus status = FLASHVSR_OK;
  pthread_mutex_lock(&s->lock);
  Picture* picture = s->results.head;
  FlashVsrFrame reached = *frame;
  if (!picture) status = FLASHVSR_AGAIN;
  else if (!reach(s, s->format.output_memory, s->out, &reached))
    status = fail(error, FLASHVSR_ERROR_INTERNAL, "receive: not memory of the primary context, or a context is current");
  else if (s->receives++ == s->fail_receive) status = fail(error, s->fail_status, "fake failure of receive");
  else pop_picture(&s->results);
  if (status == FLASHVSR_OK) s->stats.frames_out++;
  pthread_mutex_unlock(&s->lock);
  if (status == FLASHVSR_OK) {
    write_picture(s, picture, view ? view : &plain, &reached);
    frame->frame_id = picture->id;
    free(picture);
    count(&g_state.receives, 1);
  }
  atomic_fetch_sub(&s->in_receive, 1);
  return status;
}

static FlashVsrStatus drain(FlashVsrSession* s, FlashVsrError* error) {
  (void)error;
  check_alone(s, NULL);
  pthread_mutex_lock(&s->lock);
  for (Stream* stream = s->streams; stream; stream = stream->next) stream->has_ended = true;
  pthread_mutex_unlock(&s->lock);
  count(&g_state.drains, 1);
  return FLASHVSR_OK;
}

static void flush(FlashVsrSession* s) {
  check_alone(s, NULL);
  pthread_mutex_lock(&s->lock);
  clear_streams(s);
  clear_fifo(&s->results);
  s->is_broken = false;
  s->is_interrupted = false;
  pthread_mutex_unlock(&s->lock);
  count(&g_state.flushes, 1);
}

static void interrupt(FlashVsrSession* s) {
  s->is_interrupted = true;
  count(&g_state.interrupts, 1);
}

static FlashVsrStatus set_options(FlashVsrSession* s, const FlashVsrSessionOptions* options, FlashVsrError* error) {
  check_alone(s, NULL);
  const FlashVsrStatus status = check_options(options, error);
  if (status) return status;
  if (options->scale_num != s->options.scale_num || options->scale_den != s->options.scale_den ||
      options->kv_chunks != s->options.kv_chunks || options->seed != s->options.seed ||
      options->startup != s->options.startup)
    return fail(error, FLASHVSR_ERROR_INVALID_ARGUMENT, "set_options changed a fixed field");
  s->options = *options;
  pthread_mutex_lock(&g_lock);
  g_state.options = *options;
  pthread_mutex_unlock(&g_lock);
  return FLASHVSR_OK;
}

static int32_t max_delay(const FlashVsrSession* s) {
  return s->options.startup == FLASHVSR_STARTUP_PRIMED ? kLaterInputs - 1 : kFirstInputs - 1;
}

static FlashVsrStatus get_stats(const FlashVsrSession* session, FlashVsrStats* stats, FlashVsrError* error) {
  FlashVsrSession* s = (FlashVsrSession*)session;
  (void)error;
  pthread_mutex_lock(&s->lock);
  *stats = s->stats;
  stats->struct_size = sizeof *stats;
  stats->host_bytes = s->in_bytes * (uint64_t)(s->stats.frames_in - s->stats.frames_out);
  pthread_mutex_unlock(&s->lock);
  return FLASHVSR_OK;
}

static const FlashVsrApi kApi = {
    .abi_version = FLASHVSR_ABI_VERSION,
    .engine_name = "FlashVSR fake engine",
    .set_log = set_log,
    .default_model_options = default_model_options,
    .default_session_options = default_session_options,
    .model_open = model_open,
    .model_close = model_close,
    .model_info = model_info,
    .model_plan = model_plan,
    .session_open = session_open,
    .session_close = session_close,
    .send = send_frame,
    .run = run_chunk,
    .receive = receive_frame,
    .drain = drain,
    .flush = flush,
    .interrupt = interrupt,
    .set_options = set_options,
    .max_delay = max_delay,
    .stats = get_stats,
};

const FlashVsrApi* flashvsr_get_api(uint32_t abi_version) {
  if (env_int("FLASHVSR_FAKE_NO_ABI", 0)) return NULL;
  return abi_version == FLASHVSR_ABI_VERSION ? &kApi : NULL;
}
