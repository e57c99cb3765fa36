"""LoRA adapters in the layouts that writers use, each with the deltas it stands for.

An adapter here is a set of deltas on hub weight names, and a file layout that says the same. The
deltas are computed from the factors per module, before the layout is applied, so a reader that
takes a layout apart wrongly does not agree with them.
"""

import json
import math

import torch
from safetensors.torch import save_file

from tiny_models import expert_names, is_mixtral, is_sparse, moe_prefix, sizes

# The key set that PEFT writes, shortened to what bears on reading; and Megatron-Bridge's own.
_PEFT = {"alpha_pattern": {}, "auto_mapping": None, "bias": "none", "corda_config": None,
         "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False,
         "inference_mode": True, "init_lora_weights": True, "layer_replication": None,
         "layers_pattern": None, "layers_to_transform": None, "loftq_config": {},
         "lora_bias": False, "lora_dropout": 0.0, "megatron_config": None,
         "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA",
         "qalora_group_size": 16, "rank_pattern": {}, "revision": None,
         "target_parameters": None, "task_type": "CAUSAL_LM", "trainable_token_indices": None,
         "use_dora": False, "use_qalora": False, "use_rslora": False}
_MEGATRON = {"alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "",
             "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
             "init_lora_weights": True, "lora_dropout": 0.0, "modules_to_save": None,
             "peft_type": "LORA", "rank_pattern": {}, "revision": None,
             "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": False}


def exact(tensor):
    """The nearest BF16 values that F16 holds as well: Braid rounds factors to BF16 at load."""
    tensor = tensor.bfloat16().float()
    return torch.where(tensor.abs() < 2.0**-12, torch.zeros_like(tensor), tensor)


class Adapter:
    """Collects tensors and deltas; gain is how large a delta is beside its weight."""

    def __init__(self, name, config, weights, seed, r=8, alpha=16, gain=0.25, rslora=False,
                 dtype=torch.bfloat16, prefix="base_model.model.", suffix=""):
        self.name, self.model, self.weights = name, config, weights
        self.r, self.alpha, self.gain, self.rslora = r, alpha, gain, rslora
        self.dtype, self.prefix, self.suffix = dtype, prefix, suffix
        self.rng = torch.Generator().manual_seed(seed)
        self.tensors, self.deltas, self.override = {}, {}, {}
        self.config = {**_PEFT, "peft_version": "0.21.0"}
        self.config |= {"r": r, "lora_alpha": alpha, "use_rslora": rslora}

    def scale(self, r=None, alpha=None):
        r, alpha = r or self.r, alpha or self.alpha
        return alpha / (math.sqrt(r) if self.rslora else r)

    def a(self, r, width, *lead):
        return exact(torch.randn(*lead, r, width, generator=self.rng) / math.sqrt(width))

    def b(self, out, r, *lead, alpha=None):
        std = self.gain / (math.sqrt(r) * self.scale(r, alpha))
        return exact(torch.randn(*lead, out, r, generator=self.rng) * std)

    def put(self, key, tensor):
        stem, half = key.rsplit(".lora_", 1)
        half = half.replace(".weight", f"{self.suffix}.weight")
        self.tensors[f"{self.prefix}{stem}.lora_{half}"] = tensor.to(self.dtype).contiguous()

    def add_delta(self, module, a, b, r=None, alpha=None):
        delta = self.scale(r, alpha) * (b.double() @ a.double())
        name = module + ".weight"
        assert delta.shape == self.weights[name].shape, (name, delta.shape)
        self.deltas[name] = self.deltas.get(name, 0) + delta

    def linear(self, module, r=None, alpha=None, key=None, shared_a=None):
        r = r or self.r
        out, width = self.weights[module + ".weight"].shape
        a = shared_a if shared_a is not None else self.a(r, width)
        b = self.b(out, r, alpha=alpha)
        self.put(f"{key or module}.lora_A.weight", a)
        self.put(f"{key or module}.lora_B.weight", b)
        self.add_delta(module, a, b, r, alpha)
        return a, b

    def layers(self):
        return [x for x in range(sizes(self.model)[3]) if is_sparse(self.model, x)]

    def attention(self, modules="qkvo", **how):
        for layer in range(sizes(self.model)[3]):
            for module in modules:
                self.linear(f"model.layers.{layer}.self_attn.{module}_proj", **how)
        return self

    def per_expert(self, experts=None, shared_a=False, r_of=lambda which, e: None, rename=None):
        """2-D factors per expert. r_of(0 gate | 1 up | 2 down, e) gives a rank of its own."""
        for layer in self.layers():
            moe, names = moe_prefix(self.model, layer), expert_names(self.model)
            for e in experts if experts is not None else range(sizes(self.model)[2]):
                a = None
                for which, name in enumerate(names):
                    module = f"{moe}.experts.{e}.{name}"
                    key = rename(module) if rename else None
                    a, _ = self.linear(module, r_of(which, e), key=key,
                                       shared_a=a if shared_a and which == 1 else None)
        return self

    def shared_copies(self):
        """One adapter per layer, written once for every expert."""
        for layer in self.layers():
            moe = moe_prefix(self.model, layer)
            for name in expert_names(self.model):
                out, width = self.weights[f"{moe}.experts.0.{name}.weight"].shape
                a, b = self.a(self.r, width), self.b(out, self.r)
                for e in range(sizes(self.model)[2]):
                    module = f"{moe}.experts.{e}.{name}"
                    self.put(f"{module}.lora_A.weight", a)
                    self.put(f"{module}.lora_B.weight", b)
                    self.add_delta(module, a, b)
        return self

    def fused_parameters(self, swapped, grouped):
        """3-D target_parameters: gate_up under base_layer, down outside it; E merged into rank.

        swapped: PEFT up to 0.18 took dim 1 of [E, out, in] as the input. There A has the width of
        the output, and delta is the transposed product. grouped: B columns expert by expert.
        """
        hidden, width, experts, _ = sizes(self.model)
        gate, up, down = expert_names(self.model)
        for layer in self.layers():
            moe = f"model.layers.{layer}.mlp.experts"  # transformers 5 calls Mixtral's block mlp
            hub = moe_prefix(self.model, layer) + ".experts"
            for key, out, inner, parts in ((f"{moe}.base_layer", 2 * width, hidden, (gate, up)),
                                           (moe, hidden, width, (down,))):
                a, b = self.a(self.r, inner, experts), self.b(out, self.r, experts)
                for e in range(experts):
                    for part, rows in zip(parts, b[e].chunk(len(parts))):
                        self.add_delta(f"{hub}.{e}.{part}", a[e], rows)
                first, second = (b.mT, a.mT) if swapped else (a, b)  # [E, r, .] and [E, ., r]
                self.put(f"{key}.lora_A.weight", first.reshape(experts * self.r, -1))
                order = (1, 0, 2) if grouped else (1, 2, 0)  # [., E, r] or [., r, E]
                self.put(f"{key}.lora_B.weight",
                         second.permute(*order).reshape(second.shape[1], -1))
        self.config["target_parameters"] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        return self

    def shared_outer(self, names):
        """3-D factors by shape: the outer side (gate/up A, down B) has a leading 1.

        names: (gate, up, down), or (gate_up, down) for one fused pair.
        """
        hidden, width, experts, _ = sizes(self.model)
        hub_names = expert_names(self.model)
        for layer in self.layers():
            moe = moe_prefix(self.model, layer) + ".experts"
            inner = len(names) - 1
            for i, name in enumerate(names):
                is_down = i == inner
                hub = hub_names[2:] if is_down else hub_names[:2] if inner == 1 else hub_names[i:i + 1]
                out = hidden if is_down else width * len(hub)
                a = self.a(self.r, width, experts) if is_down else self.a(self.r, hidden, 1)
                b = self.b(out, self.r, 1) if is_down else self.b(out, self.r, experts)
                self.put(f"{moe}.{name}.lora_A.weight", a)
                self.put(f"{moe}.{name}.lora_B.weight", b)
                for e in range(experts):
                    rows = b[0 if is_down else e].chunk(len(hub))
                    for part, rows_of in zip(hub, rows):
                        self.add_delta(f"{moe}.{e}.{part}", a[e if is_down else 0], rows_of)
        return self

    def embedding(self):
        """lora_embedding_A [r, vocab] and _B [hidden, r]; the delta of the table is (B A) transposed."""
        table = self.weights["model.embed_tokens.weight"]
        vocab, hidden = table.shape
        a = exact(torch.randn(self.r, vocab, generator=self.rng))
        b = self.b(hidden, self.r)
        self.tensors[f"{self.prefix}model.embed_tokens.lora_embedding_A"] = a.to(self.dtype)
        self.tensors[f"{self.prefix}model.embed_tokens.lora_embedding_B"] = b.to(self.dtype)
        self.deltas["model.embed_tokens.weight"] = self.scale() * (b.double() @ a.double()).T
        return self

    def targets(self, *modules, **config):
        self.config |= {"target_modules": list(modules), **config}
        return self

    def megatron(self):
        """The short fixed key set, without peft_version."""
        kept = {key: self.config[key] for key in ("r", "lora_alpha", "target_modules")}
        if self.config["target_parameters"]:
            kept["target_parameters"] = self.config["target_parameters"]
        self.config = {**_MEGATRON, **kept, "rank_pattern": self.config["rank_pattern"]}
        return self

    def without_version(self):
        del self.config["peft_version"]
        return self

    def resize(self, factor):
        """Multiplies every B, and so every delta, by a power of two: exact in BF16 and F16."""
        for name in self.tensors:
            if ".lora_B" in name or ".lora_embedding_B" in name:
                self.tensors[name] = self.tensors[name] * factor
        self.deltas = {name: delta * factor for name, delta in self.deltas.items()}

    def merged(self):
        weights = dict(self.weights)
        for name, delta in self.deltas.items():
            weights[name] = (weights[name].double() + delta).float()
        return weights

    def write(self, folder):
        folder.mkdir(parents=True)
        save_file(dict(sorted(self.tensors.items())), folder / "adapter_model.safetensors",
                  metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(
            json.dumps(self.config, indent=2, sort_keys=True) + "\n", encoding="ascii")


def _experts_3d(name, config, weights, seed, swapped, grouped, **how):
    return Adapter(name, config, weights, seed, **how).targets().fused_parameters(swapped, grouped)


def qwen3_adapters(config, weights):
    """Every layout, on Qwen3-MoE."""
    def make(name, seed, **how):
        return Adapter(name, config, weights, seed, **how)

    projections = ("gate_proj", "up_proj", "down_proj")
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    all_adapters = [
        make("per_expert_f32", 1, r=2, dtype=torch.float32).per_expert().targets(*projections),
        make("some_experts_default_f16", 2, r=3, alpha=3, dtype=torch.float16, suffix=".default")
        .per_expert(experts=[0, 2, 4]).targets(*projections),
        make("bare_keys_router_r16", 3, r=16, alpha=8, prefix="").attention()
        .targets(*attention, "gate"),
        make("vlm_prefix_r1", 4, r=1, alpha=2, prefix="base_model.model.").targets(*attention),
        make("double_wrap", 5, r=8, prefix="base_model.model.model.").attention()
        .targets(*attention),
        _experts_3d("parameters_new_peft", config, weights, 6, False, False, r=2),
        _experts_3d("parameters_old_peft", config, weights, 7, True, False, r=2).without_version(),
        _experts_3d("parameters_unsloth_grouped", config, weights, 8, False, True, r=2),
        _experts_3d("parameters_megatron_packed", config, weights, 9, True, True, r=2).megatron(),
        make("one_a_for_gate_and_up", 10, r=4).per_expert(shared_a=True).targets(*projections),
        make("shared_outer_fused", 11, r=8).shared_outer(("gate_up_proj", "down_proj"))
        .targets("gate_up_proj", "down_proj").megatron(),
        make("shared_outer_separate", 12, r=4).shared_outer(projections).targets(*projections),
        make("tinker", 13, r=4, alpha=32).shared_outer(("w1", "w3", "w2"))
        .targets("w1", "w2", "w3", "unembed_tokens"),
        make("shared_expert_copies", 14, r=4).shared_copies().targets(*projections).megatron(),
        make("patterns", 15, r=8, alpha=16),
        make("rslora_r40", 16, r=40, alpha=8, rslora=True).attention("qo")
        .targets("q_proj", "o_proj"),
        make("normalised_moe_rank", 17, r=6, alpha=12),
        make("lm_head_and_embedding", 18, r=4).embedding().targets("lm_head", "embed_tokens"),
    ]
    by_name = {adapter.name: adapter for adapter in all_adapters}
    layers = range(sizes(config)[3])

    by_name["parameters_unsloth_grouped"].override = {"expert_layout": "grouped"}
    for layer in layers:
        by_name["bare_keys_router_r16"].linear(f"model.layers.{layer}.mlp.gate")
        for letter in "qkvo":
            name = f"layers.{layer}.self_attn.{letter}_proj"
            by_name["vlm_prefix_r1"].linear(f"model.{name}", key=f"model.language_model.{name}")
    by_name["lm_head_and_embedding"].linear("lm_head")
    by_name["tinker"].linear("lm_head", key="model.unembed_tokens")
    by_name["shared_expert_copies"].attention("qkvo")
    by_name["shared_expert_copies"].config["target_modules"] += list(attention)

    # Ranks 1, 3, 16 and alphas of their own; one anchored key, one regex, one plain suffix.
    patterns = by_name["patterns"].targets(
        *attention, *projections,
        rank_pattern={r"^model.layers.0.self_attn.q_proj": 16, r"layers\.\d+\.self_attn\.[kv]_proj": 3,
                      r"mlp\.experts\.[0-2]\.down_proj": 1},
        alpha_pattern={r"^model.layers.0.self_attn.q_proj": 4, "o_proj": 24})
    for layer in layers:
        for letter in "qkvo":
            rank = 16 if letter == "q" and layer == 0 else 3 if letter in "kv" else 8
            alpha = 4 if letter == "q" and layer == 0 else 24 if letter == "o" else 16
            patterns.linear(f"model.layers.{layer}.self_attn.{letter}_proj", rank, alpha)
        for e in range(sizes(config)[2]):
            patterns.linear(f"model.layers.{layer}.mlp.experts.{e}.down_proj", 1 if e <= 2 else 8)

    # Megatron-Bridge's normalize_moe_lora: expert rank = rank / top-k, said in rank_pattern alone.
    normalised = by_name["normalised_moe_rank"]
    normalised.targets(*attention, *projections, rank_pattern={})
    normalised.attention().per_expert(r_of=lambda which, e: 2)
    normalised.config["rank_pattern"] = {
        f"model.layers.{layer}.mlp.experts.{e}.{name}": 2
        for layer in layers for e in range(sizes(config)[2]) for name in projections}
    normalised.megatron()
    return all_adapters


def mixtral_adapters(config, weights):
    """The layouts under Mixtral's names: block_sparse_moe and w1/w2/w3, and transformers 5's mlp."""
    def make(name, seed, **how):
        return Adapter(name, config, weights, seed, **how)

    experts = ("w1", "w2", "w3")
    all_adapters = [
        make("per_expert_w123", 31, r=4).per_expert().targets(*experts),
        make("attention_router_lm_head", 32, r=8).attention()
        .targets("q_proj", "k_proj", "v_proj", "o_proj", "gate", "lm_head"),
        _experts_3d("parameters_new_peft", config, weights, 33, False, False, r=4),
        _experts_3d("parameters_old_peft", config, weights, 34, True, False, r=2).without_version(),
        _experts_3d("parameters_megatron_packed", config, weights, 35, True, True, r=4).megatron(),
        make("tinker", 36, r=8).shared_outer(("w1", "w3", "w2")).targets(*experts),
        make("mixed_ranks", 37, r=16, alpha=16),
    ]
    for layer in range(sizes(config)[3]):
        all_adapters[1].linear(f"model.layers.{layer}.block_sparse_moe.gate")
    all_adapters[1].linear("lm_head")
    mixed, ranks = all_adapters[-1], (1, 3, 16, 40)
    mixed.per_expert(r_of=lambda which, e: ranks[e]).targets(
        *experts, rank_pattern={rf"experts\.{e}\.w[123]": rank for e, rank in enumerate(ranks)})
    return all_adapters


def few_adapters(config, weights):
    """What the quantised models are tried with: each way an expert's factors are read, attention,
    what stands outside the experts, and scaling by patterns. Ranks are low to keep the files small.
    """
    def make(name, seed, **how):
        return Adapter(name, config, weights, seed, **how)

    gate, up, down = expert_names(config)
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    tinker = make("tinker", 55, r=2, alpha=8).shared_outer(("w1", "w3", "w2"))
    outside = make("router_lm_head_embedding", 56, r=2).embedding()
    patterns = make("patterns", 57, r=4, alpha=8).targets(
        *attention, down,
        rank_pattern={r"^model.layers.0.self_attn.q_proj": 8,
                      r"layers\.\d+\.self_attn\.[kv]_proj": 1, rf"experts\.[0-2]\.{down}": 2},
        alpha_pattern={r"^model.layers.0.self_attn.q_proj": 2, "o_proj": 12})
    tinker.linear("lm_head", key="model.unembed_tokens")
    outside.linear("lm_head")
    for layer in range(sizes(config)[3]):
        outside.linear(f"{moe_prefix(config, layer)}.gate")
        for letter in "qkvo":
            rank = 8 if letter == "q" and layer == 0 else 1 if letter in "kv" else 4
            alpha = 2 if letter == "q" and layer == 0 else 12 if letter == "o" else 8
            patterns.linear(f"model.layers.{layer}.self_attn.{letter}_proj", rank, alpha)
        for e in range(sizes(config)[2]):
            patterns.linear(f"{moe_prefix(config, layer)}.experts.{e}.{down}", 2 if e <= 2 else 4)
    return [
        make("per_expert", 51, r=4).per_expert().targets(gate, up, down),
        make("shared_outer_attention", 52, r=8).attention().shared_outer((gate, up, down))
        .targets(*attention, gate, up, down),
        _experts_3d("parameters_new_peft", config, weights, 53, False, False, r=2),
        _experts_3d("parameters_megatron_packed", config, weights, 54, True, True, r=2).megatron(),
        tinker.targets("w1", "w2", "w3", "unembed_tokens"),
        outside.targets("gate", "lm_head", "embed_tokens"),
        patterns,
    ]


def dense_layer_adapters(config, weights):
    """Dense MLP layers beside sparse ones; tied embeddings."""
    both = Adapter("dense_mlp_and_experts", config, weights, 61, r=6, alpha=12).per_expert()
    for layer in range(sizes(config)[3]):
        if not is_sparse(config, layer):
            for name in ("gate_proj", "up_proj", "down_proj"):
                both.linear(f"model.layers.{layer}.mlp.{name}")
    tied = Adapter("embedding_of_tied_model", config, weights, 62, r=4).embedding()
    return [both.targets("gate_proj", "up_proj", "down_proj"), tied.targets("embed_tokens")]
