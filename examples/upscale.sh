#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# upscale.sh [OPTIONS] [INPUT [OUTPUT]]
# Upscales INPUT (a file or URI; default: the bundled clip) into OUTPUT (default: upscaled.mkv; .mkv or .mp4),
# sound and timestamps kept. Sets up and builds first where needed (examples/setup.sh).
#   --no-install         install no packages
#   --model PATH         a FlashVSR model directory; default: the small embedded model
#   --model-version V    auto | v1 | v1.1
#   --scale FACTOR       1.5, 2, 3 or 4; default 4
#   --device DEVICE      auto | cpu | cuda | cuda:N
#   --precision P        auto | fp32 | bf16 | fp16
#   --from SECONDS, --to SECONDS   a part of the input
#   --set NAME=VALUE     any other property; `gst-inspect-1.0 flashvsr` lists them
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
setup=(--demo) options=() files=()
while [ $# -gt 0 ]; do case $1 in
  --no-install) setup+=(--no-install);;
  --help|-h) sed -n '3,14s/^# \?//p' "$0"; exit;;
  --model|--model-version|--scale|--device|--precision|--from|--to|--set)
    [ $# -gt 1 ] || { echo "upscale.sh: $1 needs a value" >&2; exit 2; }
    options+=("$1" "$2"); shift;;
  --*=*) options+=("$1");;
  -?*) echo "upscale.sh: unknown option $1 (--help lists them)" >&2; exit 2;;
  *) files+=("$1");;
  esac; shift; done
[ ${#files[@]} -le 2 ] || { echo "upscale.sh: at most INPUT and OUTPUT" >&2; exit 2; }
input=${files[0]:-$here/examples/clips/dog_256x144.mp4}
output=${files[1]:-upscaled.mkv}
case $input in *://*) ;; *) [ -f "$input" ] || { echo "upscale.sh: no such file: $input" >&2; exit 1; };; esac

"$here/examples/setup.sh" "${setup[@]}"
build=${FLASHVSR_BUILD:-build}; case $build in /*) ;; *) build=$here/$build;; esac
export GST_PLUGIN_PATH=$build/gst${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}
if [ "${FLASHVSR_ENGINE:-}" = disabled ] && [ -z "${FLASHVSR_ENGINE_PATH:-}" ]; then
  FLASHVSR_ENGINE_PATH=$build/tests/support/libflashvsr_fake.so
  echo "== no engine (FLASHVSR_ENGINE=disabled): the FAKE one repeats pixels, for trying the pipeline only"
fi
export FLASHVSR_ENGINE_PATH=${FLASHVSR_ENGINE_PATH:-$build/src/libflashvsr.so}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}   # LibTorch's idle threads must not spin beside the encoder
# GStreamer out of tools/make-gst-bundle
[ -z "${FLASHVSR_BUNDLE_LIB:-}" ] || export LD_LIBRARY_PATH=$FLASHVSR_BUNDLE_LIB${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
echo "== upscaling $input"
exec "$build/examples/flashvsr-upscale" ${options[@]+"${options[@]}"} "$input" "$output"
