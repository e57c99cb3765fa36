"""Writes tests/data/goldens: tiny models, adapters of every layout, and the logits of transformers.

    python tools/goldens/make_models.py --out tests/data/goldens [MODEL ...]

Needs torch, transformers 5 and peft; without names it makes every model.

The oracle runs in float32 with eager attention on dequantised weights; an adapter's delta is added
to them first. Adapters named peft_* are made by peft itself, and there peft's own forward is the
oracle; it is compared with the merge as well. Sequences are drawn so that no token's routing is a
near tie in any variant.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import warnings

import peft
import torch
import transformers
from safetensors.torch import save_file

import peft_adapters
import tiny_adapters
import tiny_models

LENGTHS = [1, 5, 17, 70]
# The last rows of a sequence that are stored: of the base, of an adapter on BF16 and on a quantised
# base, whose adapters are the same for every format.
BASE_ROWS, ADAPTER_ROWS, QUANTISED_ROWS = 16, 8, 4
MIN_MARGIN, CANDIDATES = 2e-3, 32
DELTA_RANGE = (0.05, 0.5)


def load(config, weights):
    """The transformers model in float32 on these hub-named weights."""
    config = {**config, "torch_dtype": "float32"}
    if config["tie_word_embeddings"] and "lm_head.weight" in weights:
        config["tie_word_embeddings"] = False
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "config.json").write_text(json.dumps(config))
        save_file({name: tensor.contiguous() for name, tensor in weights.items()},
                  path / "model.safetensors", metadata={"format": "pt"})
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager", output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, problems
    assert model.config.rope_parameters["rope_theta"] == (
        config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    return model.eval()


class Variant:
    """A model and the inputs of its routers."""

    def __init__(self, name, model, top_k):
        self.name, self.model, self.top_k, self.margins = name, model, top_k, []
        for path, module in model.named_modules():
            if path.endswith("mlp.gate") or path.endswith("mlp.gate.base_layer"):
                if not hasattr(module, "base_layer"):
                    module.register_forward_hook(self._see)

    def _see(self, module, inputs, output):
        # A router with LoRA inside is judged by its merged weight, which its variant carries.
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        probs = torch.softmax(hidden @ module.weight.T, -1).sort(-1, descending=True).values
        self.margins.append(probs[:, self.top_k - 1] - probs[:, self.top_k])

    @torch.no_grad()
    def logits(self, ids):
        """ids [b, n] to logits [b, n, vocab]; margins are left per layer, [b * n]."""
        self.margins = []
        return self.model(input_ids=torch.tensor(ids), use_cache=False).logits

    def last_margin(self, ids):
        """Smallest margin over the layers at the last position of each row, [b]."""
        self.logits(ids)
        if not self.margins:
            return torch.ones(len(ids))
        return torch.stack([m.reshape(len(ids), -1)[:, -1] for m in self.margins]).amin(0)


def draw_sequence(variants, length, rng):
    """Token by token, the first of some candidates that no variant routes by a hair."""
    ids = []
    while len(ids) < length:
        tokens = torch.randint(3, tiny_models.VOCAB, (CANDIDATES,), generator=rng).tolist()
        rows = [ids + [token] for token in tokens]
        for variant in variants:
            margin = variant.last_margin(rows)
            rows = [row for row, m in zip(rows, margin.tolist()) if m >= MIN_MARGIN]
            if not rows:
                break
        if rows:
            ids = rows[0]
        elif ids:
            ids = ids[:-1]
    return ids


def settle(adapter, base, probe, config):
    """Scales the adapter by powers of two until its delta has a size that can be seen."""
    top_k = config["num_experts_per_tok"]
    for _ in range(8):
        variant = Variant(adapter.name, load(config, untied(adapter, config)), top_k)
        ratio = relative(variant.logits(probe), base)
        if ratio < DELTA_RANGE[0] * 1.5:
            adapter.resize(2.0)
        elif ratio > DELTA_RANGE[1] * 0.8:
            adapter.resize(0.5)
        else:
            return variant
    raise AssertionError(f"{adapter.name}: delta stays at {ratio:.3f} of the base")


def settle_peft(name, lora_config, target, config, values, base, probe):
    """The same for an adapter of peft's; saves it and compares its forward with the merged file."""
    top_k = config["num_experts_per_tok"]
    model = peft_adapters.make(load(config, values), **lora_config)
    variant = Variant(name, model, top_k)
    for _ in range(8):
        ratio = relative(variant.logits(probe), base)
        if DELTA_RANGE[0] * 1.5 <= ratio <= DELTA_RANGE[1] * 0.8:
            break
        peft_adapters.resize(model, 2.0 if ratio < DELTA_RANGE[0] * 1.5 else 0.5)
    else:
        raise AssertionError(f"{name}: delta stays at {ratio:.3f} of the base")
    peft_adapters.save(model, target)
    lora = model.peft_config["default"]
    merged = load(config, peft_adapters.merged(target, lora, config, values))
    gap = relative(Variant(name, merged, top_k).logits(probe), variant.logits(probe))
    print(f"    peft's forward against the merged file: {gap:.1e}")
    assert gap < 2e-5, gap
    return variant


def untied(adapter, config):
    """Merged weights; a delta on a tied embedding leaves the head as it was, as in peft."""
    weights = adapter.merged()
    if config["tie_word_embeddings"] and "model.embed_tokens.weight" in adapter.deltas:
        weights["lm_head.weight"] = adapter.weights["model.embed_tokens.weight"].clone()
    return weights


def relative(got, base):
    return ((got - base).norm() / base.norm()).item()


def make_model(out, name, config, form, seed, adapters_of, peft_made, shards):
    top_k = config["num_experts_per_tok"]
    adapter_rows = ADAPTER_ROWS if form == "bf16" else QUANTISED_ROWS
    folder = out / name
    weights = tiny_models.random_weights(config, seed)
    values = tiny_models.write_checkpoint(folder, config, weights, form, shards)
    rng = torch.Generator().manual_seed(seed + 1)
    base = Variant("base", load(config, values), top_k)
    probe = torch.randint(3, tiny_models.VOCAB, (4, 24), generator=rng).tolist()
    base_probe = base.logits(probe)

    variants, overrides = [base], {}
    for adapter in adapters_of(config, values):
        variants.append(settle(adapter, base_probe, probe, config))
        adapter.write(folder / "adapters" / adapter.name)
        if adapter.override:
            overrides[adapter.name] = adapter.override
    for adapter_name, lora_config in peft_made.items():
        print(f"  {adapter_name}", flush=True)
        target = folder / "adapters" / adapter_name
        variants.append(settle_peft(adapter_name, lora_config, target, config, values, base_probe,
                                    probe))

    sequences = [draw_sequence(variants, length, rng) for length in LENGTHS]
    expected = {}
    for variant in variants:
        rows = BASE_ROWS if variant.name == "base" else adapter_rows
        deltas = []
        for i, ids in enumerate(sequences):
            logits = variant.logits([ids])[0]
            margin = torch.stack(variant.margins).amin().item() if variant.margins else 1.0
            assert margin >= MIN_MARGIN * 0.99, (variant.name, i, margin)
            assert torch.isfinite(logits).all()
            expected[f"{variant.name}/{i}"] = logits[-rows:].contiguous()
            if variant.name != "base":
                n = min(rows, len(ids))
                deltas.append(relative(expected[f"{variant.name}/{i}"][-n:],
                                       expected[f"base/{i}"][-n:]))
        print(f"  {variant.name}: delta / base {', '.join(f'{d:.3f}' for d in deltas)}", flush=True)
    save_file(expected, folder / "expected.safetensors")
    (folder / "sequences.json").write_text(json.dumps(
        {"sequences": sequences, "adapters": [v.name for v in variants[1:]],
         "overrides": overrides}, indent=1) + "\n", encoding="ascii")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("models", metavar="MODEL", nargs="*")
    options = parser.parse_args()
    print("torch", torch.__version__, "transformers", transformers.__version__,
          "peft", peft.__version__)
    torch.set_num_threads(8)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="Could not find a config file")

    mixtral, qwen3 = tiny_models.mixtral_config, tiny_models.qwen3_config
    few = tiny_adapters.few_adapters
    small = {"num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}
    dense = {"hidden_size": 96, "moe_intermediate_size": 48, "intermediate_size": 112,
             "num_hidden_layers": 4, "num_experts": 5, "num_experts_per_tok": 2, "head_dim": 48,
             "num_attention_heads": 2, "num_key_value_heads": 1, "decoder_sparse_step": 2,
             "mlp_only_layers": [3], "norm_topk_prob": False, "tie_word_embeddings": True}
    rope = qwen3(**dense)
    rope["rope_parameters"] = {"rope_theta": rope.pop("rope_theta"), "rope_type": "default"}
    rope["dtype"] = rope.pop("torch_dtype")
    del rope["rope_scaling"]

    models = [
        ("qwen3_bf16", qwen3(), "bf16", 11, tiny_adapters.qwen3_adapters, peft_adapters.QWEN3, 1),
        ("mixtral_bf16", mixtral(), "bf16", 12, tiny_adapters.mixtral_adapters,
         peft_adapters.MIXTRAL, 2),
        ("qwen3_dense_layers", rope, "bf16", 13, tiny_adapters.dense_layer_adapters, {}, 1),
        ("mixtral_fp8", mixtral(), "fp8_f32", 14, few, {}, 1),
        ("qwen3_fp8", qwen3(**small, norm_topk_prob=False), "fp8_bf16", 15, few, {}, 2),
        ("mixtral_nvfp4_modelopt", mixtral(), "nvfp4_hf_quant", 16, few, {}, 1),
        ("mixtral_nvfp4_compressed", mixtral(), "nvfp4_compressed", 19, few, {}, 1),
        ("qwen3_nvfp4_modelopt", qwen3(**small), "nvfp4_modelopt", 17, few, {}, 1),
        ("qwen3_nvfp4_compressed", qwen3(**small), "nvfp4_compressed", 18, few, {}, 1),
    ]
    unknown = set(options.models) - {model[0] for model in models}
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    for name, config, form, seed, adapters_of, peft_made, shards in models:
        if options.models and name not in options.models:
            continue
        print(name, flush=True)
        shutil.rmtree(options.out / name, ignore_errors=True)
        make_model(options.out, name, config, form, seed, adapters_of, peft_made, shards)


if __name__ == "__main__":
    sys.exit(main())
