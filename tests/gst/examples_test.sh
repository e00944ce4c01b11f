#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# examples_test.sh APPSRC_APPSINK UPSCALE_PY CLIP FAKE_ENGINE_TEST_ENV...
# The examples that embed the element, on the fake engine. TAP.
set -u
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
echo 1..3
if "$1" > "$work/log" 2>&1 && grep -qx '192 x 128' "$work/log" && grep -qx '50 frames' "$work/log"; then echo "ok 1 - appsrc_appsink"
else sed 's/^/# /' "$work/log"; echo "not ok 1 - appsrc_appsink"; fi

if ! /usr/bin/python3 -c 'import gi; gi.require_version("Gst", "1.0"); from gi.repository import Gst' 2>/dev/null ||
   ! gst-inspect-1.0 x264enc >/dev/null 2>&1; then
  echo "ok 2 - upscale_py # SKIP no PyGObject or x264enc here"; echo "ok 3 - upscale_py_error # SKIP"; exit
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
