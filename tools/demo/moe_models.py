"""The demo mixture in PyTorch in both forms adapters are trained on, and greedy answers from it."""

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


class _Expert(torch.nn.Module):
    def __init__(self, gate_up, down):
        super().__init__()
        gate, up = gate_up.chunk(2)
        for name, weight in (("w1", gate), ("w2", down), ("w3", up)):
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            linear.weight = torch.nn.Parameter(weight.clone())
            setattr(self, name, linear)

    def forward(self, x):
        return self.w2(torch.nn.functional.silu(self.w1(x)) * self.w3(x))


class _PerExpertMoe(torch.nn.Module):
    """Mixtral's block as it was before transformers 5, for top_k = number of experts, which the demo model has."""

    def __init__(self, fused):
        super().__init__()
        experts = fused.experts
        self.gate = torch.nn.Linear(fused.gate.weight.shape[1], fused.gate.weight.shape[0], bias=False, device="meta")
        self.gate.weight = torch.nn.Parameter(fused.gate.weight.clone())
        self.experts = torch.nn.ModuleList(map(_Expert, experts.gate_up_proj.data, experts.down_proj.data))

    def forward(self, x):
        weights = torch.softmax(self.gate(x).float(), dim=-1).to(x.dtype)
        return sum(weights[..., e : e + 1] * expert(x) for e, expert in enumerate(self.experts))


def load_model(folder, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(folder):
    # Not AutoTokenizer: for some classes transformers 5 puts its own pre-tokenizer in place of the file's.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.padding_side = "left"
    return tokenizer


def split_experts(model):
    """Replaces every fused block by one with a Linear per expert and matrix, under Mixtral's hub name block_sparse_moe."""
    if model.config.num_experts_per_tok != model.config.num_local_experts:
        raise ValueError("split_experts knows only models that use every expert")
    for layer in model.model.layers:
        block = _PerExpertMoe(layer.mlp)
        del layer.mlp
        layer.block_sparse_moe = block
        # The layer calls self.mlp; a plain attribute keeps that name out of the module tree, and so out of the file.
        object.__setattr__(layer, "mlp", block.forward)
    # peft would turn w1/w2/w3 of a "mixtral" into transformers 5's fused parameters, which this model no longer has.
    model.config.model_type = "mixtral_per_expert"
    return model.requires_grad_(False)


def chat_ids(tokenizer, prompt):
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def answer(model, tokenizer, prompts, max_tokens=64, batch=64):
    """Greedy answers: [(text without the end token, mean probability of its tokens)]."""
    out = []
    for at in range(0, len(prompts), batch):
        rows = [chat_ids(tokenizer, prompt) for prompt in prompts[at : at + batch]]
        width = max(map(len, rows))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(r)) + r for r in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=model.device)
        done = torch.zeros(len(rows), dtype=torch.bool, device=model.device)
        chosen, probs, cache = [], [], None
        step = ids
        for _ in range(max_tokens):
            positions = mask.cumsum(-1)[:, -step.shape[1] :].sub(1).clamp(min=0)
            result = model(
                input_ids=step, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            cache = result.past_key_values
            prob, token = result.logits[:, -1].float().softmax(-1).max(-1)
            token = torch.where(done, tokenizer.pad_token_id, token)
            chosen.append(token)
            probs.append(prob)
            done |= token == tokenizer.eos_token_id
            if done.all():
                break
            step = token[:, None]
            mask = torch.cat([mask, torch.ones_like(step)], dim=1)
        tokens, table = torch.stack(chosen, 1).tolist(), torch.stack(probs, 1).tolist()
        for row, row_probs in zip(tokens, table):
            end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
            mean = sum(row_probs[:end]) / max(1, end)
            out.append((tokenizer.decode(row[:end], skip_special_tokens=False), mean))
    return out
