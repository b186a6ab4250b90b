"""An establishment that nobody wants any more ends its wait, and only that one."""

from __future__ import annotations

import threading
from pathlib import Path

from sandboxer.manager.cancellation import Cancellations
from sandboxer.state import State
from sandboxer.store.json_store import JsonStore
from sandboxer.timing import Deadline
from tests.store.records import ID, OTHER, put, sandbox
from tests.testbed.waiting import eventually


def watchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "sandboxer-watch"}


def test_one_thread_watches_all_and_ends_with_the_last(tmp_path: Path) -> None:
    """Promise 4: `destroy` of one that is being made does not wait for its deadline."""
    store = JsonStore(tmp_path)
    for sandbox_id in (ID, OTHER):
        store.update(sandbox_id, put(sandbox(sandbox_id, state=State.PROVISIONING)))
    before = watchers()
    watch, mine, other = Cancellations(store, poll=0.1), Deadline(600), Deadline(600)
    with watch.watch(OTHER, other):
        with watch.watch(ID, mine):
            (watcher,) = watchers() - before
            store.update(ID, put(sandbox(state=State.DESTROYING)))
            eventually(lambda: mine.passed, within=20, what="the wait of the unwanted one ends")
        assert not other.passed
        store.update(OTHER, put(sandbox(OTHER, state=State.READY)))
        eventually(lambda: other.passed, within=20, what="that of the other one ends")
    eventually(lambda: not watcher.is_alive(), within=20, what="nobody watches any more")


def test_what_has_ended_is_not_cancelled_afterwards(tmp_path: Path) -> None:
    store = JsonStore(tmp_path)
    watch, ended, other = Cancellations(store, poll=0.1), Deadline(600), Deadline(600)
    store.update(OTHER, put(sandbox(OTHER, state=State.PROVISIONING)))
    with watch.watch(OTHER, other):
        with watch.watch(ID, ended):
            pass
        store.update(OTHER, put(sandbox(OTHER, state=State.DESTROYING)))
        eventually(lambda: other.passed, within=20, what="it was looked")
    assert not ended.passed
