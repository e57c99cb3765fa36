#!/usr/bin/env bash
# What `make test` runs after the bootstrap. Each part prints how long it took; the first that
# fails ends the run. Skipped tests are counted and printed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
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

unit_tests() {
  ctest --test-dir build/dev --output-on-failure --parallel "$jobs" --no-tests=error
}

part "lint" tools/lint.sh
part "build" build dev
sed -n '/^-- Braid:/p' "$logs/build.log" # CUDA found or not
part "demo model" "$python" tools/demo/make_model.py --out build/demo/smollm2-moe
part "tokenizer goldens" "$python" tools/goldens/make_tokenizers.py --out build/test-data/tokenizer
part "unit tests" unit_tests
skipped=$(grep -c '\*\*\*Skipped' "$logs/unit-tests.log" || true)
if [ "$skipped" -gt 0 ]; then
  echo "skipped tests:"
  grep '\*\*\*Skipped' "$logs/unit-tests.log"
fi
failed=0
passed=$(sed -n 's/^100% tests passed, 0 tests failed out of \([0-9]*\)$/\1/p' "$logs/unit-tests.log")
echo "$((passed - skipped)) passed, $failed failed, $skipped skipped"
