"""Facts: what a hub is told, and what it is never told (contract §7, promise 28)."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.events import build_event, initial_status, payload
from sandboxer.events.builder import new_event_id
from sandboxer.models import Consumer, Handle, HubSettings, Isolation, Owner, Reachability, Request, Sandbox
from tests.events.setting import sandbox

ID = "k3v9x2m7q4ta"


def test_a_payload_is_exactly_what_the_contract_says() -> None:
    before = sandbox(ID, seq=1)
    event = build_event(before, sandbox(ID, state="ready", seq=2), "sandbox.ready", 1_800_000_000.25, event_id="e" * 32)
    assert payload(event) == {
        "event_id": "e" * 32,
        "event_type": "sandbox.ready",
        "source": "sand-boxer",
        "occurred_at": "2027-01-15T08:00:00.250Z",
        "actor": "adm:ops",
        "summary": "sandbox k3v9x2m7q4ta is ready on local (profile.native)",
        "detail": {
            "sandbox_id": ID,
            "profile": "profile.native",
            "extension_id": "ext.native",
            "from_state": "provisioning",
            "to_state": "ready",
            "host": "local",
            "expires_at": "2027-01-15T09:00:00.000Z",
            "seq": 2,
        },
    }


def test_a_first_fact_comes_from_no_state_and_may_never_expire() -> None:
    event = build_event(None, sandbox(ID, seq=1, expires_at=None), "sandbox.provisioning", 1_800_000_000.0)
    assert event.detail["from_state"] is None
    assert event.detail["expires_at"] is None
    assert event.status == "pending"


def test_a_detail_is_laid_over_the_usual_one() -> None:
    record = sandbox(ID, state="ready")
    event = build_event(record, record, "sandbox.active", 0.0, detail={"to_state": "active", "holder": "exec"})
    assert (event.detail["from_state"], event.detail["to_state"]) == ("ready", "active")
    assert event.detail["holder"] == "exec"


def test_a_failure_is_told_by_its_code_without_its_words() -> None:
    record = sandbox(ID, state="failed", error={"code": "backend_error", "message": "canary-secret"})
    event = build_event(sandbox(ID), record, "sandbox.failed", 0.0)
    assert event.detail["error_code"] == "backend_error"
    assert b"canary-secret" not in msgspec.json.encode(payload(event))


@pytest.mark.parametrize(
    "event_type",
    ["provisioning", "ready", "active", "extended", "expired", "destroying", "destroyed", "failed", "renamed"],
)
def test_every_summary_names_sandbox_host_and_profile(event_type: str) -> None:
    summary = build_event(None, sandbox(ID), f"sandbox.{event_type}", 0.0).summary
    assert summary.startswith(f"sandbox {ID} ")
    assert summary.endswith(" on local (profile.native)")


def test_event_ids_are_random_uuids_in_hexadecimal() -> None:
    ids = {new_event_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", one) for one in ids)


def test_without_a_hub_events_are_kept_with_one_they_wait() -> None:
    assert initial_status(HubSettings()) == "kept"
    assert initial_status(HubSettings(url="")) == "kept"
    assert initial_status(HubSettings(url="http://hub")) == "pending"


CANARY = "canary-5f1c2"
json_values = st.recursive(
    st.just(CANARY) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(CANARY), inner, max_size=2),
    max_leaves=5,
)


@given(value=json_values, before=st.booleans())
def test_what_may_hold_a_secret_has_no_way_into_a_payload(value: Any, before: bool) -> None:
    held = {CANARY: value}
    record = sandbox(
        ID,
        inputs=held,
        options=held,
        report=held,
        request=Request(profile="profile.native", inputs=held, labels={CANARY: CANARY}, name=CANARY),
        labels={CANARY: CANARY},
        handle=Handle(version=1, data=held),
        error={"code": "internal", "message": CANARY, "hint": CANARY, "details": held},
        reachability=Reachability(kind="local", command=CANARY, remote_dir=CANARY, tunnel=held),
        isolation=Isolation(class_="process", network="none", notes=[CANARY]),
        idempotency_key=CANARY,
        fingerprint=CANARY,
        owner=Owner(pid=1, start=1, boot_id=CANARY),
        consumer=Consumer(actor="agt", name="ops"),
    )
    event = build_event(record if before else None, record, "sandbox.failed", 0.0)
    assert CANARY.encode() not in msgspec.json.encode(event)


def test_the_canary_would_be_seen() -> None:
    """The test above can fail: a field that is told shows it."""
    told: Sandbox = sandbox(ID, host=CANARY)
    assert CANARY.encode() in msgspec.json.encode(build_event(None, told, "sandbox.failed", 0.0))
