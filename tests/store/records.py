"""Records and events to store: plain ones, and generated ones with everything in them that JSON can hold."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from sandboxer.models import (
    Consumer,
    Cost,
    Decision,
    Event,
    Handle,
    Isolation,
    Owner,
    Reachability,
    Request,
    Route,
    Sandbox,
    Service,
)
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords, UpdateFn

ID = "k3v9x2m7q4ta"
OTHER = "k3v9x2m7q4tb"
NOON = 1_800_000_000.0  # 2027-01-15


def number(n: int) -> str:
    """The n-th of a row of ids."""
    return f"a{n:011d}"


def sandbox(sandbox_id: str = ID, **fields: Any) -> Sandbox:
    """A plain record with some fields set."""
    plain = Sandbox(
        id=sandbox_id,
        request=Request(profile="profile.native"),
        profile="profile.native",
        profile_version="1.0.0",
        extension="ext.native",
        state=State.READY,
        consumer=Consumer(actor="adm", name="ops"),
        host="local",
        created_at=NOON,
    )
    return msgspec.structs.replace(plain, **fields)


def ended(sandbox_id: str, **fields: Any) -> Sandbox:
    """A record that is destroyed."""
    return sandbox(sandbox_id, **{"state": State.DESTROYED, "destroyed_at": NOON + 60, "clean": True} | fields)


def full(sandbox_id: str, n: int = 0) -> Sandbox:
    """A record as a compose sandbox leaves it, about 1.7 kB: for figures."""
    web = Service(name="web", container_port=8080, host="127.0.0.1", port=18080, url="http://127.0.0.1:18080")
    return sandbox(
        sandbox_id,
        name=f"n{n}",
        isolation=Isolation(class_="container", network="bridge", notes=["kernel shared with the host"]),
        reachability=Reachability(
            kind="ssh",
            host="203.0.113.7",
            port=22,
            user="ops",
            remote_dir=f"/srv/sandboxer/sbx-{sandbox_id}",
            command="ssh ops@203.0.113.7",
            host_key="SHA256:" + "x" * 43,
            services=[web, web],
        ),
        route=Route(
            strategy="explicit",
            decisions=[Decision(extension="ext.compose-ssh", outcome="chosen", reason="only candidate")],
        ),
        handle=Handle(version=1, data={"project": f"sbx-{sandbox_id}", "compose": ["podman-compose"]}),
        fingerprint="f" * 64,
        owner=Owner(pid=1, start=2, boot_id="b" * 36),
    )


def event(event_id: str, **fields: Any) -> Event:
    """A plain event with some fields set."""
    plain = Event(
        event_id=event_id,
        event_type="sandbox.ready",
        occurred_at="2027-01-15T08:00:00.000Z",
        actor="adm:ops",
        summary="ready",
        detail={"sandbox_id": ID},
    )
    return msgspec.structs.replace(plain, **fields)


def put(record: Sandbox, *events: Event) -> UpdateFn:
    """An update that stores this, whatever there was."""
    return lambda current, others: Change(record=record, events=events)


def tell(*events: Event) -> UpdateFn:
    """An update that only tells of something."""
    return lambda current, others: Change(events=events)


def count(current: Sandbox | None, others: OtherRecords) -> Change:
    """An update that counts up: a lost one shows."""
    assert current is not None
    return Change(record=msgspec.structs.replace(current, seq=current.seq + 1))


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_object = st.dictionaries(_text, _json, max_size=3)
_instant = st.none() | st.floats(0, 4e9)


@st.composite
def sandboxes(draw: st.DrawFn, sandbox_id: str) -> Sandbox:
    """Any record with this id."""
    return sandbox(
        sandbox_id,
        state=draw(st.sampled_from([state for state in State if state != State.ACTIVE])),  # that one is derived
        request=Request(profile=draw(_text), inputs=draw(_object), host=draw(st.none() | _text)),
        name=draw(st.none() | _text),
        labels=draw(st.dictionaries(_text, _text, max_size=3)),
        inputs=draw(_object),
        created_at=draw(st.floats(0, 4e9)),
        expires_at=draw(_instant),
        destroyed_at=draw(_instant),
        cost=Cost(estimated_usd=draw(_text)),
        report=draw(st.none() | _object),
        error=draw(st.none() | _object),
        handle=draw(st.none() | st.builds(Handle, version=st.integers(0, 99), data=_object)),
        idempotency_key=draw(st.none() | _text),
        clean=draw(st.booleans()),
        seq=draw(st.integers(0, 10**6)),
    )
