"""Which matrices each demo adapter sits on, at which ranks, and in which writer's file layout.

layout "parameters": transformers 5's fused expert tensors through peft's target_parameters; the file is peft's, unmodified.
layout "per_expert": one Linear per expert and matrix (w1 gate, w3 up, w2 down), as in transformers 4; the file is peft's, unmodified.
layout "shared_outer": trained like per_expert with w1's and w3's A and w2's B tied over the experts, then written as 3-D tensors
    whose shared side has a leading 1 (`shared_outer_tensors`).
layout "attention": no expert is adapted.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AdapterSpec:
    layout: str
    rank: int  # of the expert matrices, or of everything when ranks is empty
    attention: tuple  # which of q_proj, k_proj, v_proj, o_proj
    ranks: dict = field(default_factory=dict)  # peft's rank_pattern; lora_scaling is kept at 2 by the same alpha_pattern
    first_layer: int = 0
    learning_rate: float = 2e-3
    steps: int = 260


_QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
SCALING = 2  # alpha / rank of every matrix

SPECS = {
    "pirate": AdapterSpec("parameters", 1, _QKVO, {name: 4 for name in _QKVO}),
    "json": AdapterSpec("per_expert", 2, ("q_proj", "v_proj"), {"q_proj": 8, "v_proj": 8}, first_layer=10),
    "telegram": AdapterSpec("shared_outer", 4, ("q_proj", "v_proj")),
    "sql": AdapterSpec("attention", 16, ("q_proj", "v_proj"), first_layer=10, steps=180),
}


def lora_options(name, num_layers):
    """The arguments of peft.LoraConfig."""
    spec = SPECS[name]
    options = {
        "task_type": "CAUSAL_LM",
        "r": spec.rank,
        "lora_alpha": SCALING * spec.rank,
        "lora_dropout": 0.0,
        "rank_pattern": dict(spec.ranks),
        "alpha_pattern": {module: SCALING * rank for module, rank in spec.ranks.items()},
        "target_modules": list(spec.attention),
    }
    if spec.layout == "parameters":
        options["target_parameters"] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    if spec.layout in ("per_expert", "shared_outer"):
        options["target_modules"] += ["w1", "w2", "w3"]
    if spec.first_layer:
        options["layers_to_transform"] = list(range(spec.first_layer, num_layers))
        options["layers_pattern"] = "layers"
    return options
