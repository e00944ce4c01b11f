#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# setup.sh [--no-install] [--demo]
# Makes a clone ready: Debian or Ubuntu packages that are missing, LibTorch, build folder, build.
# Says what it does, leaves alone what is there; run it as often as you like.
#   --no-install   install no packages (LibTorch, which goes into the user's cache, is still fetched when missing)
#   --demo         build what examples/upscale.sh needs; default: everything, the tests too
# Environment: FLASHVSR_TORCH_ROOT   a LibTorch 2.11 of your own instead of a fetched one
#              FLASHVSR_BUILD        build folder, default build
#              FLASHVSR_ENGINE=disabled  only the element and its fake engine, no LibTorch
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '== %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
install=yes demo=no
for a in "$@"; do case $a in
  --no-install) install=no;; --demo) demo=yes;;
  *) sed -n '3,10s/^# \?//p' "$0" >&2; exit 2;; esac; done
build=${FLASHVSR_BUILD:-build} engine=${FLASHVSR_ENGINE:-enabled}

# 1. packages
packages="g++ meson ninja-build pkg-config python3 xz-utils libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav"
[ $demo = yes ] || packages+=" libgtest-dev libgstreamer-plugins-bad1.0-dev libgstrtspserver-1.0-dev gstreamer1.0-rtsp
  python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0"
have_torch() { [ -n "${FLASHVSR_TORCH_ROOT:-}" ] || [ "$engine" = disabled ]; }
have_torch || python3 -m pip --version >/dev/null 2>&1 || packages+=" python3-pip"
if [ $install = no ]; then
  say "packages: not looked at (--no-install)"
elif ! command -v dpkg-query >/dev/null; then
  say "packages: no dpkg here; this machine must have the like of: $(echo $packages)"
else
  missing=()
  for p in $packages; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "packages: all there"
  else
    line="apt-get install -y --no-install-recommends ${missing[*]}"
    sudo=()
    if [ "$(id -u)" != 0 ]; then
      command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; } ||
        die "packages are missing, and this is neither root nor a user with sudo. Run as root, then come back:
    $line"
      sudo=(sudo)
    fi
    say "packages: installing ${missing[*]}"
    apt() { ${sudo[@]+"${sudo[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq "$@"; }
    # A fresh machine has no package lists, an old one stale ones: refresh them only when needed.
    apt install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
      say "packages: refreshing the package lists"
      apt update && apt install -y --no-install-recommends "${missing[@]}" >/dev/null
    } || die "apt-get failed. By hand: $line"
  fi
fi
for tool in meson ninja pkg-config; do command -v $tool >/dev/null || die "$tool is missing"; done

# 2. LibTorch
options=("-Dengine=$engine")
if [ "$engine" = disabled ]; then
  say "LibTorch: not used (FLASHVSR_ENGINE=disabled)"
elif [ -n "${FLASHVSR_TORCH_ROOT:-}" ]; then
  say "LibTorch: $FLASHVSR_TORCH_ROOT (FLASHVSR_TORCH_ROOT)"
  [ -e "$FLASHVSR_TORCH_ROOT/lib/libtorch_cpu.so" ] || die "no lib/libtorch_cpu.so in $FLASHVSR_TORCH_ROOT"
  options+=("-Dtorch_root=$FLASHVSR_TORCH_ROOT")
else
  root=$(tools/fetch-libtorch --auto) || die "LibTorch could not be fetched"
  say "LibTorch: $root"
  options+=("-Dtorch_root=$root")
fi

# 3. configure: when new, or when an option differs from last time
if [ -z "${CXX:-}" ] && command -v ccache >/dev/null; then export CC="ccache ${CC:-gcc}" CXX='ccache g++'; fi
# also when a test library came since: meson asked for it then and did not find it
stamp="$PWD ${options[*]} $(for p in gtest_main gstreamer-cuda-1.0 gstreamer-rtsp-server-1.0; do pkg-config --exists $p && echo $p || true; done | xargs)"
log=$(mktemp); trap 'rm -f "$log"' EXIT
if [ ! -e "$build/build.ninja" ]; then
  say "configuring $build"
  meson setup "$build" "${options[@]}" >"$log" 2>&1 || { tail -n 30 "$log" >&2; die "meson failed"; }
elif [ "$(cat "$build/.setup" 2>/dev/null)" != "$stamp" ]; then
  say "configuring $build again"
  meson setup --reconfigure "$build" "${options[@]}" >"$log" 2>&1 ||
    meson setup --wipe "$build" "${options[@]}" >"$log" 2>&1 || { tail -n 30 "$log" >&2; die "meson failed"; }
fi
echo "$stamp" > "$build/.setup"

# 4. build. LibTorch's headers take up to 1.2 GB per compiler.
jobs=$(nproc)
mem_mb=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
[ "$mem_mb" -ge 4096 ] || jobs=1
[ $((jobs * 1200)) -le "$mem_mb" ] || jobs=$((mem_mb / 1200 > 1 ? mem_mb / 1200 : 1))
# When a meson.build has changed since, the list of targets is an old one: renew it first.
ninja -C "$build" --quiet build.ninja >"$log" 2>&1 || { tail -n 30 "$log" >&2; die "meson failed"; }
targets=()
if [ $demo = yes ]; then
  # what there is of: the element, the engine, its CUDA part, the program
  mapfile -t targets < <(ninja -C "$build" -t targets all | sed -n 's/: .*//p' |
    grep -xE 'gst/libgstflashvsr\.so|src/libflashvsr\.so|src/cuda/libflashvsr_cuda\.so|tests/support/libflashvsr_fake\.so|src/models/nano/[^/]*|examples/flashvsr-upscale')
fi
say "building with $jobs job(s)"
ninja -C "$build" -j "$jobs" --quiet ${targets[@]+"${targets[@]}"} || die "the build failed"
# The engine, its CUDA part and LibTorch have to share one C++ library: with one each they crash when they print a number.
if [ -e "$build/src/libflashvsr.so" ] && needed=$(readelf -d "$build/src/libflashvsr.so") && ! grep -q "NEEDED.*libstdc++" <<< "$needed"; then
  die "${CXX:-g++} links libstdc++ statically, and LibTorch has it as a shared library. Set CC and CXX to the system's compiler, delete $build, and come back."
fi
say "built"
