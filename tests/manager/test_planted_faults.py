"""Faults that are planted in the sweeps: each of them is one that the tests of the sweeps see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import SandboxerError
from sandboxer.extensions.base import Status
from sandboxer.manager.sweeps import expire, provider_looks, reconcile, stale
from sandboxer.manager.sweeps.silent_hosts import SilentHosts
from tests.manager import test_cron_hour, test_idle_stop, test_provider_end, test_sweeps

Plant = Callable[[pytest.MonkeyPatch], None]


def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Young things without a record are taken, too."""
    monkeypatch.setattr(stale, "old_enough", lambda *_: True)


def _errors_are_empty_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be listed is taken for a list of nothing."""
    truly = stale.list_everywhere

    def listed(*given: Any, **more: Any) -> Any:
        return truly(*given, **more)[0], []

    monkeypatch.setattr(stale, "list_everywhere", listed)


def _errors_are_absences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that failed is taken for a look that found nothing."""
    truly = reconcile._status

    def status(*given: Any) -> Status:
        try:
            shown = truly(*given)
        except SandboxerError:
            return Status("absent")
        return Status("absent") if shown.presence == "unknown" else shown

    monkeypatch.setattr(reconcile, "_status", status)
    monkeypatch.setattr(provider_looks, "look", lambda services, record, _deadline: status(services, record))


def _no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided before the lock is done under it."""
    truly, decided = expire._due, dict[str, Any]()

    def due(services: Any, record: Any) -> Any:
        return decided.setdefault(record.id, truly(services, record))

    monkeypatch.setattr(expire, "_due", due)


def _one_silent_host_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one host does not answer, none is asked any more."""
    truly = SilentHosts.reach

    def reach(self: SilentHosts, services: Any, host: str | None) -> None:
        truly(self, services, next(iter(self._silent), host))

    monkeypatch.setattr(SilentHosts, "reach", reach)


def _a_provider(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        test_provider_end.test_a_provider_that_does_not_say_ends_nothing(
            test_provider_end.Lent(tmp_path), silent=False, monkeypatch=patched
        )


CASES: dict[str, tuple[Plant, Callable[[Path], None]]] = {
    "grace period ignored": (
        _no_grace,
        test_sweeps.test_a_resource_without_a_record_goes_only_after_the_grace_period,
    ),
    "list error treated as empty": (
        _errors_are_empty_lists,
        test_sweeps.test_a_listing_that_fails_removes_nothing_and_is_reported,
    ),
    "look that failed treated as absence": (
        _errors_are_absences,
        test_sweeps.test_a_look_that_fails_is_unknown_and_never_clears_a_record,
    ),
    "silent provider treated as absence": (_errors_are_absences, _a_provider),
    "re-check after the lock skipped": (
        _no_second_look,
        test_idle_stop.test_a_use_that_began_between_the_look_and_the_lock_wins,
    ),
    "re-check of a hard end skipped": (
        _no_second_look,
        test_cron_hour.test_a_renewal_between_the_look_and_the_lock_wins,
    ),
    "one silent host silences all": (_one_silent_host_is_all, lambda tmp_path: test_cron_hour.Hour(tmp_path, 1).run()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_planted_fault_is_seen(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, check = CASES[case]
    check(tmp_path / "sound")
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(tmp_path / "planted")
