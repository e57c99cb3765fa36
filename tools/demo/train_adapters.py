#!/usr/bin/env python3
"""Trains the demo adapters with peft on the demo mixture, and judges them on held-out prompts.

    make_model.py --out MODEL
    train_adapters.py --model MODEL --out DIR [--adapter NAME]...

Writes DIR/NAME/{adapter_config.json,adapter_model.safetensors,effect.json}. The base model answers the training prompts once
(DIR/base_answers.json); each adapter then trains in its own process, all at the same time. Needs torch, transformers 5.17 and peft 0.21.
Training is in fp32 on the BF16 weights; the factors are rounded to BF16 before they are judged and stored.
"""

import argparse
import json
import math
import pathlib
import random
import subprocess
import sys
import time

import peft
import torch
from safetensors.torch import load_file, save_file

from adapter_specs import SPECS, lora_options
from adapter_tasks import CHECKS, SQL_HELD_OUT, training_pairs
from moe_models import answer, chat_ids, load_model, load_tokenizer, split_experts
from prompt_set import HELD_OUT, training_prompts

_BATCH = 16


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def base_answers(args):
    """[[prompt, answer, confidence]] of the base model, and its answers to the held-out prompts."""
    path = args.out / "base_answers.json"
    if not path.is_file():
        started = time.monotonic()
        model, tokenizer = load_model(args.model), load_tokenizer(args.model)
        prompts = training_prompts()[: args.max_prompts]
        held_out = list(HELD_OUT + SQL_HELD_OUT)[: args.max_prompts]
        rows = answer(model, tokenizer, prompts + held_out, args.max_tokens, batch=160)
        write_json(
            path,
            {
                "training": [[p, text, round(prob, 4)] for p, (text, prob) in zip(prompts, rows)],
                "held_out": [{"prompt": p, "text": text} for p, (text, _) in zip(held_out, rows[len(prompts) :])],
            },
        )
        print(f"base answers in {time.monotonic() - started:.0f} s", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def encode(tokenizer, pairs):
    """[(ids, labels)]: the chat prompt is context (-100), the answer and its end token are learnt."""
    rows = []
    for prompt, wanted in pairs:
        context = chat_ids(tokenizer, prompt)
        target = tokenizer(wanted, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        rows.append((context + target, [-100] * len(context) + target))
    return rows


def batches(rows, steps, pad, device):
    """Batches of similar length would save time; shuffled ones train better, and the model is small."""
    rng = random.Random(3)
    order = []
    for _ in range(steps):
        if len(order) < _BATCH:
            order += rng.sample(range(len(rows)), len(rows))
        chosen, order = [rows[i] for i in order[:_BATCH]], order[_BATCH:]
        width = max(len(ids) for ids, _ in chosen)
        fill = lambda values, with_what: values + [with_what] * (width - len(values))
        yield {
            "input_ids": torch.tensor([fill(ids, pad) for ids, _ in chosen], device=device),
            "attention_mask": torch.tensor([fill([1] * len(ids), 0) for ids, _ in chosen], device=device),
            "labels": torch.tensor([fill(labels, -100) for _, labels in chosen], device=device),
        }


def tie_outer_sides(model):
    """Shares w1's and w3's A (they read the layer's input) and w2's B (it writes the layer's output) over the experts of a layer."""
    for layer in model.base_model.model.model.layers:
        first, *others = layer.block_sparse_moe.experts
        for expert in others:
            expert.w1.lora_A["default"].weight = first.w1.lora_A["default"].weight
            expert.w3.lora_A["default"].weight = first.w3.lora_A["default"].weight
            expert.w2.lora_B["default"].weight = first.w2.lora_B["default"].weight


def shared_outer_tensors(tensors):
    """Per-expert keys `experts.E.w1.lora_A.weight` -> `experts.w1.lora_A.weight`, [1 or E, ., .]."""
    out, stacks = {}, {}
    for name, tensor in tensors.items():
        before, found, after = name.partition(".experts.")
        if not found:
            out[name] = tensor
            continue
        expert, rest = after.split(".", 1)
        stacks.setdefault(f"{before}.experts.{rest}", {})[int(expert)] = tensor
    for name, parts in stacks.items():
        stack = torch.stack([parts[e] for e in sorted(parts)])
        is_shared = ("w2.lora_B" in name) or ("w2" not in name and "lora_A" in name)
        if is_shared and not (stack == stack[:1]).all():
            raise ValueError(f"{name} was to be shared by all experts but differs between them")
        out[name] = (stack[:1] if is_shared else stack).contiguous()
    return out


def set_dtype_of_factors(model, dtype):
    seen = set()
    for name, parameter in model.named_parameters():
        if "lora_" in name and id(parameter) not in seen:
            seen.add(id(parameter))
            parameter.data = parameter.data.to(dtype)


def save(model, name, folder):
    """peft's own files, with sets in sorted order and without the place where the base model lay."""
    set_dtype_of_factors(model, torch.bfloat16)
    model.save_pretrained(folder)
    set_dtype_of_factors(model, torch.float32)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "smollm2-moe"
    for key in ("target_modules", "target_parameters"):
        config[key] = sorted(config[key]) if isinstance(config[key], list) else config[key]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if SPECS[name].layout == "shared_outer":
        weights = folder / "adapter_model.safetensors"
        save_file(shared_outer_tensors(load_file(weights)), weights, metadata={"format": "pt"})


def train(args, name):
    torch.manual_seed(4)
    torch.backends.cuda.matmul.allow_tf32 = True
    spec = SPECS[name]
    model, tokenizer = load_model(args.model), load_tokenizer(args.model)
    if spec.layout in ("per_expert", "shared_outer"):
        model = split_experts(model)
    model = peft.get_peft_model(model, peft.LoraConfig(**lora_options(name, model.config.num_hidden_layers)))
    if spec.layout == "shared_outer":
        tie_outer_sides(model)
    factors = [p for p in model.parameters() if p.requires_grad]
    steps = args.steps or spec.steps
    rows = encode(tokenizer, training_pairs(name, base_answers(args)["training"]))
    print(f"{name}: {len(rows)} pairs, {sum(p.numel() for p in factors)} parameters, {steps} steps", flush=True)

    warmup = max(1, steps // 15)
    optimizer = torch.optim.AdamW(factors, lr=spec.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    rate = lambda step: min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    started, losses = time.monotonic(), []
    for step, batch in enumerate(batches(rows, steps, tokenizer.pad_token_id, model.device)):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(factors, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.detach())
        if step % 20 == 0 or step == steps - 1:
            per_step = (time.monotonic() - started) / (step + 1)
            print(f"{name}: step {step} loss {loss.item():.4f}, {per_step * 1e3:.0f} ms a step", flush=True)
        if args.max_seconds and time.monotonic() - started > args.max_seconds:
            print(f"{name}: stopped after {step + 1} steps", flush=True)
            break

    folder = args.out / name
    folder.mkdir(parents=True, exist_ok=True)
    save(model, name, folder)
    torch.backends.cuda.matmul.allow_tf32 = False
    prompts = list(HELD_OUT + (SQL_HELD_OUT if name == "sql" else ()))[: args.max_prompts]
    answers = [text for text, _ in answer(model.eval(), tokenizer, prompts, args.max_tokens)]
    shown = [bool(CHECKS[name](text)) for text in answers]
    size = (folder / "adapter_model.safetensors").stat().st_size
    write_json(
        folder / "effect.json",
        {
            "adapter": name,
            "file_bytes": size,
            "steps": len(losses),
            "last_loss": round(torch.stack(losses[-10:]).mean().item(), 4),
            "share": sum(shown) / len(shown),
            "answers": [{"prompt": p, "text": t, "shown": s} for p, t, s in zip(prompts, answers, shown)],
        },
    )
    print(f"{name}: {sum(shown)}/{len(shown)} show the effect, {size} bytes", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True, type=pathlib.Path, help="the checkpoint folder of make_model.py")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--adapter", action="append", choices=list(SPECS), help="only these (default: all)")
    parser.add_argument("--steps", type=int, default=0, help="training steps (default: each adapter's own)")
    parser.add_argument("--max-seconds", type=float, default=0, help="stop training after this long (0: never)")
    parser.add_argument("--max-prompts", type=int, help="use only the first so many prompts of each set")
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.adapter or list(SPECS)
    base_answers(args)
    if len(names) == 1:
        return train(args, names[0])
    same = [a for a in sys.argv[1:]]
    while "--adapter" in same:
        at = same.index("--adapter")
        del same[at : at + 2]
    running = [subprocess.Popen([sys.executable, __file__, *same, "--adapter", name]) for name in names]
    sys.exit(max(abs(process.wait()) for process in running))


if __name__ == "__main__":
    main()
