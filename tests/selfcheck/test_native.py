"""ext.native under the self-check: it keeps its claims, and a native that lies is found out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxer import __version__, names, selfcheck
from sandboxer.config.catalog import Catalog
from sandboxer.errors import BackendError, NotConfigured
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.native import NativeExtension
from sandboxer.extensions.native.options import NativeOptions
from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.models import Handle, HostSettings, Isolation, Profile, Ready
from sandboxer.timing import Deadline, now
from tests.testbed.components import have
from tests.testbed.sshd import Sshd


def usable(host: Host) -> Context:
    """The context for a host that can hold native sandboxes; skips where it can't."""
    found = Context(host=host, install="k3v9x2m7q4ta", deadline=Deadline(60))
    try:
        NativeExtension().check(found)
    except NotConfigured as error:
        pytest.skip(error.message)
    return found


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    host = LocalHost("local", HostSettings(work_dir=str(tmp_path / "work")))
    yield usable(host)
    host.close()


@pytest.fixture
def over_ssh(tmp_path: Path) -> Iterator[Context]:
    if not have("sshd"):
        pytest.skip("no sshd here; run scripts/testbed/install")
    with Sshd(tmp_path / "sshd") as sshd:
        host = SshHost("far", sshd.settings(tmp_path / "work"))
        yield usable(host)
        host.close()


def check(extension: NativeExtension, ctx: Context, **options: Any) -> dict[str, Any]:
    sandbox_id = names.new_id()
    labels = {names.LABEL_ID: sandbox_id, names.LABEL_INSTALL: ctx.install, names.LABEL_PROFILE: "profile.test"}
    spec = Spec(
        sandbox_id=sandbox_id,
        resource=names.resource_name(sandbox_id),
        profile="profile.test",
        labels=labels,
        inputs={},
        options=NativeOptions(python=True, **options),
        expires_at=now() + 600,
    )
    handle = extension.provision(spec, ctx)
    try:
        return selfcheck.run(extension, handle, extension.wait_ready(handle, ctx), ctx, version=__version__)
    finally:
        extension.teardown(handle, ctx)
        assert list(Path(ctx.host.work_dir(ctx.deadline)).iterdir()) == []


def test_native_keeps_every_claim_and_nothing_stays_unmeasured(ctx: Context) -> None:
    report = check(NativeExtension(), ctx)
    isolation = report["isolation"]
    assert isolation["unknown"] == isolation["contradictions"] == []
    seen = isolation["measured"]
    assert seen["failed"] == {}
    assert seen["boundary"] == "namespaces"
    assert seen["capabilities"] == []
    assert seen["no_new_privileges"] is True
    assert seen["makes_user_namespaces"] is False
    assert seen["host_uid"] not in (None, 0) or os.geteuid() != 0
    assert set(seen["writable"]) <= {"/tmp", "/var/tmp", "/dev/shm"}


def test_over_ssh_every_claim_is_measured_and_the_hosts_network_is_found_without_a_listener(over_ssh: Context) -> None:
    report = check(NativeExtension(), over_ssh, network="host")
    isolation = report["isolation"]
    assert isolation["unknown"] == isolation["contradictions"] == []
    assert isolation["measured"]["failed"] == {}
    assert isolation["measured"]["reaches_host"] is True
    assert report["host"]["memory_total_bytes"] > 0


class SaysNoNetwork(NativeExtension):
    """Claims that there is no network, whatever there is."""

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        ready = super().wait_ready(handle, ctx)
        return Ready(reachability=ready.reachability, isolation=Isolation(class_="namespace", network="none"))


def wrong(extension: NativeExtension, ctx: Context, **options: Any) -> list[str]:
    with pytest.raises(BackendError) as caught:
        check(extension, ctx, **options)
    assert caught.value.details is not None
    return [item["claim"] for item in caught.value.details["contradictions"]]


def test_a_native_that_gives_the_hosts_network_and_denies_it_is_found_out(ctx: Context) -> None:
    assert wrong(SaysNoNetwork(), ctx, network="host") == ["no network", "network of its own"]


def test_the_hosts_network_is_reported_where_it_is_claimed(ctx: Context) -> None:
    report = check(NativeExtension(), ctx, network="host")
    assert report["isolation"]["measured"]["reaches_host"] is True


def test_the_bare_create_profile_asks_for_the_self_check_and_a_python() -> None:
    profile = Catalog("profile", Profile, (Path(__file__).parents[2] / "profiles",)).get("profile.sandbox-canary")
    assert profile.self_check
    assert profile.extension == "ext.native"
    assert profile.options == {"python": True}
    assert (profile.ttl.default, profile.ttl.max) == ("1h", "24h")
