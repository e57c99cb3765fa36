"""Requests as serving benchmarks and evaluation harnesses send them, read as they read the answers."""

import json

TOKEN_IDS = [504, 3575, 282, 4649, 314]


def sse(response):
    """The events of a stream, with the framing that the strictest of the readers wants."""
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
    assert "\r" not in response.text and response.text.endswith("data: [DONE]\n\n")
    blocks = response.text.split("\n\n")[:-1]
    assert all(b.startswith("data: ") and "\n" not in b for b in blocks)
    return [json.loads(b.removeprefix("data: ")) for b in blocks[:-1]]


def test_sglang_bench_native(server):
    events = sse(server.post("/generate", {
        "text": "The capital of France is", "lora_path": "sql", "stream": True, "return_logprob": False, "logprob_start_len": -1,
        "sampling_params": {"temperature": 0.0, "max_new_tokens": 5, "ignore_eos": True}}))
    assert [e["meta_info"]["completion_tokens"] for e in events] == [1, 2, 3, 4, 5]
    for before, after in zip(events, events[1:]):
        assert after["text"].startswith(before["text"]) and len(after["output_ids"]) == len(before["output_ids"]) + 1
    assert events[-1]["meta_info"]["finish_reason"] == {"type": "length", "length": 5}
    assert events[0]["meta_info"]["finish_reason"] is None


def test_sglang_bench_openai(server):
    events = sse(server.post("/v1/completions", {
        "model": "smol", "prompt": "Hello", "temperature": 0.0, "best_of": 1, "max_tokens": 4, "stream": True, "ignore_eos": True,
        "lora_path": "pirate"}))
    assert len(events) == 4 and all(e["choices"][0]["text"] is not None for e in events)
    events = sse(server.post("/v1/chat/completions", {
        "model": "smol:sql", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.0, "max_completion_tokens": 4,
        "stream": True, "ignore_eos": True}))
    assert len(events) == 5 and events[0]["choices"][0]["delta"]["role"] == "assistant"


def test_sglang_bench_control(server):
    assert server.http.get("/v1/models").json()["data"][0]["id"] == "smol"
    assert server.http.get("/model_info").json()["is_generation"] is True
    assert server.http.get("/get_server_info").json()["internal_states"]
    assert server.http.post("/flush_cache").status_code == server.http.get("/flush_cache").status_code == 200
    assert server.http.post("/start_profile").status_code == server.http.post("/stop_profile").status_code == 200
    assert server.http.get("/health").status_code == server.http.get("/health_generate").status_code == 200
    assert server.http.get("/health").content == b"" and server.http.get("/version").json()["version"]


def test_vllm_bench(server):
    events = sse(server.post("/v1/completions", {
        "model": "sql", "prompt": "Hello", "temperature": 0.0, "repetition_penalty": 1.0, "max_tokens": 4, "logprobs": None,
        "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}, headers={"x-request-id": "bench-7"}))
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 4
    response = server.post("/v1/chat/completions", {
        "model": "sql", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], "temperature": 0.0,
        "max_completion_tokens": 3, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True},
        headers={"x-request-id": "bench-8"})
    assert response.headers["x-request-id"] == "bench-8" and sse(response)[-1]["usage"]["completion_tokens"] == 3


def test_genai_perf_and_aiperf(server):
    events = sse(server.post("/v1/chat/completions", {
        "model": "pirate", "messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 3, "n": 1}))
    assert {e["object"] for e in events} == {"chat.completion.chunk"} and all(e["choices"][0] for e in events)
    whole = server.post("/v1/completions", {"model": "pirate", "prompt": ["Hello"], "max_tokens": 3, "unknown_field": {"a": 1}}).json()
    assert whole["object"] == "text_completion" and whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + 3


def test_lm_eval_loglikelihood(server):
    context, continuation = TOKEN_IDS, [7042, 30]
    reply = server.post("/v1/completions", {
        "model": "smol", "prompt": [context + continuation, context], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}).json()
    choices = sorted(reply["choices"], key=lambda c: c["index"])
    for choice, prompt in zip(choices, (context + continuation, context)):
        logprobs = choice["logprobs"]["token_logprobs"]
        assert len(logprobs) == len(prompt) + 1 == len(choice["logprobs"]["top_logprobs"])
        assert logprobs[0] is None and all(isinstance(v, float) for v in logprobs[1:])
    tokens = choices[0]["logprobs"]["token_logprobs"][len(context):-1]
    tops = choices[0]["logprobs"]["top_logprobs"][len(context):-1]
    assert len(tokens) == len(continuation)
    is_greedy = [t == max(top.values()) for t, top in zip(tokens, tops)]
    best = server.post("/v1/completions", {"model": "smol", "prompt": context, "max_tokens": 1, "temperature": 0, "return_token_ids": True}).json()
    assert is_greedy[0] == (best["choices"][0]["token_ids"][0] == continuation[0])
    # The generated entry, asked for as prompt, has the very same value.
    generated = choices[1]["logprobs"]["token_logprobs"][-1]
    again = server.post("/v1/completions", {
        "model": "smol", "prompt": [context + best["choices"][0]["token_ids"]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True}).json()
    assert again["choices"][0]["logprobs"]["token_logprobs"][-2] == generated


def test_lm_eval_generation_and_tokenizer(server):
    reply = server.post("/v1/completions", {
        "model": "smol", "prompt": [TOKEN_IDS], "max_tokens": 8, "temperature": 0, "stop": ["\n\n", "<|im_end|>"], "seed": 1234}).json()
    assert "\n\n" not in reply["choices"][0]["text"]
    info = server.http.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|im_end|>" and "chat_template" in info and "pad_token" in info
    tokens = server.post("/tokenize", {"prompt": "a b", "add_special_tokens": False}).json()
    assert tokens["tokens"] and tokens["count"] == len(tokens["tokens"])


def test_prompt_only(server):
    reply = server.post("/v1/completions", {"model": "smol", "prompt": TOKEN_IDS, "max_tokens": 0, "echo": True, "logprobs": 1}).json()
    assert len(reply["choices"][0]["logprobs"]["tokens"]) == 5 and reply["usage"]["completion_tokens"] == 0


def test_native_batch_and_logprobs(server):
    replies = server.post("/generate", {
        "input_ids": [TOKEN_IDS, TOKEN_IDS[:3]], "lora_path": [None, "sql"], "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2,
        "sampling_params": {"temperature": 0, "max_new_tokens": 2}}).json()
    assert len(replies) == 2
    meta = replies[0]["meta_info"]
    assert [t[1] for t in meta["input_token_logprobs"]] == TOKEN_IDS and meta["input_token_logprobs"][0][0] is None
    assert [t[1] for t in meta["output_token_logprobs"]] == replies[0]["output_ids"] and len(meta["output_top_logprobs"][0]) == 2


def test_vllm_prompt_logprobs(server):
    choice = server.post("/v1/completions", {"model": "smol", "prompt": TOKEN_IDS, "max_tokens": 1, "prompt_logprobs": 1}).json()["choices"][0]
    assert choice["prompt_logprobs"][0] is None and str(TOKEN_IDS[1]) in choice["prompt_logprobs"][1]


def test_gateway_metrics(server):
    server.post("/v1/completions", {"model": "sql", "prompt": "x", "max_tokens": 2})
    text = server.http.get("/metrics").text
    for name in ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:lora_requests_info",
                 "sglang:num_running_reqs", "braid_first_token_seconds_bucket", 'braid_generated_tokens_total{adapter="sql"}'):
        assert name in text, name
    assert 'running_lora_adapters="",waiting_lora_adapters=""' in text


def test_flush_forgets_prompts(server):
    ask = lambda: server.post("/v1/completions", {"model": "smol", "prompt": TOKEN_IDS * 10, "max_tokens": 1}).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    ask()
    assert ask() >= 16
    assert server.http.post("/flush_cache").status_code == 200
    assert ask() == 0


def test_control_tokens_in_the_text(server):
    ask = lambda skip: server.post("/v1/completions", {
        "model": "smol", "prompt": TOKEN_IDS, "max_tokens": 2, "temperature": 0, "ignore_eos": True, "logit_bias": {"2": 100},
        "skip_special_tokens": skip}).json()["choices"][0]["text"]
    assert ask(True) == "" and ask(False) == "<|im_end|><|im_end|>"


def test_abort(server):
    with server.http.stream("POST", "/generate", json={"text": "Hi", "rid": "mine", "stream": True,
                                                        "sampling_params": {"max_new_tokens": 1500, "ignore_eos": True}}) as response:
        lines = response.iter_lines()
        next(lines)
        assert server.post("/abort_request", {"rid": "mine"}).json()["aborted"] == 1
        last = [json.loads(l[6:]) for l in lines if l.startswith("data: {")][-1]
    assert last["meta_info"]["finish_reason"]["type"] == "abort"
