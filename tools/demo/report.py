#!/usr/bin/env python3
"""Shows what the demo did: answers side by side in the terminal, and a self-contained HTML report with plots.

    report.py --show ANSWERS.jsonl
    report.py --answers ANSWERS.jsonl --bench BENCH.json... --out REPORT.html

Reads the lines of `braid generate --json` and the files of `braid bench decode --json` (docs/bench-json.md). Standard library only.
"""

import argparse
import html
import json
import os
import pathlib
import shutil
import sys
import textwrap

_BASE = "base"


def read_answers(path):
    """[(prompt, [(adapter or "base", text)])] in order of first appearance."""
    prompts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["text"] if "error" not in row else f"[failed: {row['error']}]"
            prompts.setdefault(row["prompt"], []).append((row["adapter"] or _BASE, text))
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"report: {path}:{number} is not a line of `braid generate --json` ({error!r})")
    return list(prompts.items())


_ROW_KEYS = ("batch", "adapters", "tokens_per_s", "ms_per_step", "ms_p10", "ms_p90", "floor_ms", "floor_share", "ratio", "floor_ratio")


def read_bench(path):
    """The content of a bench file, with what the report uses checked."""
    try:
        bench = json.loads(path.read_text(encoding="utf-8"))
        bench["device"]["name"], bench["model"]
        for row in bench["rows"]:
            for key in _ROW_KEYS:
                float(row[key])
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"report: {path} is not a file of `braid bench decode --json` ({error!r})")
    return bench


def show(answers):
    """Prints the answers of one prompt under each other, one colour an adapter."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    names = list(dict.fromkeys(name for _, rows in answers for name, _ in rows))
    indent = max(map(len, names), default=0) + 2
    width = min(110, shutil.get_terminal_size((100, 24)).columns)

    def paint(text, code):
        return f"\033[{code}m{text}\033[0m" if colour else text

    for prompt, rows in answers:
        print(paint(prompt, "1"))
        for name, text in rows:
            lines = textwrap.wrap(" ".join(text.split()), max(20, width - indent - 2)) or [""]
            code = "2" if name == _BASE else str(32 + (names.index(name) - 1) % 5)
            print("  " + paint(name.ljust(indent), code) + lines[0])
            for line in lines[1:]:
                print("  " + " " * indent + line)
        print()


def ranks(row):
    """The ranks of an arm's adapters: "16", "8-40", or "" for the base model."""
    low, high = row.get("min_rank"), row.get("max_rank")
    return "" if not high else str(high) if low == high else f"{low}-{high}"


def arm_name(row):
    if not row["adapters"]:
        return "base model"
    rank = f", rank {ranks(row)}" if ranks(row) else ""
    return f"{row['adapters']} adapter{'s' if row['adapters'] != 1 else ''}{rank}"


def bench_title(bench):
    return pathlib.PurePath(bench["model"]).name


def bars(benches, value, unit, digits, extra=None):
    """Horizontal bars as SVG: one block per file, one bar per row. extra(row, x_of) -> marks on a bar."""
    rows = [(bench, row) for bench in benches for row in bench["rows"]]
    top = max((max(value(row), row["ms_p90"] if extra else 0) for _, row in rows), default=0) or 1
    left, width, right, high = 250, 520, 90, 24
    parts, y, shown = [], 6, None
    x_of = lambda v: left + width * v / top
    for bench, row in rows:
        if shown is not bench:
            shown = bench
            parts.append(f'<text class="head" x="0" y="{y + 16}">{html.escape(bench_title(bench))}</text>')
            y += 26
        label = html.escape(f"batch {row['batch']}, {arm_name(row)}")
        kind = "lora" if row["adapters"] else "base"
        v = value(row)
        parts.append(f'<text class="label" x="{left - 8}" y="{y + 15}">{label}</text>')
        parts.append(f'<rect class="{kind}" x="{left}" y="{y + 3}" width="{max(1, x_of(v) - left):.1f}" height="{high - 8}" rx="2"/>')
        marks, end = extra(row, x_of, y) if extra else ("", x_of(v))
        parts.append(marks)
        parts.append(f'<text x="{max(end, x_of(v)) + 6:.1f}" y="{y + 15}">{v:.{digits}f} {unit}</text>')
        y += high
        if row is bench["rows"][-1]:
            y += 8
    return f'<svg viewBox="0 0 {left + width + right} {y}" role="img">{"".join(parts)}</svg>'


def spread_and_floor(row, x_of, y):
    """A whisker from the 10th to the 90th percentile, and a tick at the byte floor."""
    low, high, floor = x_of(row["ms_p10"]), x_of(row["ms_p90"]), x_of(row["floor_ms"])
    return (
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 11}" y2="{y + 11}"/>'
        f'<line class="floor" x1="{floor:.1f}" x2="{floor:.1f}" y1="{y + 1}" y2="{y + 21}"/>',
        high,
    )


def ratio_plot(benches):
    """Throughput with adapters over base: what was measured against what the bytes allow."""
    rows = [(bench, row) for bench in benches for row in bench["rows"] if row["adapters"]]
    left, width, high = 400, 370, 24
    top = max([1.05] + [r["ratio"] for _, r in rows])
    x_of = lambda v: left + width * v / top
    parts = []
    for i, (bench, row) in enumerate(rows):
        y = 6 + i * high
        label = html.escape(f"{bench_title(bench)}, batch {row['batch']}, {arm_name(row)}")
        allowed, got = x_of(row["floor_ratio"]), x_of(row["ratio"])
        parts.append(
            f'<text class="label" x="{left - 8}" y="{y + 15}">{label}</text>'
            f'<rect class="allow" x="{left}" y="{y + 3}" width="{allowed - left:.1f}" height="16" rx="2"/>'
            f'<rect class="lora" x="{left}" y="{y + 7}" width="{max(1, got - left):.1f}" height="8" rx="2"/>'
            f'<text x="{max(got, allowed) + 6:.1f}" y="{y + 15}">{100 * row["ratio"]:.1f} %</text>'
        )
    one, end = x_of(1), 6 + len(rows) * high
    parts.append(f'<line class="floor" x1="{one:.1f}" x2="{one:.1f}" y1="2" y2="{end}"/>')
    return f'<svg viewBox="0 0 860 {end + 6}" role="img">{"".join(parts)}</svg>'


def bench_table(bench):
    head = ("batch", "adapters", "rank", "tokens/s", "ms a step", "p10", "p90", "floor ms", "of floor", "of base", "bytes allow")
    out = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for row in bench["rows"]:
        of_base = (f"{100 * row['ratio']:.1f} %", f"{100 * row['floor_ratio']:.1f} %") if row["adapters"] else ("", "")
        cells = (
            row["batch"], row["adapters"] or "none", ranks(row), f"{row['tokens_per_s']:.1f}", f"{row['ms_per_step']:.2f}",
            f"{row['ms_p10']:.2f}", f"{row['ms_p90']:.2f}", f"{row['floor_ms']:.2f}", f"{100 * row['floor_share']:.0f} %", *of_base,
        )  # fmt: skip
        out.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return "<table class='numbers'>" + "".join(out) + "</table>"


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #657086; --page: #fff; --card: #f4f6f9; --base: #8391a8; --lora: #2f6fde;
  --allow: #cfdcf5; --floor: #c2472e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8f0; --soft: #98a4b8; --page: #14181f; --card: #1d232d; --base: #76849b;
  --lora: #6b9bf2; --allow: #2c3b58; --floor: #ef7b62; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } p.note { color: var(--soft); }
.prompt { background: var(--card); border-radius: 8px; padding: .7rem 1rem; margin: .8rem 0; } .prompt h3 { margin: 0 0 .4rem; font-size: 1rem; }
.prompt table { width: 100%; border-collapse: collapse; } .prompt td { vertical-align: top; padding: .2rem 0; overflow-wrap: anywhere; }
.prompt td:first-child { width: 7rem; font-weight: 600; color: var(--lora); } .prompt tr.base td:first-child { color: var(--base); }
table.numbers { border-collapse: collapse; font-variant-numeric: tabular-nums; } .numbers th, .numbers td { padding: .15rem .6rem; text-align: right; }
.numbers th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--base); }
.scroll { overflow-x: auto; } svg { width: 100%; height: auto; font: 13px system-ui, sans-serif; } svg text { fill: var(--ink); }
svg .label { text-anchor: end; fill: var(--soft); } svg .head { font-weight: 600; } svg .base { fill: var(--base); } svg .lora { fill: var(--lora); }
svg .allow { fill: var(--allow); } svg .whisker { stroke: var(--ink); stroke-width: 2; } svg .floor { stroke: var(--floor); stroke-width: 2; }
"""


def render(answers, benches):
    """The whole report as one HTML text without external assets."""
    out = ["<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
           f"<title>Braid demo</title><style>{_STYLE}</style></head><body><h1>Braid demo</h1>"]  # fmt: skip
    if benches:
        device = benches[0]["device"]
        facts = [html.escape(device["name"])]
        if device.get("read_gb_per_s"):
            facts.append(f"memory read at {device['read_gb_per_s']:.1f} GB/s")
        out.append(f"<p class='note'>{', '.join(facts)}.</p>")
    if answers:
        out.append("<h2>One model, many fine-tunes</h2><p class='note'>All answers come from one engine, base and adapters mixed in its batches, "
                   "greedy.</p>")  # fmt: skip
        for prompt, rows in answers:
            cells = "".join(
                f"<tr class='{'base' if name == _BASE else 'lora'}'><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>"
                for name, text in rows
            )
            out.append(f"<div class='prompt'><h3>{html.escape(prompt)}</h3><table>{cells}</table></div>")
    if benches:
        out.append("<h2>Tokens per second</h2>" + bars(benches, lambda row: row["tokens_per_s"], "", 1))
        out.append("<h2>Milliseconds per decode step</h2><p class='note'>Bar: median. Dark line: 10th to 90th percentile. Red: the bytes a step must "
                   "read, over the measured read rate.</p>")  # fmt: skip
        out.append(bars(benches, lambda row: row["ms_per_step"], "ms", 2, spread_and_floor))
        if any(row["adapters"] for bench in benches for row in bench["rows"]):
            out.append("<h2>With adapters against base</h2><p class='note'>Share of the base model's throughput at the same batch. Pale: what the bytes "
                       "allow. Red: equal to base.</p>" + ratio_plot(benches))  # fmt: skip
        for bench in benches:
            out.append(f"<h2>{html.escape(bench_title(bench))}</h2><div class='scroll'>{bench_table(bench)}</div>")
    out.append("</body></html>\n")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--show", type=pathlib.Path, metavar="ANSWERS", help="print these answers side by side")
    parser.add_argument("--answers", type=pathlib.Path, help="answers for the report")
    parser.add_argument("--bench", type=pathlib.Path, nargs="*", default=[], help="bench files for the report")
    parser.add_argument("--out", type=pathlib.Path, help="the report to write")
    args = parser.parse_args()
    if not args.show and not args.out:
        parser.error("nothing to do; give --show ANSWERS or --out REPORT")
    if args.show:
        show(read_answers(args.show))
    if args.out:
        text = render(read_answers(args.answers) if args.answers else [], [read_bench(path) for path in args.bench])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
