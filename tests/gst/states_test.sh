#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# states_test.sh PLUGIN.so ENGINE.so
# Check 5: generic/states.c of gst-plugins-bad 1.22.0, as upstream wrote it, on our plugin. The source package comes from
# the sources that this machine's apt knows, through lists of its own; skipped where that cannot be had.
# The test passes with no element at all, so its log must say that it tested flashvsr.
set -uo pipefail
plugin=$1 engine=$2
keep=${XDG_CACHE_HOME:-$HOME/.cache}/flashvsr/gst-plugins-bad-1.22.0
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
skip() { echo "1..0 # SKIP $1"; exit 0; }

fetch() {
  command -v apt-get > /dev/null || { echo "no apt-get"; return 1; }
  mkdir -p "$work"/{lists/partial,parts,cache/archives/partial,src} "$keep"
  : > "$work/sources.list"
  [ ! -r /etc/apt/sources.list ] || sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > "$work/sources.list"
  [ ! -r /etc/apt/sources.list.d/debian.sources ] ||
    sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources > "$work/parts/debian.sources"
  local apt=(timeout 120 apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts"
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
  "${apt[@]}" update > "$work/log" 2>&1 || { tail -2 "$work/log"; return 1; }
  local version
  version=$("${apt[@]}" showsrc gst-plugins-bad1.0 2> /dev/null | sed -n 's/^Version: \(1\.22\.0.*\)/\1/p' | tail -1)
  version=${version:-$(apt-cache -o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts" \
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" showsrc gst-plugins-bad1.0 2> /dev/null |
    sed -n 's/^Version: \(1\.22\.0.*\)/\1/p' | tail -1)}
  [ -n "$version" ] || { echo "no source package gst-plugins-bad1.0 1.22.0"; return 1; }
  (cd "$work/src" && "${apt[@]}" source --tar-only "gst-plugins-bad1.0=$version") > "$work/log" 2>&1 ||
    { tail -2 "$work/log"; return 1; }
  local tar
  tar=$(echo "$work"/src/*.orig.tar.*)
  tar -xf "$tar" -C "$work/src" --wildcards '*/tests/check/generic/states.c' || return 1
  cp "$work"/src/*/tests/check/generic/states.c "$keep/states.c"
}

[ -s "$keep/states.c" ] || why=$(fetch) || skip "states.c cannot be fetched: ${why:-unknown}"
gcc -w -DPACKAGE='"gst-flashvsr"' -o "$work/states" "$keep/states.c" $(pkg-config --cflags --libs gstreamer-check-1.0 gmodule-2.0) ||
  { echo "1..1"; echo "not ok 1 - states.c does not compile"; exit 1; }
mkdir "$work/plugins" && cp "$plugin" "$work/plugins/"
core=$(pkg-config --variable=pluginsdir gstreamer-1.0)
cp "$core"/libgstcoreelements.so "$work/plugins/" 2> /dev/null
GST_PLUGIN_SYSTEM_PATH_1_0='' GST_PLUGIN_PATH_1_0="$work/plugins" GST_REGISTRY_1_0="$work/registry" FLASHVSR_ENGINE_PATH=$engine \
  GST_DEBUG=check:6 GST_DEBUG_NO_COLOR=1 timeout 120 "$work/states" > "$work/out" 2> "$work/err"
status=$?
sed 's/^/# /' "$work/out"
echo "1..2"
[ $status = 0 ] && echo "ok 1 - check_05_upstream_generic_states" || echo "not ok 1 - check_05_upstream_generic_states"
if grep -q 'testing element flashvsr' "$work/err"; then echo "ok 2 - its log says that it tested flashvsr"
else echo "not ok 2 - its log says that it tested flashvsr"; tail -5 "$work/err" | sed 's/^/# /'; fi
[ $status = 0 ]
