"""Sweeps, and what there is to ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx import Client

from sandboxer.bootstrap import Installation
from sandboxer.errors import Unavailable
from sandboxer.testing.fake import Faults
from tests.api.serving import called
from tests.installations import create, installed, left_over
from tests.testbed.waiting import eventually


@pytest.mark.parametrize("path", ["/v1/expire", "/v1/reconcile", "/v1/reap-stale"])
def test_sweeps_are_dry_runs_unless_told_to_apply(api: Client, path: str) -> None:
    for body in (None, {}, {"apply": False}):
        answer = api.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"actions": [], "remaining": [], "applied": False}
    assert api.post(path, json={"aply": True}).status_code == 422
    assert api.post(path, json={"apply": "yes"}).status_code == 422


def test_reconcile_settles_what_a_backend_has_lost(api: Client, here: Installation, tmp_path: Path) -> None:
    record = create(here)
    (tmp_path / "work" / "fake" / f"sbx-{record.id}").rename(tmp_path / "elsewhere")
    planned = api.post("/v1/reconcile").json()
    assert [action["sandbox_id"] for action in planned["actions"]] == [record.id]
    assert api.get(f"/v1/sandboxes/{record.id}").json()["state"] == "ready"
    assert api.post("/v1/reconcile", json={"apply": True}).status_code == 200
    assert api.get(f"/v1/sandboxes/{record.id}").json()["state"] == "failed"


def test_what_is_stale_is_shown_and_reaped(api: Client, here: Installation, tmp_path: Path) -> None:
    create(here)
    assert api.get("/v1/stale").json() == {"stale": [], "foreign": [], "remaining": []}
    assert api.post("/v1/reap-stale", json={"apply": True, "install": "no id"}).status_code == 422
    answer = api.post("/v1/reap-stale", json={"apply": True, "install": "somebody-else", "force": True})
    assert answer.json() == {"actions": [], "remaining": [], "applied": True}
    assert len(left_over(tmp_path)) == 1


def test_a_sweep_that_leaves_something_is_207(api: Client, here: Installation, faults: Faults) -> None:
    """Contract §3: partial."""
    create(here)
    faults.plan["status"] = Unavailable("the host is silent")
    answer = api.post("/v1/reconcile", json={"apply": True})
    assert answer.status_code == 207
    assert answer.json()["remaining"]


def test_what_a_dead_server_left_is_settled_by_reconcile(here: Installation, faults: Faults, tmp_path: Path) -> None:
    """Promise 1: an establishment that the end of the server cut off."""
    plan_of = create(here).request
    begun = here.manager.begin(here.manager.plan(plan_of))
    begun.lock.close()  # type: ignore[union-attr]  # what the kernel does when the process is gone
    with called(installed(tmp_path)) as api:
        report = api.post("/v1/reconcile", json={"apply": True}).json()
        assert [action["action"] for action in report["actions"]] == ["take-back"]
    assert len(left_over(tmp_path)) == 1


def test_profiles_and_extensions_are_listed(api: Client) -> None:
    profiles = {profile["id"]: profile for profile in api.get("/v1/profiles").json()["profiles"]}
    assert profiles["profile.fake"]["ttl"]["max"] == "4h"
    extensions = {extension["id"]: extension for extension in api.get("/v1/extensions").json()["extensions"]}
    assert extensions["ext.fake"]["capabilities"] == ["exec", "copy", "logs", "renew"]
    assert extensions["ext.fake"]["isolation"]["class"] == "none"


def test_one_broken_extension_does_not_hide_the_others(api: Client, here: Installation) -> None:
    manifest = (here.paths.config / "extensions" / "ext.fake.yaml").read_text()
    broken = manifest.replace("ext.fake", "ext.broken").replace("sandboxer.testing.fake", "no.such.module")
    (here.paths.config / "extensions" / "ext.broken.yaml").write_text(broken)
    extensions = {extension["id"]: extension for extension in api.get("/v1/extensions").json()["extensions"]}
    assert extensions["ext.broken"]["capabilities"] is None
    assert extensions["ext.fake"]["capabilities"]


def test_events_are_listed_oldest_first(api: Client, here: Installation) -> None:
    record = create(here)
    events = api.get("/v1/events").json()["events"]
    assert [event["event_type"] for event in events] == ["sandbox.provisioning", "sandbox.ready"]
    assert {event["detail"]["sandbox_id"] for event in events} == {record.id}
    assert len(api.get("/v1/events?limit=1").json()["events"]) == 1
    assert api.get("/v1/events?limit=0").status_code == 422


def test_a_host_tells_of_itself(api: Client) -> None:
    document = api.get("/v1/hosts/local").json()
    assert document["host"] == "local"
    assert document["cpu_count"] >= 1
    assert document["memory_total_bytes"] > 0


@pytest.mark.parametrize("host", ["192.0.2.1", "root@192.0.2.1:22", "example.org", "-x"])
def test_a_host_that_is_not_configured_is_not_asked(api: Client, host: str) -> None:
    """A caller must not make the server open connections to addresses of the caller's choice."""
    assert api.get(f"/v1/hosts/{host}").status_code == 404


def test_it_lives_and_is_ready(api: Client) -> None:
    assert api.get("/healthz").json() == {"status": "alive"}
    assert api.get("/readyz").json() == {"status": "ready"}


def test_events_reach_the_hub_while_the_server_runs(tmp_path: Path) -> None:
    """Promise 21."""
    from tests.api.state_hub import Hub

    with Hub() as hub, called(installed(tmp_path, SANDBOXER_STATE_HUB_URL=hub.url)) as api:
        api.post("/v1/sandboxes?wait=true", json={"profile": "profile.fake"})
        kinds = eventually(
            lambda: hub.kinds if len(hub.kinds) >= 2 else None, within=10, what="the hub has heard of it"
        )
        assert kinds == ["sandbox.provisioning", "sandbox.ready"]
