"""Bodies of the routes that take none (promise 30)."""

from __future__ import annotations

import pytest
from httpx import Client

from tests.api.tokens import made

NOTHING_MORE = [
    ("POST", "/v1/sandboxes/{}/stop"), ("POST", "/v1/sandboxes/{}/start"), ("POST", "/v1/sandboxes/{}/recreate"),
    ("DELETE", "/v1/sandboxes/{}"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), NOTHING_MORE)
@pytest.mark.parametrize("body", [b'{"ttl": "1m"}', b"[]", b"{not json", b'"x"', b'{"a": 1, "a": 2}', b"a=1"])
def test_a_route_without_a_body_refuses_what_it_would_pass_over(
    shared_api: Client, method: str, path: str, body: bytes
) -> None:
    """A `recreate` with a ttl would destroy the sandbox, and give the new one another life than was asked for."""
    record = made(shared_api)
    there = f"/v1/sandboxes/{record['id']}"
    answer = shared_api.request(method, path.format(record["id"]), content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert shared_api.get(there).json()["state"] == "ready"
    assert shared_api.delete(there).status_code == 202


@pytest.mark.parametrize("body", [b"", b"{}", b" { }\n", b"null"])
def test_a_body_that_asks_for_nothing_is_taken(shared_api: Client, body: bytes) -> None:
    path = f"/v1/sandboxes/{made(shared_api)['id']}?wait=true"
    assert shared_api.request("DELETE", path, content=body).json()["state"] == "destroyed"


def test_every_route_that_changes_something_refuses_unknown_keys(shared_api: Client) -> None:
    """The body is looked at before what is in the path."""
    paths = shared_api.get("/openapi.json").json()["paths"]
    changing = [(method, path) for path, methods in paths.items() for method in methods if method != "get"]
    assert len(changing) > 15
    for method, path in changing:
        answer = shared_api.request(method, path.replace("{", "").replace("}", ""), json={"nosuch": 1})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), (method, path)
        assert "body.nosuch" in answer.text, (method, path)
