#!/usr/bin/env bash
# Layers, format and links. Any finding fails.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 tools/check_layers.py
python3 tools/check_links.py
python3 -m doctest tools/source_text.py
mapfile -t files < <(git ls-files '*.h' '*.cc' '*.cuh' '*.cu')
clang-format --dry-run --Werror "${files[@]}"
echo "format: ${#files[@]} files as .clang-format has them"
