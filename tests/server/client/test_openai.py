"""The official client, unchanged."""

import asyncio
import json

import openai
import pytest

PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "Hello, who are you?"}]


def test_models_base_first(client):
    models = client.models.list().data
    assert models[0].id == "smol" and models[0].parent is None and models[0].max_model_len == 2048
    assert {m.id: m.parent for m in models}["sql"] == "smol"
    assert client.models.retrieve("sql").id == "sql"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_completion(client):
    reply = client.completions.create(model="smol", prompt=PROMPT, max_tokens=4, temperature=0)
    assert reply.object == "text_completion" and reply.model == "smol"
    assert reply.choices[0].text.startswith(" Paris") and reply.choices[0].finish_reason == "length"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (5, 4, 9)


def test_stream_equals_whole(client):
    common = dict(model="sql", prompt="SELECT", max_tokens=8, temperature=0)
    whole = client.completions.create(**common)
    chunks = list(client.completions.create(**common, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert len([c for c in chunks if c.choices]) == 8
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 8
    assert all(c.usage is None for c in chunks[:-1])


def test_prompt_forms_and_order(client):
    reply = client.completions.create(model="smol", prompt=[PROMPT, "One, two, three,"], n=2, max_tokens=2, temperature=0)
    texts = [c.text for c in reply.choices]
    assert [c.index for c in reply.choices] == [0, 1, 2, 3]
    assert texts[0] == texts[1] and texts[2] == texts[3] and texts[0] != texts[2]


def test_token_prompts(server):
    ids = server.post("/tokenize", {"prompt": PROMPT}).json()["tokens"]
    by_text = server.openai.completions.create(model="smol", prompt=PROMPT, max_tokens=3, temperature=0)
    by_ids = server.openai.completions.create(model="smol", prompt=ids, max_tokens=3, temperature=0)
    lists = server.openai.completions.create(model="smol", prompt=[ids, ids[:3]], max_tokens=3, temperature=0)
    assert by_text.choices[0].text == by_ids.choices[0].text == lists.choices[0].text
    assert server.post("/detokenize", {"tokens": ids}).json()["prompt"] == PROMPT


def test_seeds_and_samples(client):
    ask = lambda seed, n: [c.text for c in client.completions.create(
        model="smol", prompt=PROMPT, max_tokens=6, temperature=1.5, seed=seed, n=n).choices]
    assert ask(7, 3) == ask(7, 3)
    assert len(set(ask(7, 3))) == 3
    assert ask(7, 1)[0] == ask(7, 3)[0]
    assert ask(-1, 1) == ask(-1, 1)


def test_logprobs_and_echo(client):
    reply = client.completions.create(model="smol", prompt=PROMPT, max_tokens=2, temperature=0, logprobs=2, echo=True)
    choice = reply.choices[0]
    assert choice.text.startswith(PROMPT)
    assert "".join(choice.logprobs.tokens) == choice.text
    assert len(choice.logprobs.tokens) == 7 == len(choice.logprobs.token_logprobs) == len(choice.logprobs.top_logprobs)
    assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset):
        assert choice.text[offset:].startswith(token)
    for token, logprob, top in list(zip(choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs))[5:]:
        assert max(top.values()) == logprob == top[token]


def test_stop(client):
    reply = client.completions.create(model="smol", prompt=PROMPT, max_tokens=20, temperature=0, stop=[".", "never"])
    assert reply.choices[0].finish_reason == "stop" and "." not in reply.choices[0].text
    assert reply.choices[0].stop_reason == "."
    with_stop = client.completions.create(model="smol", prompt=PROMPT, max_tokens=20, temperature=0, stop=".",
                                          extra_body={"include_stop_str_in_output": True})
    assert with_stop.choices[0].text == reply.choices[0].text + "."


def test_chat(client):
    reply = client.chat.completions.create(model="pirate", messages=QUESTION, max_completion_tokens=5, temperature=0,
                                           logprobs=True, top_logprobs=2)
    choice = reply.choices[0]
    assert reply.object == "chat.completion" and choice.message.role == "assistant"
    assert choice.message.content.startswith("Arr")
    assert len(choice.logprobs.content) == 5 and len(choice.logprobs.content[0].top_logprobs) == 2
    assert bytes(b for t in choice.logprobs.content for b in t.bytes).decode() == choice.message.content


def test_chat_stream(client):
    chunks = list(client.chat.completions.create(model="pirate", messages=QUESTION, max_tokens=4, temperature=0, stream=True))
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content
    assert all(c.choices[0].delta.role is None for c in chunks[1:])
    assert chunks[-1].choices[0].finish_reason == "length" and chunks[-1].choices[0].delta.content is None
    assert "".join(c.choices[0].delta.content or "" for c in chunks).startswith("Arr")


def test_chat_runs_to_its_end(client):
    reply = client.chat.completions.create(model="pirate", messages=QUESTION, temperature=0)
    assert reply.choices[0].finish_reason == "stop" and reply.usage.completion_tokens < 1500


def test_text_parts_are_one_text(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello, who are you?"}]}]
    ask = lambda m: client.chat.completions.create(model="smol", messages=m, max_tokens=4, temperature=0)
    assert ask(parts).choices[0].message.content == ask(QUESTION).choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="image_url|text"):
        ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])


def test_continue_final_message(server):
    messages = QUESTION + [{"role": "assistant", "content": "Arr, matey! I be"}]
    reply = server.post("/v1/chat/completions", {
        "model": "pirate", "messages": messages, "max_tokens": 2, "temperature": 0,
        "add_generation_prompt": False, "continue_final_message": True, "return_token_ids": True}).json()
    prompt = server.post("/detokenize", {"tokens": reply["choices"][0]["prompt_token_ids"]}).json()["prompt"]
    assert prompt.endswith("Arr, matey! I be")


def test_json_schema(client):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
              "required": ["name", "age"], "additionalProperties": False}
    reply = client.chat.completions.create(
        model="smol", messages=[{"role": "user", "content": "Name and age of a person, as JSON"}], max_tokens=60, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}})
    value = json.loads(reply.choices[0].message.content)
    assert set(value) == {"name", "age"} and 0 <= value["age"] <= 99
    regex = client.completions.create(model="smol", prompt="A date: ", max_tokens=20, temperature=0, extra_body={"regex": r"\d{4}-\d\d"})
    assert len(regex.choices[0].text) == 7 and regex.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="xyzzy"):
        client.chat.completions.create(model="smol", messages=QUESTION, response_format={"type": "xyzzy"})


def test_adapter_choice(client):
    ask = lambda model, **more: client.completions.create(model=model, prompt="SELECT", max_tokens=8, temperature=0, extra_body=more).choices[0].text
    assert ask("sql") == ask("smol:sql") == ask("smol", lora_path="sql") == ask("sql", lora_path="sql")
    assert ask("default") == ask("smol") != ask("sql")
    with pytest.raises(openai.BadRequestError, match="name one"):
        ask("sql", lora_path="pirate")
    with pytest.raises(openai.NotFoundError) as error:
        ask("gpt-4")
    assert error.value.body["message"] == "The model `gpt-4` does not exist." and int(error.value.code) == 404 and error.value.param == "model"


def test_async_side_by_side(server):
    async def run():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            async def one(model):
                text = ""
                stream = await client.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0, stream=True)
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
                return text
            return await asyncio.gather(*[one(m) for m in ["smol", "pirate"] * 8])
    texts = asyncio.run(run())
    assert len(set(texts[0::2])) == 1 and len(set(texts[1::2])) == 1 and texts[0] != texts[1]
