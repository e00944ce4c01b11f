#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# include_rules.sh [--self-test] [TREE]
# Who may include whom. One row of `rules` for each room: folder, files, what must not be included,
# and the exceptions (extended regular expressions on the text between the brackets or quotes).
# --self-test plants one violation for each row in a copy and demands that each is found.
set -euo pipefail
self_test=no; if [ "${1:-}" = --self-test ]; then self_test=yes; shift; fi
tree=$(cd "${1:-$(dirname "$0")/../..}" && pwd)

torch='(torch|ATen|c10)/'
cuda='(cuda|cudnn|cublas|nv[a-z]+)[a-zA-Z0-9_]*\.(h|hpp)$|^(c10|ATen)/cuda/|^cu[a-z_0-9]*\.h$'
glib='(gst|glib|gio|gobject|gmodule)[-/0-9a-z.]*'
rules="
gst          .*                      $torch|$cuda|(base|stream|image|model|io|api|train|kernels)/   gst/cuda/.*
src/include  .*                      $torch|$cuda|$glib|(base|stream|image|model|io|api|train|kernels)/   -
src/base     .*                      $torch|$cuda|$glib|(stream|image|model|io|api|train|kernels)/   -
src/stream   .*                      $torch|$cuda|$glib|(image|model|io|api|train|kernels)/   -
src/image    .*                      $cuda|$glib|(stream|model|io|api|train)/   -
src/model    .*                      $cuda|$glib|(stream|image|io|api|train)/   -
src/io       .*                      $cuda|$glib|(stream|image|api|train|kernels)/   -
src/api      .*                      $cuda|$glib|train/   -
src/cuda     .*                      $glib|(stream|io|api|train)/   -
src/train    .*                      $glib|(api|stream)/   stream/chunk_schedule\.h
kernels      .*                      $torch|$glib|(base|stream|image|model|io|api|train|flashvsr)/   -
kernels      [^.]*_ref\.cpp|[^/]*\.h $cuda   -
examples     .*                      $torch|$cuda|(base|stream|image|model|io|api|train|kernels)/   -
src          ((base|include|stream|image|model|io|api|cuda)/.*) torch/(torch|script|extension)\.h   -
"

check() {  # TREE: prints violations, status 1 when there are any
  local bad=0 room files deny allow file line what
  while read -r room files deny allow; do
    [ -n "$room" ] && [ -d "$1/$room" ] || continue
    while IFS= read -r file; do
      [[ ${file#"$1/$room/"} =~ ^($files)$ ]] || continue
      while IFS=: read -r line what; do
        [ -n "$what" ] || continue
        what=$(sed -E 's/^ *# *include *[<"]([^>"]*).*/\1/' <<< "$what")
        [[ $what =~ ^($deny) ]] || continue
        [ "$allow" != - ] && [[ $what =~ ^($allow)$ ]] && continue
        echo "${file#"$1/"}:$line: $room must not include $what"; bad=1
      done < <(grep -nE '^ *# *include' "$file" || true)
    done < <(find "$1/$room" -type f \( -name '*.h' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) | sort)
  done <<< "$rules"
  return $bad
}

if [ $self_test = no ]; then check "$tree" && echo "include rules: kept"; exit; fi

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
planted=0
plant() {  # FILE INCLUDE
  rm -rf "$work/t"; mkdir -p "$(dirname "$work/t/$1")"
  echo "#include $2" > "$work/t/$1"
  if check "$work/t" > /dev/null; then echo "not found: $2 in $1"; exit 1; fi
  planted=$((planted + 1))
}
plant gst/a.cpp '<torch/library.h>';            plant gst/a.cpp '"api/session.h"';   plant gst/a.cpp '<cuda_runtime.h>'
plant src/include/flashvsr/a.h '<glib.h>';      plant src/base/a.h '"model/dit.h"';  plant src/base/a.cpp '<ATen/ATen.h>'
plant src/stream/a.h '<gst/gst.h>';             plant src/stream/a.h '"image/frame.h"'
plant src/image/a.cpp '"model/config.h"';       plant src/image/a.cpp '<cuda.h>'
plant src/model/a.cpp '"io/weights.h"';         plant src/model/a.cpp '"image/frame.h"'; plant src/model/a.cpp '<torch/torch.h>'
plant src/io/a.cpp '"api/session.h"';           plant src/api/a.cpp '"train/losses.h"';  plant src/api/a.cpp '<glib.h>'
plant src/cuda/a.cpp '"api/session.h"';         plant src/train/a.cpp '"api/session.h"'; plant src/train/a.cpp '"stream/frame_ring.h"'
plant kernels/a.cu '<ATen/ATen.h>';             plant kernels/a.cu '"model/config.h"'
plant kernels/a_ref.cpp '<cuda_runtime.h>';     plant kernels/a.h '<cuda_bf16.h>';       plant examples/a.cpp '"model/dit.h"'
# and what is allowed stays so
mkdir -p "$work/g/src/train" "$work/g/gst" "$work/g/kernels"
echo '#include "stream/chunk_schedule.h"' > "$work/g/src/train/a.cpp"
echo '#include <gst/cuda/gstcuda.h>' > "$work/g/gst/a.cpp"
echo '#include <cuda_bf16.h>' > "$work/g/kernels/a.cu"
check "$work/g" || { echo "an allowed include was refused"; exit 1; }
echo "include rules: $planted planted violations, all found"
