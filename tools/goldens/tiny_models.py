"""Configs, random weights and quantised files of the tiny models that goldens are made for."""

import json
import math

import torch
from safetensors.torch import save_file

import quantise

VOCAB = 256


def mixtral_config(**changes):
    return {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
            "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 160, "initializer_range": 0.02, "intermediate_size": 144,
            "max_position_embeddings": 256, "num_attention_heads": 5, "num_experts_per_tok": 2,
            "num_hidden_layers": 2, "num_key_value_heads": 1, "num_local_experts": 4,
            "output_router_logits": False, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.02, "sliding_window": None, "tie_word_embeddings": False,
            "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": VOCAB, **changes}


def qwen3_config(**changes):
    return {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
            "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
            "eos_token_id": 2, "decoder_sparse_step": 1, "head_dim": 32, "hidden_act": "silu",
            "hidden_size": 160, "initializer_range": 0.02, "intermediate_size": 224,
            "max_position_embeddings": 256, "max_window_layers": 2, "mlp_only_layers": [],
            "moe_intermediate_size": 144, "norm_topk_prob": True, "num_attention_heads": 4,
            "num_experts": 5, "num_experts_per_tok": 3, "num_hidden_layers": 2,
            "num_key_value_heads": 2, "output_router_logits": False, "rms_norm_eps": 1e-6,
            "rope_scaling": None, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
            "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
            "use_cache": True, "use_sliding_window": False, "vocab_size": VOCAB, **changes}


def is_mixtral(config):
    return config["model_type"] == "mixtral"


def sizes(config):
    """(hidden, expert width, experts, layers)."""
    if is_mixtral(config):
        return (config["hidden_size"], config["intermediate_size"], config["num_local_experts"],
                config["num_hidden_layers"])
    return (config["hidden_size"], config["moe_intermediate_size"], config["num_experts"],
            config["num_hidden_layers"])


def is_sparse(config, layer):
    if is_mixtral(config):
        return True
    step = config["decoder_sparse_step"]
    return layer not in config["mlp_only_layers"] and step > 0 and (layer + 1) % step == 0


def moe_prefix(config, layer):
    block = "block_sparse_moe" if is_mixtral(config) else "mlp"
    return f"model.layers.{layer}.{block}"


def expert_names(config):
    """Names of the (gate, up, down) projections of one expert."""
    return ("w1", "w3", "w2") if is_mixtral(config) else ("gate_proj", "up_proj", "down_proj")


def random_weights(config, seed):
    """Hub names to float32 tensors whose values are BF16."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}

    def linear(name, out, width, gain=1.0):
        std = gain / math.sqrt(width)
        weights[name + ".weight"] = torch.randn(out, width, generator=rng) * std

    def norm(name, width, spread=0.2):
        weights[name + ".weight"] = 1 + spread * torch.randn(width, generator=rng)

    hidden, width, experts, layers = sizes(config)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    weights["model.embed_tokens.weight"] = torch.randn(VOCAB, hidden, generator=rng)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        norm(f"{prefix}.input_layernorm", hidden)
        norm(f"{prefix}.post_attention_layernorm", hidden)
        linear(f"{prefix}.self_attn.q_proj", heads * head_dim, hidden, 1.4)
        linear(f"{prefix}.self_attn.k_proj", kv_heads * head_dim, hidden, 1.4)
        linear(f"{prefix}.self_attn.v_proj", kv_heads * head_dim, hidden)
        linear(f"{prefix}.self_attn.o_proj", hidden, heads * head_dim, 1.5)
        if not is_mixtral(config):
            norm(f"{prefix}.self_attn.q_norm", head_dim, 0.4)
            norm(f"{prefix}.self_attn.k_norm", head_dim, 0.4)
        if is_sparse(config, layer):
            moe = moe_prefix(config, layer)
            gate, up, down = expert_names(config)
            linear(f"{moe}.gate", experts, hidden, 2.0)
            for e in range(experts):
                linear(f"{moe}.experts.{e}.{gate}", width, hidden, 1.5)
                linear(f"{moe}.experts.{e}.{up}", width, hidden, 1.5)
                linear(f"{moe}.experts.{e}.{down}", hidden, width, 1.5)
        else:
            inner = config["intermediate_size"]
            linear(f"{prefix}.mlp.gate_proj", inner, hidden, 1.5)
            linear(f"{prefix}.mlp.up_proj", inner, hidden, 1.5)
            linear(f"{prefix}.mlp.down_proj", hidden, inner, 1.5)
    norm("model.norm", hidden)
    if not config["tie_word_embeddings"]:
        linear("lm_head", VOCAB, hidden, 3.0)
    return {name: tensor.bfloat16().float() for name, tensor in weights.items()}


def _write_json(path, data):
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="ascii")


def _is_projection(name):
    return ((".experts." in name or ".self_attn." in name or ".mlp." in name)
            and "norm" not in name and not name.endswith("gate.weight"))


def write_checkpoint(folder, config, weights, form, shards=1):
    """Writes the folder and returns the dequantised weights.

    form: bf16, fp8_f32, fp8_bf16, nvfp4_hf_quant (ModelOpt, hf_quant_config.json, experts only),
    nvfp4_modelopt (ModelOpt, in config.json), nvfp4_compressed (compressed-tensors).
    """
    folder.mkdir(parents=True)
    config, tensors, values = dict(config), {}, dict(weights)
    quantised = [name for name in weights if form != "bf16" and _is_projection(name)]
    if form == "nvfp4_hf_quant":
        quantised = [name for name in quantised if ".experts." in name]
    for name, weight in weights.items():
        if name not in quantised:
            tensors[name] = weight.bfloat16()
        elif form.startswith("fp8"):
            dtype = torch.float32 if form == "fp8_f32" else torch.bfloat16
            tensors[name], tensors[name + "_scale_inv"], values[name] = quantise.fp8_block(weight, dtype)
        else:
            stem = name.removesuffix(".weight")
            packed, scale, top, values[name] = quantise.nvfp4(weight, _common_top(weights, name, form))
            # Tensor by tensor another value, so that a reader who takes one for all is found out.
            input_scale = torch.tensor(0.01 + 0.001 * (len(tensors) % 7))
            if form == "nvfp4_compressed":
                tensors[stem + ".weight_packed"] = packed
                tensors[stem + ".weight_scale"] = scale
                tensors[stem + ".weight_global_scale"] = (1 / top).reshape(1)
                tensors[stem + ".input_global_scale"] = (1 / input_scale).reshape(1)
                values[name] = values[name] / top * (1 / (1 / top))
            else:
                tensors[name] = packed
                tensors[stem + ".weight_scale"] = scale
                tensors[stem + ".weight_scale_2"] = top.reshape(())
                tensors[stem + ".input_scale"] = input_scale
    _describe_quantisation(folder, config, form)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json",
                {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2})
    _write_tensors(folder, tensors, shards)
    return values


def _common_top(weights, name, form):
    """ModelOpt gives gate and up of an expert one global scale; compressed-tensors here does not."""
    if form == "nvfp4_compressed":
        return None
    for gate, up in (("gate_proj", "up_proj"), ("w1", "w3")):
        if f".{gate}." in name or f".{up}." in name:
            both = [weights[name.replace(f".{up}.", f".{gate}.")],
                    weights[name.replace(f".{gate}.", f".{up}.")]]
            return max(w.abs().max() for w in both) / (quantise.E2M1_MAX * quantise.E4M3_MAX)
    return None


def _describe_quantisation(folder, config, form):
    if form.startswith("fp8"):
        config["quantization_config"] = {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": ["lm_head", "model.embed_tokens"]}
    elif form == "nvfp4_hf_quant":
        _write_json(folder / "hf_quant_config.json", {
            "producer": {"name": "modelopt", "version": "0.33.0"},
            "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16,
                             "exclude_modules": ["lm_head", "*self_attn*", "*.gate"]}})
    elif form == "nvfp4_modelopt":
        part = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
        config["quantization_config"] = {
            "config_groups": {"group_0": {"input_activations": part, "weights": part,
                                          "targets": ["Linear"]}},
            "ignore": ["lm_head", "model.layers.*.mlp.gate"], "quant_algo": "NVFP4",
            "producer": {"name": "modelopt", "version": "0.39.0"}, "quant_method": "modelopt"}
    elif form == "nvfp4_compressed":
        block = "block_sparse_moe" if is_mixtral(config) else "mlp"
        base = {"actorder": None, "block_structure": None, "group_size": 16, "num_bits": 4,
                "observer": "minmax", "observer_kwargs": {}, "strategy": "tensor_group",
                "symmetric": True, "type": "float"}
        config["quantization_config"] = {
            "config_groups": {"group_0": {
                "format": "nvfp4-pack-quantized", "input_activations": {**base, "dynamic": "local"},
                "output_activations": None, "targets": ["Linear"],
                "weights": {**base, "dynamic": False}}},
            "format": "nvfp4-pack-quantized", "global_compression_ratio": None,
            "ignore": ["lm_head", rf"re:.*{block}\.gate$"], "kv_cache_scheme": None,
            "quant_method": "compressed-tensors", "quantization_status": "compressed"}


def _write_tensors(folder, tensors, shards):
    tensors = {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, index = list(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    _write_json(folder / "model.safetensors.index.json",
                {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))})
