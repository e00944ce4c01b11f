#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The counter of tests/run.sh against a real meson run of programs that pass, fail, skip, crash, hang and lie.
set -euo pipefail
counter=$(cd "$(dirname "$0")/../support" && pwd)/count_cases.py
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
cat > meson.build <<'X'
project('counted')
sh = find_program('sh')
test('good', sh, args: ['-c', 'exit 0'])
test('bad', sh, args: ['-c', 'exit 1'])
test('skipped', sh, args: ['-c', 'exit 77'])
test('hung', sh, args: ['-c', 'sleep 60'], timeout: 1)
test('tap', sh, args: ['-c', 'echo 1..4; echo ok 1 a; echo not ok 2 b; echo "ok 3 c # SKIP no"; echo ok 4 d'], protocol: 'tap')
test('tap_dies', sh, args: ['-c', 'echo 1..2; echo ok 1 a; echo ok 2 b; exit 3'], protocol: 'tap')
test('binary', sh, args: ['-c', 'printf "\001\002<&"'], suite: 'noise')
report = '<testsuites><testsuite name="S" tests="3"><testcase name="A" status="run" classname="S"/><testcase name="B" status="run" classname="S"><skipped message="x"/></testcase><testcase name="C" status="notrun" classname="S"/></testsuite></testsuites>'
test('gtest', sh, args: ['-c', 'echo \'' + report + '\' > ${1#--gtest_output=xml:}', 'sh'], protocol: 'gtest')
test('gtest_dies', sh, args: ['-c', 'kill -SEGV $$'], protocol: 'gtest')
X
meson setup b > /dev/null
meson test -C b --no-rebuild > /dev/null 2>&1 || true
# passed: good, tap a d, tap_dies a b, binary, gtest A. failed: bad, hung, tap b, tap_dies as a whole, gtest_dies.
# skipped: skipped, tap c, gtest B C.
status=0; out=$(python3 "$counter" b/meson-logs) || status=$?
echo "$out"
[ "$(tail -n 1 <<< "$out")" = '7 passed, 5 failed, 4 skipped' ] || { echo "wrong counts"; exit 1; }
[ $status = 1 ] || { echo "failures must give status 1"; exit 1; }

rm -rf b; printf "project('none')\ntest('skipped', find_program('sh'), args: ['-c', 'exit 77'])\n" > meson.build
meson setup b > /dev/null; meson test -C b --no-rebuild > /dev/null 2>&1 || true
! python3 "$counter" b/meson-logs || { echo "no case ran, yet it passed"; exit 1; }

rm -rf b; printf "project('fine')\ntest('good', find_program('true'))\n" > meson.build
meson setup b > /dev/null; meson test -C b --no-rebuild > /dev/null
python3 "$counter" b/meson-logs
