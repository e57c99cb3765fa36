#!/usr/bin/env bash
# `make sanitize`: the tests of the engine, of adapters and of the server under the address and thread
# sanitizers. The first part that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/parts.sh

sanitized() { # PRESET
  local name
  build "$1" braid_{kv,adapter,engine,server}_tests
  for name in kv adapter engine server; do "build/$1/tests/$name/braid_${name}_tests" || return; done
}

part "address sanitizer" sanitized asan
part "thread sanitizer" sanitized tsan
