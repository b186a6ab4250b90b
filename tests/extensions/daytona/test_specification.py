"""Every request of ours, and every answer of the fake, is what Daytona's specifications allow."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.hosts.base import Streams
from sandboxer.http import ApiClient
from sandboxer.names import new_id
from sandboxer.timing import Deadline
from tests.extensions.calls import archive_of
from tests.extensions.daytona.harness import context, run, spec
from tests.extensions.daytona.specification import Violation, check_answer, check_request
from tests.fakes import RecordedRequest
from tests.fakes.daytona import KEY, FakeDaytona

EVERYTHING = {
    "image": "docker.io/library/debian:13",
    "cpu": 2,
    "memory_gib": 4,
    "disk_gib": 5,
    "gpu": "H100",
    "target": "eu",
    "env": {"A": "b"},
    "user": "daytona",
    "ports": [8080],
    "public": True,
    "network_allow_list": ["192.0.2.0/24", "198.51.100.0/24"],
    "auto_stop_minutes": 60,
    "auto_archive_minutes": 600,
    "auto_delete_minutes": 60,
    "queue_minutes": 5,
    "ssh": True,
}


def _do_everything(fake: FakeDaytona) -> None:
    extension, ctx = DaytonaExtension(), context(fake)
    silent = Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)
    extension.check(ctx)
    sandbox_id = new_id()
    handle = extension.provision(spec(sandbox_id, options=EVERYTHING), ctx)
    extension.wait_ready(handle, ctx)
    assert extension.find(sandbox_id, ctx) is not None
    assert extension.status(handle, ctx).presence == "running"
    assert len(extension.inventory(ctx)) == 1
    assert run(fake, handle, "sh", "-c", "sleep 0.6; cat; exit 4", stdin=b"x" * 2_000_000)[0] == 4
    extension.put_archive(handle, "there", archive_of(2_000_000), ctx)
    extension.put_archive(handle, "there", archive_of(10), ctx)
    assert extension.path_kind(handle, "there/file", ctx) == "file"
    extension.get_archive(handle, "there", lambda _chunk: None, ctx)
    extension.logs(handle, silent, ctx, service=None, follow=False, tail=3)
    extension.renew(handle, time.time() + 600, ctx)
    extension.meter_actual(handle, ctx)
    extension.stop(handle, ctx)
    extension.start(handle, time.time() + 600, ctx)
    kept = extension.snapshot(handle, f"snap-{new_id()}", ctx)
    second = extension.restore_from_snapshot(spec(options={"network": "none"}), kept, ctx)
    extension.delete_snapshot(kept, ctx)
    extension.teardown(second, ctx)
    extension.teardown(handle, ctx)
    broken = extension.provision(spec(options={"image": "broken:1"}), ctx)
    extension.logs(broken, silent, ctx, service=None, follow=False, tail=None)
    extension.teardown(broken, ctx)


def test_every_request_of_ours_is_one_that_the_specification_knows(daytona_cloud: FakeDaytona) -> None:
    _do_everything(daytona_cloud)
    seen = {check_request(asked) for asked in daytona_cloud.requests}
    assert daytona_cloud.census() == []
    assert {
        "POST /sandbox",
        "GET /sandbox",
        "GET /sandbox/{sandboxIdOrName}",
        "DELETE /sandbox/{sandboxIdOrName}",
        "POST /sandbox/{sandboxIdOrName}/ttl/{ttlMinutes}",
        "POST /sandbox/{sandboxIdOrName}/ssh-access",
        "DELETE /sandbox/{sandboxIdOrName}/ssh-access",
        "GET /sandbox/{sandboxIdOrName}/ports/{port}/preview-url",
        "PUT /sandbox/{sandboxIdOrName}/labels",
        "POST /process/execute",
        "POST /files/bulk-upload",
    } <= seen, seen


def _asked(**changed: Any) -> RecordedRequest:
    good = RecordedRequest(
        method="POST",
        path="/api/sandbox",
        query_text="",
        headers={"content-type": "application/json"},
        body=b'{"name": "x", "labels": {"a": "b"}, "ttlMinutes": 5}',
        status=200,
        at=0.0,
    )
    return replace(good, **changed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "PATCH"},
        {"path": "/api/sandboxes"},
        {"path": "/toolbox/x/process/run"},
        {"query_text": "wait=true"},
        {"body": b'{"labels": ["a"]}'},
        {"body": b'{"ttlMinutes": "5"}'},
        {"body": b'{"timeToLive": 5}'},
        {"body": b"name=x"},
        {"method": "GET", "body": b"", "query_text": "limit=many"},
        {"method": "GET", "path": "/toolbox/x/files/download", "body": b""},
    ],
    ids=str,
)
def test_a_wrong_request_is_seen(wrong: dict[str, Any]) -> None:
    assert check_request(_asked()) == "POST /sandbox"
    with pytest.raises(Violation):
        check_request(_asked(**wrong))


def test_every_answer_of_the_fake_is_one_that_the_client_knows(daytona_cloud: FakeDaytona) -> None:
    api = ApiClient(daytona_cloud.url, name="the fake", headers={"Authorization": f"Bearer {KEY}"})

    def ask(method: str, path: str, json_: Any = None) -> Any:
        return api.call(method, path, Deadline(20), json=json_, expect=(200, 201, 202)).json()

    made = ask("POST", "/api/sandbox", {"name": "one", "labels": {"a": "b"}, "ttlMinutes": 5})
    check_answer("Sandbox", made)
    check_answer("Sandbox", ask("GET", "/api/sandbox/one"))
    built = {"name": "two", "buildInfo": {"dockerfileContent": "FROM x\n"}, "gpu": 1, "gpuType": ["H100"]}
    check_answer("Sandbox", ask("POST", "/api/sandbox", built))
    check_answer("ListSandboxesResponse", ask("GET", "/api/sandbox?limit=1"))
    check_answer("SandboxLabels", ask("PUT", "/api/sandbox/one/labels", {"labels": {"c": "d"}}))
    check_answer("SshAccessDto", ask("POST", "/api/sandbox/one/ssh-access"))
    check_answer("PortPreviewUrl", ask("GET", "/api/sandbox/one/ports/80/preview-url"))
    check_answer("SignedPortPreviewUrl", ask("GET", "/api/sandbox/one/ports/80/signed-preview-url"))
    check_answer("Sandbox", ask("POST", "/api/sandbox/one/snapshot", {"name": "snap"}))
    check_answer("SnapshotDto", ask("GET", "/api/snapshots/snap"))
    tools = f"/toolbox/{made['id']}"
    check_answer("ExecuteResponse", ask("POST", f"{tools}/process/execute", {"command": "echo hi"}))
    api.call("POST", f"{tools}/process/session", Deadline(20), json={"sessionId": "s"}, expect=(201,))
    done = ask("POST", f"{tools}/process/session/s/exec", {"command": "echo hi"})
    check_answer("SessionExecuteResponse", done)
    check_answer("Command", ask("GET", f"{tools}/process/session/s/command/{done['cmdId']}"))
    (entry,) = [one for one in ask("GET", f"{tools}/files?path=/etc") if one["name"] == "hosts"]
    check_answer("FileInfo", entry)
    check_answer("Sandbox", ask("DELETE", "/api/sandbox/one"))
    with pytest.raises(Violation):
        check_answer("Sandbox", json.loads(json.dumps({**made, "kvm": None})))
