"""Killing `snapshot`, `restore` and the deletion of a snapshot at each of their steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from sandboxer.bootstrap import Installation, install
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager.snapshots.kept_streams import chunk_store
from sandboxer.manager.snapshots.restore import RestoreRequest
from sandboxer.models import Consumer, Sandbox
from sandboxer.state import State
from tests.crash.sweep import Sweep, chosen


class SnapshotSweep(Sweep):
    """What is left of snapshots, besides what is left of sandboxes."""

    def kills_of_snapshot(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """After `reconcile` there is a whole snapshot or nothing of it, and the sandbox is as it was."""
        box = self._filled()
        total = self.steps_of("snapshot", box)
        self.forget()
        for step in chosen(total, check):
            dead = self.victim(step, "snapshot", box)
            assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
            wrong = self.settle() + self.flaws() + self.forget()
            if [record.state for record in self.records()] != [State.READY]:
                wrong.append("the sandbox is not as it was")
            yield where(dead.stderr), wrong

    def kills_of_delete(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """It is there and whole, where the death came before the wish, or nothing of it is left."""
        box = self._filled()
        total = self.steps_of("snapshots-delete", self._taken(box))
        for step in chosen(total, check):
            snapshot = self._taken(box)
            dead = self.victim(step, "snapshots-delete", snapshot)
            assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
            wrong = self.settle() + self.flaws()
            left = [one.id for one in self._here().manager.snapshots()]
            if left and step > 0:
                wrong.append(f"{left} are still there")
            yield where(dead.stderr), wrong + self.forget()

    def kills_of_restore(self, *, check: int) -> Iterator[tuple[str, list[str]]]:
        """As those of a create; the snapshot stays whole, and can be deleted."""
        snapshot = self._taken(self._filled())
        total = self.steps_of("restore", snapshot)
        self.clear()
        for step in chosen(total, check):
            dead = self.victim(step, "restore", snapshot)
            assert dead.returncode == -signal.SIGKILL, (dead.returncode, dead.stderr)
            wrong = self.settle() + self.flaws()
            if not any(record.state == State.READY for record in self.records()):
                wrong += self.remains("after reconcile")
            self.clear()
            yield where(dead.stderr), wrong + self.remains("after destroy")
        assert self.forget() == []

    def flaws(self) -> list[str]:
        """What is not as it should be of the snapshots: every one whole, restorable and told, and nothing besides."""
        here = self._here()
        services, wrong = here.manager.services, list[str]()
        known = services.snapshots.all()
        wrong += [f"{one.id} is {one.state}" for one in known if one.state != "kept"]
        wrong += [f"{one.id} is not told" for one in known if one.untold]
        whole = [one for one in known if one.state == "kept"]
        wrong += [f"{one.id} is damaged" for one in whole if not here.manager.verify_snapshot(one.id).ok]
        told = {event.event_id: event for event in here.manager.events() if event.event_type == "snapshot.created"}
        created = {str(event.detail["snapshot_id"]) for event in told.values()}
        wrong += [f"{one.id} is not among the events" for one in known if one.id not in created]
        kept = {name for consumer in self._consumers() for name in chunk_store(services, consumer).snapshots()}
        wrong += [f"{name} has files and no record" for name in kept - {one.id for one in known}]
        here.close()
        return wrong

    def forget(self) -> list[str]:
        """Delete every snapshot; what of them is left then."""
        here = self._here()
        for one in here.manager.snapshots():
            here.manager.delete_snapshot(one.id)
        stores = [chunk_store(here.manager.services, consumer) for consumer in self._consumers()]
        left = [f"{store.used_bytes()} bytes are left" for store in stores if store.used_bytes()]
        left += [f"{one.id} is left" for one in here.manager.services.snapshots.all()]
        here.close()
        return left

    def _consumers(self) -> list[Consumer]:
        return list({record.consumer.name: record.consumer for record in self.records(ended=True)}.values())

    def _here(self) -> Installation:
        return install(self._environment, relay_in_background=False)

    def _filled(self) -> str:
        """A sandbox with more files than one chunk holds."""
        box = self._ready()
        here = self._here()
        nothing = Streams(stdin=None, stdout=lambda _chunk: None, stderr=lambda _chunk: None)
        fill = "head -c 400000 /dev/urandom > big; for n in 1 2 3 4 5; do echo $n > f$n; done"
        assert here.manager.exec(box, Exec(argv=("sh", "-c", fill)), nothing) == 0
        here.close()
        return box

    def _taken(self, box: str) -> str:
        here = self._here()
        taken = here.manager.snapshot(box)
        here.close()
        return taken.id


def where(said: str) -> str:
    """Where a victim was struck."""
    return said.strip().splitlines()[-1]


def restore(here: Installation, snapshot: str) -> Sandbox:
    """The verb, as a door carries it out."""
    found = here.manager.restore_request(snapshot, RestoreRequest())
    return here.manager.create(here.manager.plan(found.request, actor=found.actor))
