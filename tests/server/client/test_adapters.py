"""Adapters over HTTP: both APIs in use, and files in the body."""

import base64
import json

from conftest import ADAPTERS

PROMPT = {"prompt": "SELECT", "max_tokens": 8, "temperature": 0}
TELEGRAM = ADAPTERS / "telegram"


def answer(server, model):
    return server.post("/v1/completions", {"model": model, **PROMPT}).json()["choices"][0]["text"]


def files(folder):
    return {"adapter_config": (folder / "adapter_config.json").read_bytes(), "adapter_model": (folder / "adapter_model.safetensors").read_bytes()}


def test_vllm_api(server):
    load = lambda **body: server.post("/v1/load_lora_adapter", body)
    response = load(lora_name="v", lora_path="json")
    assert response.status_code == 200 and response.text == "Success: LoRA adapter 'v' added successfully."
    assert response.headers["content-type"].startswith("text/plain")
    assert "v" in [m["id"] for m in server.http.get("/v1/models").json()["data"]]
    assert load(lora_name="v", lora_path="json").status_code == 400
    before = answer(server, "v")
    assert load(lora_name="v", lora_path="telegram", load_inplace=True).status_code == 200
    assert answer(server, "v") != before
    assert load(lora_name="w", lora_path="nowhere").status_code == 404
    assert load(lora_name="w").status_code == 400
    unload = lambda: server.post("/v1/unload_lora_adapter", {"lora_name": "v"})
    assert unload().text == "Success: LoRA adapter 'v' removed successfully."
    assert unload().status_code == 404
    assert server.post("/v1/completions", {"model": "v", **PROMPT}).status_code == 404


def test_sglang_api(server, adapter_root):
    load = lambda **body: server.post("/load_lora_adapter", body)
    response = load(lora_name="s", lora_path=str(adapter_root / "json"), pinned=True)
    assert response.status_code == 200 and response.json()["success"] is True
    assert response.json()["loaded_adapters"]["s"] == str(adapter_root / "json")
    assert answer(server, "smol:s") == answer(server, "s")
    # By the folder it came from, too.
    assert server.post("/v1/completions", {"model": "smol", "lora_path": str(adapter_root / "json"), **PROMPT}).status_code == 200
    again = load(lora_name="s", lora_path="json")
    assert again.status_code == 400 and again.json()["success"] is False and "already" in again.json()["error_message"]
    assert server.post("/unload_lora_adapter", {"lora_name": "s"}).json()["success"] is True
    assert server.post("/unload_lora_adapter", {"lora_name": "s"}).status_code == 400


def test_upload_and_swap(server):
    response = server.http.put("/v1/adapters/up", files=files(TELEGRAM))
    assert response.status_code == 200, response.text
    assert response.json()["version"] == 1 and response.json()["tier"] in ("host", "slot")
    before = answer(server, "up")
    assert server.http.put("/v1/adapters/up", files=files(ADAPTERS / "sql")).json()["version"] == 2
    assert answer(server, "up") == answer(server, "sql") != before
    assert server.http.patch("/v1/adapters/up", json={"pinned": True}).json()["pinned"] is True
    listed = {a["name"]: a for a in server.http.get("/v1/adapters").json()["adapters"]}
    assert listed["up"]["pinned"] and listed["up"]["requests"] == 2
    assert server.http.delete("/v1/adapters/up").status_code == 200
    assert server.http.delete("/v1/adapters/up").status_code == 404


def test_from_tensors(server):
    data = base64.b64encode((TELEGRAM / "adapter_model.safetensors").read_bytes()).decode()
    body = {"lora_name": "t", "config_dict": json.loads((TELEGRAM / "adapter_config.json").read_text()),
            "serialized_tensors": [data[:4000], data[4000:]], "load_format": "safetensors"}
    response = server.post("/load_lora_adapter_from_tensors", body)
    assert response.status_code == 200, response.text
    assert server.post("/v1/completions", {"model": "t", **PROMPT}).status_code == 200
    assert server.post("/unload_lora_adapter", {"lora_name": "t"}).status_code == 200
    pickle = server.post("/load_lora_adapter_from_tensors", {**body, "load_format": None})
    assert pickle.status_code == 400 and "pickle" in pickle.json()["error_message"]


def test_lazy_load(server):
    assert "telegram" not in [m["id"] for m in server.http.get("/v1/models").json()["data"]]
    assert server.post("/v1/completions", {"model": "telegram", **PROMPT}).status_code == 200
    assert "telegram" in [m["id"] for m in server.http.get("/v1/models").json()["data"]]
    server.post("/v1/unload_lora_adapter", {"lora_name": "telegram"})


def test_paths_stay_in_the_root(server, adapter_root):
    for path in ("../outside", str(adapter_root.parent / "outside"), "link", "/etc", "json/../../outside", "", "\0", "/proc/self/root/etc"):
        for route in ("/v1/load_lora_adapter", "/load_lora_adapter"):
            response = server.post(route, {"lora_name": "bad", "lora_path": path})
            assert 400 <= response.status_code < 500, (path, response.text)
    for name in ("../outside", "..", ".", "/etc", "link", "json/..", "//", "a\0b"):
        assert server.post("/v1/completions", {"model": name, **PROMPT}).status_code == 404, name


def test_broken_files_change_nothing(server):
    good = files(TELEGRAM)
    assert server.http.put("/v1/adapters/b", files=good).status_code == 200
    before = answer(server, "b")
    for broken in ({**good, "adapter_model": good["adapter_model"][:-100]}, {**good, "adapter_model": b"\xff" * 64},
                   {**good, "adapter_model": b""}, {**good, "adapter_config": b"{"}, {**good, "adapter_config": b"[]"},
                   {"adapter_config": good["adapter_config"]}, {**good, "surprise": b"x"}):
        response = server.http.put("/v1/adapters/b", files=broken)
        assert response.status_code == 400 and response.json()["error"]["message"], response.text
    assert answer(server, "b") == before
    assert server.http.put("/v1/adapters/smol", files=good).status_code == 400
    assert server.http.put("/v1/adapters/" + "x" * 300, files=good).status_code == 400
    assert server.http.put("/v1/adapters/%ff", files=good).status_code == 400
    assert server.http.put("/v1/adapters/b", content=b"no form").status_code == 400
    assert server.http.delete("/v1/adapters/b").status_code == 200
