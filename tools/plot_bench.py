"""Plots a result file of `braid bench layer --json` as one SVG: throughput with adapters over base, against
tokens in the batch, beside what the bytes allow.

    python3 tools/plot_bench.py layer.json --out layer.svg [--layout per-expert] [--rank 16]

Without --layout and --rank, those of the file's first row are taken. Standard library only.
"""

import argparse
import html
import json
import math
import pathlib
import sys

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 150, 44, 46
_WIDTH, _HEIGHT = 520, 300
_COLOURS = ("#2f6fde", "#c2472e", "#2e8b57", "#8a5cc2", "#b8860b", "#4a7f8c")


def read_rows(path, layout, rank):
    """The bench, and {(adapters, LoRA plan if asked for): [(tokens, ratio, floor_ratio)]} of one layout and rank."""
    try:
        bench = json.loads(path.read_text(encoding="utf-8"))
        layout = layout or bench["rows"][0]["layout"]
        rank = rank or bench["rows"][0]["rank"]
        lines = {}
        for row in bench["rows"]:
            if row["adapters"] == 0 or row["layout"] != layout or row["rank"] != rank or row["name"].endswith("loaded"):
                continue
            if row["ratio"] > 0:
                plan = row["name"].partition(" adapters")[2].strip()
                lines.setdefault((row["adapters"], plan), []).append((row["tokens"], row["ratio"], row["floor_ratio"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        sys.exit(f"{path}: not a file of `braid bench layer --json` ({error!r})")
    if not lines:
        sys.exit(f"{path}: no rows with adapters and base of layout {layout} and rank {rank}")
    return bench, layout, rank, {line: sorted(points) for line, points in sorted(lines.items())}


def draw(bench, layout, rank, lines):
    tokens = sorted({t for points in lines.values() for t, _, _ in points})
    low = math.floor(10 * min(r for points in lines.values() for _, r, _ in points)) / 10
    span = math.log2(tokens[-1] / tokens[0]) or 1
    x_of = lambda t: _LEFT + _WIDTH * math.log2(t / tokens[0]) / span
    y_of = lambda r: _TOP + _HEIGHT * (1 - r) / (1 - low or 1)
    title = f"{pathlib.PurePath(bench['model']).parent.name}, {layout}, rank {rank}, {bench['device']['name']}"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {_TOP + _HEIGHT + _BOTTOM}" '
           'font-family="system-ui, sans-serif" font-size="13">',
           '<rect width="100%" height="100%" fill="#fff"/>',
           f'<text x="{_LEFT}" y="22" font-weight="600">{html.escape(title)}</text>']  # fmt: skip
    for step in range(round(10 * low), 11):
        y = y_of(step / 10)
        out.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dde2ea"/>'
                   f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#657086">{10 * step} %</text>')  # fmt: skip
    for t in tokens:
        out.append(f'<text x="{x_of(t):.1f}" y="{_TOP + _HEIGHT + 20}" text-anchor="middle" fill="#657086">{t}</text>')
    out.append(f'<text x="{_LEFT + _WIDTH / 2}" y="{_TOP + _HEIGHT + 38}" text-anchor="middle" fill="#657086">tokens in the batch</text>')
    for i, ((adapters, plan), points) in enumerate(lines.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        path = lambda value: " ".join(f"{x_of(p[0]):.1f},{y_of(p[value]):.1f}" for p in points)
        out.append(f'<polyline points="{path(2)}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="5 4" opacity="0.7"/>'
                   f'<polyline points="{path(1)}" fill="none" stroke="{colour}" stroke-width="2.5"/>')  # fmt: skip
        out += [f'<circle cx="{x_of(t):.1f}" cy="{y_of(r):.1f}" r="3.5" fill="{colour}"/>' for t, r, _ in points]
        y = _TOP + 10 + 22 * i
        out.append(f'<line x1="{_LEFT + _WIDTH + 14}" x2="{_LEFT + _WIDTH + 38}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2.5"/>'
                   f'<text x="{_LEFT + _WIDTH + 44}" y="{y + 4}">{f"{adapters}, {plan}" if plan else "1 adapter" if adapters == 1 else f"{adapters} adapters"}</text>')  # fmt: skip
    y = _TOP + 10 + 22 * len(lines)
    out.append(f'<line x1="{_LEFT + _WIDTH + 14}" x2="{_LEFT + _WIDTH + 38}" y1="{y}" y2="{y}" stroke="#657086" stroke-width="1.5" '
               f'stroke-dasharray="5 4"/><text x="{_LEFT + _WIDTH + 44}" y="{y + 4}">bytes allow</text></svg>')  # fmt: skip
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--layout", help="per-expert or shared-outer")
    parser.add_argument("--rank", type=int)
    options = parser.parse_args()
    options.out.write_text(draw(*read_rows(options.bench, options.layout, options.rank)), encoding="utf-8")


if __name__ == "__main__":
    main()
