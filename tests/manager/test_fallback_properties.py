"""Routed creates under any faults of their backends: at most one sandbox is kept, and it is the recorded one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sandboxer.errors import (
    BackendError,
    Denied,
    Invalid,
    NotConfigured,
    SandboxerError,
    Timeout,
    Unavailable,
)
from sandboxer.extensions.base import Context
from sandboxer.models import Handle
from sandboxer.state import State
from tests.manager.routed import CLOUD, OWN, Backend, Bed, metered
from tests.sizes import scaled

POINTS = ("provision", "provision.made", "provision.saved", "wait_ready", "find", "teardown", "teardown.half")
ERRORS: dict[str, Callable[[], BaseException]] = {
    "refused": lambda: BackendError("refused"),
    "lost": lambda: Unavailable("lost", outcome="unknown"),
    "not sent": lambda: Unavailable("not sent", outcome="failed"),
    "silent": lambda: Unavailable("silent"),
    "late": lambda: Timeout("late"),
    "denied": lambda: Denied("denied"),
    "no key": lambda: NotConfigured("no key"),
    "wrong": lambda: Invalid("wrong"),
    "killed": KeyboardInterrupt,
}
_NOTHING_BEGUN = ("not sent", "denied", "no key")
"""What says that nothing was begun: where something was, it would be a lie."""
BACKENDS = {"a": metered("1"), "b": CLOUD, "c": OWN, "d": metered("2")}
FAULTS = st.lists(
    st.tuples(st.sampled_from(list(BACKENDS)), st.sampled_from(POINTS), st.sampled_from(list(ERRORS))), max_size=8
).map(
    lambda found: [
        (name, point, kind)
        for name, point, kind in found
        if kind not in _NOTHING_BEGUN or point not in ("provision.made", "provision.saved")
    ]
)


def _run(faults: list[tuple[str, str, str]], *, always: bool, backend: type[Backend] = Backend) -> None:
    with tempfile.TemporaryDirectory(prefix="routes") as folder:
        bed = Bed(Path(folder), BACKENDS, strategy="explicit")
        bed.backend = backend
        bed.here.manager.add_credits("5")
        for name, point, kind in faults:
            bed.faults[name].plan[point] = ERRORS[kind]()
            bed.faults[name].once = not always
        made = None
        with contextlib.suppress(SandboxerError, KeyboardInterrupt):
            made = bed.create()
        left = bed.left()
        record = bed.only
        place = record.extension.removeprefix("ext.")
        outcomes = [one.outcome for one in record.route.decisions]
        if made is not None:
            assert made.state == State.READY
            assert left == [f"{place}/sbx-{record.id}"]
            assert outcomes.count("chosen") == 1
        else:
            # Ctrl-C while something is taken back leaves the rest to reconcile.
            interrupted = record.state == State.PROVISIONING and any(kind == "killed" for _, _, kind in faults)
            assert record.state == State.FAILED or interrupted
            assert interrupted or outcomes.count("chosen") == 0
            assert not record.clean or left == []
            assert all(item.startswith(f"{place}/") for item in left), "what is left is where the record says"
        held = bed.process().manager.credits().reserved_usd
        if made is None and record.clean:
            assert held == "0"
        if made is not None:
            assert held == (record.metering.reserved_usd if record.metering else "0")
        for each in bed.faults.values():
            each.plan.clear()
        manager = bed.process().manager
        manager.reconcile(apply=True, grace=0.0)
        manager.destroy(record.id)
        manager.expire(apply=True)
        assert bed.left() == []
        assert bed.process().manager.credits().reserved_usd == "0"


SIZE = settings(
    max_examples=scaled(150, soak=10_000), deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@SIZE
@given(FAULTS, st.booleans())
def test_whatever_fails_at_most_one_sandbox_is_kept_and_paid_for(
    faults: list[tuple[str, str, str]], always: bool
) -> None:
    """Promises 1, 5, 7 and 19."""
    _run(faults, always=always)


class _Forgetful(Backend):
    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        return None


class _Lying(Backend):
    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Says that it is gone."""


@pytest.mark.parametrize("planted", [_Forgetful, _Lying])
def test_the_check_catches_a_backend_that_lies(planted: type[Backend]) -> None:
    @settings(SIZE, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False)
    @given(FAULTS, st.booleans())
    def check(faults: list[tuple[str, str, str]], always: bool) -> None:
        _run(faults, always=always, backend=planted)

    with pytest.raises(AssertionError):
        check()
