#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# make-picture.sh [FRAME [CLIP]]
# Makes docs/result.jpg, the README's picture: a part of one frame, enlarged by bicubic (left) and by flashvsr (right).
set -euo pipefail
crop='left=0 right=522 top=36 bottom=80'   # of 1024 x 576
cd "$(dirname "$0")/.."
frame=${1:-60} clip=${2:-examples/clips/dog_256x144.mp4}
export GST_PLUGIN_PATH=${FLASHVSR_BUILD:-$PWD/build}/gst FLASHVSR_ENGINE_PATH=${FLASHVSR_BUILD:-$PWD/build}/src/libflashvsr.so
export OMP_WAIT_POLICY=passive
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
gst-launch-1.0 -q filesrc location="$clip" ! decodebin ! videoconvert ! video/x-raw,format=I420 ! tee name=t \
  compositor name=c background=white sink_1::xpos=506 ! video/x-raw,format=I420 ! jpegenc quality=90 ! \
    multifilesink location="$work/%04d.jpg" \
  t. ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! videoscale method=catrom ! \
    video/x-raw,width=1024,height=576 ! videocrop $crop ! c.sink_0 \
  t. ! queue ! flashvsr ! videocrop $crop ! c.sink_1
cp "$work/$(printf %04d "$frame").jpg" docs/result.jpg
ls -l docs/result.jpg
