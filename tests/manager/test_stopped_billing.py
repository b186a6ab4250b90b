"""What is charged for a sandbox while its provider has it stopped."""

from __future__ import annotations

import dataclasses
import threading
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Unavailable
from sandboxer.extensions.base import CanStop, Context, Status
from sandboxer.manager import SandboxManager
from sandboxer.manager.sweeps.report import LANES
from sandboxer.models import Handle, Resources, Sandbox
from sandboxer.payments.usage import MOST_SPANS, billed_spans, with_billed
from sandboxer.state import State
from tests.manager.metered import SECOND, Bank, MeteredFake

NOTHING = Resources()
HALF = Resources(vcpu=0.5)
WHOLE = Resources(vcpu=1)


class Resting(MeteredFake, CanStop):
    """A provider that bills for `billed` alone while it has a sandbox stopped; None: it runs."""

    billed: Resources | None = None
    stopped = False
    silent = False

    def status(self, handle: Handle, ctx: Context) -> Status:
        shown = super().status(handle, ctx)
        if self.silent:
            return Status("unknown", "no answer")
        if shown.presence != "running" or not self.stopped:
            return shown
        return Status("stopped", "paused at Fake", billed=self.billed)

    def stop(self, handle: Handle, ctx: Context) -> None:
        self.at("stop")
        self.stopped = True
        self.at("stop.done")

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        self.at("start")
        self.stopped = False
        self.at("start.done")


class Hotel(Bank):
    """A bank whose backend is one `Resting`."""

    def __init__(self, root: Path) -> None:
        self.provider = Resting()
        super().__init__(root, extension=lambda: self.provider)

    def rest(self, seconds: float, billed: Resources | None) -> None:
        """Stopped by somebody else for so long, which is seen at both ends."""
        self.provider.stopped, self.provider.billed = True, billed
        self.manager.expire(apply=True)
        self.now += seconds
        self.provider.stopped = False
        self.manager.expire(apply=True)


@pytest.fixture
def hotel(tmp_path: Path) -> Hotel:
    return Hotel(tmp_path)


@pytest.mark.parametrize(
    ("billed", "share"), [(NOTHING, "0"), (HALF, "0.5"), (None, "1")], ids=["nothing", "half", "?"]
)
def test_only_what_the_provider_bills_for_is_charged(hotel: Hotel, billed: Resources | None, share: str) -> None:
    record = hotel.create()
    hotel.now += 100
    hotel.rest(200, billed)
    hotel.now += 50
    (item,) = hotel.manager.usage()
    due = (150 + 200 * Decimal(share)) * SECOND
    assert Decimal(item.actual_usd) == due
    ended = hotel.manager.destroy(record.id)
    assert ended.usage is not None
    assert (hotel.spent, ended.usage.overrun_usd) == (due, "0")
    assert hotel.reserved == 0


def test_one_that_is_stopped_to_its_end_is_charged_up_to_the_stop(hotel: Hotel) -> None:
    record = hotel.create()
    hotel.now += 100
    hotel.provider.stopped, hotel.provider.billed = True, NOTHING
    assert hotel.manager.get(record.id, refresh=True).state == State.STOPPED
    hotel.now += 5000
    assert [one.action for one in hotel.manager.expire(apply=True).actions] == ["expire"]
    assert hotel.spent == 100 * SECOND


def test_what_is_billed_may_change_while_it_is_stopped(hotel: Hotel) -> None:
    """As when Daytona archives one that it had stopped."""
    record = hotel.create()
    hotel.provider.stopped, hotel.provider.billed = True, HALF
    hotel.manager.reconcile(apply=True)
    hotel.now += 100
    hotel.provider.billed = NOTHING
    assert [one.action for one in hotel.manager.reconcile(apply=True).actions] == ["note"]
    assert hotel.manager.reconcile(apply=True).actions == []
    hotel.now += 100
    hotel.manager.destroy(record.id)
    assert hotel.spent == 50 * SECOND


def test_silence_is_charged_as_before(hotel: Hotel) -> None:
    record = hotel.create()
    hotel.provider.stopped, hotel.provider.billed, hotel.provider.silent = True, NOTHING, True
    hotel.manager.expire(apply=True)
    with pytest.raises(Unavailable):
        hotel.manager.get(record.id, refresh=True)
    hotel.now += 100
    hotel.manager.destroy(record.id)
    assert hotel.spent == 100 * SECOND


def test_a_provider_that_says_nothing_in_time_is_asked_once_in_a_sweep(hotel: Hotel) -> None:
    """`expire` is made for cron: a hundred sandboxes at a dead provider must not take a hundred times as long."""
    for _ in range(3 * LANES):
        hotel.create(ttl=600)
    asked: list[str] = []

    def hang(handle: Handle, ctx: Context) -> Status:
        asked.append(str(handle.data))
        left = ctx.deadline.left()
        assert left is not None
        threading.Event().wait(left + 0.01)
        return Status("unknown", "no answer")

    hotel.provider.status = hang  # type: ignore[method-assign]
    services = dataclasses.replace(
        hotel.manager.services, limits=msgspec.structs.replace(hotel.manager.services.limits, refresh=0.2)
    )
    assert SandboxManager(services).expire(apply=True).actions == []
    assert 1 <= len(asked) <= LANES


def test_one_without_a_ttl_goes_on_being_paid_for_while_it_is_stopped(hotel: Hotel) -> None:
    """Its disk may be billed, and it may run again at any moment."""
    hotel.create(profile="profile.endless")
    hotel.provider.stopped, hotel.provider.billed = True, HALF
    hotel.manager.expire(apply=True)
    hotel.now += 80_000
    assert [one.action for one in hotel.manager.expire(apply=True).actions] == ["fund"]


TURNS = st.lists(
    st.tuples(st.integers(min_value=1, max_value=50), st.sampled_from([None, NOTHING, HALF])), min_size=1, max_size=300
)


@given(turns=TURNS)
def test_however_often_it_is_stopped_each_second_is_billed_once_and_the_record_stays_small(
    turns: list[tuple[int, Resources | None]],
) -> None:
    record: Sandbox = _blank()
    at = 1000
    due = {WHOLE: 0.0, NOTHING: 0.0, HALF: 0.0}
    for seconds, billed in turns:
        record = with_billed(record, billed, at=float(at))
        due[billed or WHOLE] += seconds
        at += seconds
    found = dict.fromkeys(due, 0.0)
    for resources, length in billed_spans(record, WHOLE, 1000.0, float(at)):
        assert length >= 0
        found[resources] += length
    assert found == due
    assert len(record.reduced_billing) <= MOST_SPANS + 2


def _blank() -> Sandbox:
    return msgspec.convert(
        {
            "id": "a" * 12,
            "request": {"profile": "profile.fake"},
            "profile": "profile.fake",
            "profile_version": "1",
            "extension": "ext.fake",
            "state": "ready",
            "consumer": {"actor": "adm", "name": "ops"},
            "host": None,
            "created_at": 1000.0,
            "ready_at": 1000.0,
        },
        Sandbox,
    )
