# Sourced by the scripts that build and test in parts: part, build, and where their logs lie.
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
