"""Compares two result files of `braid bench`, row by row.

    python3 tools/compare_bench.py before.json after.json [--fail-over 3]

Prints time before and after, the change, and, where rows have one, the ratio of adapters to base.
Rows are matched by what they measured. With --fail-over, exits 1 if a row got slower by more than
that many per cent: for use in a script that guards a speed-up.
"""

import argparse
import json
import sys

# What tells rows apart, and where their time is: whichever of these a file has.
KEYS = ["name", "layout", "tokens", "batch", "context", "adapters", "min_rank", "max_rank"]
TIMES = {"us": "us", "ms_per_step": "ms", "ms_per_prompt": "ms", "loaded_ms_p99": "ms"}


def key_of(row):
    return row.get("name") or ", ".join(f"{k} {row[k]}" for k in KEYS if row.get(k) is not None)


def read(path):
    with open(path, encoding="utf-8") as file:
        bench = json.load(file)
    unit = next((t for t in TIMES if bench["rows"] and t in bench["rows"][0]), None)
    if unit is None:
        sys.exit(f"{path}: its rows have none of {', '.join(TIMES)}")
    return bench, unit, {key_of(row): row for row in bench["rows"]}


def device_of(bench):
    device = bench.get("device") or bench.get("machine") or "an unnamed device"
    return device.get("name", "an unnamed device") if isinstance(device, dict) else device


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--fail-over", type=float, metavar="PERCENT",
                        help="exit 1 if a row got slower by more than this")
    options = parser.parse_args()
    before, unit, old_rows = read(options.before)
    after, unit_after, new_rows = read(options.after)
    if unit != unit_after or before.get("bench") != after.get("bench"):
        sys.exit("the two files are of different benchmarks")
    if device_of(before) != device_of(after):
        print(f"different devices: {device_of(before)} and {device_of(after)}")

    width = max([3] + [len(name) for name in old_rows.keys() & new_rows.keys()])
    print(f"{'row':<{width}} {'before':>10} {'after':>10} {'change':>8} {'ratio':>8} {'ratio':>8}")
    worst, short = 0.0, TIMES[unit]
    for name, new in new_rows.items():
        old = old_rows.get(name)
        if old is None:
            continue
        change = 100 * (new[unit] / old[unit] - 1)
        worst = max(worst, change)
        ratios = "".join(f" {100 * row['ratio']:7.1f}%" if row.get("ratio") else " " * 9
                         for row in (old, new))
        print(f"{name:<{width}} {old[unit]:>8.2f}{short:>2} {new[unit]:>8.2f}{short:>2} "
              f"{change:>+7.1f}%{ratios}")
    for missing, where in ((old_rows.keys() - new_rows.keys(), options.before),
                           (new_rows.keys() - old_rows.keys(), options.after)):
        if missing:
            print(f"only in {where}: {', '.join(sorted(missing))}")
    if not old_rows.keys() & new_rows.keys():
        sys.exit("no row is in both files")
    if options.fail_over is not None and worst > options.fail_over:
        sys.exit(f"slower by {worst:.1f} %, more than {options.fail_over:g} %")


if __name__ == "__main__":
    main()
