#!/usr/bin/env bash
# The main job on a real model: makes the demo mixture, quantises it, serves it with every adapter to the
# official openai client, measures, and writes out/report.html.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
braid=build/release/braid
model=build/demo/smollm2-moe

mkdir -p build
cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
sed -n '/^-- Braid:/p' build/configure.log # CUDA found or not
cmake --build --preset release
"$python" tools/demo/make_model.py --out "$model"
# Quantised anew when the model or the quantiser changed.
made_from=$(cat "$model/.made_by.json" src/quant/*.{h,cc} src/checkpoint/*quant*.{h,cc} | sha256sum)
for format in fp8 nvfp4; do
  quantised=$model-$format
  [ "$(cat "$quantised.made_from" 2>/dev/null)" = "$made_from" ] && continue
  rm -rf "$quantised"
  "$braid" quantize "$model" --format "$format" --out "$quantised"
  echo "$made_from" >"$quantised.made_from"
done

mkdir -p out
loras=()
for folder in models/adapters/*/; do
  loras+=(--lora "$(basename "$folder")=$folder")
done
echo
"$python" tools/demo/serve.py --braid "$braid" --model "$model-fp8" "${loras[@]}" --requests tools/demo/requests.jsonl --out out/answers.jsonl
"$python" tools/demo/report.py --show out/answers.jsonl
echo
"$braid" bench decode "$model-fp8" "${loras[@]}" --batch 1,8 --adapters 1,8 --rank 16 --context 16 --rounds 3 --steps 16 --json out/bench-fp8.json
"$braid" bench decode "$model-nvfp4" "${loras[@]}" --batch 1,8 --adapters 8 --rank 16 --context 16 --rounds 2 --steps 16 --json out/bench-nvfp4.json >/dev/null
"$python" tools/demo/report.py --answers out/answers.jsonl --bench out/bench-fp8.json out/bench-nvfp4.json --out out/report.html
echo "report: out/report.html"
