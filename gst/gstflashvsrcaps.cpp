// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrcaps.h"

#include <initializer_list>

namespace {

constexpr gint kMinInput = 16;
constexpr gint kMaxInput = 8192;
constexpr gint kMaxOutput = 16384;

// The smallest input whose output is at least `size`.
gint smallest_input(gint64 size, GstFlashVsrRatio ratio) {
  gint64 low = (size * ratio.den) / ratio.num - 2;
  if (low < 1) low = 1;
  while ((low * ratio.num + ratio.den / 2) / ratio.den < size) ++low;
  return static_cast<gint>(MIN(low, G_MAXINT));
}

gboolean scale_int(gint size, GstFlashVsrRatio ratio, gboolean up, gint* result) {
  if (up) {
    if (size < kMinInput || size > kMaxInput) return FALSE;
    *result = gst_flash_vsr_scale_size(size, ratio);
    return *result <= kMaxOutput;
  }
  const gint input = smallest_input(size, ratio);
  if (input < kMinInput || input > kMaxInput || gst_flash_vsr_scale_size(input, ratio) != size) return FALSE;
  *result = input;
  return TRUE;
}

gboolean scale_range(gint low, gint high, gint step, GstFlashVsrRatio ratio, gboolean up, GValue* result) {
  gint out_step = 1;
  if (up) {
    low = MAX(low, kMinInput);
    high = MIN(high, kMaxInput);
    // Back from the largest output to an input that stays within it.
    gint largest = smallest_input(kMaxOutput + 1, ratio) - 1;
    high = MIN(high, largest);
    if (low > high) return FALSE;
    if (ratio.den == 1) out_step = step * ratio.num;
    low = gst_flash_vsr_scale_size((low + step - 1) / step * step, ratio);
    high = gst_flash_vsr_scale_size(high / step * step, ratio);
  } else {
    low = MAX(smallest_input(MAX(low, 1), ratio), kMinInput);
    high = MIN(smallest_input(static_cast<gint64>(high) + 1, ratio) - 1, kMaxInput);
    if (step > 1 && ratio.den == 1 && step % ratio.num == 0) out_step = step / ratio.num;
    low = (low + out_step - 1) / out_step * out_step;
    high = high / out_step * out_step;
  }
  if (low > high) return FALSE;
  if (low == high) {
    g_value_init(result, G_TYPE_INT);
    g_value_set_int(result, low);
  } else {
    g_value_init(result, GST_TYPE_INT_RANGE);
    gst_value_set_int_range_step(result, low, high, out_step);
  }
  return TRUE;
}

gboolean scale_value(const GValue* value, GstFlashVsrRatio ratio, gboolean up, GValue* result) {
  if (G_VALUE_HOLDS_INT(value)) {
    gint size;
    if (!scale_int(g_value_get_int(value), ratio, up, &size)) return FALSE;
    g_value_init(result, G_TYPE_INT);
    g_value_set_int(result, size);
    return TRUE;
  }
  if (GST_VALUE_HOLDS_INT_RANGE(value))
    return scale_range(gst_value_get_int_range_min(value), gst_value_get_int_range_max(value),
                       gst_value_get_int_range_step(value), ratio, up, result);
  if (GST_VALUE_HOLDS_LIST(value)) {
    g_value_init(result, GST_TYPE_LIST);
    for (guint i = 0; i < gst_value_list_get_size(value); i++) {
      GValue one = G_VALUE_INIT;
      if (scale_value(gst_value_list_get_value(value, i), ratio, up, &one))
        gst_value_list_append_and_take_value(result, &one);
    }
    if (gst_value_list_get_size(result) > 0) return TRUE;
    g_value_unset(result);
  }
  return FALSE;
}

}  // namespace

gint gst_flash_vsr_scale_size(gint size, GstFlashVsrRatio ratio) {
  return static_cast<gint>((static_cast<gint64>(size) * ratio.num + ratio.den / 2) / ratio.den);
}

GstCaps* gst_flash_vsr_caps_scale(GstCaps* caps, GstFlashVsrRatio ratio, gboolean is_sink_to_src) {
  if (gst_caps_is_any(caps)) return gst_caps_ref(caps);
  GstCaps* result = gst_caps_new_empty();
  for (guint i = 0; i < gst_caps_get_size(caps); i++) {
    GstStructure* structure = gst_structure_copy(gst_caps_get_structure(caps, i));
    GstCapsFeatures* features = gst_caps_get_features(caps, i);
    gboolean is_possible = TRUE;
    for (const gchar* name : {"width", "height"}) {
      // A size that is not told may be any.
      GValue any = G_VALUE_INIT, scaled = G_VALUE_INIT;
      const GValue* value = gst_structure_get_value(structure, name);
      if (!value) {
        g_value_init(&any, GST_TYPE_INT_RANGE);
        gst_value_set_int_range(&any, kMinInput, is_sink_to_src ? kMaxInput : kMaxOutput);
        value = &any;
      }
      if (scale_value(value, ratio, is_sink_to_src, &scaled))
        gst_structure_take_value(structure, name, &scaled);
      else
        is_possible = FALSE;
      if (G_IS_VALUE(&any)) g_value_unset(&any);
    }
    if (is_possible && !gst_caps_is_subset_structure_full(result, structure, features))
      gst_caps_append_structure_full(result, structure, features ? gst_caps_features_copy(features) : nullptr);
    else
      gst_structure_free(structure);
  }
  return result;
}

gboolean gst_flash_vsr_format_from_info(const GstVideoInfo* info, FlashVsrFormat* format) {
  static const struct {
    GstVideoFormat theirs;
    FlashVsrPixelFormat ours;
  } kFormats[] = {
      {GST_VIDEO_FORMAT_I420, FLASHVSR_PIXEL_FORMAT_I420},   {GST_VIDEO_FORMAT_NV12, FLASHVSR_PIXEL_FORMAT_NV12},
      {GST_VIDEO_FORMAT_RGB, FLASHVSR_PIXEL_FORMAT_RGB},     {GST_VIDEO_FORMAT_BGR, FLASHVSR_PIXEL_FORMAT_BGR},
      {GST_VIDEO_FORMAT_RGBx, FLASHVSR_PIXEL_FORMAT_RGBX},   {GST_VIDEO_FORMAT_BGRx, FLASHVSR_PIXEL_FORMAT_BGRX},
      {GST_VIDEO_FORMAT_xRGB, FLASHVSR_PIXEL_FORMAT_XRGB},   {GST_VIDEO_FORMAT_xBGR, FLASHVSR_PIXEL_FORMAT_XBGR},
      {GST_VIDEO_FORMAT_RGBA, FLASHVSR_PIXEL_FORMAT_RGBA},   {GST_VIDEO_FORMAT_BGRA, FLASHVSR_PIXEL_FORMAT_BGRA},
      {GST_VIDEO_FORMAT_ARGB, FLASHVSR_PIXEL_FORMAT_ARGB},   {GST_VIDEO_FORMAT_ABGR, FLASHVSR_PIXEL_FORMAT_ABGR},
      {GST_VIDEO_FORMAT_GBR, FLASHVSR_PIXEL_FORMAT_GBR},     {GST_VIDEO_FORMAT_Y42B, FLASHVSR_PIXEL_FORMAT_Y42B},
      {GST_VIDEO_FORMAT_Y444, FLASHVSR_PIXEL_FORMAT_Y444},   {GST_VIDEO_FORMAT_GRAY8, FLASHVSR_PIXEL_FORMAT_GRAY8},
      {GST_VIDEO_FORMAT_I420_10LE, FLASHVSR_PIXEL_FORMAT_I420_10LE},
      {GST_VIDEO_FORMAT_P010_10LE, FLASHVSR_PIXEL_FORMAT_P010_10LE},
  };
  for (const auto& pair : kFormats) {
    if (pair.theirs != GST_VIDEO_INFO_FORMAT(info)) continue;
    const GstVideoColorimetry& color = info->colorimetry;
    *format = FlashVsrFormat{};
    format->pixel_format = pair.ours;
    format->width = GST_VIDEO_INFO_WIDTH(info);
    format->height = GST_VIDEO_INFO_HEIGHT(info);
    format->color.matrix = static_cast<int32_t>(gst_video_color_matrix_to_iso(color.matrix));
    format->color.transfer = static_cast<int32_t>(gst_video_transfer_function_to_iso(color.transfer));
    format->color.primaries = static_cast<int32_t>(gst_video_color_primaries_to_iso(color.primaries));
    // An unknown range is full for R'G'B' and limited for Y'CbCr, as GStreamer itself takes it.
    format->color.full_range = color.range == GST_VIDEO_COLOR_RANGE_UNKNOWN
                                   ? GST_VIDEO_INFO_IS_RGB(info)
                                   : color.range == GST_VIDEO_COLOR_RANGE_0_255;
    return TRUE;
  }
  return FALSE;
}
