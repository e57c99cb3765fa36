#!/usr/bin/env bash
# `make sanitize`: each fuzz target for 20 seconds on the seeds of the repository, and the engine's
# tests under the address and thread sanitizers. The first part that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=$(nproc)
logs=build/test-logs
mkdir -p "$logs"
# Objects are found again in the cache wherever the checkout lies.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

# part NAME COMMAND...: quiet when it succeeds, the end of its output when it does not.
part() {
  local name=$1 begin=$SECONDS log
  shift
  log="$logs/${name// /-}.log"
  if "$@" >"$log" 2>&1; then
    printf '%-28s ok  %4d s\n' "$name" $((SECONDS - begin))
  else
    printf '%-28s FAILED after %d s\n' "$name" $((SECONDS - begin))
    tail -n 60 "$log"
    exit 1
  fi
}

build() { # PRESET TARGETS...
  local preset=$1
  shift
  cmake --preset "$preset" && cmake --build --preset "$preset" --parallel "$jobs" ${1:+--target "$@"}
}

fuzz_one() { # NAME: 20 s on the seeds of the repository, new finds are kept out of it
  local corpus
  corpus=$(mktemp -d)
  cp -r "tests/fuzz/corpus/$1/." "$corpus" 2>/dev/null || true
  "build/fuzz/tests/fuzz/$1_fuzz" -max_total_time=20 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 "$corpus"
  rm -rf "$corpus"
}

sanitized() { # PRESET
  build "$1" braid_engine_tests braid_kv_tests
  "build/$1/tests/kv/braid_kv_tests" && "build/$1/tests/engine/braid_engine_tests"
}

mapfile -t fuzzed < <(basename -a -s _fuzz.cc tests/fuzz/*_fuzz.cc)
part "build fuzz targets" build fuzz "${fuzzed[@]/%/_fuzz}"
for name in "${fuzzed[@]}"; do
  part "fuzz $name" fuzz_one "$name"
done
part "address sanitizer" sanitized asan
part "thread sanitizer" sanitized tsan
