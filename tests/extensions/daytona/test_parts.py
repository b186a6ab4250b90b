"""The pure parts: options, what is asked for, what is read, what a refusal means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from sandboxer.errors import BackendError, Conflict, Denied, NotFound, SandboxerError, Unavailable, Unsupported
from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.extensions.daytona.create import create_body, minutes
from sandboxer.extensions.daytona.errors import api_error
from sandboxer.extensions.daytona.exec import job
from sandboxer.extensions.daytona.handle import DaytonaHandleData, from_handle, to_handle
from sandboxer.extensions.daytona.options import DaytonaOptions, allotted, fit
from sandboxer.extensions.daytona.sandbox import view
from sandboxer.extensions.daytona.ssh import SshGateway, gateway
from sandboxer.http import Response
from sandboxer.models import Handle, Manifest, Requirements, Resources
from sandboxer.secrets import Secret
from tests.extensions.daytona.harness import context, spec
from tests.fakes import Fault
from tests.fakes.daytona import FakeDaytona

ROOT = Path(__file__).parents[3]


def options(**given: Any) -> DaytonaOptions:
    return msgspec.convert(given, DaytonaOptions)


# -- options and what is asked for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": "a", "snapshot": "b"},
        {"image": "debian\nRUN evil"},
        {"image": "-x"},
        {"image": ""},
        {"snapshot": "a b"},
        {"user": "root;reboot"},
        {"cpu": 0},
        {"cpu": 1.5},
        {"memory_gib": -1},
        {"gpu": "H100:0"},
        {"gpu": "a b"},
        {"env": {"A B": "x"}},
        {"env": {"A": "x\0"}},
        {"ports": [0]},
        {"ports": [80, 80]},
        {"ports": [65536]},
        {"network": "lan"},
        {"network": "none", "network_allow_list": ["192.0.2.0/24"]},
        {"network_allow_list": ["everything"]},
        {"auto_stop_minutes": -1},
        {"auto_delete_minutes": -2},
        {"no_such_option": 1},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        options(**wrong)


def body(expires_at: float | None = 3600.0, **given: Any) -> dict[str, Any]:
    return create_body(options(**given), name="sbx-x", labels={"a": "b"}, expires_at=expires_at, now=0)


def test_by_default_it_ends_by_itself_and_never_sleeps() -> None:
    assert body() == {
        "name": "sbx-x",
        "labels": {"a": "b"},
        "ttlMinutes": 60,
        "autoStopInterval": 0,
        "autoDeleteInterval": -1,
    }
    assert "ttlMinutes" not in body(expires_at=None)


def test_a_ttl_never_ends_early() -> None:
    assert [minutes(at, 0.0) for at in (0.1, 59, 60, 61, 3600, 3600.5)] == [1, 1, 1, 2, 60, 61]
    assert minutes(None, 0.0) == 0


def test_sizes_go_with_an_image_only() -> None:
    sized: dict[str, Any] = {"cpu": 2, "memory_gib": 4, "disk_gib": 5, "gpu": "h100:2"}
    with_image = body(image="debian:13", **sized)
    assert with_image["buildInfo"] == {"dockerfileContent": "FROM debian:13\n"}
    assert {key: with_image[key] for key in ("cpu", "memory", "disk", "gpu", "gpuType")} == {
        "cpu": 2,
        "memory": 4,
        "disk": 5,
        "gpu": 2,
        "gpuType": ["H100"],
    }
    assert set(body(snapshot="mine", **sized)) == set(body()) | {"snapshot"}


def test_what_is_required_is_met_or_refused() -> None:
    image = options(image="debian:13", cpu=1)
    fitted = fit(image, Requirements(vcpu=1.2, memory_gib=0.5, disk_gib=9.1, gpu="h100"))
    assert (fitted.cpu, fitted.memory_gib, fitted.disk_gib, fitted.gpu) == (2, 1, 10, "h100")
    assert allotted(fitted) == Resources(vcpu=2, memory_gib=1, disk_gib=10, gpu="H100", gpus=1)
    assert fit(options(image="x", gpu="H100:2"), Requirements(gpu="H100")).gpu == "H100:2"
    assert fit(options(), Requirements(network="none")).network == "none"
    assert fit(options(largest={"cpu": 16}, image="x"), Requirements(vcpu=16)).cpu == 16
    for given, require in (
        (options(), Requirements(vcpu=1)),
        (options(snapshot="mine", cpu=4), Requirements(vcpu=4)),
        (image, Requirements(vcpu=5)),
        (image, Requirements(memory_gib=9)),
        (image, Requirements(gpu="H100:9")),
        (image, Requirements(gpu="A100")),
        (options(image="x", gpu="H100"), Requirements(gpu="H200")),
        (options(network="none"), Requirements(network="internet")),
        (options(network_allow_list=["192.0.2.0/24"]), Requirements(network="internet")),
        (options(network_allow_list=["192.0.2.0/24"]), Requirements(network="none")),
        (options(image="x", cpu=64), Requirements()),
    ):
        with pytest.raises(Unsupported) as caught:
            fit(given, require)
        assert caught.value.hint


def test_the_estimate_is_daytonas_default_where_nothing_is_said() -> None:
    assert allotted(options()) == Resources(vcpu=1, memory_gib=1, disk_gib=3)
    assert allotted(options(snapshot="mine", cpu=4)).vcpu == 4


def test_the_manifest_and_the_profile_are_what_the_class_understands() -> None:
    manifest = msgspec.convert(yaml.safe_load((ROOT / "extensions/ext.daytona.yaml").read_text()), Manifest)
    assert manifest.prices is not None
    assert manifest.prices.disk_gib_hour is not None
    assert (manifest.self_hosted, manifest.prices.disk_gib_hour.included) == (False, 5)
    profile = yaml.safe_load((ROOT / "profiles/profile.daytona-dev.yaml").read_text())
    assert profile["extension"] == manifest.id
    options(**profile["options"])


# -- what is read -----------------------------------------------------------------------------------------------------


def test_a_sandbox_is_read_whatever_else_is_there_or_missing() -> None:
    bare = view({"id": "x"}, asked="GET /")
    assert (bare.name, bare.phase, bare.presence, bare.resources, bare.labels) == ("x", None, "unknown", None, {})
    odd = view(
        {
            "id": "x",
            "state": "teleporting",
            "labels": {"a": 1},
            "cpu": "many",
            "createdAt": "yesterday",
            "autoDestroyAt": 5,
            "news": {"of": "tomorrow"},
        },
        asked="GET /",
    )
    assert (odd.presence, odd.labels, odd.resources, odd.created_at, odd.destroyed_at) == (
        "unknown",
        {"a": "1"},
        None,
        None,
        None,
    )
    full = view(
        {"id": "x", "state": "started", "cpu": 2, "memory": 4, "disk": 5, "gpu": 1, "gpuType": "H100",
         "createdAt": "2026-11-21T07:00:00.000Z", "sandboxClass": "linux-vm"},
        asked="GET /",
    )  # fmt: skip
    assert full.resources == Resources(vcpu=2, memory_gib=4, disk_gib=5, gpu="H100", gpus=1)
    assert (full.created_at, full.isolation, full.presence) == (1795244400.0, "vm", "running")
    broken: list[Any] = [None, [], {}, {"id": 5}, {"id": ""}, "x"]
    for wrong in broken:
        with pytest.raises(BackendError):
            view(wrong, asked="GET /")


def test_every_state_that_daytona_knows_has_a_meaning() -> None:
    models = json.loads((ROOT / "tests/specs/daytona/models-0.226.1.jsonschema.json").read_text())
    states = set(models["daytona_api_client.SandboxState"]["enum"]) - {"unknown", "unknown_default_open_api"}
    assert {state for state in states if view({"id": "x", "state": state}, asked="GET /").phase is None} == set()


def test_a_handle_is_json_without_a_key_and_of_a_version() -> None:
    data = DaytonaHandleData(name="sbx-abc", base="https://a/api", key=Secret("dtn_secret_key").fingerprint, ports=[1])
    handle = to_handle(data)
    assert from_handle(msgspec.json.decode(msgspec.json.encode(handle), type=Handle)) == data
    assert "secret" not in str(handle)
    assert len(data.key) == 8
    with pytest.raises(Conflict):
        from_handle(Handle(version=2, data={}))


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"message": "Unauthorized"}, Denied),
        (403, {"message": "Forbidden resource"}, Denied),
        (403, {"message": "CPU request 8 exceeds maximum allowed per sandbox (4)"}, BackendError),
        (402, {"message": "payment required"}, Denied),
        (404, {"message": "Sandbox with ID or name x not found"}, NotFound),
        (404, {"message": "Snapshot x not found"}, NotFound),
        (409, {"message": "exists"}, BackendError),
        (422, b"", BackendError),
        (429, b"slow down", Unavailable),
        (500, {"message": "Internal server error"}, BackendError),
        (502, b"<html>bad gateway</html>", Unavailable),
        (504, b"", Unavailable),
        (302, b"", BackendError),
    ],
)
def test_what_a_status_means(status: int, body: Any, error: type[SandboxerError]) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    made = api_error(Response(name="Daytona", asked="POST /sandbox", status=status, headers={}, body=data))
    assert type(made) is error
    assert made.hint
    assert made.details is not None
    assert made.details["status"] == status
    assert made.outcome == ("unknown" if status >= 500 else "failed")


def test_the_longest_time_to_wait_counts() -> None:
    headers = {"retry-after-sandbox-create": "7", "retry-after-general": "30", "x-ratelimit-limit-general": "100"}
    made = api_error(Response(name="Daytona", asked="POST /sandbox", status=429, headers=headers, body=b""))
    assert (made.details or {})["retry_after"] == 30


# -- SSH --------------------------------------------------------------------------------------------------------------


def test_where_the_gateway_is() -> None:
    assert gateway("ssh TOKEN@ssh.app.daytona.io", "TOKEN") == SshGateway(host="ssh.app.daytona.io", port=22)
    assert gateway("ssh -p 2222 TOKEN@127.0.0.1", "TOKEN") == SshGateway(host="127.0.0.1", port=2222)
    for wrong in (None, "", "ssh other@host", "ssh TOKEN@-oProxyCommand=x", "ssh 'TOKEN@x", "ssh TOKEN@a$b"):
        with pytest.raises(BackendError) as caught:
            gateway(wrong, "TOKEN")
        assert "TOKEN" not in f"{caught.value.message} {caught.value.hint}"


def test_a_preview_address_that_holds_its_token_is_not_told(daytona_cloud: FakeDaytona) -> None:
    """Promise 28."""
    handle = DaytonaExtension().provision(spec(options={"ports": [80]}), context(daytona_cloud))
    told = {"sandboxId": "x", "url": "https://80-x.proxy.example/?token=letmein", "token": "letmein"}
    daytona_cloud.script.add(
        Fault(match=".* .*/preview-url".replace(".* ", "GET "), kind="status", status=200, body=told)
    )
    with pytest.raises(BackendError) as caught:
        DaytonaExtension().wait_ready(handle, context(daytona_cloud))
    assert "letmein" not in str(caught.value.document())


def test_what_is_not_reached_from_everywhere_is_said(daytona_cloud: FakeDaytona) -> None:
    handle = DaytonaExtension().provision(
        spec(options={"network_allow_list": ["192.0.2.0/24"], "public": True}), context(daytona_cloud)
    )
    ready = DaytonaExtension().wait_ready(handle, context(daytona_cloud))
    assert (ready.isolation.class_, ready.isolation.network) == ("container", "ranges")
    assert any("open to everybody" in note for note in ready.isolation.notes)
    assert not any("no TTL" in note for note in ready.isolation.notes)


def test_a_server_without_timers_is_told_of() -> None:
    with FakeDaytona(release="0.190") as fake:
        handle = DaytonaExtension().provision(spec(), context(fake))
        ready = DaytonaExtension().wait_ready(handle, context(fake))
        assert any("no TTL of its own" in note for note in ready.isolation.notes)


def test_a_job_quotes_every_word() -> None:
    text = job(["a b", "$(x)", "-n"], cwd="it's", env={"A": "`y`", "UID": "1"}).decode()
    assert "set -- 'a b' '$(x)' -n" in text
    assert "export A='`y`'" in text
    assert "export UID" not in text
    assert "exec setsid env UID=1" in text
