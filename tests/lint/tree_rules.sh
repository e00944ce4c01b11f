#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# tree_rules.sh [--self-test] [TREE]
# What holds for tracked files: no package registry's host, no path of one machine, an SPDX line in each
# source, every test known to meson, 32 MiB together. Patterns are written so that they do not match themselves.
set -euo pipefail
self_test=no; if [ "${1:-}" = --self-test ]; then self_test=yes; shift; fi
tree=$(cd "${1:-$(dirname "$0")/../..}" && pwd)
command -v git > /dev/null || { echo "no git here"; exit 77; }
# A clone may belong to another user than the one who tests it.
git() { command git -c safe.directory='*' "$@"; }
[ $self_test = yes ] || git -C "$tree" rev-parse --git-dir > /dev/null 2>&1 || { echo "not a git checkout"; exit 77; }

hosts='[p]ypi\.org|[p]ythonhosted\.org|[d]ownload\.pytorch\.org|[d]eb\.debian\.org|[a]rchive\.ubuntu\.com|[r]egistry\.npmjs\.org|[c]rates\.io|[p]roxy\.golang\.org|[d]eveloper\.download\.nvidia'
paths='(^|[^A-Za-z0-9_.~$}-])/([w]ork|[r]oot|[f]arm|[h]ome/[a-z0-9_-]+|[U]sers/[A-Za-z0-9_-]+)/'
limit=$((32 * 1024 * 1024))

check() {  # TREE
  local bad=0 size out
  cd "$1"
  out=$(git ls-files -z | xargs -0 grep -InE "$hosts" -- 2>/dev/null || true)
  [ -z "$out" ] || { echo "a package registry's host:"; echo "$out" | head -20; bad=1; }
  out=$(git ls-files -z | grep -zv '^LICENSE$' | xargs -0 grep -InE "$paths" -- 2>/dev/null || true)
  [ -z "$out" ] || { echo "a path of one machine:"; echo "$out" | cut -c1-200 | head -20; bad=1; }
  out=$(git ls-files | while IFS= read -r f; do
      [ -f "$f" ] || continue
      case $f in *.c|*.h|*.cpp|*.cu|*.cuh|*.sh|*.py|*/meson.build|meson.build) ;; *) [ -x "$f" ] || continue;; esac
      [ -s "$f" ] || continue
      head -n 5 "$f" | grep -q 'SPDX-License-Identifier: LGPL-2\.1-or-later' || echo "$f"
    done)
  [ -z "$out" ] || { echo "no SPDX line in the first five lines of:"; echo "$out"; bad=1; }
  # A test that no meson.build names never runs, and nobody notices.
  out=$(git ls-files 'tests/**_test.c' 'tests/**_test.cpp' 'tests/**_fuzz.cpp' | while IFS= read -r f; do
      stem=$(basename "$f" | sed -E 's/(_fuzz|(_gpu)?(_test)?)\.(c|cpp)$//'); room=$(dirname "$f")
      while [ "$room" != . ]; do
        if [ -f "$room/meson.build" ] && git ls-files --error-unmatch "$room/meson.build" > /dev/null 2>&1 &&
          grep -qE "['/]$stem(_fuzz|(_gpu)?(_test)?)(\.c|\.cpp)?'" "$room/meson.build"; then continue 2; fi
        room=$(dirname "$room")
      done
      echo "$f"
    done)
  [ -z "$out" ] || { echo "tests that no meson.build names:"; echo "$out"; bad=1; }
  out=$(git ls-files 'tests/*/meson.build' | while IFS= read -r f; do
      room=${f#tests/}; room=${room%/meson.build}; case $room in */*) continue;; esac
      grep -q "subdir('$room')" tests/meson.build || echo "$room"
    done)
  [ -z "$out" ] || { echo "test rooms that tests/meson.build does not enter:" $out; bad=1; }
  size=$(git ls-files -z | { xargs -0 stat -c %s -- 2>/dev/null || true; } | awk '{s += $1} END {print s + 0}')
  [ "$size" -le $limit ] || { echo "tracked files take $size bytes, more than $limit"; bad=1; }
  [ $bad = 1 ] || echo "tree rules: kept, $((size / 1024)) KiB tracked"
  return $bad
}

if [ $self_test = no ]; then check "$tree"; exit; fi

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
plant() {  # WHAT, then the commands on stdin
  rm -rf "$work/t"; mkdir "$work/t"; git -C "$work/t" init -q
  (cd "$work/t" && bash -s) ; git -C "$work/t" add -A
  if (check "$work/t") > /dev/null; then echo "not found: $1"; exit 1; fi
}
plant 'a host' <<< 'echo "see https://py""pi.org/x" > a.md'
plant 'a path' <<< 'echo "cd /""root/x" > a.md'
plant 'a home' <<< 'echo "in \"/home""/jane/x\"" > a.md'
plant 'a source without SPDX' <<< 'echo "int a;" > a.cpp'
plant 'a test unknown to meson' <<< 'mkdir -p tests/x; printf "// SPDX-License-Identifier: LGPL-2.1-or-later\n" | tee tests/x/a_test.cpp > tests/x/meson.build; echo "# SPDX-License-Identifier: LGPL-2.1-or-later" > tests/meson.build; echo "subdir('"'x'"')" >> tests/meson.build'
plant 'a room unknown to meson' <<< 'mkdir -p tests/x; echo "# SPDX-License-Identifier: LGPL-2.1-or-later" | tee tests/meson.build > tests/x/meson.build'
plant 'too much' <<< 'head -c 34000000 /dev/zero > a.bin'
rm -rf "$work/t"; mkdir "$work/t"; git -C "$work/t" init -q
printf '// SPDX-License-Identifier: LGPL-2.1-or-later\nint a;\n' > "$work/t/a.cpp"; git -C "$work/t" add -A
(check "$work/t") > /dev/null || { echo "a clean tree was refused"; exit 1; }
echo "tree rules: 7 planted violations, all found"
