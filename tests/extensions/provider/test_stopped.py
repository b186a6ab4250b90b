"""Sandboxes that somebody else has stopped at the provider."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sandboxer.errors import Conflict, SandboxerError
from sandboxer.extensions.base import CanCopy, CanRenew, CanStop, Context, SandboxExtension
from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.models import Handle, Resources
from sandboxer.names import sandbox_id_of
from tests.extensions.calls import archive_of
from tests.extensions.provider.trial import Trial

STATES = {"e2b": "paused", "daytona": "stopped"}


def stopped_elsewhere(trial: Trial, *, known: bool = True) -> Handle:
    """A sandbox that somebody else stopped, used before by this process (`known`) or never."""
    handle = trial.made()
    if known:
        assert trial.run(handle, "true")[0] == 0
    assert trial.stop is not None
    trial.stop(handle)
    return handle


def test_status_tells_the_truth_and_what_it_costs(stoppable: Trial) -> None:
    handle = stopped_elsewhere(stoppable)
    status = stoppable.extension.status(handle, stoppable.context())
    assert (status.presence, STATES[stoppable.name] in status.detail) == ("stopped", True)
    disk = {"e2b": 0.0, "daytona": 3.0}[stoppable.name]
    assert status.billed == Resources(disk_gib=disk)


def test_status_of_a_running_one_tells_when_the_provider_ends_it(stoppable: Trial) -> None:
    handle = stoppable.made(ttl=3600)
    status = stoppable.extension.status(handle, stoppable.context())
    assert status.ends_at == pytest.approx(time.time() + 3600, abs=120)
    assert status.billed is None


def test_what_the_provider_gives_is_told_when_it_is_ready(stoppable: Trial) -> None:
    handle = stoppable.extension.provision(stoppable.spec(ttl=600), stoppable.context())
    ready = stoppable.extension.wait_ready(handle, stoppable.context())
    assert ready.ends_at == pytest.approx(time.time() + 600, abs=120)


def exec_(trial: Trial, handle: Handle) -> None:
    trial.run(handle, "true")


def exec_with_input(trial: Trial, handle: Handle) -> None:
    trial.run(handle, "cat", stdin=b"x")


def look(trial: Trial, handle: Handle) -> None:
    extension: SandboxExtension = trial.extension
    assert isinstance(extension, CanCopy)
    extension.path_kind(handle, "/tmp", trial.context())


def put(trial: Trial, handle: Handle) -> None:
    assert isinstance(trial.extension, CanCopy)
    trial.extension.put_archive(handle, "/tmp/x", archive_of(10), trial.context())


def take(trial: Trial, handle: Handle) -> None:
    assert isinstance(trial.extension, CanCopy)
    trial.extension.get_archive(handle, "/tmp/x", lambda _chunk: None, trial.context())


@pytest.mark.parametrize("use", [exec_, exec_with_input, look, put, take], ids=lambda use: use.__name__)
@pytest.mark.parametrize("known", [True, False], ids=["used-before", "never-used"])
def test_a_use_says_that_it_is_stopped_and_what_to_type(
    stoppable: Trial, use: Callable[[Trial, Handle], None], known: bool
) -> None:
    handle = stopped_elsewhere(stoppable, known=known)
    with pytest.raises(Conflict) as caught:
        use(stoppable, handle)
    ours = handle.data.get("sandbox_id") or sandbox_id_of(handle.data["name"])
    assert STATES[stoppable.name] in caught.value.message
    assert f"sandboxer start {ours}" in caught.value.hint
    details = caught.value.details or {}
    assert (details["presence"], caught.value.fault) == ("stopped", "backend")


def test_it_is_started_again_and_works(stoppable: Trial) -> None:
    handle, saved = stopped_elsewhere(stoppable), list[Handle]()
    assert isinstance(stoppable.extension, CanStop)
    end = time.time() + 1800
    for _ in range(2):  # one that is running already is success
        stoppable.extension.start(handle, end, stoppable.context(save=saved.append))
    assert stoppable.run(saved[-1], "true")[0] == 0
    status = stoppable.extension.status(saved[-1], stoppable.context())
    assert status.presence == "running"
    assert status.ends_at == pytest.approx(end, abs=120)


def test_one_that_is_stopped_already_is_stopped(stoppable: Trial) -> None:
    handle = stopped_elsewhere(stoppable)
    assert isinstance(stoppable.extension, CanStop)
    stoppable.extension.stop(handle, stoppable.context())
    assert stoppable.extension.status(handle, stoppable.context()).presence == "stopped"


def test_one_that_is_stopped_is_destroyed(stoppable: Trial) -> None:
    handle = stopped_elsewhere(stoppable)
    stoppable.extension.teardown(handle, stoppable.context())
    assert stoppable.fake.census() == []


def test_one_that_has_ended_is_told_so(stoppable: Trial) -> None:
    handle = stopped_elsewhere(stoppable)
    stoppable.extension.teardown(handle, stoppable.context())
    with pytest.raises(SandboxerError) as caught:
        stoppable.run(handle, "true")
    assert ((caught.value.details or {}).get("presence"), "reconcile" in caught.value.hint) == ("absent", True)


def renew(extension: SandboxExtension, handle: Handle, ctx: Context) -> None:
    assert isinstance(extension, CanRenew)
    extension.renew(handle, time.time() + 7200, ctx)


def test_e2b_prolongs_no_paused_one() -> None:
    from tests.extensions.provider.trial import e2b
    from tests.fakes.e2b import FakeE2B

    with FakeE2B() as fake:
        trial = e2b(fake)
        handle = stopped_elsewhere(trial)
        with pytest.raises(Conflict, match="paused"):
            renew(E2BExtension(), handle, trial.context())


def test_daytona_prolongs_a_stopped_one() -> None:
    from tests.extensions.provider.trial import daytona
    from tests.fakes.daytona import FakeDaytona

    with FakeDaytona() as fake:
        trial = daytona(fake)
        handle = stopped_elsewhere(trial)
        renew(DaytonaExtension(), handle, trial.context())
        ends = DaytonaExtension().status(handle, trial.context()).ends_at
        assert ends == pytest.approx(time.time() + 7200, abs=120)


def test_a_command_under_which_it_is_paused_says_so() -> None:
    """The connection ends with the sandbox's last breath."""
    from tests.extensions.provider.trial import e2b
    from tests.fakes import Fault
    from tests.fakes.e2b import FakeE2B

    with FakeE2B() as fake:
        trial = e2b(fake)
        handle = trial.made()
        fake.script.add(Fault(match="POST /process.Process/Start", kind="truncate"))
        assert trial.stop is not None
        trial.stop(handle)
        with pytest.raises(Conflict, match="paused"):
            trial.run(handle, "true")
        assert fake.script.struck


def test_daytona_keeps_what_we_stop_also_where_a_stop_by_others_deletes_it() -> None:
    from tests.extensions.provider.trial import daytona
    from tests.fakes.daytona import FakeDaytona

    with FakeDaytona() as fake:
        trial = daytona(fake)
        made = trial.made(options={"auto_delete_minutes": 0})
        trial.run(made, "touch", "/tmp/kept")
        found = trial.extension.find(str(sandbox_id_of(made.data["name"])), trial.context())
        assert found is not None
        assert isinstance(trial.extension, CanStop)
        for handle in (made, found):
            trial.extension.stop(handle, trial.context())
            assert trial.extension.status(handle, trial.context()).presence == "stopped"
            trial.extension.start(handle, time.time() + 1800, trial.context())
            assert trial.run(handle, "test", "-e", "/tmp/kept")[0] == 0
            (machine,) = fake.estate.machines.values()
            assert machine.auto_delete == 0
