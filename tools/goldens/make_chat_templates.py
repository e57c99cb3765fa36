"""Writes what jinja2 makes of the models' chat templates and of small semantics cases.

    python tools/goldens/make_chat_templates.py                          render again in place
    python tools/goldens/make_chat_templates.py --import qwen3=FILE ...  take in template texts

Each tests/data/chat_template/NAME.json carries its template, so that a run needs no other input.
"""

import argparse
import json
import pathlib

import conversations
import jinja_cases
import jinja_oracle

DATA = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "chat_template"

# name: (where the template comes from, its licence, special tokens given to it)
TEMPLATES = {
    "smollm2": ("HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0",
                {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
    "smollm3": ("HuggingFaceTB/SmolLM3-3B", "Apache-2.0", {"eos_token": "<|im_end|>"}),
    "qwen2.5": ("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0", {"eos_token": "<|im_end|>"}),
    "qwq": ("Qwen/QwQ-32B", "Apache-2.0", {"eos_token": "<|im_end|>"}),
    "qwen3": ("Qwen/Qwen3-0.6B (the template of all first Qwen3 models)", "Apache-2.0",
              {"eos_token": "<|im_end|>"}),
    "qwen3_coder": ("Qwen/Qwen3-Coder", "Apache-2.0", {"eos_token": "<|im_end|>"}),
    "qwen3.5": ("Qwen/Qwen3.5-4B", "Apache-2.0", {"eos_token": "<|im_end|>"}),
    "deepseek_r1": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B (DeepSeek-V3's form and <think>)",
                    "MIT", {"bos_token": "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
                            "eos_token": "<\uff5cend\u2581of\u2581sentence\uff5c>"}),
    "deepseek_v3.1": ("deepseek-ai/DeepSeek-V3.1", "MIT",
                      {"bos_token": "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
                       "eos_token": "<\uff5cend\u2581of\u2581sentence\uff5c>"}),
    "kimi_k2": ("moonshotai/Kimi-K2-Instruct", "Modified MIT",
                {"bos_token": "[BOS]", "eos_token": "<|im_end|>"}),
    "kimi_k2_thinking": ("moonshotai/Kimi-K2-Thinking", "Modified MIT",
                         {"bos_token": "[BOS]", "eos_token": "<|im_end|>"}),
    "mixtral": ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Apache-2.0",
                {"bos_token": "<s>", "eos_token": "</s>"}),
    "mistral_nemo": ("mistralai/Mistral-Nemo-Instruct-2407", "Apache-2.0",
                     {"bos_token": "<s>", "eos_token": "</s>"}),
    "mistral_small_3.2": ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "Apache-2.0",
                          {"bos_token": "<s>", "eos_token": "</s>"}),
    "gpt_oss": ("openai/gpt-oss-120b", "Apache-2.0", {"bos_token": "<|startoftext|>",
                                                      "eos_token": "<|return|>"}),
}


def render_all(template, special_tokens):
    for case in conversations.cases():
        case["kwargs"] = {**special_tokens, **case["kwargs"]}
        context = {"messages": case["messages"], "tools": case["tools"], "documents": None,
                   **case["kwargs"]}
        yield {**case, **jinja_oracle.render(template, context)}


def write(name, data):
    text = json.dumps(data, ensure_ascii=True, indent=1)
    (DATA / f"{name}.json").write_text(text + "\n", encoding="ascii")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--import", dest="imports", action="append", default=[],
                        metavar="NAME=FILE")
    args = parser.parse_args()
    imported = dict(item.split("=", 1) for item in args.imports)
    now = jinja_oracle.NOW.isoformat()

    for name, (source, licence, special_tokens) in TEMPLATES.items():
        if name in imported:
            template = pathlib.Path(imported[name]).read_text(encoding="utf-8")
        else:
            template = json.loads((DATA / f"{name}.json").read_text())["template"]
        cases = list(render_all(template, special_tokens))
        write(name, {"source": source, "licence": licence, "now": now, "template": template,
                     "cases": cases})
        rendered = sum("expected" in case for case in cases)
        print(f"{name}: {rendered} rendered, {len(cases) - rendered} refused")

    cases = [{**case, **jinja_oracle.render(case["template"], jinja_cases.CONTEXT)}
             for case in jinja_cases.cases()]
    write("semantics", {"now": now, "context": jinja_cases.CONTEXT, "cases": cases})
    rendered = sum("expected" in case for case in cases)
    print(f"semantics: {rendered} rendered, {len(cases) - rendered} refused")


if __name__ == "__main__":
    main()
