#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# sanitize.sh SOURCE FOLDER [PART...]
# Checks 39 and 40: the element, the fake engine and their tests, built in FOLDER
#   asan      with AddressSanitizer (its leaks too) and UndefinedBehaviorSanitizer;
#   stress    the same programs: the stress test five times, FLASHVSR_STRESS_SECONDS (8) for each of its rounds;
#   valgrind  under memcheck, no error and no block definitely lost.
# Default: all. One TAP line for each program; its own cases stand beside it. Not ours, and so suppressed: what lsan.supp
# and valgrind.supp name. Each tool first has to find a leak that was planted in spite of them.
set -uo pipefail
source=$1 folder=$2; shift 2
parts=${*:-asan stress valgrind}
here=$source/tests/gst
mkdir -p "$folder" && folder=$(cd "$folder" && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/gst/tap.sh
. "$(dirname "$0")/tap.sh"

# Other plugins leak when they are scanned (fontconfig, pango): none but these are in sight.
mkdir "$work/plugins"
all=$(pkg-config --variable=pluginsdir gstreamer-1.0)
for plugin in app audiotestsrc compositor coreelements deinterlace jpeg matroska playback typefindfunctions \
    videoconvertscale videotestsrc; do
  if [ -e "$all/libgst$plugin.so" ]; then ln -s "$all/libgst$plugin.so" "$work/plugins/"; else echo "# no plugin $plugin here"; fi
done
export GST_PLUGIN_SYSTEM_PATH_1_0=$work/plugins GST_REGISTRY_1_0=$work/registry GST_REGISTRY_FORK=no
export G_SLICE=always-malloc G_DEBUG=fatal-criticals,gc-friendly CK_DEFAULT_TIMEOUT=600
# fast_unwind_on_malloc=0: GLib keeps no frame pointers, and suppressions go by the names of callers.
asan=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:fast_unwind_on_malloc=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 LSAN_OPTIONS=suppressions=$here/lsan.supp:print_suppressions=0

build() {  # NAME, meson's options
  local name=$1; shift
  [ -f "$folder/$name/build.ninja" ] ||
    meson setup "$folder/$name" "$source" -Dengine=disabled -Dcuda=disabled --buildtype=debugoptimized "$@" > "$work/log" 2>&1 &&
    (cd "$folder/$name" && ninja -t targets all | sed -n 's,^\(tests/gst/gst_[a-z]*_test\|gst/libgstflashvsr.so\|tests/support/libflashvsr_fake.so\): .*,\1,p' |
      grep -v queue_test | xargs ninja) > "$work/log" 2>&1 || { sed 's/^/# /' "$work/log" | tail -20; return 1; }
  export GST_PLUGIN_PATH_1_0=$folder/$name/gst FLASHVSR_ENGINE_PATH=$folder/$name/tests/support/libflashvsr_fake.so
  printf '%s\n' '#include <gst/gst.h>' 'int main(int c, char** v) { gst_init(&c, &v); char* p = g_strdup("planted");' \
    'const int n = p[0]; p = NULL; return n == 0; }' > "$work/planted.c"
  # shellcheck disable=SC2046
  gcc -g ${planted_flags:-} -o "$work/planted" "$work/planted.c" $(pkg-config --cflags --libs gstreamer-1.0)
}

# NAME COMMAND...: a test program with cases of its own; passes when it says so and ran at least one.
run() {
  local name=$1 status cases; shift
  "$@" > "$work/out" 2> "$work/err"; status=$?
  cases=$(grep -c '^ok ' "$work/out")
  [ "$status" = 0 ] && [ "$cases" -gt 0 ] || { grep '^not ok' "$work/out"; tail -n 60 "$work/err"; } | sed 's/^/# /'
  [ "$status" = 0 ] && [ "$cases" -gt 0 ] && ! grep -qE '^not ok|^ok .*# SKIP' "$work/out"; result $? "$name ($cases cases)"
}
# The same under memcheck, whose verdict alone counts: a program there is tens of times slower, so that live streams are
# late and a stall of two seconds drains a chunk. A case that ends by a signal fails.
run_memcheck() {
  local name=$1 cases; shift
  "$@" > "$work/out" 2> "$work/err"
  cases=$(grep -cE '^(not )?ok ' "$work/out")
  { grep '^not ok' "$work/out"; head -n 60 "$work/err"; } | sed 's/^/# /'
  [ "$cases" -gt 0 ] && ! grep -q '^==[0-9]*==' "$work/err" && ! grep -q 'Early exit\|signal' "$work/out"; result $? "$name ($cases cases, times left out)"
}
finds_planted() {  # NAME COMMAND...
  local name=$1; shift
  ! "$@" > "$work/out" 2> "$work/err" && grep -q 'main' "$work/err"; result $? "$name"
}

if [[ " $parts " == *" asan "* || " $parts " == *" stress "* ]]; then
  export ASAN_OPTIONS=$asan
  planted_flags=-fsanitize=address build asan -Db_sanitize=address,undefined -Db_lundef=false; status=$?
  result $status check_39_asan_build
  [ $status = 0 ] || { echo "1..$number"; exit 1; }
  finds_planted check_39_asan_finds_a_planted_leak "$work/planted"
  programs=$folder/asan/tests/gst
  if [[ " $parts " == *" asan "* ]]; then
    for test in basics events live pipeline scenarios stress fuzz; do run "check_39_asan_$test" "$programs/gst_${test}_test"; done
  fi
  if [[ " $parts " == *" stress "* ]]; then
    for round in 1 2 3 4 5; do
      FLASHVSR_STRESS_SECONDS=${FLASHVSR_STRESS_SECONDS:-8} run "check_40_asan_stress_$round" "$programs/gst_stress_test"
    done
  fi
  unset ASAN_OPTIONS
fi

if [[ " $parts " == *" valgrind "* ]]; then
  if ! command -v valgrind > /dev/null; then
    skip check_39_valgrind "no valgrind here"
  else
    build valgrind; status=$?
    result $status check_39_valgrind_build
    [ $status = 0 ] || { echo "1..$number"; exit 1; }
    # fair-sched: its lock otherwise starves the thread that a test waits for.
    memcheck=(valgrind -q --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --num-callers=40
      --error-exitcode=99 --fair-sched=yes --suppressions="$here/valgrind.supp")
    glib=$(pkg-config --variable=prefix glib-2.0)/share/glib-2.0/valgrind/glib.supp
    [ ! -r "$glib" ] || memcheck+=(--suppressions="$glib")
    finds_planted check_39_valgrind_finds_a_planted_leak "${memcheck[@]}" "$work/planted"
    for test in basics events live pipeline scenarios; do
      run_memcheck "check_39_valgrind_$test" "${memcheck[@]}" "$folder/valgrind/tests/gst/gst_${test}_test"
    done
  fi
fi
echo "1..$number"
exit $failed
