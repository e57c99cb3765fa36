#!/usr/bin/env python3
"""What weight formats cost on the demo model: perplexity of a fixed text, and how many answers to held-out prompts still show each
adapter's effect.

    tools/demo/quality.py --braid build/release/braid --model build/demo/smollm2-moe

Writes quantised copies beside the model where they are not there yet, and prints two Markdown tables. The text is oracle_texts.py; prompts
and checks are those with which the adapters were judged when they were trained (tests/data/demo/expected_effect.json, adapter_tasks.py).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import adapter_tasks
import oracle_texts

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "models/adapters"
# What `braid quantize` is told, by the end of the folder's name; nothing: the model itself.
FORMATS = {
    "bf16": (),
    "fp8": ("--format", "fp8"),
    "nvfp4": ("--format", "nvfp4"),
    "nvfp4-experts": ("--format", "nvfp4", "--exclude", "*.self_attn.*"),
}


def run(command, **options):
    """Runs a program, and ends this one with what it says on stderr if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"quality: {' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def models(braid, model):
    """Folder of each format."""
    folders = {}
    for name, asked in FORMATS.items():
        folders[name] = model.with_name(f"{model.name}-{name}") if asked else model
        if not folders[name].exists():
            print(f"quality: quantising to {name}", file=sys.stderr)
            run([braid, "quantize", model, *asked, "--out", folders[name]])
    return folders


def with_adapters(names):
    return [part for name in names for part in ("--lora", f"{name}={ADAPTERS / name}")]


def perplexities(braid, model, names, device, folder):
    """Perplexity by adapter name, "base" for the model alone."""
    text, out = folder / "text.txt", folder / "out.json"
    text.write_text("\n".join(value for key, value in vars(oracle_texts).items() if key.isupper() and isinstance(value, str)))
    run([braid, "perplexity", model, "--text", text, "--json", out, "--device", device, *with_adapters(names)])
    rows = json.loads(out.read_text())["rows"]
    return {row["name"]: row["perplexity"] for row in rows}, rows[0]["tokens"]


def shown_effects(braid, model, effects, device, folder):
    """Held-out answers that show the effect, by adapter name."""
    requests = folder / "requests.jsonl"
    lines = [(name, answer["prompt"]) for name, adapter in effects["adapters"].items() for answer in adapter["answers"]]
    requests.write_text("".join(
        json.dumps({"adapter": name, "messages": [{"role": "user", "content": prompt}], "max_tokens": effects["max_tokens"],
                    "temperature": 0}) + "\n" for name, prompt in lines))
    names = list(effects["adapters"])
    answers = run([braid, "generate", model, "--input", requests, "--json", "--device", device, *with_adapters(names)])
    shown = dict.fromkeys(names, 0)
    for (name, _), line in zip(lines, answers.splitlines(), strict=True):
        shown[name] += adapter_tasks.CHECKS[name](json.loads(line)["text"])
    return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--braid", type=pathlib.Path, default=ROOT / "build/release/braid", help="the program")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "build/demo/smollm2-moe", help="folder of the BF16 demo model")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args()
    effects = json.loads((ROOT / "tests/data/demo/expected_effect.json").read_text())
    names = list(effects["adapters"])
    scores, shown = {}, {}
    for name, model in models(options.braid, options.model).items():
        print(f"quality: {name}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            scores[name], tokens = perplexities(options.braid, model, names, options.device, pathlib.Path(folder))
            shown[name] = shown_effects(options.braid, model, effects, options.device, pathlib.Path(folder))

    print(f"Perplexity ({tokens} tokens):\n\n| | base | {' | '.join(names)} |\n|---|{'--:|' * (len(names) + 1)}")
    for name in FORMATS:
        print(f"| {name} | " + " | ".join(f"{scores[name][row]:.3f}" for row in ["base", *names]) + " |")
    print(f"\nHeld-out prompts with the effect:\n\n| | {' | '.join(names)} | all |\n|---|{'--:|' * (len(names) + 1)}")
    counts = {name: len(effects["adapters"][name]["answers"]) for name in names}
    for name in FORMATS:
        cells = [f"{shown[name][row]} of {counts[row]}" for row in names]
        print(f"| {name} | {' | '.join(cells)} | {100 * sum(shown[name].values()) / sum(counts.values()):.1f} % |")


if __name__ == "__main__":
    main()
