"""A real `braid serve` for the tests: the demo model with its adapters on a free port.

BRAID_PROGRAM names another program than build/dev/braid.
"""

import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get("BRAID_PROGRAM", str(ROOT / "build/dev/braid"))
MODEL = ROOT / "build/demo/smollm2-moe"
ADAPTERS = ROOT / "models/adapters"


class Server:
    """A running server; its address is in `url`. `process` goes to subprocess.Popen."""

    def __init__(self, *options, model=MODEL, **process):
        command = [PROGRAM, "serve", str(model), "--port", "0", "--log-format", "json", *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **process)
        self.log = []
        for line in self.process.stderr:
            if found := re.search(r"serving \S+ at (http://\S+)", line):
                self.url = found[1]
                break
        else:
            raise RuntimeError(f"{' '.join(command)} ended with {self.process.wait()}")
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self.openai = openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0)

    def _read(self, stream):
        for line in stream:
            self.log.append(line)

    def post(self, path, body, **more):
        return self.http.post(path, json=body, **more)

    def stop(self):
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def is_alive(self):
        return self.process.poll() is None and self.http.get("/health").status_code == 200


@pytest.fixture(scope="session")
def adapter_root(tmp_path_factory):
    """A folder of adapters that the server may load from; `outside` lies beside it."""
    root = tmp_path_factory.mktemp("adapters")
    for name in ("json", "telegram"):
        shutil.copytree(ADAPTERS / name, root / "root" / name)
    shutil.copytree(ADAPTERS / "json", root / "outside")
    (root / "root" / "link").symlink_to(root / "outside")
    return root / "root"


@pytest.fixture(scope="session")
def server(adapter_root):
    server = Server(
        "--served-model-name", "smol", "--max-context", 2048, "--max-body", "2MiB",
        "--lora", f"sql={ADAPTERS / 'sql'}", "--lora", f"pirate={ADAPTERS / 'pirate'}",
        "--adapter-root", adapter_root, "--metrics-compat", "vllm,sglang", "--max-connections", 200,
    )
    yield server
    alive = server.process.poll() is None
    assert server.stop() == 0 and alive, "".join(server.log[-20:])


@pytest.fixture
def client(server):
    return server.openai
