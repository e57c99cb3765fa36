#!/usr/bin/env python3
"""Do two runs of the demo model write the same? Greedy replies of a reference and of another run: how many are the same token for token,
and how nearly tied the reference's two choices were where a reply first differs.

    tools/demo/same_text.py --braid build/release/braid --model build/demo/smollm2-moe-fp8 --device cpu --other-device cuda
    tools/demo/same_text.py --model build/demo/smollm2-moe --other-model build/demo/smollm2-moe-fp8
    tools/demo/same_text.py --dtype float32,bfloat16 --device cpu --other-device cuda
    tools/demo/same_text.py --device cuda --replies-out replies.jsonl
    tools/demo/same_text.py --dtype float32,bfloat16 --device cpu --other-replies replies.jsonl

Several --dtype are as many references, each with a table. The last two lines are for a GPU on another machine: the first of them, there, keeps
the replies, the other one compares them here. It needs nothing but Python's own modules.

The prompts are the held-out ones of tests/data/demo/expected_effect.json, asked of their adapters and of the base model. A difference is
measured in nats: the log probability that the reference gave its own token, less the one it gave the other's. Arithmetic that rounds
otherwise may turn a choice that was nearly tied; a choice that was not is a fault. Exit status 1 if there is one beyond --near.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "models/adapters"
ALTERNATIVES = 20  # as many as a request may ask for


def prompts(effects):
    """(adapter or None, prompt) of every held-out prompt."""
    asked = [(name, answer["prompt"]) for name, adapter in effects["adapters"].items() for answer in adapter["answers"]]
    return asked + [(None, prompt) for prompt in dict.fromkeys(prompt for _, prompt in asked)]


def replies(braid, model, device, dtype, asked, max_tokens, logprobs):
    """What `braid generate --json` says to each prompt."""
    with tempfile.TemporaryDirectory() as folder:
        requests = pathlib.Path(folder) / "requests.jsonl"
        extra = {"logprobs": ALTERNATIVES} if logprobs else {}
        requests.write_text("".join(
            json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0, **extra,
                        **({"adapter": name} if name else {})}) + "\n" for name, prompt in asked))
        loras = [part for name in sorted({name for name, _ in asked if name}) for part in ("--lora", f"{name}={ADAPTERS / name}")]
        command = [braid, "generate", model, "--input", requests, "--json", "--device", device, "--dtype", dtype, *loras]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"same_text: {' '.join(map(str, command))}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def first_difference(reference, other):
    """Place of the first token that differs, or None where all are the same."""
    mine, its = reference["tokens"], other["tokens"]
    for i, (a, b) in enumerate(zip(mine, its)):
        if a != b:
            return i
    return None if len(mine) == len(its) else min(len(mine), len(its))


def margin(reference, other, place):
    """Nats between the reference's token and the other's, by the reference; at least, where the other's is not among the alternatives."""
    entry = reference["logprobs"][place]
    of = {alternative["token"]: alternative["logprob"] for alternative in entry["top"]}
    its = other["tokens"][place] if place < len(other["tokens"]) else None
    return entry["logprob"] - of.get(its, min(of.values())), its in of


def compare(asked, reference, other, near):
    """Prints what became of each adapter's replies; how many choices were beyond `near`."""
    rows, faults = {}, []
    for (name, prompt), a, b in zip(asked, reference, other, strict=True):
        row = rows.setdefault(name or "base", {"replies": 0, "same": 0, "tokens": 0, "margins": []})
        row["replies"] += 1
        place = first_difference(a, b)
        row["tokens"] += len(a["tokens"]) if place is None else place + 1
        if place is None:
            row["same"] += 1
            continue
        nats, is_there = margin(a, b, place)
        row["margins"].append(nats)
        if nats > near or not is_there:
            faults.append((nats, is_there, name or "base", place, prompt))

    print("| | replies | the same | tokens until they differ | turned choices, of 1,000 | nats at the first difference: median, most |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, row in rows.items():
        print_row(name, row)
    total = {key: sum(row[key] for row in rows.values()) for key in ("replies", "same", "tokens")}
    print_row("all", {**total, "margins": sum((row["margins"] for row in rows.values()), [])})
    differ = total["replies"] - total["same"]
    print(f"\n{total['same']} of {total['replies']} replies are the same ({100 * total['same'] / total['replies']:.1f} %); of the {differ} others "
          f"{differ - len(faults)} first differ where the reference's choice was within {near} nats")
    for nats, is_there, name, place, prompt in sorted(faults, reverse=True):
        print(f"  {'' if is_there else 'at least '}{nats:.3f} nats at token {place}, {name}: {prompt!r}")
    return len(faults)


def print_row(name, row):
    margins = sorted(row["margins"])
    turned = 1000 * len(margins) / row["tokens"]
    spread = f"{margins[len(margins) // 2]:.3f}, {margins[-1]:.3f}" if margins else "-"
    print(f"| {name} | {row['replies']} | {row['same']} | {row['tokens']:,} | {turned:.1f} | {spread} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--braid", type=pathlib.Path, default=ROOT / "build/release/braid", help="the program")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "build/demo/smollm2-moe-fp8", help="folder of the reference's model")
    parser.add_argument("--device", default="cpu", help="where the reference runs: cpu or cuda")
    parser.add_argument("--dtype", default="auto", help="its activations: auto, float32 or bfloat16, or several after commas")
    parser.add_argument("--other-model", type=pathlib.Path, help="folder of the other run's model; left out: the same")
    parser.add_argument("--other-device", help="where the other runs; left out: the same")
    parser.add_argument("--other-dtype", default="auto", help="its activations (auto)")
    parser.add_argument("--other-replies", type=pathlib.Path, help="what --replies-out kept, instead of another run")
    parser.add_argument("--replies-out", type=pathlib.Path, help="keep the replies of --model on --device here, and compare nothing")
    parser.add_argument("--max-tokens", type=int, help="of a reply; left out: as the adapters were judged")
    parser.add_argument("--near", type=float, default=0.5, help="nats up to which a choice counts as nearly tied (0.5)")
    options = parser.parse_args()
    effects = json.loads((ROOT / "tests/data/demo/expected_effect.json").read_text())
    max_tokens = options.max_tokens or effects["max_tokens"]
    asked = prompts(effects)
    if options.replies_out:
        kept = replies(options.braid, options.model, options.device, options.dtype, asked, max_tokens, logprobs=False)
        options.replies_out.write_text("".join(json.dumps(reply) + "\n" for reply in kept))
        return 0
    if options.other_replies:
        other = [json.loads(line) for line in options.other_replies.read_text().splitlines()]
    else:
        other = replies(options.braid, options.other_model or options.model, options.other_device or options.device,
                        options.other_dtype, asked, max_tokens, logprobs=False)
    faults = 0
    for dtype in options.dtype.split(","):
        reference = replies(options.braid, options.model, options.device, dtype, asked, max_tokens, logprobs=True)
        if "," in options.dtype:
            print(f"against {dtype}:")
        faults += compare(asked, reference, other, options.near)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
