"""The audit: each change, also a refused one, by whichever door; and never a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from httpx import Client

from sandboxer.errors import Denied
from sandboxer.models import AuditEntry
from sandboxer.store.audit_log import FILE, REFUSED, REFUSED_FILE, STRANGERS, STRANGERS_FILE, AuditLog
from sandboxer.store.fair_share import share
from sandboxer.testing.fake import Faults
from tests.api.serving import Served, serving
from tests.api.tokens import bearing, made, token
from tests.cli.running import Command
from tests.installations import create, installed


def noted(command: Command, *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = command("audit", "list", "--json", *more).document["audit"]
    return found


def short(entry: dict[str, Any]) -> tuple[str, str, str | None, str]:
    return entry["actor"], entry["action"], entry["target"], entry["outcome"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Command, Served, Client, Client]]:
    command = Command(tmp_path)
    here = installed(tmp_path)
    with (
        serving(here) as server,
        bearing(server, token(here, "use", "agt:ann").token) as ann,
        bearing(server, token(here, "read", "agt:eve").token) as eve,
    ):
        yield command, server, ann, eve


def test_each_change_over_http_is_a_line_with_who_what_where_and_the_outcome(
    scene: tuple[Command, Served, Client, Client],
) -> None:
    command, _server, ann, _eve = scene
    before = len(noted(command))
    box = made(ann)["id"]
    ann.post(f"/v1/sandboxes/{box}/extend-ttl", json={"duration": "10m"})
    ann.post(f"/v1/sandboxes/{box}/exec", json={"argv": ["true"]})
    lease = ann.post(f"/v1/sandboxes/{box}/leases").json()["id"]
    ann.put(f"/v1/sandboxes/{box}/leases/{lease}")
    ann.delete(f"/v1/sandboxes/{box}/leases/{lease}")
    ann.delete(f"/v1/sandboxes/{box}?wait=true")
    for path in ("", f"/{box}", f"/{box}/leases"):
        ann.get(f"/v1/sandboxes{path}")
    lines = noted(command)[before:]
    actions = ["create", "extend-ttl", "exec", "lease", "extend-lease", "release-lease", "destroy"]
    assert [short(line) for line in lines] == [("agt:ann", action, box, "ok") for action in actions]
    for line in lines:
        assert {"at", "actor", "action", "target", "outcome", "from"} <= line.keys()
        assert line["from"] == "http"
        assert line["address"] == "127.0.0.1"
        assert line["token"].startswith("tok-")
        assert line["at"].endswith("Z")


def test_a_refused_change_is_a_line_too(scene: tuple[Command, Served, Client, Client]) -> None:
    command, server, ann, eve = scene
    before = len(noted(command))
    eve.post("/v1/sandboxes", json={"profile": "profile.fake"})  # over its role
    ann.post("/v1/expire", json={"apply": True})
    ann.post("/v1/sandboxes", json={"profile": "profile.nothing"})
    ann.post("/v1/sandboxes", content=b"{")  # no route ever saw it
    ann.delete("/v1/sandboxes/zzzzzzzzzzzz")
    ann.post("/v1/sandboxes/zzzzzzzzzzzz/recreate")
    with Client(base_url=f"http://127.0.0.1:{server.port}") as stranger:
        stranger.post("/v1/reconcile", json={"apply": True})
        stranger.get("/v1/sandboxes")
    assert [short(line) for line in noted(command)[before:]] == [
        ("agt:eve", "create", None, "denied"),
        ("agt:ann", "expire", None, "denied"),
        ("agt:ann", "create", None, "not_found"),
        ("agt:ann", "create", None, "invalid"),
        ("agt:ann", "destroy", "zzzzzzzzzzzz", "not_found"),
        ("agt:ann", "recreate", "zzzzzzzzzzzz", "not_found"),
        ("(no token)", "POST", "/v1/reconcile", "denied"),
    ]


def test_a_create_that_is_refused_after_it_was_begun_is_a_line_of_its_own(tmp_path: Path) -> None:
    """As one whose compose file is refused: what was recorded, and then what came of it; not `ok` alone."""
    faults = Faults(plan={"provision": Denied("nobody granted that", hint="grant it")}, once=False)
    here = installed(tmp_path, faults)
    with pytest.raises(Denied):
        create(here)
    with serving(here) as server, bearing(server, token(here, "use", "agt:ann").token) as ann:
        refused = ann.post("/v1/sandboxes?wait=true", json={"profile": "profile.fake"})
    assert refused.status_code == 403
    told: dict[str, list[tuple[str, str, str]]] = {record.id: [] for record in here.manager.list()}
    for entry in here.manager.audit(since=None):
        if entry.action == "create":
            told[entry.target or ""].append((entry.actor, entry.from_, entry.outcome))
    assert [*told.values()] == [
        [("adm:tester", "cli", "ok"), ("adm:tester", "cli", "denied")],
        [("agt:ann", "http", "ok"), ("agt:ann", "http", "denied")],
    ]


def test_the_command_line_is_noted_as_such(tmp_path: Path) -> None:
    command = Command(tmp_path)
    box = command("create", "--profile", "profile.fake", "--actor", "agt:me", "--json")
    assert box.status != 0 or box.document["id"]
    command("destroy", "nothing-there", "--json")
    command("credits", "add", "5", "--actor", "adm:boss", "--json")
    command("credits", "add", "much", "--json")
    command("expire", "--json")
    command("expire", "--apply", "--json")
    lines = noted(command)
    assert {line["from"] for line in lines} == {"cli"}
    assert [(line["actor"], line["action"], line["outcome"]) for line in lines[-4:]] == [
        ("adm:tester", "destroy", "not_found"),
        ("adm:boss", "credits add", "ok"),
        ("adm:tester", "credits add", "invalid"),
        ("adm:tester", "expire", "ok"),
    ]
    assert (lines[0]["actor"], lines[0]["action"]) == ("agt:me", "create")


def test_since_shows_only_the_latest(tmp_path: Path) -> None:
    command = Command(tmp_path)
    command("expire", "--apply", "--json")
    assert len(noted(command, "--since", "1h")) == 1
    assert noted(command, "--since", "2099-01-01") == []
    assert command("audit", "list", "--since", "yesterday", "--json").status == 2


def test_a_secret_that_somebody_sends_as_a_name_is_not_kept(scene: tuple[Command, Served, Client, Client]) -> None:
    command, _server, ann, _eve = scene
    text = ann.headers["authorization"].removeprefix("Bearer ")
    for path in (f"/v1/sandboxes/{text}", f"/v1/sandboxes/{text}/leases/{text}"):
        ann.delete(path)
    ann.post("/v1/sandboxes", json={"profile": "profile.fake", "name": text[4:]})
    ann.post("/v1/sandboxes", json={"profile": "profile.fake", "inputs": {"token": "in-put-s3cret-value"}})
    stored = "".join(file.read_text() for file in (command.root / "data").glob("audit*.jsonl"))
    assert "not_found" in stored
    assert text not in stored
    assert "in-put-s3cret-value" not in stored


# -- the file ---------------------------------------------------------------------------------------------------------


def entry(number: int, *, outcome: str = "ok", actor: str = "agt:a") -> AuditEntry:
    return AuditEntry(
        at="2027-01-01T00:00:00.000Z", actor=actor, action="create", target=f"{number}", outcome=outcome, from_="cli"
    )


def test_it_is_bounded_and_the_newest_is_kept(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, largest=2000, older=2)
    for number in range(300):
        log.append(entry(number))
    files = sorted(tmp_path.glob(f"{FILE}*"))
    assert [file.name for file in files] == [FILE, f"{FILE}.1", f"{FILE}.2"] or len(files) == 2
    assert sum(file.stat().st_size for file in files) < 3 * 2200
    kept = [int(one.target or -1) for one in log.entries()]
    assert kept == list(range(300 - len(kept), 300))
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_writers_at_once_lose_no_line_and_tear_none(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path, largest=20_000, older=20) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 4].append(entry(number)), range(800)))
    assert sorted(int(one.target or -1) for one in logs[0].entries()) == list(range(800))


def test_a_line_that_was_cut_short_costs_only_itself(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append(entry(1))
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"at":"2027')
    log.append(entry(2))
    assert [one.target for one in log.entries()] == ["1", "2"]


def test_who_asks_in_vain_does_not_wash_the_others_away(tmp_path: Path) -> None:
    now = 0.0
    log = AuditLog(tmp_path, clock=lambda: now)
    for number in range(1000):
        log.append(entry(number, outcome="denied"))
    log.append(entry(1, outcome="denied", actor="agt:b"))
    log.append(entry(2))
    assert len(list(log.entries())) == REFUSED + 2
    now = 61.0
    log.append(entry(3, outcome="denied"))
    assert len(list(log.entries())) == REFUSED + 3


def test_who_has_many_addresses_or_names_does_not_wash_the_others_away_either(tmp_path: Path) -> None:
    """A /64 of IPv6 has more addresses than the audit has lines."""
    log = AuditLog(tmp_path)
    for number in range(20_000):
        refused = entry(number, outcome="denied", actor=f"agt:{number % 7}")
        log.append(msgspec.structs.replace(refused, address=f"2001:db8::{number:x}"))
    log.append(entry(1, outcome="denied"))
    log.append(entry(2))
    noted = list(log.entries())
    assert len(noted) == STRANGERS + 2
    assert [one.outcome for one in noted if one.address is None] == ["ok", "denied"]


def refused(number: int, *, token: str | None = None, address: str | None = None, minute: int = 0) -> AuditEntry:
    """A refused change; the `number`-th in time."""
    at = f"2027-01-01T{minute // 60:02}:{minute % 60:02}:00.000Z"
    return msgspec.structs.replace(entry(number, outcome="denied"), at=at, from_="http", token=token, address=address)


@pytest.mark.parametrize("token", [None, "tok-x"])
def test_what_is_refused_pushes_out_nothing_that_was_done(tmp_path: Path, token: str | None) -> None:
    """However long it goes on: neither strangers nor who has a token wash away what was done, nor one another."""
    minute = 0
    log = AuditLog(tmp_path, largest=4000, older=4, clock=lambda: minute * 61.0)
    others = None if token else "tok-y"
    log.append(entry(1))
    log.append(refused(2, token=others, address="192.0.2.1"))
    for minute in range(1, 40):
        for number in range(100):
            log.append(refused(number, token=token, address=f"2001:db8::{number:x}", minute=minute))
    kept = list(log.entries())
    assert kept[0].outcome == "ok"
    assert (kept[1].token, kept[1].target) == (others, "2")
    assert len(kept) > 20
    assert sum(file.stat().st_size for file in tmp_path.glob("audit*")) < 3 * 5 * 4400


def test_who_fills_the_audit_with_changes_pushes_out_their_own(tmp_path: Path) -> None:
    """A consumer may renew a lease as fast as the server answers: what others did stays."""
    log = AuditLog(tmp_path, largest=4000, older=4)
    for number in range(12):
        log.append(entry(number, actor=f"agt:{number % 3}"))
    for number in range(3000):
        log.append(entry(number, actor="agt:flood"))
        if number == 1500:
            log.append(entry(12, actor="agt:0"))
    kept = list(log.entries())
    assert [one.target for one in kept if one.actor != "agt:flood"] == [f"{number}" for number in range(13)]
    flooded = [int(one.target or -1) for one in kept if one.actor == "agt:flood"]
    assert flooded == sorted(flooded)
    assert flooded[-50:] == list(range(2950, 3000))
    assert sum(file.stat().st_size for file in tmp_path.glob("audit*")) < 5 * 4400


def test_who_may_say_whose_it_is_has_one_share_all_the_same(tmp_path: Path) -> None:
    """An admin's token without a consumer, and whoever may use an open server, name another actor with each create."""
    log = AuditLog(tmp_path, largest=4000, older=4)
    for number in range(6):
        log.append(entry(number))
    for number in range(2000):
        one = msgspec.structs.replace(entry(number, actor=f"agt:{number}"), from_="http")
        log.append(msgspec.structs.replace(one, **({"token": "tok-x"} if number % 2 else {"address": "127.0.0.1"})))
    assert [one.target for one in log.entries() if one.from_ == "cli"] == [f"{number}" for number in range(6)]


def test_the_files_are_shown_as_one_list_in_the_order_of_time(tmp_path: Path) -> None:
    minute = 0
    log = AuditLog(tmp_path, clock=lambda: minute * 61.0)
    for minute in range(9):
        one = refused(minute, token="tok-x" if minute % 3 == 1 else None, address="192.0.2.1", minute=minute)
        log.append(msgspec.structs.replace(one, outcome="ok") if minute % 3 == 0 else one)
    assert [one.target for one in log.entries()] == [f"{number}" for number in range(9)]
    assert sorted(file.name for file in tmp_path.glob("audit*")) == [REFUSED_FILE, STRANGERS_FILE, FILE]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.glob("audit*"))


def test_the_lines_of_earlier_versions_are_shown_in_their_place(tmp_path: Path) -> None:
    """They had what was refused in the file of what was done."""
    earlier = [entry(1), refused(2, token="tok-x", minute=1), refused(3, address="192.0.2.1", minute=2)]
    (tmp_path / FILE).write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in earlier))
    log = AuditLog(tmp_path)
    later = [refused(4, token="tok-x", minute=3), msgspec.structs.replace(refused(5, minute=4), outcome="ok")]
    for one in later:
        log.append(one)
    assert list(log.entries()) == [*earlier, *later]


def test_a_line_that_a_crash_left_twice_stays_once(tmp_path: Path) -> None:
    """A rotation that is killed half-way leaves the last part in the one before it too."""
    log = AuditLog(tmp_path, largest=1000, older=3)
    number = 0
    while not (tmp_path / f"{FILE}.3").exists():
        log.append(entry(number, actor=f"agt:{number}"))
        number += 1
    last, before = (tmp_path / f"{FILE}.{part}" for part in (3, 2))
    before.write_bytes(last.read_bytes() + before.read_bytes())
    inode = last.stat().st_ino
    while last.stat().st_ino == inode:
        log.append(entry(number, actor=f"agt:{number}"))
        number += 1
    kept = [one.target for one in log.entries()]
    assert len(kept) == len(set(kept)) > 10


@pytest.mark.parametrize(
    ("sizes", "room", "most"),
    [([], 10, 10), ([3, 4], 10, 10), ([1, 100], 10, 9), ([50, 100], 10, 5), ([2, 2, 50, 60], 10, 3)],
)
def test_who_has_little_keeps_it_and_the_others_share_what_is_left(sizes: list[int], room: int, most: int) -> None:
    assert share(sizes, room) == most
    assert sum(min(size, share(sizes, room)) for size in sizes) <= room


def test_a_disk_that_takes_no_line_keeps_nobody_from_changing(tmp_path: Path) -> None:
    here = installed(tmp_path)
    (here.paths.data).mkdir(parents=True, exist_ok=True)
    (here.paths.data / FILE).mkdir()  # nothing can be appended to it, not even by root
    from tests.installations import create

    record = create(here)
    assert here.manager.destroy(record.id).state == "destroyed"


def test_every_line_is_one_json_document(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append(entry(1))
    (line,) = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(line)["from"] == "cli"
