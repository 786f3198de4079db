#!/bin/sh
# Static checks. --fast: format, layering, headers (seconds). Otherwise also a clang build with -Wthread-safety and
# clang-tidy over src/ (minutes). Ends non-zero when anything is wrong, after having run all of them.
set -u
cd "$(dirname "$0")/.." || exit 2
jobs=${JOBS:-$(nproc)}
failed=0
step() { # step NAME COMMAND...
  name=$1
  shift
  if out=$("$@" 2>&1); then
    [ -z "$out" ] || printf '%s\n' "$out"
    echo "ok      $name"
  else
    printf '%s\n' "$out"
    echo "FAILED  $name"
    failed=1
  fi
}

format() { git ls-files '*.h' '*.cc' | xargs clang-format --dry-run -Werror; }
clang_build() {
  { [ -f build/clang/build.ninja ] || cmake --log-level=WARNING --preset clang; } &&
    cmake --build --preset clang -- -j"$jobs" >build/clang-build.log || { tail -n 60 build/clang-build.log; return 1; }
}
tidy() { # needs the compile commands of the clang build
  git ls-files 'src/*.cc' | xargs -P "$jobs" -n 1 clang-tidy -p build/clang --quiet 2>build/tidy.log
}

step format format
step layering python3 tools/check_layering.py
step headers python3 tools/check_headers.py
if [ "${1:-}" != --fast ]; then
  mkdir -p build
  step "clang build, -Wthread-safety" clang_build
  step clang-tidy tidy
fi
exit $failed
