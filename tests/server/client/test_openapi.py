"""docs/openapi.json names every route of the server, and none that is not there."""

import json
import re

from conftest import ROOT

API = json.loads((ROOT / "docs/openapi.json").read_text())


def test_every_route_is_there(server):
    for path, methods in API["paths"].items():
        response = server.http.request("OPTIONS", path.replace("{name}", "x"))
        assert response.status_code == 405, path
        expected = {m.upper() for m in methods}
        assert set(response.headers["allow"].split(", ")) == expected, path


def test_every_route_is_named():
    """The sources add routes by literal paths."""
    named = {p.replace("{name}", "") for p in API["paths"]}
    for file in (ROOT / "src/server").glob("*_routes.cc"):
        for path in re.findall(r'"(/[a-z0-9_/]+)"', file.read_text()):
            assert path in named, f"{file.name}: {path}"


def test_references_lead_somewhere():
    schemas = API["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(API)):
        assert name in schemas
