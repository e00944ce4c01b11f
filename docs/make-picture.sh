#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# make-picture.sh [FRAME [CLIP]]
# Makes docs/result.jpg, the README's picture: one frame, its left half by bicubic, its right half by flashvsr.
set -euo pipefail
cd "$(dirname "$0")/.."
frame=${1:-60} clip=${2:-examples/clips/dog_256x144.mp4}
export GST_PLUGIN_PATH=${FLASHVSR_BUILD:-$PWD/build}/gst FLASHVSR_ENGINE_PATH=${FLASHVSR_BUILD:-$PWD/build}/src/libflashvsr.so
export OMP_WAIT_POLICY=passive
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
gst-launch-1.0 -q filesrc location="$clip" ! decodebin ! videoconvert ! video/x-raw,format=I420 ! tee name=t \
  compositor name=c background=white sink_1::xpos=516 ! video/x-raw,format=I420 ! jpegenc quality=90 ! \
    multifilesink location="$work/%04d.jpg" \
  t. ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! videoscale method=catrom ! \
    video/x-raw,width=1024,height=576 ! videocrop right=512 ! c.sink_0 \
  t. ! queue ! flashvsr ! videocrop left=512 ! c.sink_1
cp "$work/$(printf %04d "$frame").jpg" docs/result.jpg
ls -l docs/result.jpg
