"""What a run costs: one durable write less than its three verbs, and as many looks at its host: it promises as much."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from sandboxer.bootstrap import Installation, install
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.hosts.factory import open_host
from sandboxer.models import Request
from tests.crash.crash_points import Doom, MortalHost, MortalStore
from tests.installations import environment, lay_out

TRUE = Exec(argv=("true",))


class Steps(Doom):
    """Counts what is done to the world, and kills nobody."""

    def __init__(self) -> None:
        super().__init__(None)
        self.seen: Counter[str] = Counter()

    def step(self, what: str) -> None:
        super().step(what)
        if what.startswith("before"):
            self.seen[what.removeprefix("before ").split("/sbx-")[0]] += 1


@contextmanager
def counting(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Installation, Steps]]:
    """An installation whose writes and calls are counted, flushes to the disk among them."""
    lay_out(root)
    steps, flush = Steps(), os.fsync

    def counted(descriptor: int) -> None:
        steps.step("before a flush")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    here = install(
        environment(root),
        relay_in_background=False,
        opener=lambda name, settings: MortalHost(open_host(name, settings), steps),
        store=lambda directory: MortalStore(directory, steps),
    )
    by_three_verbs(here)  # what is learned once for a while, and made once
    steps.seen.clear()
    try:
        yield here, steps
    finally:
        here.close()


def silent() -> Streams:
    return Streams(stdout=lambda _chunk: None, stderr=lambda _chunk: None)


def by_three_verbs(here: Installation) -> None:
    record = here.manager.create(here.manager.plan(Request(profile="profile.native")))
    here.manager.exec(record.id, TRUE, silent())
    here.manager.destroy(record.id)


def by_one(here: Installation) -> None:
    here.manager.run(here.manager.plan(Request(profile="profile.native")), TRUE, lambda _record: nullcontext(silent()))


def test_a_run_writes_once_less_and_looks_as_often_as_create_exec_and_destroy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def costs(name: str, do: Callable[[Installation], None]) -> Counter[str]:
        with counting(tmp_path / name, monkeypatch) as (here, steps):
            do(here)
            return Counter({what.replace(str(tmp_path / name), ""): n for what, n in steps.seen.items()})

    three, one = costs("three", by_three_verbs), costs("one", by_one)
    # provisioning, what there is to remember, ready, active, destroying, destroyed: each a file and its directory
    assert (three["a store write"], three["a flush"]) == (6, 12)
    # the command follows at once: `active` is in the write of `ready`
    assert (one["a store write"], one["a flush"]) == (5, 10)
    writes = {"a store write", "a flush"}
    assert {what: n for what, n in one.items() if what not in writes} == {
        what: n for what, n in three.items() if what not in writes
    }


def test_a_run_tells_the_same_facts_as_its_three_verbs(tmp_path: Path) -> None:
    def told(root: Path, do: Callable[[Installation], None]) -> list[tuple[str, int]]:
        lay_out(root)
        here = install(environment(root), relay_in_background=False)
        do(here)
        found = [(event.event_type, event.detail["seq"]) for event in here.manager.events(limit=20)]
        here.close()
        return found

    assert told(tmp_path / "one", by_one) == told(tmp_path / "three", by_three_verbs)
