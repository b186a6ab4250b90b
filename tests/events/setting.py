"""Records, a store with events in it, and relays for the tests of this part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.events import build_event, initial_status
from sandboxer.events.relay import Relay
from sandboxer.models import Consumer, Event, HubSettings, Request, Sandbox
from sandboxer.store.base import Change, OtherRecords, Store
from sandboxer.store.json_store import JsonStore
from sandboxer.testing.hub import FakeHub

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
STATES = ("provisioning", "ready", "destroying", "destroyed")


def sandbox(sandbox_id: str, **changes: Any) -> Sandbox:
    record = Sandbox(
        id=sandbox_id,
        request=Request(profile="profile.native"),
        profile="profile.native",
        profile_version="1.0.0",
        extension="ext.native",
        state="provisioning",
        consumer=Consumer(actor="adm", name="ops"),
        host="local",
        created_at=1_800_000_000.0,
        expires_at=1_800_003_600.0,
    )
    return msgspec.structs.replace(record, **changes)


def record_fact(store: Store, sandbox_id: str, *, endpoint: HubSettings | None = None) -> Event:
    """One more change of a sandbox, committed with its event."""
    told: list[Event] = []

    def change(before: Sandbox | None, _: OtherRecords) -> Change:
        seq = before.seq + 1 if before is not None else 1
        after = msgspec.structs.replace(before or sandbox(sandbox_id), seq=seq, state=STATES[(seq - 1) % 3])
        event = build_event(before, after, f"sandbox.{after.state}", 1_800_000_000.0 + seq)
        status = initial_status(endpoint or HubSettings(url="http://127.0.0.1:9"))
        told.append(msgspec.structs.replace(event, status=status))
        return Change(record=after, events=[told[-1]])

    store.update(sandbox_id, change)
    return told[-1]


def store_with(directory: Path, sandboxes: Iterable[str]) -> JsonStore:
    store = JsonStore(directory)
    for sandbox_id in sandboxes:
        record_fact(store, sandbox_id)
    return store


def relay_to(hub: FakeHub, store: Store, directory: Path, *, token: str | None = None, seconds: float = 0.25) -> Relay:
    return Relay(store, HubSettings(url=hub.url, token=token), directory, request_seconds=seconds)


def statuses(store: Store) -> list[str]:
    return [event.status for event in store.events()]


def seqs(hub: FakeHub, sandbox_id: str) -> list[int]:
    """The events of one sandbox in the order of their first arrivals."""
    return [event["detail"]["seq"] for event in hub.events if event["detail"]["sandbox_id"] == sandbox_id]


def eventually(condition: Callable[[], bool], *, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
