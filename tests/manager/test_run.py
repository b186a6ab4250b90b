"""`SandboxManager.run`: what follows when a part of it fails, is interrupted, or is killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import BackendError, Interruption, SandboxerError, Timeout, Unavailable, Unsupported
from sandboxer.extensions.base import Context, Exec, Found, SandboxExtension, Spec, Status
from sandboxer.hosts.base import Streams
from sandboxer.manager.run import OneShot
from sandboxer.models import Handle, Owner, Ready, Request, Sandbox
from sandboxer.testing.fake import FakeExtension, Faults
from tests.installations import installed, left_over


class Deaf(SandboxExtension):
    """Runs no commands."""

    Options = FakeExtension.Options
    manifest = FakeExtension.manifest
    _inner = FakeExtension()

    def check(self, ctx: Context) -> None:
        self._inner.check(ctx)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        return self._inner.provision(spec, ctx)

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        return self._inner.wait_ready(handle, ctx)

    def status(self, handle: Handle, ctx: Context) -> Status:
        return self._inner.status(handle, ctx)

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        return self._inner.find(sandbox_id, ctx)

    def inventory(self, ctx: Context) -> Sequence[Found]:
        return self._inner.inventory(ctx)

    def teardown(self, handle: Handle, ctx: Context) -> None:
        self._inner.teardown(handle, ctx)


def run(
    here: Installation, *words: str, keep: bool = False, raises: BaseException | None = None, **asked: object
) -> OneShot:
    """Run a command; `raises` strikes when its sandbox is ready."""

    @contextmanager
    def streams(_record: Sandbox) -> Iterator[Streams]:
        if raises is not None:
            raise raises
        yield Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)

    plan = here.manager.plan(Request(profile="profile.fake", **asked))  # type: ignore[arg-type]  # any field
    return here.manager.run(plan, Exec(argv=words or ("true",)), streams, keep=keep)


def only(here: Installation) -> Sandbox:
    (record,) = here.manager.list(ended=True)
    return record


def test_it_ends_with_the_code_and_the_destroyed_sandbox(tmp_path: Path) -> None:
    here = installed(tmp_path)
    ended = run(here, "sh", "-c", "exit 3")
    assert (ended.exit_code, ended.record.state) == (3, "destroyed")
    kinds = [event.event_type for event in here.manager.events()]
    assert kinds == [f"sandbox.{kind}" for kind in ("provisioning", "ready", "active", "destroying", "destroyed")]
    noted = [(entry.action, entry.outcome) for entry in here.manager.audit()]
    assert noted == [("create", "ok"), ("exec", "ok"), ("destroy", "ok")]


def test_one_whose_create_fails_leaves_no_failed_record_to_look_after(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"wait_ready": BackendError("no", hint="wait")}))
    with pytest.raises(BackendError, match="no") as raised:
        run(here)
    record = only(here)
    assert (raised.value.sandbox_id, raised.value.outcome) == (record.id, "failed")
    assert record.state == "destroyed"
    assert record.error is not None and record.error["message"] == "no"  # noqa: PT018
    assert left_over(tmp_path) == []


def test_what_a_failed_create_has_made_stays_with_keep_failed(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"wait_ready": BackendError("no", hint="wait")}))
    with pytest.raises(BackendError):
        run(here, keep_failed=True)
    assert only(here).state == "failed"
    assert left_over(tmp_path) != []


def test_what_could_not_be_taken_back_is_asked_to_go(tmp_path: Path) -> None:
    faults = Faults({"wait_ready": BackendError("no"), "teardown": BackendError("it stays")})
    here = installed(tmp_path, faults)
    with pytest.raises(BackendError) as raised:
        run(here)
    assert raised.value.outcome == "unknown"
    assert only(here).state == "destroying"
    here.manager.reconcile(apply=True)
    assert (only(here).state, left_over(tmp_path)) == ("destroyed", [])


@pytest.mark.parametrize("kind", [BackendError, Timeout, Unavailable])
def test_a_sandbox_that_cannot_be_destroyed_is_told_with_the_commands_code(
    tmp_path: Path, kind: type[SandboxerError]
) -> None:
    """Promise 5. Never as a time-out, which would speak of the command."""
    here = installed(tmp_path, Faults({"teardown": kind("it stays", hint="wait")}))
    with pytest.raises(SandboxerError) as raised:
        run(here, "sh", "-c", "exit 3")
    error = raised.value
    assert not isinstance(error, Timeout)
    assert (error.outcome, error.sandbox_id) == ("unknown", only(here).id)
    assert error.details is not None and error.details["exit_code"] == 3  # noqa: PT018
    assert "reconcile --apply" in error.hint
    assert only(here).state == "destroying"
    here.manager.reconcile(apply=True)
    assert (only(here).state, left_over(tmp_path)) == ("destroyed", [])


def test_a_failure_of_both_tells_both(tmp_path: Path) -> None:
    here = installed(tmp_path, Faults({"teardown": BackendError("it stays")}))
    with pytest.raises(Unavailable) as raised:
        run(here, raises=Unavailable("it does not answer"))
    assert raised.value.outcome == "unknown"
    assert raised.value.details == {"destroy": "it stays"}


def test_an_interrupt_at_any_point_destroys_it_and_says_so(tmp_path: Path) -> None:
    for number, (point, left) in enumerate(
        {
            "provision": "nothing", "provision.made": "nothing", "provision.saved": "nothing", "wait_ready": "nothing",
            "teardown": "destroyed", "teardown.half": "destroyed", "teardown.done": "destroyed",
        }.items()
    ):  # fmt: skip
        root = tmp_path / str(number)
        here = installed(root, Faults({point: Interruption()}))
        with pytest.raises(Interruption) as raised:
            run(here)
        assert (raised.value.left, raised.value.sandbox_id) == (left, only(here).id), point
        assert (only(here).state, left_over(root)) == ("destroyed", []), point


def test_an_interrupt_says_what_stays(tmp_path: Path) -> None:
    here = installed(tmp_path / "a", Faults({"teardown": BackendError("it stays")}))
    with pytest.raises(Interruption) as raised:
        run(here, raises=Interruption())
    assert (raised.value.left, only(here).state) == ("going", "destroying")
    here = installed(tmp_path / "b")
    with pytest.raises(Interruption) as raised:
        run(here, raises=Interruption(), keep=True)
    assert (raised.value.left, only(here).state) == ("stays", "ready")


def test_a_backend_that_runs_no_commands_creates_nothing(tmp_path: Path) -> None:
    here = installed(tmp_path)
    here.manager.services.extensions.add("ext.fake", Deaf)
    with pytest.raises(Unsupported, match="has no exec"):
        run(here)
    assert here.manager.list(ended=True) == []


def orphan(here: Installation, **owner: object) -> Sandbox:
    """The sandbox of a run that is over without having destroyed it."""
    run(here, keep=True)
    (record,) = here.manager.list()
    gone = Owner(**{"pid": 1, "start": 1, "boot_id": "another", **owner})  # type: ignore[arg-type]  # tests pass any
    return here.manager.services.edit(record.id, lambda now: msgspec.structs.replace(now, ends_with=gone))


def test_one_whose_process_cannot_be_proved_dead_is_given_the_grace_period(tmp_path: Path) -> None:
    """After a reboot, or on another machine with the same data directory."""
    here = installed(tmp_path)
    orphan(here)
    assert here.manager.reconcile(apply=True).actions == []
    assert here.manager.expire(apply=True).actions == []
    (action,) = here.manager.reconcile(apply=True, grace=0).actions
    assert (action.action, action.outcome, only(here).state) == ("destroy", "done", "destroyed")


def test_one_that_somebody_uses_is_left_alone(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = orphan(here)
    with here.manager.lease(record.id, holder="exec"):
        assert here.manager.reconcile(apply=True, grace=0).actions == []
    assert [action.outcome for action in here.manager.reconcile(apply=True, grace=0).actions] == ["done"]
