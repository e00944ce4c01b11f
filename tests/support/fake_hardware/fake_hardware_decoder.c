/* SPDX-License-Identifier: LGPL-2.1-or-later
 * A plugin with a decoder for H.264 that says that it is hardware, stands before all others, and ends the process that makes
 * one: as NVIDIA's did on a machine without a display. */
#include <gst/gst.h>

typedef GstElement FakeHardwareDecoder;
typedef GstElementClass FakeHardwareDecoderClass;
G_DEFINE_TYPE(FakeHardwareDecoder, fake_hardware_decoder, GST_TYPE_ELEMENT)

static GstStaticPadTemplate sink_pads = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-h264"));
static GstStaticPadTemplate source_pads =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw(memory:CUDAMemory), format=NV12"));

static void fake_hardware_decoder_class_init(FakeHardwareDecoderClass* type) {
  gst_element_class_add_static_pad_template(type, &sink_pads);
  gst_element_class_add_static_pad_template(type, &source_pads);
  gst_element_class_set_static_metadata(type, "Fake hardware decoder", "Codec/Decoder/Video/Hardware", "Ends the process", "tests");
}

static void fake_hardware_decoder_init(FakeHardwareDecoder* decoder) {
  (void)decoder;
  g_error("the hardware decoder was chosen");
}

static gboolean plugin_init(GstPlugin* plugin) {
  return gst_element_register(plugin, "fakehardwaredecoder", GST_RANK_PRIMARY + 100, fake_hardware_decoder_get_type());
}

#define PACKAGE "flashvsr tests"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, fakehardwaredecoder, "A decoder that must not be chosen", plugin_init, "1", "LGPL",
                  PACKAGE, "tests")
