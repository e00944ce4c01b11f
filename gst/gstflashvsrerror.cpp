// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrerror.h"

void gst_flash_vsr_post_error(GstElement* element, const FlashVsrError* error, const gchar* model) {
  const gchar* name = model ? model : "(the embedded model)";
  const gchar* said = error->message[0] ? error->message : "(the engine gave no reason)";
  switch (error->status) {
    case FLASHVSR_OK:
    case FLASHVSR_AGAIN:
    case FLASHVSR_ERROR_INTERRUPTED:
      break;
    case FLASHVSR_ERROR_MODEL_NOT_FOUND:
      GST_ELEMENT_ERROR(element, RESOURCE, NOT_FOUND, ("No FlashVSR model in \"%s\".", name), ("%s", said));
      break;
    case FLASHVSR_ERROR_MODEL_INVALID:
      GST_ELEMENT_ERROR(element, RESOURCE, READ, ("The model in \"%s\" does not fit this version.", name),
                        ("%s", said));
      break;
    case FLASHVSR_ERROR_NO_DEVICE:
      GST_ELEMENT_ERROR(element, RESOURCE, OPEN_READ_WRITE, ("No usable device: %s", said), ("%s", said));
      break;
    case FLASHVSR_ERROR_OUT_OF_MEMORY:
      GST_ELEMENT_ERROR(element, RESOURCE, NO_SPACE_LEFT, ("Not enough memory: %s", said), ("%s", said));
      break;
    case FLASHVSR_ERROR_INVALID_ARGUMENT:
      GST_ELEMENT_ERROR(element, LIBRARY, SETTINGS, ("A setting cannot be used: %s", said), ("%s", said));
      break;
    case FLASHVSR_ERROR_INTERNAL:
    default:
      GST_ELEMENT_ERROR(element, LIBRARY, FAILED, ("The FlashVSR engine failed."), ("%s", said));
      break;
  }
}

void gst_flash_vsr_post_engine_missing(GstElement* element, const gchar* reasons) {
  GST_ELEMENT_ERROR(element, LIBRARY, INIT, ("The FlashVSR engine could not be loaded."), ("%s", reasons));
}
