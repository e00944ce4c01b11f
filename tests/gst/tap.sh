# SPDX-License-Identifier: LGPL-2.1-or-later
# TAP lines for the scripts beside this file, which source it. `number` counts them, `failed` is 1 after a bad one.
number=0 failed=0
result() {  # STATUS NAME
  number=$((number + 1))
  if [ "$1" = 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; failed=1; fi
}
skip() { number=$((number + 1)); echo "ok $number - $1 # SKIP $2"; }  # NAME REASON
