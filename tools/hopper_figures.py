#!/usr/bin/env python3
"""Measures Braid's main figures on a Hopper GPU and holds them against what they are to be.

    python3 tools/hopper_figures.py --braid build/release/braid
    python3 tools/hopper_figures.py --braid build/release/braid --only decode,prefill --out out/figures

Runs benches of the engine and its kernels one after the other, each killed after a limit of its
own, keeps what each printed and its JSON in --out, and prints one table of what has a bound: what
was measured, what must be, what is aimed for. `attention` and `linear` have none and are there for
their tables. `decode-many` has 32 adapters, for which it needs 70 GB of host memory. Needs Python
alone, `braid`, and configs/ in the folder where it is started.
Exits 1 if a bench failed, 2 where a figure misses its must; a bench that was not run misses none.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from dataclasses import dataclass

MODEL_30B = "Qwen3-30B-A3B"
MODEL_35B = "Qwen3.5-35B-A3B"
ENGINE = ["--load-format", "dummy", "--dummy-weights", "fp8", "--device", "cuda", "--max-lora-rank", "32"]


@dataclass
class Bench:
    """A call of braid, and how long it may take."""

    name: str
    group: str
    arguments: list
    seconds: int


def engine_bench(command, seconds, *options, name=None):
    """`name` and the group are the command unless given."""
    return Bench(name or command, name or command, ["bench", command, f"configs/{MODEL_30B}", *ENGINE, *options], seconds)


def kernel_bench(command, seconds, *options, name=None, group=None, model=MODEL_30B):
    """Of one layer of a model; `name` and `group` are the command unless given."""
    return Bench(name or command, group or command,
                 ["bench", command, "--model", f"configs/{model}/config.json", *options], seconds)


def benches():
    small, large = "1,8,16,32,64,128", "512,2048,8192"
    made = [
        engine_bench("decode", 100, "--batch", "1,16,64", "--adapters", "0,1,8", "--context", "2048",
                     "--max-batch-tokens", "8192", "--max-adapters", "8", "--gpu-adapters", "16GB", "--steps", "48",
                     "--rounds", "2"),
        engine_bench("decode", 160, "--batch", "64,128", "--adapters", "0,1,8,32", "--context", "2048",
                     "--max-batch-size", "128", "--max-batch-tokens", "8192", "--max-adapters", "32",
                     "--gpu-adapters", "56GB", "--steps", "32", "--rounds", "1", name="decode-many"),
        engine_bench("prefill", 60, "--batch", "1", "--tokens", "8192", "--adapters", "0,1",
                     "--max-batch-tokens", "8192", "--max-adapters", "2", "--gpu-adapters", "5GB", "--rounds", "3"),
        engine_bench("mixed", 90, "--streams", "64", "--context", "2048", "--prompt-tokens", "8192",
                     "--interval", "1", "--max-batch-tokens", "224", "--max-batch-size", "66", "--quiet", "1",
                     "--seconds", "5", "--adapters", "0,1", "--max-adapters", "2", "--gpu-adapters", "5GB"),
        kernel_bench("swap", 60),
        kernel_bench("attention", 40, "--batch", "1,16,64", "--kv", "bf16", "--prefill", "8192", "--rounds", "5"),
        kernel_bench("linear", 60, "--layers", "qkv,o,router", "--tokens", "1,16,64,512,8192", "--adapters", "1,8",
                     "--rounds", "5"),
    ]
    for model, short in ((MODEL_30B, "30b"), (MODEL_35B, "35b")):
        for weights in ("fp8", "nvfp4", "bf16"):
            made.append(kernel_bench("layer", 60, "--weights", weights, "--adapters", "0,1,8", "--tokens", small,
                                     "--layers", "4", "--rounds", "5", name=f"layer-{weights}-{short}", model=model))
        made.append(kernel_bench("layer", 60, "--adapters", "0,1,8", "--tokens", large, "--layers", "3", "--rounds", "5",
                                 name=f"large-{short}", group="large", model=model))
    return made


class Results:
    """Rows of the benches that were run, by the bench's name; of `bench swap` the steps."""

    def __init__(self):
        self.rows = {}

    def add(self, name, bench):
        self.rows[name] = bench["rows"] if "rows" in bench else bench["steps"]

    def row(self, name, **wanted):
        """The first row of a bench with these values, or None where it was not measured. (Of `bench layer`
        those whose adapters are loaded and not used come last.)"""
        for row in self.rows.get(name, []):
            if all(row.get(key) == value for key, value in wanted.items()):
                return row
        return None

    def value(self, name, key, **wanted):
        row = self.row(name, **wanted)
        return None if row is None else row.get(key)


@dataclass
class Figure:
    """What was measured, or None, and its bounds: at most them, or at least."""

    name: str
    measured: float | None
    must: float
    aim: float | None
    unit: str = ""
    at_least: bool = False

    def meets(self, bound):
        if self.measured is None or bound is None:
            return None
        return self.measured >= bound if self.at_least else self.measured <= bound


def quotient(a, b):
    return None if a is None or not b else a / b


def per_cent(share):
    return None if share is None else 100 * share


def engine_figures(results):
    """Of steps, prompts and swaps. Bounds of times are for an H100; other cards have other rates."""
    made = []
    for batch, must, aim in ((1, 2.3, 2.0), (16, 9.2, 8.6), (64, 17.0, 16.0)):
        ms = results.value("decode", "ms_per_step", batch=batch, adapters=0)
        made.append(Figure(f"decode, batch {batch}", ms, must, aim, "ms"))
    for bench, batch, must, aim in (("decode", 1, 88, 90), ("decode", 16, 92, 94), ("decode", 64, 92, 94),
                                    ("decode-many", 128, 92, 94)):
        ratio = results.value(bench, "ratio", batch=batch, adapters=1)
        made.append(Figure(f"decode, batch {batch}, 1 adapter, of base", per_cent(ratio), must, aim, "%", True))
    for bench, batch, adapters in (("decode", 16, 8), ("decode", 64, 8), ("decode-many", 64, 32),
                                   ("decode-many", 128, 8), ("decode-many", 128, 32)):
        row = results.row(bench, batch=batch, adapters=adapters)
        below = None if row is None else 100 * (row["floor_ratio"] - row["ratio"])
        made.append(Figure(f"decode, batch {batch}, {adapters} adapters, below what bytes allow", below, 3, None,
                           "points"))
    made.append(Figure("prefill of 8,192 tokens",
                       results.value("prefill", "ms_per_prompt", adapters=0), 140, 125, "ms"))
    made.append(Figure("prefill of 8,192 tokens, 1 adapter",
                       results.value("prefill", "ms_per_prompt", adapters=1), 150, 134, "ms"))
    made.append(Figure("prefill of 8,192 tokens, 1 adapter, of base",
                       per_cent(results.value("prefill", "ratio", adapters=1)), 88, None, "%", True))
    for adapters in (0, 1):
        made.append(Figure(f"64 replies while prompts arrive, {adapters or 'no'} adapter: p99 of quiet",
                           results.value("mixed", "p99_ratio", adapters=adapters), 1.5, None, "x"))
    quiet = results.value("swap", "p99_ms", beside="alone")
    swapping = results.value("swap", "p99_ms", beside="while one is swapped in")
    made.append(Figure("p99 of steps beside a swap, of quiet", quotient(swapping, quiet), 1.2, None, "x"))
    return made


def layer_figures(results, short, flops):
    """Of a model's MoE layers; flops: bounds of TFLOP/s at 8,192 tokens."""
    made = []
    large = f"large-{short}"
    made.append(Figure(f"MoE {short}, T 8192", results.value(large, "tflops", tokens=8192, adapters=0), *flops,
                       "TFLOP/s", True))
    for tokens, must, aim in ((2048, 75, 82), (512, 72, 80)):
        share = per_cent(results.value(large, "bound_share", tokens=tokens, adapters=0))
        made.append(Figure(f"MoE {short}, T {tokens}, of the larger floor", share, must, aim, "%", True))
    for tokens in (2048, 8192):
        ratio = results.value(large, "ratio", tokens=tokens, adapters=1)
        made.append(Figure(f"MoE {short}, T {tokens}, 1 adapter, of base", per_cent(ratio), 90, 93, "%", True))
        ratios = [per_cent(results.value(large, "ratio", tokens=tokens, adapters=n)) for n in (1, 8)]
        made.append(Figure(f"MoE {short}, T {tokens}, 8 adapters, below 1",
                           None if None in ratios else ratios[0] - ratios[1], 3, None, "points"))
    nvfp4, fp8, bf16 = f"layer-nvfp4-{short}", f"layer-fp8-{short}", f"layer-bf16-{short}"
    for tokens, must, aim in ((8, 62, 70), (16, 72, 78), (32, 80, 84), (64, 80, 84), (128, 80, 84)):
        share = per_cent(results.value(nvfp4, "floor_share", tokens=tokens, adapters=0))
        made.append(Figure(f"NVFP4 {short}, T {tokens}, of its byte floor", share, must, aim, "%", True))
    for tokens, must, aim in ((16, 1.3, 1.4), (32, 1.45, 1.55), (64, 1.45, 1.55), (128, 1.45, 1.55)):
        faster = quotient(results.value(fp8, "us", tokens=tokens, adapters=0),
                          results.value(nvfp4, "us", tokens=tokens, adapters=0))
        made.append(Figure(f"NVFP4 {short}, T {tokens}, faster than FP8", faster, must, aim, "x", True))
    for tokens in (8, 16, 32, 64, 128):
        for adapters in (1, 8):
            row = results.row(nvfp4, tokens=tokens, adapters=adapters)
            share = None if row is None else row["ratio"] / row["floor_ratio"]
            made.append(Figure(f"NVFP4 {short}, T {tokens}, {adapters} of base over what bytes allow", share, 0.96,
                               0.98, "", True))
    for tokens in (16, 32, 64, 128):
        share = per_cent(results.value(bf16, "floor_share", tokens=tokens, adapters=0))
        made.append(Figure(f"BF16 {short}, T {tokens}, of its byte floor", share, 90, None, "%", True))
    return made


def figures(results):
    """Everything that has a bound."""
    return [*engine_figures(results), *layer_figures(results, "30b", (800, 950)),
            *layer_figures(results, "35b", (700, 850))]


def table(made):
    """Lines for people: what was measured and has a bound, and whether it is what it must be."""
    def number(value):
        return "" if value is None else f"{value:.4g}"

    rows = [("", "measured", "must", "aim", "")]
    for figure in made:
        if figure.measured is None:
            continue
        verdict = {True: "", False: "misses", None: ""}[figure.meets(figure.must)]
        if figure.meets(figure.aim):
            verdict = "aim"
        sign = ">=" if figure.at_least else "<="
        rows.append((figure.name, f"{number(figure.measured)} {figure.unit}".strip(), f"{sign} {number(figure.must)}",
                     number(figure.aim), verdict))
    if len(rows) == 1:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        lines.append("  ".join(text.ljust(width) if i in (0, 4) else text.rjust(width)
                               for i, (text, width) in enumerate(zip(row, widths))).rstrip())
    return lines


def run(bench, braid, out):
    """What the bench wrote as JSON, or None if it failed; what it printed is in `out`."""
    to = out / f"{bench.name}.json"
    to.unlink(missing_ok=True)
    with open(out / f"{bench.name}.txt", "w", encoding="utf-8") as log:
        try:
            code = subprocess.run([braid, *bench.arguments, "--json", str(to)], stdout=log, stderr=subprocess.STDOUT,
                                  timeout=bench.seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            code = f"not done after {bench.seconds} s"
    if code != 0:
        said = (out / f"{bench.name}.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "it said nothing")
        print(f"{bench.name}: {code if isinstance(code, str) else f'exit status {code}'}: {last}", file=sys.stderr,
              flush=True)
        return None
    return json.loads(to.read_text(encoding="utf-8"))


def main():
    groups = sorted({bench.group for bench in benches()})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--braid", default="build/release/braid", help="the program (default: %(default)s)")
    parser.add_argument("--only", default=",".join(groups), help=f"some of {', '.join(groups)}")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/figures"),
                        help="folder for what the benches write (default: %(default)s)")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [group for group in chosen if group not in groups]
    if unknown:
        parser.error(f"--only {','.join(unknown)}: need some of {', '.join(groups)}")
    options.out.mkdir(parents=True, exist_ok=True)
    results, failed = Results(), False
    for bench in benches():
        if bench.group not in chosen:
            continue
        print(f"{bench.name} ...", file=sys.stderr, flush=True)
        begin = time.monotonic()
        written = run(bench, options.braid, options.out)
        if written is None:
            failed = True
            continue
        results.add(bench.name, written)
        print(f"{bench.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    made = figures(results)
    lines = table(made) or [f"nothing that was measured has a bound: its tables are in {options.out}" if results.rows
                            else "nothing was measured"]
    (options.out / "figures.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    if failed:
        return 1
    return 2 if any(figure.meets(figure.must) is False for figure in made) else 0


if __name__ == "__main__":
    sys.exit(main())
