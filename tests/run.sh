#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# run.sh [--no-install] [MESON TEST ARGUMENTS...]
# Sets up (examples/setup.sh), builds and runs the whole test suite, but for the suite "long".
# The last line is "N passed, N failed, N skipped", counted in cases.
# Further arguments go to `meson test`: tests/run.sh --suite parity
# Environment: FLASHVSR_FIXTURES  folder with golden tensors; default: the project's own copy
#              FLASHVSR_BUILD, FLASHVSR_TORCH_ROOT, FLASHVSR_ENGINE  see examples/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export FLASHVSR_BUILD=${FLASHVSR_BUILD:-build}
setup=()
if [ "${1:-}" = --no-install ]; then setup=(--no-install); shift; fi
if [ "${1:-}" = --help ]; then sed -n '3,8s/^# \?//p' "$0"; exit; fi
examples/setup.sh ${setup[@]+"${setup[@]}"}

# LibTorch's OpenMP threads spin at barriers by default, which starves two busy cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
# GStreamer out of tools/make-gst-bundle
[ -z "${FLASHVSR_BUNDLE_LIB:-}" ] || export LD_LIBRARY_PATH=$FLASHVSR_BUNDLE_LIB${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
find "$FLASHVSR_BUILD" -maxdepth 3 -name "*.xml" -delete   # a crashed program must not find an old report
rm -f "$FLASHVSR_BUILD"/meson-logs/testlog.*
echo "== testing"
status=0
meson test -C "$FLASHVSR_BUILD" --no-rebuild --no-suite long --print-errorlogs --timeout-multiplier 3 "$@" || status=$?
python3 tests/support/count_cases.py "$FLASHVSR_BUILD/meson-logs" || exit 1
exit $status
