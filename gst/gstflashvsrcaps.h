// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Caps times a ratio, both ways, and GstVideoInfo ↔ FlashVsrFormat.
//
//   sink → src   size = (size·num + den/2) / den, integer division; past 16384 the structure goes
//   src → sink   only sizes that some input gives; a size that none gives removes the structure
//   16 .. 8192 on the sink side. Everything but width and height stays, features too.
//
// Thread-safety: safe; no state.
#ifndef FLASHVSR_GST_GSTFLASHVSRCAPS_H_
#define FLASHVSR_GST_GSTFLASHVSRCAPS_H_

#include <flashvsr/flashvsr.h>
#include <gst/video/video.h>

#define GST_FLASH_VSR_FORMATS                                                                      \
  "{ I420, NV12, RGB, BGR, RGBx, BGRx, xRGB, xBGR, RGBA, BGRA, ARGB, ABGR, GBR, Y42B, Y444, "      \
  "GRAY8, I420_10LE, P010_10LE }"

struct GstFlashVsrRatio {
  gint num;
  gint den;
};

gint gst_flash_vsr_scale_size(gint size, GstFlashVsrRatio ratio);

// New caps; `caps` stays the caller's.
GstCaps* gst_flash_vsr_caps_scale(GstCaps* caps, GstFlashVsrRatio ratio, gboolean is_sink_to_src);

// FALSE: a pixel format that the engine does not know.
gboolean gst_flash_vsr_format_from_info(const GstVideoInfo* info, FlashVsrFormat* format);

#endif  // FLASHVSR_GST_GSTFLASHVSRCAPS_H_
