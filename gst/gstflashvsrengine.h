// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Opens the engine library: FLASHVSR_ENGINE_PATH, else ../flashvsr/libflashvsr.so from the plugin's folder
// (installed), else ../src/libflashvsr.so (build tree).
//
// Once opened it stays: LibTorch, OpenMP and CUDA leave threads behind. A failure is not
// remembered, so a file that is put in its place is found at the next try. Sets OMP_WAIT_POLICY=passive,
// if unset, before the first opening: idle OpenMP threads would spin on other people's cores.
//
// Errors: NULL, and `error` says what was tried.
// Thread-safety: safe.
#ifndef FLASHVSR_GST_GSTFLASHVSRENGINE_H_
#define FLASHVSR_GST_GSTFLASHVSRENGINE_H_

#include <flashvsr/flashvsr.h>
#include <glib.h>

const FlashVsrApi* gst_flash_vsr_engine_open(gchar** error);

#endif  // FLASHVSR_GST_GSTFLASHVSRENGINE_H_
