#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# plugin_is_light.sh --self-test | PLUGIN.so
# A scan of plugins opens this file: it may need GStreamer, GLib and the C and C++ libraries, nothing else.
set -euo pipefail
light='^(libgst[a-z]*-1\.0\.so\.0|lib(glib|gobject|gmodule|gio)-2\.0\.so\.0|lib(c|m|dl|pthread|gcc_s|stdc\+\+)\.so\.[0-9]+|ld-linux-x86-64\.so\.2)$'
check() {
  local needed heavy
  needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  [ -n "$needed" ] || { echo "$1 needs nothing at all: not a plugin"; return 1; }
  heavy=$(grep -vE "$light" <<< "$needed" || true)
  [ -z "$heavy" ] || { echo "$1 needs" $heavy; return 1; }
  echo "$(basename "$1") needs only" $needed
}
if [ "${1:?usage: plugin_is_light.sh --self-test | PLUGIN.so}" != --self-test ]; then check "$1"; exit; fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
printf '#include <stdio.h>\nint a(void) { return puts(""); }\n' > "$work/a.c"
gcc -shared -fPIC -o "$work/heavy.so" "$work/a.c" -Wl,--no-as-needed -lgomp
gcc -shared -fPIC -o "$work/light.so" "$work/a.c"
! check "$work/heavy.so" > /dev/null || { echo "a plugin that needs libgomp was let through"; exit 1; }
check "$work/light.so" > /dev/null || { echo "a plugin that needs only the C library was refused"; exit 1; }
echo "plugin is light: the planted heavy one was found"
