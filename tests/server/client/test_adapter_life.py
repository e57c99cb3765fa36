"""Adapters that come, change and go under load, and a server that is killed: a tiny model, so that the changes are what counts.

Every token of the model's vocabulary is a text of two letters, so an answer's text tells its tokens.
"""

import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import struct
import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlparse

import httpx2 as httpx
import pytest
from conftest import ROOT, Server

GOLDEN = ROOT / "tests/data/goldens/mixtral_bf16"
RANK = 4
TOKENS = 40
ASK = {"prompt": [1, 5, 9, 77, 130], "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
CONFIG = json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 16 * RANK, "target_modules": ["v_proj", "o_proj", "w2"]}).encode()


def weights(seed):
    """An adapter_model.safetensors of random factors, large enough to change what the model says."""
    numbers = random.Random(seed)
    matrices = {}
    for layer in range(2):
        at = f"base_model.model.model.layers.{layer}."
        matrices[at + "self_attn.v_proj"] = (32, 160)
        matrices[at + "self_attn.o_proj"] = (160, 160)
        for expert in range(4):
            matrices[at + f"block_sparse_moe.experts.{expert}.w2"] = (160, 144)
    header, data = {}, array("f")
    for name, (rows, columns) in matrices.items():
        for factor, shape in (("A", [RANK, columns]), ("B", [rows, RANK])):
            begin = 4 * len(data)
            data.extend(numbers.uniform(-0.2, 0.2) for _ in range(shape[0] * shape[1]))
            header[f"{name}.lora_{factor}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, 4 * len(data)]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data.tobytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("adapters"))
    vocabulary = {chr(97 + i // 16) + chr(97 + i % 16): i for i in range(256)}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))
    return folder


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A folder for --adapter-root with the adapters v0, v1, ..., and the bytes of their weights."""
    root = tmp_path_factory.mktemp("root")
    data = [weights(seed) for seed in range(24)]
    for number, content in enumerate(data):
        (root / f"v{number}").mkdir()
        (root / f"v{number}/adapter_config.json").write_bytes(CONFIG)
        (root / f"v{number}/adapter_model.safetensors").write_bytes(content)
    return root, data


@pytest.fixture
def start():
    """Starts servers; those that a failed test leaves running are killed."""
    servers = []

    def start(*options, **more):
        servers.append(Server(*options, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


class Stream:
    """An answer that comes in pieces; its first has come when the constructor is done."""

    def __init__(self, server, model, **more):
        address = urlparse(server.url)
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        self.connection.request("POST", "/v1/completions", json.dumps({**ASK, "model": model, "stream": True, **more}), {"Content-Type": "application/json"})
        self.reply = self.connection.getresponse()
        assert self.reply.status == 200, self.reply.read()
        self.text, self.times = "", []
        self.done = False
        self._read()

    def _read(self):
        while line := self.reply.readline():
            if line.startswith(b"data: [DONE]"):
                self.done = True
                return False
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                assert "choices" in event, event
                self.text += event["choices"][0]["text"]
                self.times.append(time.perf_counter())
                return True
        return False

    def rest(self):
        """Reads to the end; returns the text."""
        while self._read():
            pass
        self.connection.close()
        assert self.done, f"the stream ended after {self.text!r}"
        return self.text

    def delays(self):
        return [b - a for a, b in itertools.pairwise(self.times)]


def answer(server, model):
    response = server.post("/v1/completions", {**ASK, "model": model})
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["text"]


def resident_mib(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def p99(delays):
    return 1000 * sorted(delays)[len(delays) * 99 // 100]


class Changes:
    """Puts adapters in, over and out, sent in the body or named by their path."""

    def __init__(self, server, data):
        self.server, self.data = server, data

    def put(self, name, version, upload, over):
        if upload:
            files = {"adapter_config": CONFIG, "adapter_model": self.data[version]}
            response = self.server.http.put(f"/v1/adapters/{name}", files=files)
        else:
            response = self.server.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": f"v{version}", "load_inplace": over})
        assert response.status_code == 200, response.text

    def remove(self, name):
        response = self.server.post("/v1/unload_lora_adapter", {"lora_name": name})
        assert response.status_code == 200, response.text


def test_500_adapters_under_load(start, model, versions, capsys):
    root, data = versions
    server = start("--adapter-root", root, "--max-batch-size", 96, model=model)
    changes = Changes(server, data)
    fixed = [f"fixed{i}" for i in range(8)]
    for i, name in enumerate(fixed):
        changes.put(name, i, i % 2 == 1, False)
    expected = {"tiny": answer(server, "tiny")} | {name: answer(server, name) for name in fixed}
    learnt = []
    for version in range(len(data)):
        changes.put("learn", version, version % 2 == 1, True)
        learnt.append(answer(server, "learn"))
    changes.remove("learn")
    assert len({*learnt, expected["tiny"]}) == len(data) + 1, "two versions say the same: the test would not see them mixed up"
    assert [expected[name] for name in fixed] == learnt[:8]

    movers = 16  # clients that change adapters, each under a name of its own
    steady = [*fixed, *["tiny"] * 8]  # what the other 16 clients ask

    def streams(name, stop):
        delays = []
        while not stop.is_set():
            stream = Stream(server, name)
            assert stream.rest() == expected[name], name
            delays += stream.delays()
        return delays

    def cycles(numbers):
        """An adapter's life: each answer is that of the version it began with, though the adapter changes and goes meanwhile."""
        for number in numbers:
            name, first = f"life{number % movers}", number % len(data)  # names come again with other weights
            second = (first + 1 + number % 7) % len(data)
            changes.put(name, first, number % 2 == 1, False)
            before = Stream(server, name)
            changes.put(name, second, number % 4 >= 2, True)
            after = Stream(server, name)
            changes.remove(name)
            gone = server.post("/v1/completions", {**ASK, "model": name})
            assert gone.status_code == 404, gone.text
            assert before.rest() == learnt[first], (number, first, second)
            assert after.rest() == learnt[second], (number, first, second)

    def measure(names, work):
        """Runs streams of `names` while work() runs; returns their delays."""
        stop = threading.Event()
        running = [threads.submit(streams, name, stop) for name in names]
        try:
            work()
        finally:
            stop.set()
        return [delay for one in running for delay in one.result()]

    def change(numbers):
        for one in [threads.submit(cycles, numbers[i::movers]) for i in range(movers)]:
            one.result()

    with ThreadPoolExecutor(48) as threads:
        quiet, loaded, took, resident = [], [], 0, []
        for begin in range(0, 500, 100):  # in turns, so that a slow minute of the machine meets both
            quiet += measure(steady * 2, lambda: time.sleep(2))
            since = time.perf_counter()
            loaded += measure(steady, lambda begin=begin: change(range(begin, begin + 100)))
            took += time.perf_counter() - since
            resident.append(resident_mib(server))
    assert [m["id"] for m in server.http.get("/v1/models").json()["data"]] == ["tiny", *fixed]
    assert answer(server, "tiny") == expected["tiny"]
    with capsys.disabled():
        print(f"\n500 adapters loaded, swapped and unloaded in {took:.1f} s by 16 of 32 clients: p99 between chunks {p99(quiet):.1f} ms quiet, "
              f"{p99(loaded):.1f} ms loaded; resident {resident[0]:.1f} MiB after 100, {resident[-1]:.1f} MiB after 500")
    assert server.stop() == 0, "".join(server.log[-20:])
    assert resident[-1] < resident[0] + 8
    assert p99(loaded) < 5 * p99(quiet) + 20  # ms; machines are noisy


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_killed_and_restarted(start, model, versions, tmp_path):
    root, data = versions
    for name in ("temporary", "work"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "work")}

    def serve():
        return start("--adapter-root", root, "--lora", f"own={root / 'v3'}", model=model, cwd=tmp_path / "work", env=environment)

    listed = lambda server: [m["id"] for m in server.http.get("/v1/models").json()["data"]]
    files = {"adapter_config": CONFIG, "adapter_model": data[5]}
    before_files = contents(root), contents(model)
    server = serve()
    before = {name: answer(server, name) for name in ("tiny", "own", "v4")}  # v4 by its folder's name
    assert server.http.put("/v1/adapters/sent", files=files).status_code == 200
    assert listed(server) == ["tiny", "own", "sent", "v4"]

    # Some uploads have half their bytes sent, others run whole; streams have begun.
    body = httpx.Request("PUT", server.url + "/v1/adapters/half", files=files)
    content = body.read()
    address = urlparse(server.url)
    halves = [socket.create_connection((address.hostname, address.port)) for _ in range(4)]
    for half in halves:
        half.sendall(f"PUT /v1/adapters/half HTTP/1.1\r\nHost: x\r\nContent-Type: {body.headers['content-type']}\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        half.sendall(content[: len(content) // 2])
    killed = threading.Event()

    def upload(name):
        while not killed.is_set():
            try:
                assert httpx.put(f"{server.url}/v1/adapters/{name}", files=files).status_code == 200
            except httpx.TransportError:
                return

    uploads = [threading.Thread(target=upload, args=(f"whole{i}",)) for i in range(2)]
    for thread in uploads:
        thread.start()
    streams = [Stream(server, name, max_tokens=240) for name in ("tiny", "own", "v4", "sent") * 4]
    server.process.send_signal(signal.SIGKILL)
    killed.set()
    assert server.process.wait(timeout=30) == -signal.SIGKILL
    for thread in uploads:
        thread.join()
    for stream in streams:
        with contextlib.suppress(AssertionError, http.client.HTTPException, OSError):
            stream.rest()
    assert not all(stream.done for stream in streams)
    for half in halves:
        half.close()
    server.http.close()

    server = serve()
    assert listed(server) == ["tiny", "own"]
    assert {name: answer(server, name) for name in before} == before
    for name in ("sent", "half", "whole0"):
        assert server.post("/v1/completions", {**ASK, "model": name}).status_code == 404
    assert server.stop() == 0
    assert (contents(root), contents(model)) == before_files
    assert contents(tmp_path / "temporary") == contents(tmp_path / "work") == {}
