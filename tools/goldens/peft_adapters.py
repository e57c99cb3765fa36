"""Adapters that peft itself makes and saves, and an independent reading of the files it writes."""

import json
import math
import re

import peft
import torch
from safetensors.torch import load_file

from tiny_adapters import exact
from tiny_models import expert_names, moe_prefix, sizes

_PREFIX = "base_model.model."
GAIN = 0.25


def _randomise(model, r, scale, seed):
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            continue
        noise = torch.randn(parameter.shape, generator=rng)
        if "lora_A" in name:
            noise = noise / math.sqrt(parameter.shape[1])
        elif "lora_embedding_A" not in name:
            noise = noise * GAIN / (math.sqrt(r) * scale)
        parameter.data = exact(noise).to(parameter.dtype)


def resize(model, factor):
    """Multiplies every B by a power of two."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            parameter.data *= factor


def make(model, seed, **config):
    """The peft model with random factors."""
    lora = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **config)
    model = peft.get_peft_model(model, lora)
    scale = lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r)
    _randomise(model, lora.r, scale, seed)
    return model.eval()


def save(model, folder):
    """Writes the files as peft does, less the model card and what changes from run to run."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    path.write_text(stable(path.read_text()), encoding="ascii")
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        if "layers" not in name or ".layers.0." in name:
            print(f"    {name} {list(tensor.shape)}")


def stable(config):
    """adapter_config.json without the temporary base path, and with its sets in order."""
    data = json.loads(config)
    data["base_model_name_or_path"] = None
    for key in ("target_modules", "target_parameters"):
        if isinstance(data[key], list):
            data[key] = sorted(data[key])
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def merged(folder, lora, config, weights):
    """Weights with the deltas of the file added, read by the rules of docs/adapters-in-the-wild.md."""
    tensors = load_file(folder / "adapter_model.safetensors")
    weights = {name: tensor.double() for name, tensor in weights.items()}
    default_scale = lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r)
    gate, up, down = expert_names(config)
    experts, width = sizes(config)[2], sizes(config)[1]

    def rank_and_scale(module):
        for pattern, rank in lora.rank_pattern.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return lora.lora_alpha / (math.sqrt(rank) if lora.use_rslora else rank)
        return default_scale

    for key, first in tensors.items():
        if ".lora_embedding_A" in key:
            second = tensors[key.replace("_A", "_B")].double()
            weights["model.embed_tokens.weight"] += default_scale * (second @ first.double()).T
            continue
        if ".lora_A." not in key:
            continue
        second = tensors[key.replace("lora_A", "lora_B")].double()
        module = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        a = first.double()
        if ".mlp.experts" not in module:
            hub = module.removesuffix(".base_layer")
            hub = hub.replace(".mlp.gate", ".block_sparse_moe.gate") if gate == "w1" else hub
            weights[hub + ".weight"] += rank_and_scale(module) * (second @ a)
            continue
        layer = int(module.split(".")[2])
        a = a.reshape(experts, -1, a.shape[1])
        b = second.reshape(second.shape[0], -1, experts)
        is_gate_up = b.shape[0] == 2 * width
        for e in range(experts):
            delta = rank_and_scale(module) * (b[:, :, e] @ a[e])
            parts = (gate, up) if is_gate_up else (down,)
            for part, rows in zip(parts, delta.chunk(len(parts))):
                weights[f"{moe_prefix(config, layer)}.experts.{e}.{part}.weight"] += rows
    return {name: tensor.float() for name, tensor in weights.items()}


_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]

QWEN3 = {
    "peft_attention": {"seed": 71, "r": 8, "lora_alpha": 16, "target_modules": _ATTENTION},
    "peft_parameters": {"seed": 72, "r": 2, "lora_alpha": 4, "target_modules": [],
                        "target_parameters": _EXPERTS},
    "peft_parameters_attention_rslora": {
        "seed": 73, "r": 3, "lora_alpha": 6, "use_rslora": True,
        "target_modules": ["q_proj", "o_proj"], "target_parameters": _EXPERTS,
        "rank_pattern": {"q_proj": 16, "o_proj": 1}},
    "peft_down_only": {"seed": 74, "r": 1, "lora_alpha": 1, "target_modules": [],
                       "target_parameters": ["mlp.experts.down_proj"]},
    "peft_head_embedding": {"seed": 75, "r": 4, "lora_alpha": 8,
                            "target_modules": ["lm_head", "embed_tokens"]},
    "peft_router": {"seed": 76, "r": 4, "lora_alpha": 8, "target_modules": ["v_proj"],
                    "target_parameters": ["mlp.gate.weight"]},
}

MIXTRAL = {
    "peft_attention": {"seed": 81, "r": 8, "lora_alpha": 16, "target_modules": _ATTENTION},
    "peft_parameters": {"seed": 82, "r": 4, "lora_alpha": 8, "target_modules": ["v_proj"],
                        "target_parameters": _EXPERTS},
}
