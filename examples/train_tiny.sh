#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# train_tiny.sh [OUTPUT-FOLDER [MINUTES]]
# The trainer in a few minutes on any machine: learns the decoder from one bundled clip alone, measures it on
# that clip and on one it has never seen, and says how to use it. One clip is far too little for a good model;
# the built-in one was made by the same program (src/models/nano/MODEL_CARD.md).
# Run it again to go on from where it stopped. Environment: FLASHVSR_BUILD (default: build)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-tiny-model} minutes=${2:-3} build=${FLASHVSR_BUILD:-build} clips=examples/clips
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
[ -x "$build/src/train/flashvsr-train" ] || { echo "build first: examples/setup.sh"; exit 1; }

mkdir -p "$out"
if [ ! -f "$out/clip.safetensors" ]; then
  echo "== decoding the clip into a shard"
  "$build/tools/flashvsr-dataset" "$out/clip.safetensors" "$clips/cars_gt_768x432.mp4"
fi
echo "== training for about $minutes minutes"
"$build/src/train/flashvsr-train" --stage decoder --train "$out/clip.safetensors" --out "$out" --resume \
  --minutes "$minutes" --crop 128 --frames 9 --batch 4 --ema 0.99 --log-every 50 --validate-every 200
echo "== against bicubic: the clip it learned, and a stranger"
"$build/tests/bench/quality" --model "$out" --frames 25 \
  "$clips/cars_audio_192x108.mp4" "$clips/cars_gt_768x432.mp4" "$clips/friday_gray_160x120.mp4" "$clips/friday_gt_gray_640x480.mp4"
echo "== use it: gst-launch-1.0 ... ! flashvsr model=$out ! ..."
