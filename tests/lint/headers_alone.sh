#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# headers_alone.sh --self-test | TORCH_INCLUDE or "" [TREE]
# Each header compiles by itself, twice in one file, without a warning; flashvsr.h in C too. Headers that
# see LibTorch only where there is one. Kernel headers get no CUDA header, plain twins must not need one.
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
cxx=${CXX:-g++}
gst_flags=$(pkg-config --cflags gstreamer-video-1.0 gstreamer-check-1.0 2>/dev/null || pkg-config --cflags gstreamer-video-1.0)
gst_flags=${gst_flags//-I/-isystem }

one() {  # TORCH_INCLUDE TREE HEADER: prints the compiler's words when it fails
  local torch=() out
  [ -z "$1" ] || torch=(-isystem "$1")
  if ! out=$(printf '#include "%s"\n#include "%s"\n' "$2/$3" "$2/$3" |
      $cxx -std=c++17 -fsyntax-only -Wall -Wextra -Werror -DGST_USE_UNSTABLE_API -fopenmp \
        -I "$2" -I "$2/src" -I "$2/src/include" -I "$2/gst" ${torch[@]+"${torch[@]}"} $gst_flags -x c++ - 2>&1); then
    echo "not alone: $3"; echo "$out" | head -n 12; return 1
  fi
}
export -f one; export cxx gst_flags

check() {  # TORCH_INCLUDE TREE
  local headers=() header later=0
  while IFS= read -r header; do
    if [ -z "$1" ] && needs_torch "$2" "$header"; then later=$((later + 1)); continue; fi
    headers+=("$header")
  done < <(cd "$2" && find gst kernels src examples -name '*.h' 2>/dev/null | sort)
  [ ${#headers[@]} -gt 0 ] || { echo "no headers"; return 1; }
  if [ -f "$2/src/include/flashvsr/flashvsr.h" ]; then
    echo '#include <flashvsr/flashvsr.h>' |
      gcc -std=c99 -pedantic -Wall -Wextra -Werror -fsyntax-only -I "$2/src/include" -x c - || return 1
  fi
  printf '%s\n' "${headers[@]}" | xargs -P "$(nproc)" -I{} bash -c 'one "$@"' _ "$1" "$2" {} || return 1
  echo "headers alone: ${#headers[@]} good, $later not looked at (no LibTorch)"
}
needs_torch() {  # TREE HEADER, through our own headers too
  local seen=" $2 " queue=("$2") header next
  while [ ${#queue[@]} -gt 0 ]; do
    header=${queue[0]}; queue=("${queue[@]:1}")
    grep -qE '# *include *<(torch|ATen|c10)/' "$1/$header" && return 0
    while IFS= read -r next; do
      for next in "$next" "src/$next" "$(dirname "$header")/$next"; do
        [ -f "$1/$next" ] && [[ $seen != *" $next "* ]] && { seen+="$next "; queue+=("$next"); break; }
      done
    done < <(sed -nE 's/^ *# *include *"([^"]*)".*/\1/p' "$1/$header")
  done
  return 1
}

if [ "${1-}" != --self-test ]; then check "${1-}" "${2:-$tree}"; exit; fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src/base"
plant() {
  printf '%s\n' "$2" > "$work/src/base/a.h"
  ! check "" "$work" > /dev/null 2>&1 || { echo "not found: $1"; exit 1; }
}
plant 'a header without its include' 'inline std::uint8_t a() { return 0; }'
plant 'a header without a guard' 'struct A {};'
plant 'a header with a warning' '#pragma once
inline int a(int b) { return 0; }'
printf '#pragma once\n#include <cstdint>\ninline std::uint8_t a() { return 0; }\n' > "$work/src/base/a.h"
check "" "$work" > /dev/null || { echo "a good header was refused"; exit 1; }
echo "headers alone: 3 planted violations, all found"
