#!/usr/bin/env bash
# Installs what building and testing Braid needs and is missing; does nothing, and needs no network,
# when everything is there. Knows Debian 12 and its kin. Usage: tools/bootstrap.sh [requirements...]
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  g++ cmake ninja-build ccache pkg-config make git
  nlohmann-json3-dev libboost1.81-dev libcli11-dev libfmt-dev libspdlog-dev libpcre2-dev libutf8proc-dev libhwy-dev
  libexpected-dev libxxhash-dev libgtest-dev libgmock-dev librapidcheck-dev
  clang-14 libclang-rt-14-dev clang-format python3-venv
)
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "bootstrap: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# One virtual environment; each locked requirements file is installed once for each of its contents.
if [ ! -x .venv/bin/python ]; then
  echo "bootstrap: creating .venv"
  python3 -m venv .venv
fi
for file in "$@"; do
  stamp=".venv/$(basename "$file").sha256"
  if ! sha256sum --status -c "$stamp" 2>/dev/null; then
    echo "bootstrap: installing $file"
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$file"
    sha256sum "$file" >"$stamp"
  fi
done
