// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What stays of a buffer while its picture is inside, and what becomes of its metas.
#include "gstflashvsrprivate.h"

static gboolean drop_memory_meta(GstBuffer*, GstMeta** meta, gpointer) {
  const GType api = (*meta)->info->api;
  // A GstParentBufferMeta ("memory-reference") would hold upstream's buffer; a GstVideoMeta
  // ("memory") describes planes that the shell does not have.
  if (gst_meta_api_type_has_tag(api, g_quark_from_static_string("memory-reference")) ||
      gst_meta_api_type_has_tag(api, g_quark_from_static_string("memory")))
    *meta = nullptr;
  return TRUE;
}

GstBuffer* gst_flash_vsr_make_shell(GstBuffer* buffer) {
  GstBuffer* shell = gst_buffer_new();
  gst_buffer_copy_into(shell, buffer,
                       static_cast<GstBufferCopyFlags>(GST_BUFFER_COPY_FLAGS | GST_BUFFER_COPY_TIMESTAMPS |
                                                       GST_BUFFER_COPY_META),
                       0, -1);
  gst_buffer_foreach_meta(shell, drop_memory_meta, nullptr);
  GST_BUFFER_FLAG_UNSET(shell, GST_BUFFER_FLAG_TAG_MEMORY);
  return shell;
}

gboolean gst_flash_vsr_filter_meta(GstBaseTransform*, GstQuery*, GType api, const GstStructure*) {
  // Upstream may attach what it likes, but for a crop, which it is to apply itself.
  return api != GST_VIDEO_CROP_META_API_TYPE;
}

gboolean gst_flash_vsr_transform_meta(GstBaseTransform* transform, GstBuffer* output, GstMeta* meta, GstBuffer* input) {
  GstVideoFilter* filter = GST_VIDEO_FILTER(transform);
  const GstMetaInfo* info = meta->info;
  const gchar* const* tags = gst_meta_api_type_get_tags(info->api);
  if (!tags || !tags[0]) return TRUE;
  static const gchar* const known[] = {GST_META_TAG_VIDEO_STR, GST_META_TAG_VIDEO_ORIENTATION_STR,
                                       GST_META_TAG_VIDEO_SIZE_STR, GST_META_TAG_VIDEO_COLORSPACE_STR, nullptr};
  bool has_size = false;
  for (gint i = 0; tags[i]; ++i) {
    if (!g_strv_contains(known, tags[i])) return FALSE;
    has_size = has_size || g_str_equal(tags[i], GST_META_TAG_VIDEO_SIZE_STR);
  }
  if (info->api == GST_VIDEO_BAR_META_API_TYPE) {
    // No GStreamer scales this one. Bars left and right are pixels across, else lines down.
    const GstVideoBarMeta* bar = reinterpret_cast<GstVideoBarMeta*>(meta);
    const guint in = bar->is_letterbox ? GST_VIDEO_INFO_HEIGHT(&filter->in_info) : GST_VIDEO_INFO_WIDTH(&filter->in_info);
    const guint out = bar->is_letterbox ? GST_VIDEO_INFO_HEIGHT(&filter->out_info) : GST_VIDEO_INFO_WIDTH(&filter->out_info);
    gst_buffer_add_video_bar_meta(output, bar->field, bar->is_letterbox,
                                  static_cast<guint>(gst_util_uint64_scale_int_round(bar->bar_data1, out, in)),
                                  static_cast<guint>(gst_util_uint64_scale_int_round(bar->bar_data2, out, in)));
    return FALSE;
  }
  if (!has_size) return TRUE;
  if (info->transform_func) {
    GstVideoMetaTransform scale = {&filter->in_info, &filter->out_info};
    info->transform_func(output, meta, input, gst_video_meta_transform_scale_get_quark(), &scale);
  }
  return FALSE;
}
