"""Without any quota too, no consumer takes what the others need: threads, and what every list reads (promise 33)."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from httpx import Client

from sandboxer.locks.leases import MAX_GRANTED
from sandboxer.manager.snapshots.facts import MOST
from sandboxer.models import Consumer, Request, Snapshot
from sandboxer.store.document import AtomicDocument
from sandboxer.store.snapshot_records import FILE as SNAPSHOTS_FILE
from sandboxer.testing.fake import Faults
from tests.api.serving import serving
from tests.api.tokens import bearing, made, token
from tests.installations import installed, lay_out
from tests.store.records import NOON
from tests.testbed.waiting import eventually


def posted(client: Client) -> int:
    """The status of a create that nobody waits for."""
    return client.post("/v1/sandboxes", json={"profile": "profile.fake"}).status_code


class Holding(Faults):
    """A backend in which creates hang, as long as it is `holding` when they come there and until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.holding, self.held, self.go_on = True, 0, threading.Event()

    def at(self, point: str) -> None:
        if point == "provision" and self.holding:
            self.held += 1
            self.go_on.wait(300)
        super().at(point)


def test_one_consumers_slow_creates_leave_the_others_room(tmp_path: Path) -> None:
    """A create may take a quarter of an hour; whoever begins many has at most three quarters of the threads."""
    backend = Holding()
    here = installed(tmp_path, backend)
    try:
        with (
            serving(here) as server,
            bearing(server, token(here, "use", "agt:ann").token) as ann,
            bearing(server, token(here, "use", "agt:bob").token) as bob,
        ):
            assert [posted(ann) for _ in range(20)] == [202] * 20
            eventually(lambda: backend.held >= 9, within=60, what="the creates of one consumer hang")
            backend.holding = False
            assert made(bob)["state"] == "ready"
            assert backend.held == 9
            backend.go_on.set()
    finally:
        backend.go_on.set()


def test_who_is_over_a_quota_holds_up_nobody(tmp_path: Path) -> None:
    """A new idempotency key is looked for in the archive, which takes long when that is large: not under the lock that
    every change of the store needs."""
    lay_out(
        tmp_path, config=f"hosts:\n  local: {{work_dir: {tmp_path}/work}}\nquotas: {{'*': {{creates_per_minute: 0}}}}\n"
    )
    here = installed(tmp_path)
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        with AtomicDocument(tmp_path / "data" / "sandboxes.json").locked():
            answer = ann.post("/v1/sandboxes", json={"profile": "profile.fake"}, headers={"Idempotency-Key": "new"})
        assert answer.status_code == 429, answer.text


def test_a_sandbox_has_so_many_leases_and_no_more(tmp_path: Path) -> None:
    """Each is a file that every list reads: a consumer made as many as it liked, and slowed the lists of all."""
    here = installed(tmp_path)
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        box = made(ann)["id"]
        path = f"/v1/sandboxes/{box}/leases"

        def lease(_: int) -> Any:
            return ann.post(path, json={"duration": "1h"})

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lease, range(MAX_GRANTED + 20)))
        assert Counter(answer.status_code for answer in answers) == {201: MAX_GRANTED, 429: 20}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 3600
        held = ann.get(path).json()["leases"]
        assert len(held) == MAX_GRANTED
        assert ann.post(f"/v1/sandboxes/{box}/exec", json={"argv": ["true"]}).status_code == 200, "a command needs none"
        assert ann.put(f"{path}/{held[0]['id']}").status_code == 200
        assert ann.delete(f"{path}/{held[0]['id']}").status_code == 204
        assert lease(0).status_code == 201
        assert lease(0).status_code == 429


def test_a_consumer_has_so_many_snapshots_and_no_more(tmp_path: Path) -> None:
    """All are in one document, which every change of anybody's writes anew."""
    here = installed(tmp_path)
    kept = [
        Snapshot(
            id=f"snap-a{number:011d}",
            sandbox_id="k3v9x2m7q4ta",
            request=Request(profile="profile.fake"),
            profile="profile.fake",
            profile_version="1.0.0",
            extension="ext.fake",
            consumer=Consumer(actor="agt", name="ann"),
            created_at=NOON + number,
            state="kept",
        )
        for number in range(MOST)
    ]
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        box = made(ann)["id"]
        page = {"schema_version": 1, "install": here.store.install_id, "revision": 1}
        document = {**page, "snapshots": {one.id: one for one in kept}}
        (tmp_path / "data" / SNAPSHOTS_FILE).write_bytes(msgspec.json.encode(document))
        assert len(here.manager.snapshots()) == MOST
        over = ann.post(f"/v1/sandboxes/{box}/snapshots")
        assert (over.status_code, over.json()["code"]) == (429, "unavailable")
        assert int(over.headers["retry-after"]) >= 1
        with bearing(server, token(here, "use", "agt:bob").token) as bob:
            assert bob.post(f"/v1/sandboxes/{made(bob)['id']}/snapshots").status_code == 501  # the fake keeps none
