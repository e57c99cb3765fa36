#!/usr/bin/env bash
# `make sanitize`: the tests of the engine and of adapters under the address and thread sanitizers. The first part that
# fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/parts.sh

sanitized() { # PRESET
  build "$1" braid_engine_tests braid_kv_tests braid_adapter_tests
  "build/$1/tests/kv/braid_kv_tests" && "build/$1/tests/adapter/braid_adapter_tests" &&
    "build/$1/tests/engine/braid_engine_tests"
}

part "address sanitizer" sanitized asan
part "thread sanitizer" sanitized tsan
