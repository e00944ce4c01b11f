#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# examples_test.sh APPSRC_APPSINK UPSCALE_PY CLIP UPSCALE FOLDER_OF_FAKE_HARDWARE_DECODER
# The examples that embed the element, on the fake engine. TAP.
set -u
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
echo 1..6
if "$1" > "$work/log" 2>&1 && grep -qx '192 x 128' "$work/log" && grep -qx '50 frames' "$work/log"; then echo "ok 1 - appsrc_appsink"
else sed 's/^/# /' "$work/log"; echo "not ok 1 - appsrc_appsink"; fi

if ! /usr/bin/python3 -c 'import gi; gi.require_version("Gst", "1.0"); from gi.repository import Gst' 2>/dev/null ||
   ! gst-inspect-1.0 x264enc >/dev/null 2>&1; then
  for n in "2 - upscale_py" "3 - upscale_py_error" "4 - upscale_py_hardware" "5 - upscale_hardware" "6 - upscale_part"; do
    echo "ok $n # SKIP no PyGObject or x264enc here"
  done
  exit
fi
/usr/bin/python3 "$2" "$3" "$work/out.mkv" scale=1.5 > "$work/log" 2>&1
status=$?
caps=$(gst-launch-1.0 -v filesrc location="$work/out.mkv" ! matroskademux ! h264parse ! fakesink 2>/dev/null | grep -m1 -o 'width=(int)[0-9]*, height=(int)[0-9]*')
echo "# $status, $caps"
if [ "$status" = 0 ] && [ "$caps" = 'width=(int)384, height=(int)216' ]; then echo "ok 2 - upscale_py"
else sed 's/^/# /' "$work/log"; echo "not ok 2 - upscale_py"; fi
# A fault is told in words, and is the exit status.
if ! /usr/bin/python3 "$2" "$3" "$work/out2.mkv" model=/nowhere/model > "$work/log" 2>&1 && grep -q '/nowhere/model' "$work/log"; then echo "ok 3 - upscale_py_error"
else sed 's/^/# /' "$work/log"; echo "not ok 3 - upscale_py_error"; fi
# A hardware decoder that must not be chosen stands before all others; it is there.
export GST_PLUGIN_PATH_1_0=$GST_PLUGIN_PATH_1_0:$5 GST_REGISTRY_1_0=$work/registry
if ! gst-launch-1.0 filesrc location="$3" ! decodebin ! fakesink 2>&1 | grep -q 'hardware decoder was chosen'; then
  echo "not ok 4 - upscale_py_hardware"; echo "not ok 5 - upscale_hardware"; echo "not ok 6 - upscale_part"; exit 1
fi
if /usr/bin/python3 "$2" "$3" "$work/out3.mkv" scale=1.5 > "$work/log" 2>&1; then echo "ok 4 - upscale_py_hardware"
else sed 's/^/# /' "$work/log"; echo "not ok 4 - upscale_py_hardware"; fi
if "$4" --scale 1.5 "$3" "$work/out4.mkv" > "$work/log" 2>&1; then echo "ok 5 - upscale_hardware"
else sed 's/^/# /' "$work/log"; echo "not ok 5 - upscale_hardware"; fi
# A part of the clip, from the frame that is shown at its beginning: 29.97 frames/s.
if "$4" --scale 1.5 --from 0.5 --to 1.5 "$3" "$work/out5.mkv" > "$work/log" 2>&1 && grep -q '^frames   31 in, 31 out' "$work/log" &&
   ! "$4" --from 2 --to 1 "$3" "$work/out6.mkv" > /dev/null 2>&1; then echo "ok 6 - upscale_part"
else sed 's/^/# /' "$work/log"; echo "not ok 6 - upscale_part"; fi
