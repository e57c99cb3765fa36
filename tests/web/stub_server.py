"""What the page needs of a server, without a model: the routes it calls, with made-up answers.

Serves the files of src/server/web with the headers that the real server sends. Answers name the model and repeat the
prompt, a word every few milliseconds. With an admin key, changing adapters needs it.
"""

import json
import pathlib
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WEB = ROOT / "src/server/web"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def policy():
    """The policy as the real server has it in its source."""
    source = (WEB / "web_routes.cc").read_text()
    return "".join(re.findall(r'"([^"]*)"', source[source.index("kPolicy"):source.index(";\n", source.index("kPolicy"))]))


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, admin_key="", delay=0.02):
        super().__init__(("127.0.0.1", 0), Handler)
        self.admin_key = admin_key
        self.delay = delay
        self.adapters = {n: adapter(n) for n in ("json", "pirate", "sql")}
        self.tokens = dict.fromkeys(("", *self.adapters), 0)
        self.requests = []  # bodies of what was asked
        self.num_stopped = 0
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # clients that leave are part of the tests


def adapter(name, path="", pinned=False):
    return {"name": name, "path": path or f"/adapters/{name}", "pinned": pinned, "tier": "host", "version": 1, "rank": 16,
            "bytes": 3_400_000, "running": 0, "waiting": 0, "generated_tokens": 1234, "layout": "per-expert 2-D",
            "targets": ["q_proj x30 (rank 16)"], "warnings": []}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, kind="application/json", headers=()):
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message):
        self.reply({"error": {"message": message, "type": "error", "param": None, "code": status}}, status)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def may_change(self):
        key = self.server.admin_key
        if not key or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.refuse(401, "a key is needed")
        return False

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/" or path.startswith("/web/"):
            file = WEB / ("index.html" if path == "/" else path.removeprefix("/web/"))
            return self.reply(file.read_bytes(), kind=TYPES[file.suffix], headers=[("Content-Security-Policy", policy())])
        if path == "/v1/models":
            ids = [("smollm2-moe", None)] + [(n, "smollm2-moe") for n in self.server.adapters]
            return self.reply({"object": "list", "data": [{"id": i, "object": "model", "parent": p} for i, p in ids]})
        if path == "/v1/adapters":
            return self.reply({"adapters": list(self.server.adapters.values())})
        if path == "/metrics":
            return self.reply(self.metrics(), kind="text/plain; version=0.0.4")
        return self.refuse(404, "no such route")

    def metrics(self):
        lines = ["# TYPE braid_requests_running gauge", "braid_requests_running 3", "braid_requests_waiting 1",
                 'braid_kv_blocks{state="used"} 40', 'braid_kv_blocks{state="cached"} 25', 'braid_kv_blocks{state="total"} 100',
                 'braid_adapters{tier="slot"} 1', 'braid_adapters{tier="host"} 2', 'braid_adapters{tier="disk"} 0']
        for name, tokens in self.server.tokens.items():
            lines.append(f'braid_generated_tokens_total{{adapter="{name}"}} {tokens}')
            lines.append(f'braid_requests_total{{adapter="{name}",reason="stop"}} 7')
        total = sum(self.server.tokens.values())
        for le, share in (("0.01", 0.3), ("0.1", 0.9), ("+Inf", 1)):
            lines.append(f'braid_inter_token_seconds_bucket{{adapter="",le="{le}"}} {int(total * share)}')
            lines.append(f'braid_first_token_seconds_bucket{{adapter="",le="{le}"}} {int(total * share / 10)}')
        return "\n".join(lines) + "\n"

    def do_POST(self):
        path, data = self.path, self.body()
        if path in ("/v1/chat/completions", "/v1/completions"):
            return self.generate(json.loads(data), "chat" in path)
        if path == "/load_lora_adapter" and self.may_change():
            load = json.loads(data)
            if "missing" in load["lora_path"]:
                return self.reply({"success": False, "error_message": f"{load['lora_path']} is not there", "loaded_adapters": {}}, 400)
            self.server.adapters[load["lora_name"]] = adapter(load["lora_name"], load["lora_path"], load["pinned"])
            return self.reply({"success": True, "error_message": "", "loaded_adapters": {}})

    def named(self):
        name = urllib.parse.unquote(self.path.removeprefix("/v1/adapters/"))
        return name if name in self.server.adapters else self.refuse(404, f"there is no adapter {name}")

    def do_PATCH(self):
        data = json.loads(self.body())
        if self.may_change() and (name := self.named()):
            self.server.adapters[name]["pinned"] = data["pinned"]
            self.reply(self.server.adapters[name])

    def do_DELETE(self):
        if self.may_change() and (name := self.named()):
            del self.server.adapters[name]
            self.reply({"removed": name})

    def generate(self, body, is_chat):
        self.server.requests.append(body)
        if body["model"] != "smollm2-moe" and body["model"] not in self.server.adapters:
            return self.refuse(404, f"The model `{body['model']}` does not exist.")
        prompt = body["messages"][-1]["content"] if is_chat else body["prompt"]
        words = f"<b>{body['model']}</b> answers: {prompt} ".split(" ")
        words = (words * 40)[: body["max_tokens"]]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

        def send(event):
            self.wfile.write(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
            self.wfile.flush()

        try:
            for i, word in enumerate(words):
                time.sleep(self.server.delay)
                piece = {"delta": {"content": word + " "}} if is_chat else {"text": word + " "}
                end = "length" if i + 1 == len(words) else None
                send({"choices": [{"index": 0, **piece, "finish_reason": end}]})
                self.server.tokens["" if body["model"] == "smollm2-moe" else body["model"]] += 1
            send({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(words)}})
            send("[DONE]")
        except (BrokenPipeError, ConnectionResetError):
            self.server.num_stopped += 1
