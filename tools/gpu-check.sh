#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# gpu-check.sh pack FOLDER [BUILD]   here: copies what a GPU machine needs into FOLDER (about 25 MB), from a build folder made with
#                                    -Dtorch_root=<LibTorch with CUDA> -Dcuda=enabled (default: build-cuda)
# gpu-check.sh run FOLDER OUT        there: parity on the GPU, the pipeline's times, the element through gst-launch; results in OUT
#
# The GPU machine needs the driver and python3 with torch 2.11 (its LibTorch is used); no GStreamer, no network. About three
# minutes, most of it the random checkpoint of the released size and its loading.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mode=${1:?$(sed -n '3,9s/^# \?//p' "$0")}
folder=${2:?a folder}

if [ "$mode" = pack ]; then
  build=${3:-$here/build-cuda}
  mkdir -p "$folder/lib" "$folder/bin"
  ninja -C "$build" gst/libgstflashvsr.so src/libflashvsr.so src/cuda/libflashvsr_cuda.so tests/parity/parity_test tests/bench/pipeline_bench \
    tests/bench/kernels_bench tests/cuda/cuda_ops_gpu_test
  cp "$build"/gst/libgstflashvsr.so "$build"/src/libflashvsr.so "$build"/src/cuda/libflashvsr_cuda.so "$folder/lib/"
  cp "$build"/tests/parity/parity_test "$build"/tests/bench/{pipeline_bench,kernels_bench} "$build"/tests/cuda/cuda_ops_gpu_test \
    "$folder/bin/"
  strip "$folder"/lib/*.so "$folder"/bin/*
  cp -r "$here/src/models/nano" "$folder/"
  cp "$here/tools/make_random_checkpoint.py" "$0" "$folder/"
  git -C "$here" rev-parse --short HEAD > "$folder/commit"
  [ -e "$folder/bundle.tar.xz" ] || "$here/tools/make-gst-bundle" "$folder/bundle.tar.xz"
  rm -rf "$folder/fixtures"
  cp -r "${FLASHVSR_FIXTURES:-$build/tests/fixtures/set}" "$folder/fixtures"
  du -sh "$folder"
  exit
fi

out=${3:?a folder for the results}
mkdir -p "$out"
folder=$(cd "$folder" && pwd); out=$(cd "$out" && pwd)
torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
libraries=$folder/lib:$torch/lib:$(ls -d "$torch"/../nvidia/*/lib | tr '\n' ':')
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/gst" "$work/p" "$work/p/gst" "$work/p/flashvsr" "$work/p/flashvsr/models"
tar xJf "$folder/bundle.tar.xz" -C "$work/gst"
. "$work/gst/env.sh"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/gpu.txt"
commit=$(cat "$folder/commit")

echo "== parity"
export FLASHVSR_CUDA_LIBRARY=$folder/lib/libflashvsr_cuda.so FLASHVSR_FIXTURES=$folder/fixtures
for reference in 0 1; do
  FLASHVSR_REFERENCE=$reference FLASHVSR_TEST_DEVICE=cuda LD_LIBRARY_PATH=$libraries timeout 120 "$folder/bin/parity_test" \
    > "$out/parity_reference_$reference.log" 2>&1 || echo "parity failed (FLASHVSR_REFERENCE=$reference)"
  tail -1 "$out/parity_reference_$reference.log"
done

echo "== operations and kernels"
FLASHVSR_REQUIRE_GPU=1 LD_LIBRARY_PATH=$libraries timeout 60 "$folder/bin/cuda_ops_gpu_test" > "$out/ops.log" 2>&1 || echo "operations failed"
tail -1 "$out/ops.log"
for part in rows planes; do LD_LIBRARY_PATH=$libraries "$folder/bin/kernels_bench" $part | tee -a "$out/kernels.jsonl"; done

echo "== pipeline, random weights"
for size in "768 1408 20" "1536 2688 10"; do
  read -r height width chunks <<< "$size"
  LD_LIBRARY_PATH=$libraries timeout 90 "$folder/bin/pipeline_bench" --height "$height" --width "$width" --chunks "$chunks" \
    --commit "$commit" | tee -a "$out/pipeline.jsonl"
done
LD_LIBRARY_PATH=$libraries timeout 60 "$folder/bin/pipeline_bench" --precision fp8 --commit "$commit" | tee -a "$out/pipeline.jsonl"

echo "== element"
cp "$folder/lib/libgstflashvsr.so" "$work/p/gst/"
cp "$folder"/lib/libflashvsr*.so "$work/p/flashvsr/"
cp -r "$folder/nano" "$work/p/flashvsr/models/"
python3 "$folder/make_random_checkpoint.py" "$work/checkpoint"
export GST_PLUGIN_PATH=$work/p/gst FLASHVSR_ENGINE_PATH=$work/p/flashvsr/libflashvsr.so
launch() {  # LABEL PIPELINE...: seconds of one gst-launch
  local label=$1 begin end; shift
  begin=$(date +%s.%N)
  LD_LIBRARY_PATH=$work/gst/usr/lib/x86_64-linux-gnu:$libraries timeout 120 "$work/gst/usr/libexec/real/gst-launch-1.0" -q "$@" || echo "failed: $label"
  end=$(date +%s.%N)
  python3 -c "print('{\"element\":\"$label\",\"seconds\":%.2f,\"commit\":\"$commit\"}' % ($end - $begin))" | tee -a "$out/element.jsonl"
}
frames() { echo "videotestsrc num-buffers=$1 pattern=ball ! video/x-raw,format=I420,width=$2,height=$3"; }
# Two lengths each: the difference is free of loading.
launch "nano 480x270, 5 frames" $(frames 5 480 270) ! flashvsr device=cuda ! fakesink sync=false
launch "nano 480x270, 3005 frames" $(frames 3005 480 270) ! flashvsr device=cuda ! fakesink sync=false
full="flashvsr model=$work/checkpoint model-version=v1.1 device=cuda"
launch "full 352x192, 29 frames" $(frames 29 352 192) ! $full ! fakesink sync=false
launch "full 352x192, 229 frames" $(frames 229 352 192) ! $full ! fakesink sync=false
launch "full 672x384, 29 frames" $(frames 29 672 384) ! $full ! fakesink sync=false
launch "full 672x384, 109 frames" $(frames 109 672 384) ! $full ! fakesink sync=false

echo "== CUDA memory (where the plugin was built with it, and nvcodec finds its libraries)"
bytes() {  # LABEL PIPELINE...: sha256 of the frames
  local file=$work/frames; rm -f "$file"; launch "$@" ! filesink location="$file"; sha256sum < "$file" | cut -c1-64
}
cuda='video/x-raw(memory:CUDAMemory)'
system=$(bytes "system memory" $(frames 60 480 270) ! flashvsr device=cuda | tail -1)
if gst_env "$work/gst/usr/libexec/real/gst-inspect-1.0" cudaupload > /dev/null 2>&1; then
  device=$(bytes "CUDA memory" $(frames 60 480 270) ! cudaupload ! "$cuda" ! flashvsr device=cuda ! "$cuda" ! cudadownload | tail -1)
  [ "$system" = "$device" ] && same=true || same=false
  echo "{\"element\":\"CUDA memory as system memory\",\"same\":$same,\"commit\":\"$commit\"}" | tee -a "$out/element.jsonl"
else
  echo "no cudaupload: nvcodec found no driver libraries"
fi
if gst_env "$work/gst/usr/libexec/real/gst-inspect-1.0" nvh264dec > /dev/null 2>&1; then
  launch "a clip for nvh264dec" $(frames 60 480 270) ! x264enc ! video/x-h264,profile=high ! filesink location="$work/clip.h264"
  launch "nvh264dec to flashvsr" filesrc location="$work/clip.h264" ! h264parse ! nvh264dec ! "$cuda" ! flashvsr device=cuda ! fakesink sync=false
fi
