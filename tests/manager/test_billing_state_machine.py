"""The stateful property test of the verbs, on a metered backend: at any moment the book is what the records say.

Promise 19, with errors, interrupts and deaths of the process at any step, those of credits.json among them."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from sandboxer.extensions.base import Context, Status
from sandboxer.manager import SandboxManager
from sandboxer.models import Handle, Resources
from sandboxer.payments.credits import Credits
from sandboxer.payments.prices import from_micro
from sandboxer.state import State
from sandboxer.store.document import AtomicDocument, VersionStamp
from sandboxer.testing.fake import FakeExtension
from tests.manager.metered import MANIFEST, PROFILE, MeteredFake, book
from tests.manager.test_state_machine import SIZE, Life, Machine, StoppableFake, _real_time
from tests.sizes import scaled


class MortalDocument(AtomicDocument):
    """credits.json of a process that can die before or after each write of it."""

    def __init__(self, path: Path, life: Life) -> None:
        super().__init__(path)
        self._life = life

    def replace(self, data: bytes, *, must_succeed: bool = False) -> VersionStamp | None:
        self._life.step()
        stamp = super().replace(data, must_succeed=must_succeed)
        self._life.step()
        return stamp


class MeteredStoppableFake(StoppableFake, MeteredFake):
    """One that bills for nothing while a sandbox is stopped."""

    def status(self, handle: Handle, ctx: Context) -> Status:
        shown = super().status(handle, ctx)
        return msgspec.structs.replace(shown, billed=Resources()) if shown.presence == "stopped" else shown


class MeteredMachine(Machine):
    """Verbs in any order on sandboxes that cost something."""

    extension: ClassVar[type[FakeExtension]] = MeteredStoppableFake
    purse_class: ClassVar[type[Credits]] = Credits

    def _restart(self) -> None:
        super()._restart()
        (self.root / "config" / "extensions" / "ext.fake.yaml").write_text(MANIFEST)
        (self.root / "config" / "profiles" / "profile.fake.yaml").write_text(PROFILE)
        core = self.manager.services
        ledger = self.purse_class(
            self.root / "data",
            {},
            install=lambda: core.store.install_id,
            clock=lambda: _real_time() + self.ahead,
            document=MortalDocument(self.root / "data" / "credits.json", self.life),
        )
        self.manager = SandboxManager(dataclasses.replace(core, credits=ledger))
        if not ledger.path.exists():
            ledger.add(Decimal(1000))

    @invariant()
    def nobody_was_charged_for_more_than_was_used(self) -> None:
        """What is booked is a part of what the records say; the rest is still open."""
        found = book(self.root)
        used = {
            record.id: Decimal(record.usage.actual_usd)
            for record in self.manager.list(ended=True)
            if record.usage is not None
        }
        charged = [entry for entry in found.entries if entry.kind == "settle"]
        assert len({entry.sandbox_id for entry in charged}) == len(charged), "somebody was charged twice"
        for entry in charged:
            spent = sum(posting.micro_usd for posting in entry.postings if posting.account == "spent")
            assert from_micro(spent) == used[entry.sandbox_id]
        for sandbox_id in found.reservations:
            record = self.manager.services.store.get(sandbox_id)
            assert record is None or record.usage is None or sandbox_id not in {e.sandbox_id for e in charged}

    def _settle(self) -> None:
        super()._settle()
        self.manager.expire(apply=True)
        found = book(self.root)
        records = self.manager.list(ended=True)
        used = sum((Decimal(record.usage.actual_usd) for record in records if record.usage is not None), Decimal(0))
        assert from_micro(found.accounts.spent) == used
        # what never was ready and is gone holds nothing; what lives, or may, holds what its record says at least
        alive = {r.id for r in records if r.state != State.DESTROYED and not (r.state == State.FAILED and r.clean)}
        assert set(found.reservations) == alive


def test_the_book_is_what_the_records_say_whatever_happens_when() -> None:
    """Promises 18, 19, 20."""
    run_state_machine_as_test(MeteredMachine, settings=settings(SIZE, max_examples=scaled(80, soak=10_000)))


class _ChargesWhoeverAsks(Credits):
    """Settles whether there is an open reservation or not."""

    def settle(self, sandbox_id: str, usd: Decimal, *, usage_id: str, overrun: Decimal = Decimal(0)) -> None:
        if self.reserved(sandbox_id) is not None:
            super().settle(sandbox_id, usd, usage_id=usage_id, overrun=overrun)
            return
        again = f"{sandbox_id}-{len(self._file().book.entries)}"
        self.reserve(again, usd, consumer="adm:tester")
        super().settle(again, usd, usage_id=usage_id + again, overrun=overrun)


class _NeverGivesBack(Credits):
    """Forgets what was reserved for a create that failed."""

    def release(self, sandbox_id: str) -> None:
        return


@pytest.mark.parametrize("planted", [_ChargesWhoeverAsks, _NeverGivesBack])
def test_the_machine_sees_a_book_that_is_wrong(planted: type[Credits]) -> None:
    class Planted(MeteredMachine):
        purse_class = planted

    quick = settings(SIZE, max_examples=200, report_multiple_bugs=False, phases=[Phase.generate])
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Planted, settings=quick)
