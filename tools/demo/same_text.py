#!/usr/bin/env python3
"""Do two runs of the demo model write the same? Greedy replies of a reference and of another run: how many are the same token for token,
and how nearly tied the reference's two choices were where a reply first differs.

    tools/demo/same_text.py --braid build/release/braid --model build/demo/smollm2-moe-fp8 --device cpu --other-device cuda
    tools/demo/same_text.py --model build/demo/smollm2-moe --other-model build/demo/smollm2-moe-fp8

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


def replies(braid, model, device, asked, max_tokens, logprobs):
    """What `braid generate --json` says to each prompt."""
    with tempfile.TemporaryDirectory() as folder:
        requests = pathlib.Path(folder) / "requests.jsonl"
        extra = {"logprobs": ALTERNATIVES} if logprobs else {}
        requests.write_text("".join(
            json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0, **extra,
                        **({"adapter": name} if name else {})}) + "\n" for name, prompt in asked))
        loras = [part for name in sorted({name for name, _ in asked if name}) for part in ("--lora", f"{name}={ADAPTERS / name}")]
        command = [braid, "generate", model, "--input", requests, "--json", "--device", device, *loras]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--braid", type=pathlib.Path, default=ROOT / "build/release/braid", help="the program")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "build/demo/smollm2-moe-fp8", help="folder of the reference's model")
    parser.add_argument("--device", default="cpu", help="where the reference runs: cpu or cuda")
    parser.add_argument("--other-model", type=pathlib.Path, help="folder of the other run's model; left out: the same")
    parser.add_argument("--other-device", help="where the other runs; left out: the same")
    parser.add_argument("--max-tokens", type=int, help="of a reply; left out: as the adapters were judged")
    parser.add_argument("--near", type=float, default=0.5, help="nats up to which a choice counts as nearly tied (0.5)")
    options = parser.parse_args()
    effects = json.loads((ROOT / "tests/data/demo/expected_effect.json").read_text())
    max_tokens = options.max_tokens or effects["max_tokens"]
    asked = prompts(effects)
    reference = replies(options.braid, options.model, options.device, asked, max_tokens, logprobs=True)
    other = replies(options.braid, options.other_model or options.model, options.other_device or options.device, asked, max_tokens,
                    logprobs=False)

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
        if nats > options.near or not is_there:
            faults.append((nats, is_there, name or "base", place, prompt))

    print("| | replies | the same | tokens until they differ | turned choices, of 1,000 | nats at the first difference: median, most |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, row in rows.items():
        margins = sorted(row["margins"])
        turned = 1000 * len(margins) / row["tokens"]
        spread = f"{margins[len(margins) // 2]:.3f}, {margins[-1]:.3f}" if margins else "-"
        print(f"| {name} | {row['replies']} | {row['same']} | {row['tokens']:,} | {turned:.1f} | {spread} |")
    same, replied = sum(row["same"] for row in rows.values()), len(asked)
    print(f"\n{same} of {replied} replies are the same ({100 * same / replied:.1f} %); of the {replied - same} others "
          f"{replied - same - len(faults)} first differ where the reference's choice was within {options.near} nats")
    for nats, is_there, name, place, prompt in sorted(faults, reverse=True):
        print(f"  {'' if is_there else 'at least '}{nats:.3f} nats at token {place}, {name}: {prompt!r}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
