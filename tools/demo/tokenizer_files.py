"""Turns the tokenizer inside a SmolLM2 GGUF into the files of a Hugging Face checkpoint folder."""

_CONTROL = 3  # llama.cpp's token type of special tokens


def _field(fields, key):
    if key not in fields:
        raise ValueError(f"the GGUF file has no field {key}")
    return fields[key]


def tokenizer_json(fields):
    """The content of tokenizer.json: byte-level BPE with SmolLM2's pre-tokenizer.

    SmolLM2 splits every digit off, then applies the byte-level regex of GPT-2; llama.cpp calls this pre-tokenizer
    "smollm".
    """
    if _field(fields, "tokenizer.ggml.model") != "gpt2" or _field(fields, "tokenizer.ggml.pre") != "smollm":
        raise ValueError("the GGUF tokenizer is not SmolLM2's byte-level BPE")
    tokens = _field(fields, "tokenizer.ggml.tokens")
    types = _field(fields, "tokenizer.ggml.token_type")
    added = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, (token, kind) in enumerate(zip(tokens, types))
        if kind == _CONTROL
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": _field(fields, "tokenizer.ggml.merges"),
        },
    }


def tokenizer_config(fields):
    """The content of tokenizer_config.json, chat template included."""
    tokens = _field(fields, "tokenizer.ggml.tokens")

    def named(key):
        return tokens[_field(fields, f"tokenizer.ggml.{key}_token_id")]

    types = _field(fields, "tokenizer.ggml.token_type")
    decoder = {
        str(i): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for i, (token, kind) in enumerate(zip(tokens, types))
        if kind == _CONTROL
    }
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": [named("bos"), named("eos")],
        "bos_token": named("bos"),
        "chat_template": _field(fields, "tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "eos_token": named("eos"),
        "model_max_length": _field(fields, "llama.context_length"),
        "pad_token": named("padding"),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": named("unknown"),
        "vocab_size": len(tokens),
    }
