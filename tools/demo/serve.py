#!/usr/bin/env python3
"""Serves the demo model with its adapters and asks it everything at once with the official openai client.

    serve.py --braid BRAID --model DIR --lora NAME=DIR ... --requests REQUESTS.jsonl --out ANSWERS.jsonl

Starts `braid serve` on a free port, sends base and adapter requests together as streams, prints a table of what each adapter's users
saw, writes the answers as `braid generate --json` does, and ends the server. Its page can be looked at meanwhile.
"""

import argparse
import asyncio
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

from openai import AsyncOpenAI

_BASE = "base"
_START_SECONDS = 120
_MAX_TOKENS = 64


def read_requests(path):
    """[(messages, adapter or None)] of a file of `braid generate --input`."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append((row["messages"], row.get("adapter")))
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"serve: {path}:{number} is not a request ({error!r})")
    return rows


def start_server(args, log):
    """The server's process and the address at which it listens."""
    command = [str(args.braid), "serve", str(args.model), "--port", "0", "--served-model-name", _BASE]
    for lora in args.lora:
        command += ["--lora", lora]
    server = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"serving .* at (http://\S+)", log.read_text()):
            return server, found.group(1)
        time.sleep(0.05)
    server.kill()
    sys.exit(f"serve: the server did not start within {_START_SECONDS} s:\n{log.read_text()}")


async def ask(client, messages, adapter):
    """One streamed chat: what `braid generate --json` says of it, and when its tokens came."""
    begin, times, text, finish, usage = time.monotonic(), [], "", None, None
    stream = await client.chat.completions.create(
        model=adapter or _BASE, messages=messages, temperature=0, max_completion_tokens=_MAX_TOKENS, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.delta.content:
                text += choice.delta.content
                times.append(time.monotonic() - begin)
    answer = {"adapter": adapter, "prompt": messages[-1]["content"], "text": text, "finish_reason": finish,
              "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}}  # fmt: skip
    return answer, times


async def ask_all(address, requests):
    """All requests together; results in the order of the requests."""
    done = 0

    async def one(client, messages, adapter):
        nonlocal done
        result = await ask(client, messages, adapter)
        done += 1
        if sys.stdout.isatty():
            print(f"\r{done} of {len(requests)} answers", end="", flush=True)
        return result

    async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        results = await asyncio.gather(*(one(client, *request) for request in requests))
    print(f"\r{done} of {len(requests)} answers")
    return results


def show_times(results, seconds):
    """A line an adapter: answers, tokens, median time to the first token and between tokens."""
    by_name = {}
    for answer, times in results:
        by_name.setdefault(answer["adapter"] or _BASE, []).append((answer, times))
    print(f"\n{'adapter':<10} {'answers':>7} {'tokens':>7} {'first token, ms':>16} {'between tokens, ms':>19}")
    for name, rows in by_name.items():
        first = [times[0] for _, times in rows if times]
        gaps = [b - a for _, times in rows for a, b in zip(times, times[1:])]
        tokens = sum(answer["usage"]["completion_tokens"] for answer, _ in rows)
        middle = lambda values: f"{1e3 * statistics.median(values):.0f}" if values else "-"
        print(f"{name:<10} {len(rows):>7} {tokens:>7} {middle(first):>16} {middle(gaps):>19}")
    tokens = sum(answer["usage"]["completion_tokens"] for answer, _ in results)
    print(f"{tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} a second, all adapters in the same batches\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--braid", type=pathlib.Path, required=True, help="the braid command")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the model")
    parser.add_argument("--lora", action="append", default=[], metavar="NAME=DIR", help="an adapter; may be given many times")
    parser.add_argument("--requests", type=pathlib.Path, required=True, help="lines of messages and adapter")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the answers")
    args = parser.parse_args()
    requests = read_requests(args.requests)
    server, address = start_server(args, args.out.with_name("serve.log"))
    try:
        print(f"serving at {address} while this runs: its page shows the adapters and live metrics")
        begin = time.monotonic()
        results = asyncio.run(ask_all(address, requests))
        show_times(results, time.monotonic() - begin)
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(timeout=60)
    if status != 0:
        sys.exit(f"serve: the server ended with {status}; see {args.out.with_name('serve.log')}")
    args.out.write_text("".join(json.dumps(answer) + "\n" for answer, _ in results), encoding="utf-8")


if __name__ == "__main__":
    main()
