"""Snapshots over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Client

from tests.api.serving import serving
from tests.api.tokens import bearing, token
from tests.installations import installed


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[dict[str, Client]]:
    here = installed(tmp_path)
    texts = {name: token(here, "use", f"agt:{name}").token for name in ("one", "two")}
    with serving(here) as served, bearing(served, texts["one"]) as one, bearing(served, texts["two"]) as two:
        yield {"one": one, "two": two}
    for record in here.manager.list():
        here.manager.destroy(record.id)


def box(client: Client) -> str:
    answer = client.post("/v1/sandboxes?wait=true", json={"profile": "profile.native"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def sh(client: Client, sandbox: str, text: str) -> str:
    answer = client.post(f"/v1/sandboxes/{sandbox}/exec", json={"argv": ["sh", "-c", text]})
    assert (answer.status_code, answer.json()["exit_code"]) == (200, 0), answer.text
    return str(answer.json()["stdout"])


def test_take_restore_verify_and_delete(clients: dict[str, Client]) -> None:
    one = clients["one"]
    first = box(one)
    sh(one, first, "echo kept > f")
    taken = one.post(f"/v1/sandboxes/{first}/snapshots", json={"name": "mine"})
    assert taken.status_code == 201, taken.text
    snapshot: dict[str, Any] = taken.json()
    assert taken.headers["Location"] == f"/v1/snapshots/{snapshot['id']}"
    assert one.get("/v1/snapshots/mine").json() == snapshot
    assert one.delete(f"/v1/sandboxes/{first}?wait=true").status_code == 200

    keyed = {"Idempotency-Key": "k"}
    made = one.post("/v1/snapshots/mine/restore?wait=true", json={"name": "again", "ttl": "20m"}, headers=keyed)
    assert (made.status_code, made.json()["snapshot_of"], made.json()["name"]) == (201, snapshot["id"], "again")
    assert sh(one, "again", "cat f") == "kept\n"
    replayed = one.post("/v1/snapshots/mine/restore", json={"name": "again", "ttl": "20m"}, headers=keyed)
    assert (replayed.headers["Idempotent-Replayed"], replayed.json()["id"]) == ("true", made.json()["id"])
    later = one.post("/v1/snapshots/mine/restore")
    assert (later.status_code, later.headers["Location"]) == (202, f"/v1/sandboxes/{later.json()['id']}")

    assert one.post("/v1/snapshots/mine/verify").json() == {"id": snapshot["id"], "ok": True, "damaged": []}
    one.delete(f"/v1/sandboxes/{later.json()['id']}?wait=true")
    gone = one.delete(f"/v1/snapshots/{snapshot['id']}")
    assert (gone.status_code, gone.json()["state"]) == (200, "deleted")
    assert one.get(f"/v1/snapshots/{snapshot['id']}").status_code == 404
    assert one.get("/v1/snapshots").json() == {"snapshots": [], "next_cursor": None}


def test_pages_and_what_is_refused(clients: dict[str, Client]) -> None:
    one = clients["one"]
    first, second = box(one), box(one)
    ids = [one.post(f"/v1/sandboxes/{name}/snapshots").json()["id"] for name in (first, second, first)]
    page = one.get("/v1/snapshots?limit=2").json()
    assert [item["id"] for item in page["snapshots"]] == ids[:2]
    rest = one.get("/v1/snapshots", params={"cursor": page["next_cursor"]}).json()
    assert ([item["id"] for item in rest["snapshots"]], rest["next_cursor"]) == (ids[2:], None)
    of_first = one.get("/v1/snapshots", params={"sandbox": first}).json()
    assert [item["id"] for item in of_first["snapshots"]] == [ids[0], ids[2]]
    for path, body, status in (
        ("snapshots/snap-aaaaaaaaaaaa/restore", {}, 404),
        (f"snapshots/{ids[0]}/restore", {"host": "203.0.113.9"}, 403),
        (f"snapshots/{ids[0]}/restore", {"snapshot": ids[0]}, 422),
        (f"snapshots/{ids[0]}/restore", {"ttl": "9999d"}, 422),
        (f"sandboxes/{first}/snapshots", {"name": "Not a name"}, 422),
        ("sandboxes/nosuchthing0/snapshots", {}, 404),
    ):
        answer = one.post(f"/v1/{path}", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path


def test_a_consumer_sees_and_touches_its_own(clients: dict[str, Client]) -> None:
    """Promise 33."""
    one, two = clients["one"], clients["two"]
    own = one.post(f"/v1/sandboxes/{box(one)}/snapshots").json()["id"]
    assert two.get("/v1/snapshots").json()["snapshots"] == []
    answers = [
        two.get(f"/v1/snapshots/{own}"),
        two.delete(f"/v1/snapshots/{own}"),
        two.post(f"/v1/snapshots/{own}/verify"),
        two.post(f"/v1/snapshots/{own}/restore"),
    ]
    absent = two.get("/v1/snapshots/snap-aaaaaaaaaaaa").json()
    for answer in answers:
        assert answer.status_code == 404
        assert answer.json()["message"].replace(own, "snap-aaaaaaaaaaaa") == absent["message"]
    assert one.get(f"/v1/snapshots/{own}").status_code == 200
