"""What a command spends on its events: next to nothing, whatever the hub does (promise 21)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandboxer.events import start_relay_process
from sandboxer.events.relay_lock import RELAY_LOCK, acquire_relay_lock
from sandboxer.models import HubSettings
from sandboxer.store.json_store import JsonStore
from sandboxer.testing.hub import FakeHub, slow
from sandboxer.timing import Deadline
from tests.events.setting import A, eventually, record_fact, statuses, store_with

RELAY = """
import sys
from pathlib import Path
from sandboxer.events.relay import Relay
from sandboxer.models import HubSettings
from sandboxer.store.json_store import JsonStore
from sandboxer.timing import Deadline
data = Path(sys.argv[1])
Relay(JsonStore(data), HubSettings(url=sys.argv[2]), data).run(Deadline(5))
"""


def relay_program(data: Path, hub: FakeHub) -> list[str]:
    return [sys.executable, "-c", RELAY, str(data), hub.url]


def test_a_process_of_its_own_sends_what_waits(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    with FakeHub() as hub:
        assert start_relay_process(store, HubSettings(url=hub.url), tmp_path, relay_program(tmp_path, hub)) is not None
        assert eventually(lambda: statuses(store) == ["sent"], seconds=15)


def test_nothing_is_started_without_a_hub_or_an_event_or_beside_a_relay_at_work(tmp_path: Path) -> None:
    marker = tmp_path / "started"
    argv = ["touch", str(marker)]
    store, endpoint = JsonStore(tmp_path), HubSettings(url="http://127.0.0.1:9")
    assert start_relay_process(store, endpoint, tmp_path, argv) is None
    record_fact(store, A)
    assert start_relay_process(store, HubSettings(), tmp_path, argv) is None
    with acquire_relay_lock(tmp_path / RELAY_LOCK, Deadline(1)):
        assert start_relay_process(store, endpoint, tmp_path, argv) is None
    assert not marker.exists()
    assert start_relay_process(store, endpoint, tmp_path, argv) is not None
    assert eventually(marker.exists)


def test_it_never_fails_the_command(tmp_path: Path) -> None:
    store = store_with(tmp_path, [A])
    endpoint = HubSettings(url="http://127.0.0.1:9")
    assert start_relay_process(store, endpoint, tmp_path, ["/no/such/program"]) is None
    (tmp_path / "sandboxes.json").write_text("{ruined")
    assert start_relay_process(JsonStore(tmp_path), endpoint, tmp_path, ["true"]) is None


@pytest.mark.parametrize("state", ["down", "slow"])
def test_a_dead_hub_costs_a_command_less_than_50_ms(tmp_path: Path, state: str) -> None:
    """With 200 events waiting. The best of several is 1 to 3 ms; the bound has to hold on a busy machine."""
    store = store_with(tmp_path, [A] * 200)
    hub = FakeHub().start()
    hub.rule = lambda _: slow(30)
    if state == "down":
        hub.stop()
    costs = []
    try:
        for _ in range(9):
            start = time.perf_counter()
            start_relay_process(store, HubSettings(url=hub.url), tmp_path, relay_program(tmp_path, hub))
            costs.append(time.perf_counter() - start)
    finally:
        hub.stop()
    assert sorted(costs)[4] < 0.05
    assert min(costs) < 0.02


def test_a_command_imports_neither_http_nor_subprocess_for_it() -> None:
    heavy = {"h11", "httpx", "ssl", "subprocess", "email"}
    code = f"import sys, sandboxer.events; print(*[m for m in sys.modules if m in {heavy}])"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == []
