/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The engine without GStreamer: opens it at run time, upscales a few generated frames and writes the last
 * one as a PPM picture.
 *
 *   engine_only ENGINE.so LAST.ppm [MODEL-DIRECTORY]
 */
#include <dlfcn.h>
#include <flashvsr/flashvsr.h>
#include <stdio.h>
#include <stdlib.h>

enum { kWidth = 64, kHeight = 48, kFrames = 30, kScale = 4 };

static FlashVsrError error;

static void check(FlashVsrStatus status, const char* what) {
  if (status < 0) {
    fprintf(stderr, "%s: %s\n", what, error.message);
    exit(1);
  }
}

/* A square that walks over a gradient. */
static void draw(unsigned char* rgb, int frame) {
  for (int y = 0; y < kHeight; y++)
    for (int x = 0; x < kWidth; x++) {
      const int inside = x >= frame && x < frame + 16 && y >= 16 && y < 32;
      unsigned char* pixel = rgb + 3 * (y * kWidth + x);
      pixel[0] = inside ? 230 : (unsigned char)(4 * x);
      pixel[1] = inside ? 200 : (unsigned char)(5 * y);
      pixel[2] = inside ? 40 : 90;
    }
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: engine_only ENGINE.so LAST.ppm [MODEL-DIRECTORY]\n");
    return 2;
  }
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL); /* never closed: its threads outlive the calls */
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  FlashVsrGetApiFunc get_api = NULL;
  *(void**)&get_api = dlsym(library, "flashvsr_get_api");
  const FlashVsrApi* api = get_api ? get_api(FLASHVSR_ABI_VERSION) : NULL;
  if (!api) {
    fprintf(stderr, "%s does not speak ABI version %u\n", argv[1], FLASHVSR_ABI_VERSION);
    return 1;
  }

  FlashVsrModelOptions model_options = {.struct_size = sizeof model_options};
  api->default_model_options(&model_options);
  model_options.path = argc > 3 ? argv[3] : NULL;
  FlashVsrModel* model = NULL;
  check(api->model_open(&model_options, &model, &error), "model_open");
  FlashVsrModelInfo info = {.struct_size = sizeof info};
  check(api->model_info(model, &info, &error), "model_info");
  fprintf(stderr, "%s, model %s on %s, %s\n", api->engine_name, info.name, info.device, info.precision);

  const FlashVsrFormat format = {.pixel_format = FLASHVSR_PIXEL_FORMAT_RGB,
                                 .width = kWidth,
                                 .height = kHeight,
                                 .color = {.matrix = 0, .full_range = 1, .transfer = 1, .primaries = 1},
                                 .input_memory = FLASHVSR_MEMORY_HOST,
                                 .output_memory = FLASHVSR_MEMORY_HOST};
  FlashVsrSessionOptions options = {.struct_size = sizeof options};
  api->default_session_options(&options);
  options.scale_num = kScale;
  options.scale_den = 1;
  FlashVsrPlan plan = {.struct_size = sizeof plan};
  check(api->model_plan(model, &format, &options, &plan, &error), "model_plan");
  fprintf(stderr, "%s\n", plan.text);
  FlashVsrSession* session = NULL;
  check(api->session_open(model, &format, &options, &session, &error), "session_open");

  static unsigned char in[3 * kWidth * kHeight], out[3 * kWidth * kScale * kHeight * kScale];
  int received = 0;
  for (int frame = 0; frame <= kFrames; frame++) {
    if (frame < kFrames) {
      draw(in, frame);
      const FlashVsrFrame lq = {.data = {in}, .stride = {3 * kWidth}, .frame_id = (uint64_t)frame};
      check(api->send(session, &lq, &error), "send");
    } else {
      check(api->drain(session, &error), "drain");
    }
    for (;;) {
      FlashVsrStatus ran = api->run(session, FLASHVSR_RUN_MODEL, &error);
      check(ran, "run");
      FlashVsrFrame hq = {.data = {out}, .stride = {3 * kWidth * kScale}};
      FlashVsrStatus got;
      while ((got = api->receive(session, NULL, &hq, &error)) == FLASHVSR_OK) {
        if (hq.frame_id != (uint64_t)received) {
          fprintf(stderr, "frame %d came as %d\n", received, (int)hq.frame_id);
          return 1;
        }
        received++;
      }
      check(got, "receive");
      if (ran == FLASHVSR_AGAIN) break;
    }
  }
  fprintf(stderr, "%d frames in, %d out\n", kFrames, received);
  api->session_close(session);
  api->model_close(model);
  if (received != kFrames) return 1;
  FILE* picture = fopen(argv[2], "wb");
  if (!picture) {
    perror(argv[2]);
    return 1;
  }
  fprintf(picture, "P6\n%d %d\n255\n", kWidth * kScale, kHeight * kScale);
  const size_t written = fwrite(out, 1, sizeof out, picture);
  return fclose(picture) == 0 && written == sizeof out ? 0 : 1;
}
