// SPDX-License-Identifier: LGPL-2.1-or-later
//
// GstVideoFrame → FlashVsrFrame: strides and plane pointers, never a copy.
//
// Ownership: `planes` points into `frame`, which stays mapped.
// Errors: FALSE when a plane does not lie wholly inside its mapped memory, or when the
//   buffer's own GstVideoMeta disagrees with the caps.
#ifndef FLASHVSR_GST_GSTFLASHVSRFRAME_H_
#define FLASHVSR_GST_GSTFLASHVSRFRAME_H_

#include <flashvsr/flashvsr.h>
#include <gst/video/video.h>

gboolean gst_flash_vsr_frame_planes(const GstVideoFrame* frame, const GstVideoInfo* caps, FlashVsrFrame* planes);

// Maps and borrows. FALSE: nothing is mapped.
gboolean gst_flash_vsr_frame_map(GstVideoFrame* frame, const GstVideoInfo* caps, GstBuffer* buffer, GstMapFlags flags,
                                 FlashVsrFrame* planes);

#endif  // FLASHVSR_GST_GSTFLASHVSRFRAME_H_
