#!/bin/sh
# Installs with apt what is missing to build, test, demo and measure Enchilada; quiet when nothing is missing.
# Works as root or through sudo. Leaves no service running that it started by installing it.
# Usage: tools/deps.sh [--list | --check]
set -eu

# To build and check. libclang-rt-dev holds the sanitizer runtimes of clang.
build="cmake ninja-build g++ clang clang-format clang-tidy libclang-rt-dev pkg-config git python3
  libgtest-dev libgmock-dev libbenchmark-dev libcli11-dev libfmt-dev nlohmann-json3-dev libxxhash-dev libmimalloc-dev liburing-dev liblz4-dev libzstd-dev zlib1g-dev liblzma-dev
  pybind11-dev python3-dev python3-numpy doxygen groff-base dpkg-dev lintian"
# uPlot for the laboratory's reports comes from npm; headless Chromium tests them.
web="nodejs npm chromium-headless-shell"
# Real programs that the demo, the live tests and the benchmarks run.
programs="sqlite3 redis-server redis-tools zstd xz-utils perl gcc electric-fence coreutils util-linux procps"

case "${1:-}" in
  --list) echo $build $web $programs; exit 0 ;;
  --check | "") ;;
  *) echo "usage: tools/deps.sh [--list | --check]" >&2; exit 2 ;;
esac

# npm also comes with other packages of nodejs than Debian's, and any Chromium will do.
installed() {
  case "$1" in
    npm | nodejs) command -v "${1%js}" >/dev/null 2>&1 && return ;;
    chromium-headless-shell) command -v chromium >/dev/null 2>&1 && return ;;
  esac
  dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "deps: this is not Debian or Ubuntu; install the equivalents of:" $build $web $programs >&2
  exit 0 # the build says itself what it cannot find
fi

missing=
for package in $build $web $programs; do
  installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "${1:-}" = --check ]; then
  echo "missing:$missing"
  exit 1
fi

if [ "$(id -u)" = 0 ]; then
  as_root=
elif command -v sudo >/dev/null 2>&1; then
  as_root=sudo
else
  echo "deps: missing:$missing" >&2
  echo "deps: install them as root, with: apt-get install$missing" >&2
  exit 1
fi

echo "deps: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# apt's own words are shown only when it fails.
quietly() { "$@" >"$log" 2>&1 || { status=$?; cat "$log" >&2; return $status; }; }
quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get update

# A newer release may have dropped or renamed a package: go on without it, its test says that it is missing.
available=
for package in $missing; do
  if apt-cache show "$package" >/dev/null 2>&1; then
    available="$available $package"
  elif [ "$package" = chromium-headless-shell ] && apt-cache show chromium >/dev/null 2>&1; then
    available="$available chromium"
  else
    echo "deps: this release has no package $package" >&2
  fi
done
quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $available

# Installing redis-server starts and enables a service that nobody asked for: undo that, if we were the ones.
case " $available " in
  *" redis-server "*)
    if [ -d /run/systemd/system ]; then
      $as_root systemctl disable --now redis-server >/dev/null 2>&1 || true
    else
      $as_root service redis-server stop >/dev/null 2>&1 || true
      $as_root update-rc.d redis-server disable >/dev/null 2>&1 || true
    fi
    ;;
esac
echo "deps: done"
