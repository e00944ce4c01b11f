#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# inspect_test.sh PLUGIN.so FAKE_ENGINE.so
# Checks 1 to 3 through gst-inspect-1.0, with no other plugin in sight. TAP.
set -u
plugin=$1 engine=$2
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir "$work/empty"
export GST_PLUGIN_SYSTEM_PATH_1_0=$work/empty GST_PLUGIN_PATH_1_0=$(dirname "$plugin") GST_REGISTRY_1_0=$work/registry.bin
export LC_ALL=C G_DEBUG=fatal-warnings GST_DEBUG_NO_COLOR=1
# shellcheck source=tests/gst/tap.sh
. "$(dirname "$0")/tap.sh"
echo 1..6

FLASHVSR_ENGINE_PATH=$engine gst-inspect-1.0 flashvsr > "$work/text" 2> "$work/errors"
result $? check_01_inspect
rank=$(grep -c 'Rank *none (0)' "$work/text")
# Each property of ours has words, flags, and (but for the read-only one) a default.
python3 - "$work/text" "$work/errors" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
blocks = re.split(r'\n(?=  [a-z-]+ +: )', text[text.index('Element Properties:'):])[1:]
wanted = set('''model model-version scale device precision decoder sparse-ratio kv-chunks local-range color-fix seed startup
max-vram bypass strength compare compare-position processing-deadline overload-policy scene-cut stats stats-interval qos'''.split())
seen, bad = set(), []
for block in blocks:
    name, words = re.match(r'  ([a-z-]+) +: (.*)', block).groups()
    seen.add(name)
    if len(words) < 10 and name not in ('name', 'parent', 'qos'):
        bad.append(name + ': no words')
    if 'flags: ' not in block or ('Default: ' not in block and name not in ('stats', 'parent')):
        if 'Default' not in block and 'Boxed' not in block and name != 'parent':
            bad.append(name + ': no default')
bad += sorted('missing: ' + name for name in wanted - seen)
errors = open(sys.argv[2]).read()
if errors:
    bad.append('on stderr: ' + errors)
print('\n'.join('# ' + line for line in bad), end='\n' if bad else '')
sys.exit(1 if bad else 0)
PY
result $? check_01_properties
result $((1 - rank)) check_01_rank_none

# A fresh registry: time and memory of the scan, plugin's libraries.
rm -f "$GST_REGISTRY_1_0"
best=999999
for _ in 1 2 3 4 5; do
  rm -f "$GST_REGISTRY_1_0"
  begin=$(date +%s%N)
  /usr/bin/time -f %M -o "$work/kilobytes" gst-inspect-1.0 flashvsr > /dev/null 2>&1 || { echo 999999 > "$work/kilobytes"; }
  took=$((($(date +%s%N) - begin) / 1000000))
  [ "$took" -lt "$best" ] && best=$took
done
kilobytes=$(cat "$work/kilobytes" 2>/dev/null || echo 0)
echo "# scan: $best ms, $kilobytes KiB"
[ "$best" -lt 200 ] && [ "$kilobytes" -lt 30720 ]; result $? check_02_scan_is_light

# No engine at all: still registered, nothing blacklisted.
rm -f "$GST_REGISTRY_1_0"
FLASHVSR_ENGINE_PATH=/nowhere.so gst-inspect-1.0 flashvsr > /dev/null 2>&1; result $? check_03_element_without_engine
blacklisted=$(FLASHVSR_ENGINE_PATH=/nowhere.so gst-inspect-1.0 -b 2>/dev/null | grep -c libgstflashvsr)
result "$blacklisted" check_03_not_blacklisted
