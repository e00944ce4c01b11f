#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# versions_test.sh SOURCE BUILD
# Check 47: the element under other versions of GStreamer, each in a Debian release of its own by debootstrap. There
#   first   the plugin, the fake engine and the test programs of BUILD run as they were built here;
#   second  the element is built from SOURCE (-Dengine=disabled) and its suite "gst" runs.
# Needs root, debootstrap, unshare and about 2 GB for each release, kept between runs in the user's cache. Mirror: the one
# that this machine's apt knows. One TAP line for each program. What cannot be had is skipped, with a reason.
# Environment: FLASHVSR_RELEASES  default "trixie" (GStreamer 1.26); forky has 1.28, Ubuntu's noble 1.24
#              FLASHVSR_UBUNTU_MIRROR  where noble comes from
set -uo pipefail
source=$(cd "$1" && pwd) build=$(cd "$2" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flashvsr
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/gst/tap.sh
. "$(dirname "$0")/tap.sh"
packages="g++ meson ninja-build pkg-config python3 time libgtest-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  libgstrtspserver-1.0-dev gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0"

# Runs COMMAND in the release: its own /tmp, our sources at /tmp/source and build at /tmp/build (read-only). The mounts
# belong to a namespace and go with it, whatever happens.
inside() {  # COMMAND...
  # shellcheck disable=SC2016
  unshare --mount --pid --fork --kill-child bash -c '
    set -e
    root=$0 source=$1 build=$2; shift 2
    mount --make-rprivate /
    mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; mount -t tmpfs tmpfs "$root/tmp"
    mkdir "$root/tmp/source" "$root/tmp/build"
    mount --bind "$source" "$root/tmp/source"; mount -o remount,bind,ro "$root/tmp/source"
    mount --bind "$build" "$root/tmp/build"; mount -o remount,bind,ro "$root/tmp/build"
    exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"' \
    "$root" "$source" "$build" "$@"
}

make_root() {  # RELEASE; says why not
  [ ! -e "$root.ready" ] || return 0
  [ "$(id -u)" = 0 ] || { echo "needs root"; return 1; }
  command -v debootstrap > /dev/null || { echo "no debootstrap here"; return 1; }
  local mirror script=/usr/share/debootstrap/scripts/$1 options=()
  if [ "$1" = noble ]; then  # Ubuntu 24.04
    mirror=${FLASHVSR_UBUNTU_MIRROR:-}
    [ -n "$mirror" ] || { echo "FLASHVSR_UBUNTU_MIRROR is not set"; return 1; }
    options=(--components=main,universe --keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg)
    [ -e "${options[1]#*=}" ] || { echo "no ubuntu-archive-keyring.gpg in /usr/share/keyrings"; return 1; }
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/gutsy
  else
    # deb.sury.org and the like are apt sources too: only what calls itself Debian.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2> /dev/null | sort -u | head -1)
    [ -n "$mirror" ] || { echo "apt knows no Debian mirror"; return 1; }
    # A debootstrap older than the release makes it as it makes sid.
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
  fi
  rm -rf --one-file-system "$root"; mkdir -p "$root"
  debootstrap --variant=minbase "${options[@]}" "$1" "$root" "$mirror" "$script" > "$work/log" 2>&1 || { echo "debootstrap: $(tail -1 "$work/log")"; return 1; }
  cp /etc/resolv.conf "$root/etc/"
  # A mirror that lags behind is good enough here.
  # shellcheck disable=SC2086
  inside apt-get -qq -o Acquire::Check-Valid-Until=false update > "$work/log" 2>&1 && inside apt-get -qq -y --no-install-recommends install $packages > "$work/log" 2>&1 ||
    { echo "apt-get: $(tail -1 "$work/log")"; return 1; }
  inside apt-get -qq clean
  : > "$root.ready"
}

for release in ${FLASHVSR_RELEASES:-trixie}; do
  root=$cache/release-$release
  if ! why=$(make_root "$release"); then skip "check_47_$release" "$why"; continue; fi
  version=$(inside pkg-config --modversion gstreamer-1.0)
  if [ -z "$version" ]; then result 1 "check_47_$release: the folder of this release does not work; remove $root.ready"; continue; fi
  [ "$version" != "$(pkg-config --modversion gstreamer-1.0)" ] || { skip "check_47_$release" "GStreamer $version, as here"; continue; }
  echo "# $release: GStreamer $version"

  for test in basics events pipeline scenarios stress fuzz endurance live timing; do
    # shellcheck disable=SC2016
    inside env GST_PLUGIN_PATH_1_0=/tmp/build/gst FLASHVSR_ENGINE_PATH=/tmp/build/tests/support/libflashvsr_fake.so \
      GST_REGISTRY_1_0=/tmp/registry CK_DEFAULT_TIMEOUT=120 G_DEBUG=fatal-criticals \
      "/tmp/build/tests/gst/gst_${test}_test" > "$work/out" 2> "$work/err"
    status=$?
    cases=$(grep -c '^ok ' "$work/out")
    [ $status = 0 ] || { grep '^not ok' "$work/out"; tail -n 20 "$work/err"; } | sed 's/^/# /'
    [ $status = 0 ] && [ "$cases" -gt 0 ]; result $? "check_47_built_here_run_on_${version}_$test ($cases cases)"
  done
  inside bash -c 'for script in inspect leaks; do
      case $script in
        inspect) set -- /tmp/build/gst/libgstflashvsr.so /tmp/build/tests/support/libflashvsr_fake.so;;
        leaks) set -- /tmp/build/gst /tmp/build/tests/support/libflashvsr_fake.so /tmp/leaks.reg;;
      esac
      /tmp/source/tests/gst/${script}_test.sh "$@"
    done' > "$work/out" 2>&1
  cases=$(grep -c '^ok ' "$work/out")
  grep -A5 '^not ok' "$work/out" | sed 's/^/# /'
  [ "$cases" -gt 0 ] && ! grep -q '^not ok' "$work/out"; result $? "check_47_built_here_run_on_${version}_gst_launch ($cases cases)"

  # The sources are read-only there, and meson writes into its build folder alone. /tmp is memory; the build is small.
  # Only the targets of that suite: the rest knows no GStreamer.
  inside bash -c 'cd /tmp && meson setup b source -Dengine=disabled -Dcuda=disabled &&
    ninja -C b $(ninja -C b -t targets all | sed -nE "s,^((tests/gst/gst_[a-z_]*_test|gst/libgstflashvsr.so|tests/support/libflashvsr_fake.so|tests/support/fake_hardware/[a-z]*.so|examples/(appsrc_appsink|rtsp_restream|flashvsr-upscale))): .*,\\1,p") &&
    meson test -C b --no-rebuild --suite gst --timeout-multiplier 3 --print-errorlogs; python3 source/tests/support/count_cases.py b/meson-logs' \
    > "$work/out" 2>&1
  status=$?
  [ $status = 0 ] || tail -n 60 "$work/out" | sed 's/^/# /'
  result $status "check_47_built_and_run_on_${version} ($(tail -1 "$work/out"))"
done
echo "1..$number"
exit $failed
