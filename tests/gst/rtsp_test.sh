#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# rtsp_test.sh RTSP_RESTREAM
# The example server with its test camera on loopback; a client pulls the enlarged stream. TAP.
set -u
program=$1
work=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
for element in x264enc avdec_h264 rtspsrc rtph264pay avenc_aac; do
  gst-inspect-1.0 "$element" > /dev/null 2>&1 || { echo "1..0 # SKIP no element $element here"; exit; }
done
echo 1..4
port=$((20000 + $$ % 20000))
"$program" --camera --port "$port" --scale 2 > "$work/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do grep -q enlarged "$work/server.log" && break; sleep 0.1; done
# What counts is the frames. gst-launch leaves the other stream unlinked, and ends with an error (1) when rtspsrc's task
# for it is the first to end; 124 is the time limit.
client() {
  timeout 90 gst-launch-1.0 -v rtspsrc location="rtsp://127.0.0.1:$port/enlarged" latency=500 name=in \
    in. ! application/x-rtp,media=video ! rtph264depay ! h264parse ! avdec_h264 ! identity eos-after="$1" silent=false ! \
    fakesink sync=false silent=false > "$work/client$2.log" 2>&1
}
client 60 1; status=$?
frames=$(grep -c 'fakesink0: last-message = chain' "$work/client1.log")
echo "# client ended with $status after $frames frames"
[ "$status" -le 1 ] && [ "$frames" -ge 59 ] && echo "ok 1 - frames" || { tail -20 "$work/client1.log" "$work/server.log" | sed 's/^/# /'; echo "not ok 1 - frames"; }
grep -q 'fakesink0.*width=(int)320, height=(int)240' "$work/client1.log" && echo "ok 2 - enlarged" || echo "not ok 2 - enlarged"
# The first has gone, and its media with it; another one connects.
client 40 2; status=$?
frames=$(grep -c 'fakesink0: last-message = chain' "$work/client2.log")
echo "# again: $status, $frames frames"
[ "$status" -le 1 ] && [ "$frames" -ge 39 ] && echo "ok 3 - again" || echo "not ok 3 - again"
# And its sound, by itself: gst-launch's own late links may miss one of two pads that come at once.
timeout 90 gst-launch-1.0 rtspsrc location="rtsp://127.0.0.1:$port/enlarged" latency=500 name=in \
  in. ! application/x-rtp,media=audio ! rtpmp4gdepay ! identity eos-after=40 ! fakesink sync=false silent=false -v > "$work/sound.log" 2>&1
status=$?
frames=$(grep -c 'fakesink0: last-message = chain' "$work/sound.log")
echo "# sound: $status, $frames frames"
[ "$status" -le 1 ] && [ "$frames" -ge 39 ] && echo "ok 4 - sound" || { tail -20 "$work/sound.log" "$work/server.log" | sed 's/^/# /'; echo "not ok 4 - sound"; }
