// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrframe.h"

gboolean gst_flash_vsr_frame_planes(const GstVideoFrame* frame, const GstVideoInfo* caps, FlashVsrFrame* planes) {
  if (GST_VIDEO_FRAME_FORMAT(frame) != GST_VIDEO_INFO_FORMAT(caps) ||
      GST_VIDEO_FRAME_WIDTH(frame) != GST_VIDEO_INFO_WIDTH(caps) ||
      GST_VIDEO_FRAME_HEIGHT(frame) != GST_VIDEO_INFO_HEIGHT(caps))
    return FALSE;
  *planes = FlashVsrFrame{};
  const GstVideoFormatInfo* format = frame->info.finfo;
  for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(frame); plane++) {
    gint components[GST_VIDEO_MAX_COMPONENTS];
    gst_video_format_info_component(format, plane, components);
    const gint first = components[0];
    const gint64 stride = GST_VIDEO_FRAME_PLANE_STRIDE(frame, plane);
    const gint64 rows = GST_VIDEO_FRAME_COMP_HEIGHT(frame, first);
    const gint64 row_bytes = static_cast<gint64>(GST_VIDEO_FRAME_COMP_WIDTH(frame, first)) *
                             GST_VIDEO_FRAME_COMP_PSTRIDE(frame, first);
    if (stride < row_bytes) return FALSE;
    const guint8* data = static_cast<const guint8*>(GST_VIDEO_FRAME_PLANE_DATA(frame, plane));
    const gint64 needed = stride * (rows - 1) + row_bytes;
    // With a GstVideoMeta each plane has its own mapping, else the first holds all.
    const GstMapInfo* map = frame->meta ? &frame->map[plane] : &frame->map[0];
    if (!data || data < map->data || data + needed > map->data + map->size) return FALSE;
    planes->data[plane] = const_cast<guint8*>(data);
    planes->stride[plane] = static_cast<size_t>(stride);
  }
  return TRUE;
}

gboolean gst_flash_vsr_frame_map(GstVideoFrame* frame, const GstVideoInfo* caps, GstBuffer* buffer, GstMapFlags flags,
                                 FlashVsrFrame* planes) {
  // gst_video_frame_map takes another format or size in the buffer's meta for a fault of ours.
  const GstVideoMeta* meta = gst_buffer_get_video_meta(buffer);
  if (meta && (meta->format != GST_VIDEO_INFO_FORMAT(caps) || meta->n_planes != GST_VIDEO_INFO_N_PLANES(caps) ||
               meta->width < static_cast<guint>(GST_VIDEO_INFO_WIDTH(caps)) ||
               meta->height < static_cast<guint>(GST_VIDEO_INFO_HEIGHT(caps))))
    return FALSE;
  if (!gst_video_frame_map(frame, caps, buffer, flags)) return FALSE;
  if (gst_flash_vsr_frame_planes(frame, caps, planes)) return TRUE;
  gst_video_frame_unmap(frame);
  return FALSE;
}
