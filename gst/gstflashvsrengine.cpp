// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstflashvsrengine.h"

#include <dlfcn.h>
#include <gmodule.h>
#include <gst/gst.h>

#include <mutex>
#include <string>
#include <vector>

GST_DEBUG_CATEGORY_STATIC(flash_vsr_engine_debug);
#define GST_CAT_DEFAULT flash_vsr_engine_debug

namespace {

void log_from_engine(FlashVsrLogLevel level, const char* message, void*) {
  switch (level) {
    case FLASHVSR_LOG_ERROR: GST_ERROR("%s", message); break;
    case FLASHVSR_LOG_WARNING: GST_WARNING("%s", message); break;
    case FLASHVSR_LOG_INFO: GST_INFO("%s", message); break;
    default: GST_DEBUG("%s", message); break;
  }
}

std::vector<std::string> candidates() {
  const gchar* asked = g_getenv("FLASHVSR_ENGINE_PATH");
  if (asked && *asked) return {asked};
  Dl_info here;
  if (!dladdr(reinterpret_cast<void*>(&gst_flash_vsr_engine_open), &here) || !here.dli_fname) return {};
  gchar* folder = g_path_get_dirname(here.dli_fname);
  std::vector<std::string> paths;
  for (const char* beside : {"flashvsr", "src"}) {
    gchar* path = g_build_filename(folder, "..", beside, "libflashvsr.so", nullptr);
    paths.emplace_back(path);
    g_free(path);
  }
  g_free(folder);
  return paths;
}

}  // namespace

const FlashVsrApi* gst_flash_vsr_engine_open(gchar** error) {
  static std::mutex mutex;
  static const FlashVsrApi* api = nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  if (api) return api;
  if (!flash_vsr_engine_debug)
    GST_DEBUG_CATEGORY_INIT(flash_vsr_engine_debug, "flashvsr-engine", 0, "FlashVSR engine");
  g_setenv("OMP_WAIT_POLICY", "passive", FALSE);
  std::string reasons;
  for (const std::string& path : candidates()) {
    if (!g_file_test(path.c_str(), G_FILE_TEST_EXISTS)) {
      reasons += path + ": no such file\n";
      continue;
    }
    GModule* module = g_module_open(path.c_str(), static_cast<GModuleFlags>(G_MODULE_BIND_LOCAL));
    if (!module) {
      reasons += path + ": " + g_module_error() + "\n";
      continue;
    }
    gpointer symbol = nullptr;
    if (!g_module_symbol(module, "flashvsr_get_api", &symbol) || !symbol) {
      reasons += path + ": this is not a FlashVSR engine\n";
      g_module_close(module);
      continue;
    }
    g_module_make_resident(module);
    const FlashVsrApi* found = reinterpret_cast<FlashVsrGetApiFunc>(symbol)(FLASHVSR_ABI_VERSION);
    if (!found || found->abi_version != FLASHVSR_ABI_VERSION) {
      reasons += path + ": speaks another version of the interface than " + std::to_string(FLASHVSR_ABI_VERSION) + "\n";
      continue;
    }
    GST_INFO("%s from %s", found->engine_name, path.c_str());
    found->set_log(log_from_engine, nullptr);
    api = found;
    return api;
  }
  if (error) *error = g_strdup(reasons.empty() ? "the plugin's folder is unknown" : reasons.c_str());
  return nullptr;
}
