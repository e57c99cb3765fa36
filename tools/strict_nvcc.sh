#!/usr/bin/env bash
# Runs a CUDA compilation and fails it where ptxas says that registers spill or that wgmma is
# serialised (C75xx): such a kernel is right but slow, and nothing else would tell.
log=$("$@" 2>&1)
status=$?
[ -z "$log" ] || printf '%s\n' "$log" >&2
if printf '%s' "$log" | grep -qE '\(C75[0-9]{2}\)|Registers are spilled'; then
  echo "strict_nvcc: the lines above are errors here" >&2
  exit 1
fi
exit $status
