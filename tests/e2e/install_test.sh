#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# install_test.sh BUILD
# What `meson install` puts down works where it lies, without any of the build's settings: the plugin finds the
# engine, the engine its model; a scan of the installed plugins does not touch LibTorch.
set -euo pipefail
build=$1
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
unset FLASHVSR_ENGINE_PATH
export DESTDIR=$work/root GST_REGISTRY=$work/registry.bin GST_PLUGIN_SYSTEM_PATH_1_0='' OMP_WAIT_POLICY=passive
meson install -C "$build" --no-rebuild --quiet > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
unset DESTDIR
plugin=$(find "$work/root" -name libgstflashvsr.so)
[ "$(basename "$(dirname "$plugin")")" = gstreamer-1.0 ] || { echo "no plugin folder: $plugin"; exit 1; }
find "$work/root" -path '*include/flashvsr/flashvsr.h' | grep -q . || { echo "no header"; exit 1; }

export GST_PLUGIN_PATH=$(dirname "$plugin")
LD_DEBUG=files gst-inspect-1.0 flashvsr > "$work/inspect" 2> "$work/loader"
grep -q 'Long-name' "$work/inspect"
! grep -q torch "$work/loader" || { echo "a scan loads LibTorch"; exit 1; }

unset GST_PLUGIN_SYSTEM_PATH_1_0
gst-launch-1.0 -v videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48 ! flashvsr name=f ! fakesink > "$work/out" 2>&1 ||
  { tail -n 5 "$work/out"; exit 1; }
grep -q 'f.*src: caps.*width=(int)256, height=(int)192' "$work/out" || { echo "no 256x192 output"; cat "$work/out"; exit 1; }
echo "the installed plugin, engine and model work; a scan is light"
