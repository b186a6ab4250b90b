"""One verb in a process of its own that dies at a given step: `victim.py STEP VERB ARGUMENT` (STEP -1 never).

Prints the number of steps that a whole run takes."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from sandboxer.bootstrap import Installation, install
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.hosts.factory import open_host
from sandboxer.models import Request
from tests.crash.crash_points import Doom, MortalHost, MortalPurse, MortalSnapshots, MortalStore
from tests.crash.snapshot_sweep import restore


def main(step: int, verb: str, argument: str) -> None:
    """Do it, or die."""
    doom = Doom(None if step < 0 else step)
    here = install(
        relay_in_background=False,
        opener=lambda name, settings: MortalHost(open_host(name, settings), doom),
        store=lambda directory: MortalStore(directory, doom),
    )
    ledger = MortalPurse(here.paths.data, here.settings.budgets, install=lambda: here.store.install_id)
    ledger.doom = doom
    snapshots = MortalSnapshots(here.paths.data, install=lambda: here.store.install_id)
    snapshots.doom = doom
    here.manager.services = dataclasses.replace(here.manager.services, credits=ledger, snapshots=snapshots)
    _VERBS[verb](here, argument)
    sys.stdout.write(f"{doom.steps}\n")


def _create(here: Installation, argument: str) -> None:
    asked = json.loads(argument)
    here.manager.create(here.manager.plan(Request(**asked), base=Path.cwd()))


def _run(here: Installation, argument: str) -> None:
    plan = here.manager.plan(Request(**json.loads(argument)), base=Path.cwd())
    silent = Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)
    here.manager.run(plan, Exec(argv=("true",)), lambda _record: nullcontext(silent))


def _reconcile(here: Installation, _argument: str) -> None:
    here.manager.reconcile(apply=True, force=True)


def _expire(here: Installation, _argument: str) -> None:
    here.manager.expire(apply=True)


_VERBS = {
    "create": _create,
    "run": _run,
    "destroy": lambda here, argument: here.manager.destroy(argument),
    "recreate": lambda here, argument: here.manager.recreate(argument),
    "extend-ttl": lambda here, argument: here.manager.extend_ttl(argument, 60),
    "stop": lambda here, argument: here.manager.stop(argument),
    "start": lambda here, argument: here.manager.start(argument),
    "snapshot": lambda here, argument: here.manager.snapshot(argument),
    "restore": restore,
    "snapshots-delete": lambda here, argument: here.manager.delete_snapshot(argument),
    "expire": _expire,
    "reconcile": _reconcile,
}

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
