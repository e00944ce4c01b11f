// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The type of the element `flashvsr`; its manual is at the head of gstflashvsr.cpp.
#ifndef FLASHVSR_GST_GSTFLASHVSR_H_
#define FLASHVSR_GST_GSTFLASHVSR_H_

#include <gst/gst.h>
#include <gst/video/gstvideofilter.h>

G_BEGIN_DECLS

#define GST_TYPE_FLASH_VSR (gst_flash_vsr_get_type())
G_DECLARE_FINAL_TYPE(GstFlashVsr, gst_flash_vsr, GST, FLASH_VSR, GstVideoFilter)

GST_ELEMENT_REGISTER_DECLARE(flashvsr);

G_END_DECLS

#endif  // FLASHVSR_GST_GSTFLASHVSR_H_
