#!/usr/bin/env bash
# What `make test` runs after the bootstrap. Each part prints how long it took; the first that
# fails ends the run. Skipped tests are counted and printed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
. tools/parts.sh

unit_tests() {
  ctest --test-dir build/dev --output-on-failure --parallel "$jobs" --no-tests=error
}

mapfile -t fuzzed < <(basename -a -s _fuzz.cc tests/fuzz/*_fuzz.cc)

fuzz_one() { # NAME: 20 s on the seeds of the repository, new finds are kept out of it
  local corpus
  corpus=$(mktemp -d)
  cp -r "tests/fuzz/corpus/$1/." "$corpus"
  "build/fuzz/tests/fuzz/$1_fuzz" -max_total_time=20 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$logs/$1-" "$corpus" >"$logs/fuzz-$1.log" 2>&1 ||
    { tail -n 60 "$logs/fuzz-$1.log"; return 1; }
  rm -rf "$corpus"
}
export -f fuzz_one
export logs

fuzz_all() {
  printf '%s\n' "${fuzzed[@]}" | xargs -P "$jobs" -I{} bash -c 'fuzz_one {}'
}

part "lint" tools/lint.sh
part "build" build dev
sed -n '/^-- Braid:/p' "$logs/build.log" # CUDA found or not
part "demo model" "$python" tools/demo/make_model.py --out build/demo/smollm2-moe
part "tokenizer goldens" "$python" tools/goldens/make_tokenizers.py --out build/test-data/tokenizer
# Where there is a Hopper GPU its tests must run; elsewhere they must have run on these sources.
if nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -qx 9.0; then
  export BRAID_REQUIRE_GPU=1
else
  part "receipt of the GPU tests" tools/gpu_check --verify
fi
part "unit tests" unit_tests
part "server with its clients" "$python" -m pytest -q tests/server/client
part "build fuzz targets" build fuzz "${fuzzed[@]/%/_fuzz}"
part "fuzz ${#fuzzed[@]} targets" fuzz_all
skipped=$(grep -c '\*\*\*Skipped' "$logs/unit-tests.log" || true)
if [ "$skipped" -gt 0 ]; then
  echo "skipped tests:"
  grep '\*\*\*Skipped' "$logs/unit-tests.log"
fi
failed=0
passed=$(sed -n 's/^100% tests passed, 0 tests failed out of \([0-9]*\)$/\1/p' "$logs/unit-tests.log")
with_clients=$(sed -n 's/^\([0-9]*\) passed.*/\1/p' "$logs/server-with-its-clients.log")
passed=$((passed + with_clients))
echo "$((passed - skipped)) passed, $failed failed, $skipped skipped"
