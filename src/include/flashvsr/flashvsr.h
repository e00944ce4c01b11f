/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * FlashVSR engine: the public C interface.
 *
 * Send low-quality (LQ) frames in display order; receive super-resolved frames
 * in the same order. The engine looks ahead, so results lag the input: with
 * the reference schedule the first run needs 25 frames and gives 21, every
 * further run takes 8 and gives 8, and no frame waits for more than 24 others.
 * Every frame sent comes out exactly once, whatever the length of the stream.
 *
 *     api = flashvsr_get_api (FLASHVSR_ABI_VERSION);
 *     api->model_open (&model_options, &model, &error);
 *     api->session_open (model, &format, &session_options, &session, &error);
 *     while (have_input) {
 *       api->send (session, &in, &error);                            // thread U
 *       while (api->run (session, FLASHVSR_RUN_MODEL, &error) == FLASHVSR_OK) {}  // thread W
 *       while (api->receive (session, NULL, &out, &error) == FLASHVSR_OK) use (&out); // thread P
 *     }
 *     api->drain (session, &error);
 *     run and receive as above until both say FLASHVSR_AGAIN
 *     api->session_close (session);
 *     api->model_close (model);
 *
 * Three calls on three threads. `send` converts or copies one frame in and
 * never runs the model; `run` executes the next complete chunk; `receive`
 * copies the next finished frame out. Each may be called by one thread at a
 * time, the three may overlap. `drain`, `flush`, `set_options` and
 * `session_close` only while neither of the other two runs. `interrupt` and
 * `stats` from any thread at any time. One thread may also make all calls.
 *
 * Ownership: nothing allocated on one side is freed on the other, except models
 * and sessions. Frames are borrowed for the length of the call. A model may be
 * closed while its sessions live; it goes away with the last of them.
 *
 * Errors: a negative status; `error`, when not NULL, then holds a sentence for
 * people. FLASHVSR_AGAIN is not an error. After FLASHVSR_ERROR_INTERNAL or
 * _OUT_OF_MEMORY from run only flush and session_close are allowed.
 */
#ifndef FLASHVSR_FLASHVSR_H_
#define FLASHVSR_FLASHVSR_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FLASHVSR_ABI_VERSION 1u

#define FLASHVSR_EXPORT __attribute__((visibility("default")))

typedef enum FlashVsrStatus {
  FLASHVSR_OK = 0,
  FLASHVSR_AGAIN = 1, /* run: no complete chunk; receive: no frame ready */
  FLASHVSR_ERROR_INVALID_ARGUMENT = -1,
  FLASHVSR_ERROR_MODEL_NOT_FOUND = -2,
  FLASHVSR_ERROR_MODEL_INVALID = -3, /* damaged file; missing, misshapen or surplus tensor; versions mixed */
  FLASHVSR_ERROR_NO_DEVICE = -4,
  FLASHVSR_ERROR_OUT_OF_MEMORY = -5, /* host or device */
  FLASHVSR_ERROR_INTERRUPTED = -6,
  FLASHVSR_ERROR_INTERNAL = -7
} FlashVsrStatus;

/* Names and memory layouts are GStreamer's. 10-bit formats are little endian. */
typedef enum FlashVsrPixelFormat {
  FLASHVSR_PIXEL_FORMAT_I420 = 0, /* planes Y, U, V; chroma halved both ways, rounded up */
  FLASHVSR_PIXEL_FORMAT_NV12 = 1, /* planes Y, interleaved U V */
  FLASHVSR_PIXEL_FORMAT_RGB = 2,  /* packed, 3 bytes */
  FLASHVSR_PIXEL_FORMAT_BGR = 3,
  FLASHVSR_PIXEL_FORMAT_RGBX = 4, /* packed, 4 bytes; the x byte is written as 255 */
  FLASHVSR_PIXEL_FORMAT_BGRX = 5,
  FLASHVSR_PIXEL_FORMAT_XRGB = 6,
  FLASHVSR_PIXEL_FORMAT_XBGR = 7,
  FLASHVSR_PIXEL_FORMAT_RGBA = 8, /* alpha is straight and scaled by bicubic, apart from the model */
  FLASHVSR_PIXEL_FORMAT_BGRA = 9,
  FLASHVSR_PIXEL_FORMAT_ARGB = 10,
  FLASHVSR_PIXEL_FORMAT_ABGR = 11,
  FLASHVSR_PIXEL_FORMAT_GBR = 12,      /* planes G, B, R */
  FLASHVSR_PIXEL_FORMAT_Y42B = 13,     /* planes Y, U, V; chroma halved across, rounded up */
  FLASHVSR_PIXEL_FORMAT_Y444 = 14,     /* planes Y, U, V */
  FLASHVSR_PIXEL_FORMAT_GRAY8 = 15,
  FLASHVSR_PIXEL_FORMAT_I420_10LE = 16, /* planes of uint16, value in the low 10 bits */
  FLASHVSR_PIXEL_FORMAT_P010_10LE = 17, /* planes of uint16, value in the high 10 bits; Y, U V */
  FLASHVSR_PIXEL_FORMAT_COUNT = 18
} FlashVsrPixelFormat;

/* How Y'CbCr maps to R'G'B'. Codes of ISO/IEC 23091-2 (ITU-T H.273).
 * Only matrix and full_range change arithmetic; transfer and primaries are
 * carried and reported, the model works on the coded R'G'B' values. */
typedef struct FlashVsrColor {
  int32_t matrix;     /* 0 RGB, 1 BT.709, 4 FCC, 5/6 BT.601, 7 SMPTE 240M, 9 BT.2020; 2 (unknown) is taken as 6 */
  int32_t full_range; /* 0: 16..235 / 16..240 (times 4 at 10 bit), 1: 0..255 */
  int32_t transfer;   /* 1 BT.709, 16 PQ, 18 HLG, ... ; 2 unknown */
  int32_t primaries;  /* 1 BT.709, 9 BT.2020, ... ; 2 unknown */
} FlashVsrColor;

typedef enum FlashVsrMemory {
  FLASHVSR_MEMORY_HOST = 0,
  FLASHVSR_MEMORY_CUDA = 1 /* device pointers of the model's device, in its primary context */
} FlashVsrMemory;

typedef struct FlashVsrFormat {
  FlashVsrPixelFormat pixel_format; /* the output has the same */
  int32_t width;                    /* pixels, 16 .. 8192, any parity */
  int32_t height;                   /* pixels, 16 .. 8192, any parity */
  FlashVsrColor color;              /* the output has the same */
  FlashVsrMemory input_memory;
  FlashVsrMemory output_memory;
} FlashVsrFormat;

typedef struct FlashVsrFrame {
  void* data[4];     /* unused planes are NULL */
  size_t stride[4];  /* bytes from one row to the next, at least a row's bytes; in CUDA memory addresses
                      * and strides of 10-bit planes are even */
  uint64_t frame_id; /* send: any value; receive: set to that of the matching send */
} FlashVsrFrame;

typedef enum FlashVsrVersion {
  FLASHVSR_VERSION_AUTO = 0, /* by the sha256 of the files; unknown files are refused with the reason */
  FLASHVSR_VERSION_V1 = 1,
  FLASHVSR_VERSION_V1_1 = 2
} FlashVsrVersion;

typedef enum FlashVsrPrecision {
  FLASHVSR_PRECISION_AUTO = 0, /* bf16 on CUDA; fp32 or bf16 on the CPU, whichever a short timing at load finds faster */
  FLASHVSR_PRECISION_FP32 = 1, /* TF32 off */
  FLASHVSR_PRECISION_BF16 = 2,
  FLASHVSR_PRECISION_FP16 = 3, /* CUDA only */
  FLASHVSR_PRECISION_FP8 = 4   /* CUDA only, Hopper and newer: transformer linears in e4m3, the rest bf16 */
} FlashVsrPrecision;

typedef enum FlashVsrDecoder {
  FLASHVSR_DECODER_TC = 0, /* tiny conditional decoder */
  FLASHVSR_DECODER_VAE = 1 /* Wan2.1 VAE decoder; needs Wan2.1_VAE.pth */
} FlashVsrDecoder;

typedef enum FlashVsrColorFix {
  FLASHVSR_COLOR_FIX_NONE = 0,
  FLASHVSR_COLOR_FIX_ADAIN = 1,
  FLASHVSR_COLOR_FIX_WAVELET = 2,
  FLASHVSR_COLOR_FIX_AUTO = 3 /* the model's own: AdaIN for the released files, none for the embedded student */
} FlashVsrColorFix;

typedef enum FlashVsrStartup {
  FLASHVSR_STARTUP_FULL = 0,  /* the reference schedule: 25 frames before the first result */
  FLASHVSR_STARTUP_PRIMED = 1 /* the first run is primed with copies of the first frame */
} FlashVsrStartup;

typedef struct FlashVsrModelOptions {
  uint32_t struct_size; /* sizeof (FlashVsrModelOptions), for later growth */
  const char* path;     /* UTF-8 directory or file; NULL: the embedded student */
  const char* device;   /* "auto", "cpu", "cuda", "cuda:N"; NULL: "auto" */
  FlashVsrVersion version;
  FlashVsrPrecision precision;
  FlashVsrDecoder decoder;
  /* Called from model_open with 0 .. 100 and what is being done; may be NULL. */
  void (*progress)(void* user, int32_t percent, const char* what);
  void* progress_user;
} FlashVsrModelOptions;

typedef struct FlashVsrSessionOptions {
  uint32_t struct_size; /* sizeof (FlashVsrSessionOptions) */
  /* Ratio of the sizes, 1 .. 4: output = (input * num + den / 2) / den, integer
   * division. Offered by the element: 3/2, 2, 3, 4. */
  int32_t scale_num;
  int32_t scale_den;
  /* A query block keeps blocks_per_query * sparse_ratio key blocks on average;
   * larger is denser and slower. 0.25 .. 8. 0: the model's default (2.0). */
  float sparse_ratio;
  int32_t kv_chunks;   /* cached past slots, 1 .. 8. 0: the model's default (3) */
  int32_t local_range; /* attention reach in 128-pixel blocks, 1 .. 31. 0: the model's default (11; 9 is sharper) */
  FlashVsrColorFix color_fix;
  uint64_t seed; /* noise; the same seed gives the same video */
  FlashVsrStartup startup;
  /* Device memory this session may take beside the weights. <= 0: what is free, less a margin;
   * 0 < x <= 1: that fraction of the device; > 1: bytes. A session that wants more takes the first
   * of these that fits: the decoder latent by latent, the KV cache in 8 bits, in host memory,
   * overlapping tiles; see model_plan. FLASHVSR_ERROR_OUT_OF_MEMORY when none fits; on the CPU a
   * warning and the least of them. */
  double max_vram;
} FlashVsrSessionOptions;

/* How one finished frame is shown; may change from frame to frame. */
typedef enum FlashVsrCompare {
  FLASHVSR_COMPARE_OFF = 0,
  FLASHVSR_COMPARE_SPLIT = 1,       /* left of the bar the bicubic enlargement, right of it ours */
  FLASHVSR_COMPARE_SIDE_BY_SIDE = 2 /* the middle half of each, bicubic left */
} FlashVsrCompare;

typedef struct FlashVsrView {
  uint32_t struct_size;   /* sizeof (FlashVsrView) */
  float strength;         /* 0: bicubic .. 1: ours */
  FlashVsrCompare compare;
  float compare_position; /* 0: all ours .. 1: all bicubic */
} FlashVsrView;

typedef enum FlashVsrRunMode {
  FLASHVSR_RUN_MODEL = 0,
  /* The chunk leaves as the bicubic enlargement: the transformer and the
   * decoder are skipped, their state restarts with the next model chunk, and the
   * first frames after each switch are blended so that it does not flash. */
  FLASHVSR_RUN_PASSTHROUGH = 1
} FlashVsrRunMode;

typedef struct FlashVsrStats {
  uint32_t struct_size; /* sizeof (FlashVsrStats), set by the caller */
  uint64_t frames_in;
  uint64_t frames_out;
  uint64_t chunks;             /* runs of the model */
  uint64_t chunks_passthrough;
  uint64_t frames_passthrough;
  uint64_t resets;             /* starts of a new temporal state */
  double preprocess_ms;        /* of the last run: bicubic, padding, upload */
  double projector_ms;         /* these four on a GPU: of the newest run that the device is through with */
  double transformer_ms;
  double decoder_ms;
  double postprocess_ms;       /* colour correction, quantisation, download */
  double chunk_ms;             /* whole last call of run, waiting for its turn on the device included */
  double chunk_ms_mean;
  double chunk_ms_max;
  uint64_t host_bytes;         /* held by this session, pinned memory included */
  uint64_t device_bytes;
  uint64_t device_bytes_peak;
} FlashVsrStats;

typedef struct FlashVsrPlan {
  uint32_t struct_size;   /* sizeof (FlashVsrPlan), set by the caller */
  uint64_t weight_bytes;  /* already taken by the model */
  uint64_t session_bytes; /* what session_open and the stream will take at most, on the model's device */
  int32_t tiles_x;        /* 1 x 1: the picture is processed whole */
  int32_t tiles_y;
  char text[1024];        /* the plan in words, UTF-8: the way, its predicted bytes and cost, what was too large */
} FlashVsrPlan;

typedef struct FlashVsrModelInfo {
  uint32_t struct_size;  /* sizeof (FlashVsrModelInfo), set by the caller */
  char name[64];         /* "nano", "FlashVSR v1.1", ... */
  char device[64];       /* "CPU (...)" or "NVIDIA H200 (cuda:0)" */
  char precision[16];
  int32_t is_embedded;
  int32_t has_transformer; /* 0: a decoder trained alone; latents are zero */
  uint64_t weight_bytes;
  int32_t cuda_device; /* ordinal of the device, -1: the model is on the CPU */
} FlashVsrModelInfo;

typedef struct FlashVsrError {
  FlashVsrStatus status;
  char message[512]; /* UTF-8, always terminated */
} FlashVsrError;

typedef enum FlashVsrLogLevel {
  FLASHVSR_LOG_ERROR = 1,
  FLASHVSR_LOG_WARNING = 2,
  FLASHVSR_LOG_INFO = 4,
  FLASHVSR_LOG_DEBUG = 5
} FlashVsrLogLevel;
/* Called from any thread. `message` lives for the length of the call. */
typedef void (*FlashVsrLogFunc)(FlashVsrLogLevel level, const char* message, void* user);

typedef struct FlashVsrModel FlashVsrModel;
typedef struct FlashVsrSession FlashVsrSession;

/* The table. Entries are only ever appended; the ABI version changes when one
 * changes meaning. */
typedef struct FlashVsrApi {
  uint32_t abi_version;
  const char* engine_name; /* "FlashVSR engine 0.1.0 (LibTorch 2.11.0)" */

  /* One callback for the process; NULL silences. */
  void (*set_log)(FlashVsrLogFunc log, void* user);

  void (*default_model_options)(FlashVsrModelOptions* options);
  void (*default_session_options)(FlashVsrSessionOptions* options);

  /* Loads weights. Seconds. Models with the same (path, version, device,
   * precision, decoder) are shared between callers; closing is counted. */
  FlashVsrStatus (*model_open)(const FlashVsrModelOptions* options, FlashVsrModel** model,
                               FlashVsrError* error);
  void (*model_close)(FlashVsrModel* model); /* NULL is a no-op */
  FlashVsrStatus (*model_info)(const FlashVsrModel* model, FlashVsrModelInfo* info,
                               FlashVsrError* error);

  /* What a session of this format would take, before anything is taken, and how it would run: as
   * session_open decides with the same options and, where max_vram is not in bytes, the same memory. */
  FlashVsrStatus (*model_plan)(const FlashVsrModel* model, const FlashVsrFormat* format,
                               const FlashVsrSessionOptions* options, FlashVsrPlan* plan,
                               FlashVsrError* error);

  FlashVsrStatus (*session_open)(FlashVsrModel* model, const FlashVsrFormat* format,
                                 const FlashVsrSessionOptions* options, FlashVsrSession** session,
                                 FlashVsrError* error);
  void (*session_close)(FlashVsrSession* session); /* NULL is a no-op */

  /* Takes one LQ frame; returns when its planes are no longer needed. Unbounded:
   * the caller keeps the count of frames inside within reason. */
  FlashVsrStatus (*send)(FlashVsrSession* session, const FlashVsrFrame* frame,
                         FlashVsrError* error);

  /* Executes the next complete chunk, or returns FLASHVSR_AGAIN. Interrupted at
   * latest at the next transformer block or decoder stage. Sessions take turns
   * on a device: one model chunk at a time, in the order of the calls; who waits
   * for a turn is interrupted at once, and passthrough chunks do not wait. */
  FlashVsrStatus (*run)(FlashVsrSession* session, FlashVsrRunMode mode, FlashVsrError* error);

  /* Writes the next result into the caller's planes and sets frame->frame_id, or
   * returns FLASHVSR_AGAIN. `view` NULL: strength 1, no comparison. A result that
   * could not be written is still the next one. */
  FlashVsrStatus (*receive)(FlashVsrSession* session, const FlashVsrView* view,
                            FlashVsrFrame* frame, FlashVsrError* error);

  /* End of stream: what is inside becomes one or more complete chunks for `run`,
   * padded with copies of the last frame whose results are dropped. The next
   * `send` starts a new stream with fresh temporal state. */
  FlashVsrStatus (*drain)(FlashVsrSession* session, FlashVsrError* error);

  /* Seek: forgets every frame and all temporal state; keeps model and memory;
   * clears an interrupt and an error of `run`. */
  void (*flush)(FlashVsrSession* session);

  /* Makes a running or the next `run` return FLASHVSR_ERROR_INTERRUPTED; stays
   * set until `flush`. Any thread. */
  void (*interrupt)(FlashVsrSession* session);

  /* Takes sparse_ratio, local_range, color_fix from `options` for the chunks
   * after the next `run`; the other fields must be unchanged. */
  FlashVsrStatus (*set_options)(FlashVsrSession* session, const FlashVsrSessionOptions* options,
                                FlashVsrError* error);

  /* Frames the slowest result waits for after its own input: 24, or fewer with
   * FLASHVSR_STARTUP_PRIMED. */
  int32_t (*max_delay)(const FlashVsrSession* session);

  FlashVsrStatus (*stats)(const FlashVsrSession* session, FlashVsrStats* stats,
                          FlashVsrError* error);
} FlashVsrApi;

typedef const FlashVsrApi* (*FlashVsrGetApiFunc)(uint32_t abi_version);

/* The only exported symbol. NULL when the library does not speak abi_version. */
FLASHVSR_EXPORT const FlashVsrApi* flashvsr_get_api(uint32_t abi_version);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* FLASHVSR_FLASHVSR_H_ */
