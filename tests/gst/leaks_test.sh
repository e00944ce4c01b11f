#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# leaks_test.sh FOLDER_OF_PLUGIN ENGINE.so REGISTRY
# Check 39: GStreamer's leaks tracer over whole runs of gst-launch-1.0, which calls gst_deinit.
set -uo pipefail
export GST_PLUGIN_PATH_1_0=$1 FLASHVSR_ENGINE_PATH=$2 GST_REGISTRY_1_0=$3 GST_DEBUG_NO_COLOR=1
small='video/x-raw,format=I420,width=64,height=48,framerate=25/1'
runs=(
  "videotestsrc num-buffers=60 ! $small ! flashvsr ! fakesink"
  "videotestsrc num-buffers=3 ! $small ! flashvsr scale=1.5 startup=primed ! videoconvert ! video/x-raw,format=RGB ! fakesink"
  "videotestsrc num-buffers=60 ! $small ! tee name=t t. ! queue ! flashvsr scale=2 bypass=true ! fakesink t. ! queue ! flashvsr compare=split ! fakesink"
  "videotestsrc is-live=true num-buffers=30 ! $small ! flashvsr ! fakesink num-buffers=3"
)
errors=("FLASHVSR_FAKE_FAIL_CHUNK=1" "FLASHVSR_FAKE_OPEN_STATUS=-5" "FLASHVSR_FAKE_SESSION_STATUS=-5" "FLASHVSR_FAKE_FAIL_SEND=5")
echo "1..$((${#runs[@]} + ${#errors[@]}))"
n=0 failed=0
check() {  # NAME, environment, pipeline
  n=$((n + 1))
  local out
  # shellcheck disable=SC2086
  out=$(env $2 GST_TRACERS='leaks(check-refs=true)' GST_DEBUG=GST_TRACER:7 timeout 60 gst-launch-1.0 -q $3 2>&1)
  # The tracer's records are declared when it starts: without them it was not there.
  if [ $? = 124 ] || ! grep -q 'object-alive.class' <<< "$out" || grep -q 'object-alive, type-name=(string)[^%]' <<< "$out"; then
    echo "not ok $n - $1"; grep 'object-alive, type-name=(string)[^%]' <<< "$out" | cut -c1-300 | head -5 | sed 's/^/# /'; failed=1
  else
    echo "ok $n - $1"
  fi
}
for run in "${runs[@]}"; do check "check_39 ${run//#/}" A=1 "$run"; done
for error in "${errors[@]}"; do check "check_39 $error" "$error" "${runs[0]}"; done
exit $failed
