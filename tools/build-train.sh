#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds flashvsr-train alone, against any LibTorch (a CPU or CUDA one, or the one inside Python's
# torch), without meson and GStreamer: for training machines.
#
#   tools/build-train.sh [OUTPUT]     default: build-train/flashvsr-train
#   FLASHVSR_TORCH_ROOT               LibTorch; default: that of python3's torch
set -eu
cd "$(dirname "$0")/.."
out=${1:-build-train/flashvsr-train}
torch=${FLASHVSR_TORCH_ROOT:-$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')}
objects=$(dirname "$out")/objects
mkdir -p "$objects"
libraries="-ltorch_cpu -lc10"
[ -e "$torch/lib/libtorch_cuda.so" ] && libraries="-Wl,--no-as-needed -ltorch_cuda -lc10_cuda -Wl,--as-needed $libraries"
sources="src/base/log.cpp $(ls src/io/*.cpp src/model/*.cpp src/train/*.cpp)"
for source in $sources; do
  object=$objects/$(echo "$source" | tr / _).o
  echo "$source $object"
done | xargs -P "$(nproc)" -L 1 sh -c \
  "${CXX:-g++} -O2 -std=c++17 -DNDEBUG -Wall -fopenmp -isystem '$torch/include' -Isrc -Isrc/include -I. -c \$0 -o \$1"
${CXX:-g++} "$objects"/*.o -L"$torch/lib" -Wl,-rpath,"$torch/lib" -Wl,-rpath-link,"$torch/lib" $libraries -pthread -fopenmp -o "$out"
echo "$out"
