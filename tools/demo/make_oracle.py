#!/usr/bin/env python3
"""Makes the oracle for "the demo mixture equals its dense original": token ids and the dense model's argmax at every position.

    make_model.py --out MIXTURE; make_model.py --out DENSE --dense
    make_oracle.py --dense DENSE --mixture MIXTURE --out tests/data/demo/dense_argmax.json

The dense model runs in fp32 on the BF16 weights of its checkpoint. The file also holds the logit margin between the best and the second
token (two decimals), to tell a real difference from a near tie, and what the mixture scored in PyTorch. Needs torch and transformers 5.
"""

import argparse
import json
import pathlib

import torch

from moe_models import load_model, load_tokenizer
from oracle_texts import MIXED, OPENINGS, PROSE

_MAX_LENGTH = 512


@torch.no_grad()
def sample(model, tokenizer, openings, length):
    """Sequences of `length` ids: the opening, then tokens drawn at temperature 1."""
    rng = torch.Generator(device=model.device).manual_seed(5)
    rows = []
    for opening in openings:
        ids = tokenizer(opening, add_special_tokens=False)["input_ids"]
        step, cache = torch.tensor([ids], device=model.device), None
        while len(ids) < length:
            result = model(input_ids=step, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            token = torch.multinomial(result.logits[0, -1].softmax(-1), 1, generator=rng)
            ids.append(token.item())
            step = token[None]
        rows.append(ids)
    return rows


@torch.no_grad()
def best_tokens(model, sequences):
    """Per sequence: the argmax token at each position, and its margin over the second in logits."""
    best, margins = [], []
    for ids in sequences:
        top = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().topk(2)
        best.append(top.indices[:, 0].tolist())
        margins.append([round(m, 2) for m in (top.values[:, 0] - top.values[:, 1]).tolist()])
    return best, margins


def share_equal(ours, theirs):
    pairs = [a == b for x, y in zip(ours, theirs) for a, b in zip(x, y)]
    return sum(pairs) / len(pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dense", required=True, type=pathlib.Path)
    parser.add_argument("--mixture", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False

    tokenizer, dense = load_tokenizer(args.dense), load_model(args.dense)
    sequences = []
    for text in (PROSE, MIXED):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        sequences += [ids[at : at + _MAX_LENGTH] for at in range(0, len(ids), _MAX_LENGTH)]
    sequences += sample(dense, tokenizer, OPENINGS, 420)
    best, margins = best_tokens(dense, sequences)
    scored = {"dense_bf16": share_equal(best_tokens(load_model(args.dense, torch.bfloat16), sequences)[0], best)}
    for dtype, name in ((torch.float32, "mixture_fp32"), (torch.bfloat16, "mixture_bf16")):
        scored[name] = share_equal(best_tokens(load_model(args.mixture, dtype), sequences)[0], best)
    print(f"{sum(map(len, sequences))} positions; equal to the dense model in fp32: {scored}", flush=True)
    rows = [{"ids": i, "argmax": b, "margin": m} for i, b, m in zip(sequences, best, margins)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"pytorch_share_equal": scored, "sequences": rows}, separators=(",", ":"))
    args.out.write_text(text.replace('{"ids"', '\n{"ids"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
