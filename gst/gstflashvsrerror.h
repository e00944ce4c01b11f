// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FlashVsrStatus → one ERROR message on the bus, with a text for people and the engine's sentence for us.
//
//   MODEL_NOT_FOUND   RESOURCE/NOT_FOUND          NO_DEVICE         RESOURCE/OPEN_READ_WRITE
//   MODEL_INVALID     RESOURCE/READ               OUT_OF_MEMORY     RESOURCE/NO_SPACE_LEFT
//   INVALID_ARGUMENT  LIBRARY/SETTINGS            INTERNAL          LIBRARY/FAILED
//   INTERRUPTED       nothing: it is a flush      engine missing    LIBRARY/INIT
//
// No lock may be held: the application's bus handler runs inside.
#ifndef FLASHVSR_GST_GSTFLASHVSRERROR_H_
#define FLASHVSR_GST_GSTFLASHVSRERROR_H_

#include <flashvsr/flashvsr.h>
#include <gst/gst.h>

// `model`: the property's value, NULL for the embedded one.
void gst_flash_vsr_post_error(GstElement* element, const FlashVsrError* error, const gchar* model);
void gst_flash_vsr_post_engine_missing(GstElement* element, const gchar* reasons);

#endif  // FLASHVSR_GST_GSTFLASHVSRERROR_H_
