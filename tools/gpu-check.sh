#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# gpu-check.sh pack FOLDER [BUILD]   here: copies what a GPU machine needs into FOLDER (about 35 MB), from a build folder made with
#                                    -Dtorch_root=<LibTorch with CUDA> -Dcuda=enabled (default: build-cuda)
# gpu-check.sh run FOLDER OUT        there: the README's command built and run from this source tree, parity on the GPU, the
#                                    sanitizers, the pipeline's times, the element through gst-launch; results in OUT
# gpu-check.sh run FOLDER OUT STEP...   only these: readme parity sanitizers kernels peers pipeline profile element cuda_memory, or
#                                    timeline (kernels of a first and of a steady chunk in a run, with the gaps between),
#                                    plans (what smaller cards would do; five minutes), element_sanitizers, big (4K and `degrade` in
#                                    CUDA memory), soak (ten minutes of a decoder in front, or $FLASHVSR_SOAK seconds),
#                                    two_gpus (the second one; pictures on one, the model on the other)
#
# The GPU machine needs the driver and python3 with torch 2.11 (its LibTorch is used), meson and a compiler; no GStreamer, no
# network. About eight minutes without the steps named last, most of them the build, the sanitizers and the random checkpoint of the released size.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mode=${1:?$(sed -n '3,15s/^# \?//p' "$0")}
folder=${2:?a folder}

if [ "$mode" = pack ]; then
  build=${3:-$here/build-cuda}
  mkdir -p "$folder/lib" "$folder/bin"
  ninja -C "$build" gst/libgstflashvsr.so src/libflashvsr.so src/cuda/libflashvsr_cuda.so tests/parity/parity_test tests/bench/pipeline_bench \
    tests/bench/kernels_bench tests/bench/element_bench tests/bench/streams_bench tests/bench/plans_bench tests/bench/linear_bench \
    tests/cuda/cuda_ops_gpu_test tests/cuda/cuda_stages_gpu_test \
    tests/kernels/kernels_{block_mask,linear,pack_frames,finish_frames,wavelet_color}_gpu_test
  cp "$build"/gst/libgstflashvsr.so "$build"/src/libflashvsr.so "$build"/src/cuda/libflashvsr_cuda.so "$folder/lib/"
  cp "$build"/tests/parity/parity_test "$build"/tests/bench/{pipeline,kernels,linear,element,streams,plans}_bench \
    "$build"/tests/cuda/cuda_{ops,stages}_gpu_test "$build"/tests/kernels/kernels_{block_mask,linear,pack_frames,finish_frames,wavelet_color}_gpu_test "$folder/bin/"
  (cd "$here" && "${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}" -std=c++17 -O3 -I. -DFLASHVSR_HAVE_SM90A \
    -gencode=arch=compute_90a,code=sm_90a -o "$(realpath "$folder")/bin/attention_bench" tests/bench/attention_bench.cu \
    kernels/block_sparse_attention{.cu,_sm80.cu,_sm90.cu,_ref.cpp})
  strip "$folder"/lib/*.so "$folder"/bin/*
  rm -rf "$folder/lib/models"
  mkdir "$folder/lib/models"
  cp -r "$here/src/models/nano" "$folder/lib/models/"   # beside the engine, where it looks
  cp "$here/tools/make_random_checkpoint.py" "$here"/tools/{bench-peers.py,flashvsr-bench} "$folder/"
  git -C "$here" rev-parse --short HEAD > "$folder/commit"
  # PEERS=1: FlashInfer too, whose kernel takes a quarter of an hour to compile.
  [ -z "${PEERS:-}" ] || [ -e "$folder/peers.tar.xz" ] || PYTHON=${PYTHON:-python3.12} "$here/tools/make-flashinfer-peer" "$folder/peers.tar.xz"
  [ -e "$folder/bundle.tar.xz" ] || "$here/tools/make-gst-bundle" "$folder/bundle.tar.xz"
  # What travels has a limit, and each program holds the kernels of its own.
  XZ_OPT='-3 -T2' tar cJf "$folder/programs.tar.xz" -C "$folder" bin lib
  rm -rf "$folder/bin" "$folder/lib"
  du -sh "$folder"
  exit
fi

out=${3:?a folder for the results}
steps=" ${*:4} "
[ "$steps" != "  " ] || steps=" readme parity sanitizers kernels peers pipeline profile element cuda_memory "
for step in $steps; do
  case $step in
    readme|parity|sanitizers|kernels|peers|pipeline|profile|element|cuda_memory|timeline|plans|element_sanitizers|big|soak|two_gpus) ;;
    *) echo "$step is no step" >&2; exit 2;;
  esac
done
wanted() { case $steps in *" $1 "*) echo "== $1 ($(date +%T))";; *) return 1;; esac; }
mkdir -p "$out"
folder=$(cd "$folder" && pwd); out=$(cd "$out" && pwd)
[ -d "$folder/bin" ] || tar xJf "$folder/programs.tar.xz" -C "$folder"
torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
torch_libraries=$torch/lib:$(ls -d "$torch"/../nvidia/*/lib | tr '\n' ':')
libraries=$folder/lib:$torch_libraries
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/gst"
tar xJf "$folder/bundle.tar.xz" -C "$work/gst"
"$here/tests/fixtures/unpack.sh" "$here/tests/fixtures" "$work/fixtures" "$work/fixtures.stamp"
. "$work/gst/env.sh"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/gpu.txt"
commit=$(cat "$folder/commit")

export FLASHVSR_CUDA_LIBRARY=$folder/lib/libflashvsr_cuda.so FLASHVSR_FIXTURES=$work/fixtures
gpu() { local seconds=$1; shift; LD_LIBRARY_PATH=$libraries timeout "$seconds" "$@"; }

if wanted readme; then   # builds beside the checks that are not timed
  (
    # Nothing of ours but what this builds: two engines in one process would be one too many. And the system's compiler:
    # one that links libstdc++ statically gives each library its own, which LibTorch does not survive.
    unset CC CXX
    FLASHVSR_CUDA_LIBRARY='' FLASHVSR_TORCH_ROOT=$torch FLASHVSR_BUILD=$work/readme \
      FLASHVSR_BUNDLE_LIB=$work/gst/usr/lib/x86_64-linux-gnu:$torch_libraries timeout 420 "$here/examples/upscale.sh" --no-install "$here/examples/clips/dog_256x144.mp4" "$out/upscaled.mkv" \
      > "$out/readme.log" 2>&1 < /dev/null || echo "readme failed"
  ) &
  readme=$!
fi
if wanted parity; then
  for reference in 0 1; do
    FLASHVSR_REFERENCE=$reference FLASHVSR_TEST_DEVICE=cuda gpu 150 "$folder/bin/parity_test" \
      > "$out/parity_reference_$reference.log" 2>&1 || echo "parity failed (FLASHVSR_REFERENCE=$reference)"
    tail -1 "$out/parity_reference_$reference.log"
  done
fi
if wanted sanitizers; then
  FLASHVSR_REQUIRE_GPU=1 gpu 90 "$folder/bin/cuda_ops_gpu_test" > "$out/ops.log" 2>&1 || echo "operations failed"
  tail -1 "$out/ops.log"
  FLASHVSR_REQUIRE_GPU=1 gpu 90 "$folder/bin/cuda_stages_gpu_test" > "$out/stages.log" 2>&1 || echo "recorded stages failed"
  tail -1 "$out/stages.log"
  FLASHVSR_REQUIRE_GPU=1 PYTORCH_ALLOC_CONF=expandable_segments:False gpu 60 compute-sanitizer --tool memcheck --error-exitcode 9 \
    "$folder/bin/cuda_stages_gpu_test" > "$out/sanitizer_stages.log" 2>&1 || echo "memcheck of recorded stages: status $?"
  echo "memcheck, recorded stages: $(grep 'ERROR SUMMARY' "$out/sanitizer_stages.log" | tail -1)"
  for kernel in block_mask linear pack_frames finish_frames wavelet_color; do
    program=$folder/bin/kernels_${kernel}_gpu_test log=$out/kernel_$kernel.log
    FLASHVSR_REQUIRE_GPU=1 gpu 60 "$program" > "$log" 2>&1 || echo "$kernel failed"
    FLASHVSR_REQUIRE_GPU=1 gpu 30 compute-sanitizer --tool racecheck --error-exitcode 9 "$program" > "$log.racecheck" 2>&1 || echo "$kernel, racecheck: status $?"
    echo "$kernel: $(tail -1 "$log"), $(grep 'RACECHECK SUMMARY' "$log.racecheck" | tail -1)"
  done
  for tool in ${FLASHVSR_SANITIZERS:-memcheck initcheck synccheck racecheck}; do
    # racecheck takes minutes for the attention kernels alone
    [ $tool = racecheck ] && export GTEST_FILTER='-*Attention*'
    # A segment that grows is made of mappings; the tool takes what lies across two of them for out of bounds.
    FLASHVSR_REQUIRE_GPU=1 PYTORCH_ALLOC_CONF=expandable_segments:False gpu 70 compute-sanitizer --tool $tool --kernel-name kernel_substring=flashvsr \
      --error-exitcode 9 "$folder/bin/cuda_ops_gpu_test" > "$out/sanitizer_$tool.log" 2>&1 || echo "$tool: status $?"
    echo "$tool: $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/sanitizer_$tool.log" | tail -1), $(grep -E 'PASSED|FAILED' "$out/sanitizer_$tool.log" | tail -1)"
  done
  unset GTEST_FILTER
fi
[ -z "${readme:-}" ] || { wait "$readme"; tail -n 12 "$out/readme.log"; }

if wanted kernels; then
  for part in rows mask pack planes pictures; do gpu 60 "$folder/bin/kernels_bench" $part | tee -a "$out/kernels.jsonl" || echo "failed: kernels $part"; done
  FLASHVSR_BENCH_COMMIT=$commit gpu 90 "$folder/bin/linear_bench" bf16 | tee -a "$out/kernels.jsonl" || echo "failed: linear"
  gpu 90 "$folder/bin/attention_bench" sm90 | tee -a "$out/kernels.jsonl" || echo "failed: attention"
fi
if wanted peers; then
  (
    # FlashInfer with its kernel built, where tools/make-flashinfer-peer has made it.
    [ ! -e "$folder/peers.tar.xz" ] || { mkdir "$work/peers"; tar xJf "$folder/peers.tar.xz" -C "$work/peers"; . "$work/peers/env.sh"; }
    FLASHVSR_BENCH_COMMIT=$commit timeout 160 "$folder/flashvsr-bench" --out "$out/kernels.jsonl" peers || echo "peers failed"
  )
fi
if wanted pipeline; then
  for size in "384 640 30" "768 1408 20" "1536 2688 10"; do
    read -r height width chunks <<< "$size"
    gpu 90 "$folder/bin/pipeline_bench" --height "$height" --width "$width" --chunks "$chunks" --commit "$commit" |
      tee -a "$out/pipeline.jsonl" || echo "failed: $size"
  done
  gpu 60 "$folder/bin/pipeline_bench" --precision fp8 --commit "$commit" | tee -a "$out/pipeline.jsonl" || echo "failed: fp8"
fi
if wanted profile; then
  for precision in bf16 fp8; do
    LD_LIBRARY_PATH=$libraries timeout 100 "$folder/flashvsr-bench" --out "$out/profile.jsonl" profile --precision $precision > "$out/profile_$precision.log" ||
      echo "failed: profile $precision"
    head -40 "$out/profile_$precision.log" | cut -c1-200
  done
fi
if wanted timeline; then
  for size in "384 640 30 bf16" "768 1408 20 bf16" "768 1408 20 fp8" "1536 2688 10 bf16"; do
    read -r height width chunks precision <<< "$size"
    mkdir -p "$work/timeline"
    gpu 90 "$folder/bin/pipeline_bench" --height "$height" --width "$width" --chunks "$chunks" --precision "$precision" --commit "$commit" \
      --timeline "$work/timeline" | tee -a "$out/pipeline.jsonl" || echo "failed: timeline $size"
    "$folder/flashvsr-bench" --out "$out/timeline.jsonl" timeline "$work"/timeline/{first,steady}.json || echo "no timeline of $size"
  done
fi
checkpoint() {  # a random one of the released size, once
  [ -e "$work/checkpoint" ] || python3 "$folder/make_random_checkpoint.py" "$work/checkpoint"
}
if wanted plans; then
  checkpoint
  total=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits -i 0)
  # height width cards...; card 0 is all of this one, with which the others are compared. FLASHVSR_PLANS: other lines.
  printf '%s\n' "${FLASHVSR_PLANS:-192 352 0 24 16 12 8
384 672 0 24 16 12 8
540 960 0 24 16 12 8}" | while read -r height width cards; do
    for card in $cards; do
      limit=1; [ "$card" = 0 ] || limit=$(python3 -c "print((${card}e9 - 0.6e9) / ($total * 1048576))")
      [ "$card" = 0 ] && keep=--keep || keep=--against
      size="$height $width"
      PYTORCH_ALLOC_CONF=expandable_segments:True,per_process_memory_fraction:$limit FLASHVSR_BENCH_COMMIT=$commit \
        gpu 100 "$folder/bin/plans_bench" --device cuda --model "$work/checkpoint" --width "$width" --height "$height" --card "$card" --chunks 2 \
        $keep "$work/luma" < /dev/null | tee -a "$out/plans.jsonl" || echo "failed: plan $size $card"
    done
  done
fi

export GST_PLUGIN_PATH=$folder/lib FLASHVSR_ENGINE_PATH=$folder/lib/libflashvsr.so
gst_libraries=$work/gst/usr/lib/x86_64-linux-gnu:$libraries
launch() {  # LABEL PIPELINE...: seconds of one gst-launch
  local label=$1 begin end; shift
  begin=$(date +%s.%N)
  LD_LIBRARY_PATH=$gst_libraries timeout 120 "$work/gst/usr/libexec/real/gst-launch-1.0" -q "$@" || echo "failed: $label"
  end=$(date +%s.%N)
  python3 -c "print('{\"element\":\"$label\",\"seconds\":%.2f,\"commit\":\"$commit\"}' % ($end - $begin))" | tee -a "$out/element.jsonl"
}
frames() { echo "videotestsrc num-buffers=$1 pattern=ball ! video/x-raw,format=I420,width=$2,height=$3"; }
if wanted element; then
  # Two lengths each: the difference is free of loading.
  launch "nano 480x270, 5 frames" $(frames 5 480 270) ! flashvsr device=cuda ! fakesink sync=false
  launch "nano 480x270, 3005 frames" $(frames 3005 480 270) ! flashvsr device=cuda ! fakesink sync=false
  export FLASHVSR_BENCH_COMMIT=$commit
  for bench in element streams; do
    LD_LIBRARY_PATH=$gst_libraries timeout 100 "$folder/bin/${bench}_bench" --device cuda --width 480 --height 270 --seconds 4 --rounds 1 |
      tee -a "$out/element.jsonl" || echo "failed: $bench"
  done
  # Small pictures, whose stages are recorded: several streams in one process, beside each other.
  for graphs in 0 1; do
    FLASHVSR_GRAPHS=$graphs LD_LIBRARY_PATH=$gst_libraries timeout 60 "$folder/bin/streams_bench" --device cuda --width 96 --height 64 --streams 1,4 \
      --seconds 2 --rounds 1 | sed "s/{/{\"graphs\":$graphs,/" | tee -a "$out/element.jsonl" || echo "failed: small streams, graphs $graphs"
  done
  checkpoint
  full="flashvsr model=$work/checkpoint model-version=v1.1 device=cuda"
  launch "full 352x192, 29 frames" $(frames 29 352 192) ! $full ! fakesink sync=false
  GST_DEBUG=flashvsr:5 GST_DEBUG_NO_COLOR=1 GST_DEBUG_FILE=$out/load.log launch "full 352x192, 29 frames, again" $(frames 29 352 192) ! \
    $full ! fakesink sync=false
  grep -m 3 -E "ready after|chunk took" "$out/load.log" | cut -c1-220 || true
  launch "full 352x192, 429 frames" $(frames 429 352 192) ! $full ! fakesink sync=false
  launch "full 672x384, 29 frames" $(frames 29 672 384) ! $full ! fakesink sync=false
  launch "full 672x384, 149 frames" $(frames 149 672 384) ! $full ! fakesink sync=false
  for graphs in 0 1; do
    FLASHVSR_GRAPHS=$graphs LD_LIBRARY_PATH=$gst_libraries timeout 60 "$folder/bin/streams_bench" --device cuda --model "$work/checkpoint" --width 96 --height 64 \
      --streams 1 --seconds 3 --rounds 1 | sed "s/{/{\"graphs\":$graphs,/" | tee -a "$out/element.jsonl" || echo "failed: small full, graphs $graphs"
  done
  for bench in element streams; do
    LD_LIBRARY_PATH=$gst_libraries timeout 100 "$folder/bin/${bench}_bench" --device cuda --model "$work/checkpoint" \
      --width 352 --height 192 --seconds 6 --rounds 1 | tee -a "$out/element.jsonl" || echo "failed: $bench, full"
  done
fi

in_cuda='video/x-raw(memory:CUDAMemory)'
# Where the plugin was built with it, and nvcodec finds its libraries.
bytes() {  # LABEL PIPELINE...: sha256 of the frames; videoconvert leaves no padding between rows
  local file=$work/frames; rm -f "$file"
  launch "$@" ! videoconvert ! video/x-raw,format=NV12 ! filesink location="$file" > "$work/said"
  cat "$work/said" >&2
  sha256sum < "$file" | cut -c1-64
}
if wanted cuda_memory; then
  system=$(bytes "system memory" $(frames 60 480 270) ! flashvsr device=cuda | tail -1)
  if gst_env "$work/gst/usr/libexec/real/gst-inspect-1.0" cudaupload > /dev/null 2>&1; then
    device=$(bytes "CUDA memory" $(frames 60 480 270) ! cudaupload ! "$in_cuda" ! flashvsr device=cuda ! "$in_cuda" ! cudadownload | tail -1)
    [ "$system" = "$device" ] && [ "$(stat -c %s "$work/frames")" = $((1920 * 1080 * 3 / 2 * 60)) ] && same=true || same=false
    echo "{\"element\":\"CUDA memory as system memory\",\"same\":$same,\"commit\":\"$commit\"}" | tee -a "$out/element.jsonl"
  else
    echo "no cudaupload: nvcodec found no driver libraries"
  fi
  if gst_env "$work/gst/usr/libexec/real/gst-inspect-1.0" nvh264dec > /dev/null 2>&1; then
    launch "a clip for nvh264dec" $(frames 60 480 270) ! x264enc ! video/x-h264,profile=high,stream-format=byte-stream ! filesink location="$work/clip.h264"
    launch "nvh264dec to flashvsr" filesrc location="$work/clip.h264" ! h264parse ! nvh264dec ! "$in_cuda" ! flashvsr device=cuda ! fakesink sync=false
  fi
fi

# The second card alone and with pictures in its own memory: the bytes of the first. Pictures on one, the model on the other: an
# error that names both.
if wanted two_gpus; then
  first=$(bytes "cuda:0" $(frames 60 480 270) ! flashvsr device=cuda:0 | tail -1)
  says() { echo "{\"element\":\"$1\",\"$2\":$3,\"commit\":\"$commit\"}" | tee -a "$out/element.jsonl"; }
  same() { [ "$first" = "$1" ] && echo true || echo false; }
  on_cards() { bytes "pictures on $1, model on $2" $(frames 60 480 270) ! cudaupload cuda-device-id=$1 ! "$in_cuda" ! flashvsr device=cuda:$2 ! cudadownload; }
  says "cuda:1" same "$(same "$(bytes "cuda:1" $(frames 60 480 270) ! flashvsr device=cuda:1 | tail -1)")"
  says "pictures on 1, model on 1" same "$(same "$(on_cards 1 1 | tail -1)")"
  for pair in "0 1" "1 0"; do
    read -r pictures model <<< "$pair"
    on_cards $pictures $model > "$work/mismatch" 2>&1
    grep -q "memory of CUDA device $pictures, the model on device $model" "$work/mismatch" && refused=true || refused=false
    says "pictures on $pictures, model on $model" refused_by_name $refused
  done
fi

# compute-sanitizer over the element: our kernels of a whole pipeline, system memory and CUDA memory.
if wanted element_sanitizers; then
  for tool in memcheck synccheck initcheck; do
    for pads in system cuda; do
      convert="identity"; [ $pads = system ] || convert="cudaupload ! video/x-raw(memory:CUDAMemory)"
      log=$out/element_${tool}_$pads.log
      LD_LIBRARY_PATH=$gst_libraries PYTORCH_ALLOC_CONF=expandable_segments:False timeout 120 compute-sanitizer --tool $tool \
        --kernel-name kernel_substring=flashvsr --error-exitcode 9 "$work/gst/usr/libexec/real/gst-launch-1.0" \
        $(frames 29 34 18) ! $convert ! flashvsr device=cuda scale=2 ! fakesink sync=false > "$log" 2>&1 || echo "$tool $pads: status $?"
      echo "element, $tool, $pads memory: $(grep -E 'ERROR SUMMARY' "$log" | tail -1)"
    done
  done
fi

clip() {  # FRAMES WIDTH HEIGHT FILE
  LD_LIBRARY_PATH=$gst_libraries "$work/gst/usr/libexec/real/gst-launch-1.0" -q $(frames "$1" "$2" "$3"),framerate=30/1 ! x264enc speed-preset=ultrafast ! \
    video/x-h264,profile=constrained-baseline,stream-format=byte-stream ! filesink location="$4"
}
last_stats() {  # LOG LABEL: the newest stats message of the element
  echo "$2: $(grep -o 'flashvsr-stats.*' "$1" | tail -1 | sed 's/(guint64)//g; s/(double)//g; s/(string)//g; s/\\//g' | cut -c1-900)" | tee -a "$out/element_stats.txt"
}
if wanted big; then
  clip 600 960 540 "$work/540.h264"
  clip 600 1920 1080 "$work/1080.h264"
  launch "4K in CUDA memory, 960x540 x4, built-in model, 600 frames" filesrc location="$work/540.h264" ! h264parse ! nvh264dec ! "$in_cuda" ! \
    flashvsr device=cuda ! "$in_cuda" ! fakesink sync=false
  launch "4K in CUDA memory, 1920x1080 x2, built-in model, 600 frames" filesrc location="$work/1080.h264" ! h264parse ! nvh264dec ! "$in_cuda" ! \
    flashvsr device=cuda scale=2 ! "$in_cuda" ! fakesink sync=false
  checkpoint
  launch "4K in CUDA memory, 960x540 x4, released size, 45 frames" $(frames 45 960 540) ! cudaupload ! "$in_cuda" ! \
    flashvsr model="$work/checkpoint" model-version=v1.1 device=cuda ! "$in_cuda" ! fakesink sync=false
  # The released size makes some 10 frames/s of 3840x2160: a live stream of 30 must go down to the built-in model.
  LD_LIBRARY_PATH=$gst_libraries timeout 100 "$work/gst/usr/libexec/real/gst-launch-1.0" -m videotestsrc is-live=true num-buffers=1200 pattern=ball ! \
    video/x-raw,format=NV12,width=960,height=540,framerate=30/1 ! cudaupload ! "$in_cuda" ! flashvsr model="$work/checkpoint" model-version=v1.1 device=cuda \
    overload-policy=degrade stats-interval=1000000000 ! "$in_cuda" ! fakesink sync=true > "$out/degrade.log" 2>&1 || echo "failed: degrade"
  last_stats "$out/degrade.log" "degrade, 40 s of 30 frames/s"
fi

# A decoder in front for ten minutes at 30 frames/s: contexts, device memory, memory and open files stay as they are.
if wanted soak; then
  clip 300 480 270 "$work/soak.h264"
  log=$out/soak.log
  GST_TRACERS='leaks(filters="GstCudaContext")' GST_LEAKS_TRACER_SIG=1 GST_DEBUG=GST_TRACER:7 GST_DEBUG_NO_COLOR=1 LD_LIBRARY_PATH=$gst_libraries \
    timeout -s INT "${FLASHVSR_SOAK:-600}" "$work/gst/usr/libexec/real/gst-launch-1.0" -m multifilesrc location="$work/soak.h264" loop=true ! h264parse ! nvh264dec ! \
    "$in_cuda" ! flashvsr device=cuda stats-interval=1000000000 ! "$in_cuda" ! fakesink sync=true > "$log" 2>&1 &
  runner=$!
  sleep 10
  player=$(pgrep -P $runner gst-launch || echo $runner)
  while kill -0 "$player" 2> /dev/null; do
    kill -USR1 "$player" || break
    echo "$(date +%T) device_mib $(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0) rss_kb $(awk '/VmRSS/ {print $2}' /proc/$player/status)" \
      "files $(ls /proc/$player/fd | wc -l) threads $(ls /proc/$player/task | wc -l)" >> "$out/soak.txt"
    sleep 10
  done
  wait $runner || true
  awk '{for (i = 2; i < NF; i += 2) {if (!($i in lo) || $(i+1) < lo[$i]) lo[$i] = $(i+1); if ($(i+1) > hi[$i]) hi[$i] = $(i+1)}} END {for (k in lo) printf "%s %s .. %s, ", k, lo[k], hi[k]; print NR " looks"}' "$out/soak.txt"
  echo "contexts alive at each look: $(grep -o 'GstCudaContext, address=(gpointer)0x[0-9a-f]*' "$log" | sort | uniq -c | tr '\n' ';')"
  last_stats "$log" "soak"
fi

"$folder/flashvsr-bench" table "$out"/*.jsonl > "$out/table.md" || echo "no table"
