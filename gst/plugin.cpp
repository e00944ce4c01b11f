// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsr.h"

// Registers, no more: a scan must not touch the engine or a device.
static gboolean plugin_init(GstPlugin* plugin) { return GST_ELEMENT_REGISTER(flashvsr, plugin); }

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, flashvsr, "FlashVSR video super-resolution", plugin_init,
                  PACKAGE_VERSION, "LGPL", PACKAGE, "https://gstreamer.freedesktop.org/")
