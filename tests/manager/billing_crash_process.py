"""One verb on a metered sandbox, in a process that dies at a given write: `money_victim.py STEP VERB ARGUMENT`.

Each write of sandboxes.json and of credits.json is two steps, before and after it. Prints how many a run takes."""

from __future__ import annotations

import dataclasses
import sys
from decimal import Decimal
from pathlib import Path

from sandboxer.bootstrap import install
from sandboxer.manager import SandboxManager
from sandboxer.models import Request
from sandboxer.payments.credits import Credits
from sandboxer.store.document import AtomicDocument, VersionStamp
from tests.crash.crash_points import Doom, MortalStore


class MortalDocument(AtomicDocument):
    """credits.json of a process that dies."""

    def __init__(self, path: Path, doom: Doom) -> None:
        super().__init__(path)
        self._doom = doom

    def replace(self, data: bytes, *, must_succeed: bool = False) -> VersionStamp | None:
        self._doom.step("before a write of credits.json")
        stamp = super().replace(data, must_succeed=must_succeed)
        self._doom.step("after a write of credits.json")
        return stamp


class ForgetfulPurse(Credits):
    """The planted fault: charges whenever it is asked, whether the sandbox has an open reservation or not."""

    def settle(self, sandbox_id: str, usd: Decimal, *, usage_id: str, overrun: Decimal = Decimal(0)) -> None:
        other = sandbox_id[::-1] + str(len(self._file().book.entries))
        self.release(sandbox_id)
        self.reserve(other, usd, consumer="adm:tester")
        super().settle(other, usd, usage_id=other, overrun=overrun)


def main(step: int, verb: str, argument: str, *, planted: bool) -> None:
    """Do it, or die."""
    doom = Doom(None if step < 0 else step)
    here = install(relay_in_background=False, store=lambda directory: MortalStore(directory, doom))
    core = here.manager.services
    ledger = (ForgetfulPurse if planted else Credits)(
        here.paths.data,
        here.settings.budgets,
        install=lambda: here.store.install_id,
        document=MortalDocument(here.paths.data / "credits.json", doom),
    )
    manager = SandboxManager(dataclasses.replace(core, credits=ledger))
    if verb == "create":
        manager.create(manager.plan(Request(profile=argument), base=Path.cwd()))
    elif verb == "destroy":
        manager.destroy(argument)
    elif verb == "extend-ttl":
        manager.extend_ttl(argument, 60)
    elif verb == "reconcile":
        manager.reconcile(apply=True, force=True, grace=0.0)
    elif verb == "expire":
        manager.expire(apply=True)
    sys.stdout.write(f"{doom.steps}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], planted="planted" in sys.argv[4:])
