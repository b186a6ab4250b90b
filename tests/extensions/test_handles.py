"""What adapters keep in a handle, and what they make of one that another version of them has written."""

from __future__ import annotations

import importlib
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Conflict
from sandboxer.extensions.base import Context, SandboxExtension, from_handle
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline
from tests.extensions.e2b.harness import INSTALL

ADAPTERS = (
    "sandboxer.extensions.compose_ssh:ComposeExtension",
    "sandboxer.extensions.daytona:DaytonaExtension",
    "sandboxer.extensions.e2b:E2BExtension",
    "sandboxer.extensions.modal:ModalExtension",
    "sandboxer.extensions.native:NativeExtension",
    "sandboxer.extensions.saas_stub:SaasStubExtension",
    "sandboxer.testing.fake:FakeExtension",
)
NAMES = ("E2B_API_KEY", "DAYTONA_API_KEY", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")


@pytest.fixture
def asked(tmp_path: Path) -> Context:
    """A context with every credential, that leads nowhere."""
    nowhere = "http://127.0.0.1:9"
    return Context(
        host=LocalHost("local", HostSettings(work_dir=str(tmp_path))),
        install=INSTALL,
        deadline=Deadline(20),
        secrets={name: Secret(f"made-up-{name}") for name in NAMES},
        endpoints={"api": nowhere, "server": nowhere},
    )


def made(name: str) -> SandboxExtension:
    """An adapter by where its class is."""
    module, _, what = name.partition(":")
    extension: SandboxExtension = getattr(importlib.import_module(module), what)()
    return extension


@pytest.mark.parametrize("handle", [Handle(version=99, data={}), Handle(version=1, data={"surprise": 1})])
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_handle_of_another_version_is_a_conflict_and_never_guessed_at(
    name: str, handle: Handle, asked: Context
) -> None:
    extension = made(name)
    with pytest.raises(Conflict) as caught:
        extension.teardown(handle, asked)
    assert "upgrade sandboxer" in caught.value.hint
    with pytest.raises(Conflict):
        extension.wait_ready(handle, asked)
    status = extension.status(handle, asked)
    assert status.presence == "unknown"
    assert "another version" in status.detail


def test_what_a_handle_holds_is_not_quoted_when_it_is_not_understood() -> None:
    class Kept(msgspec.Struct):
        name: int

    with pytest.raises(Conflict) as caught:
        from_handle(Handle(version=1, data={"name": "a-canary"}), Kept, version=1)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
