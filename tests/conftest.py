"""What every test runs under, however the run itself was started, and which tests may run beside which.

Workers of pytest-xdist share a machine. The tests of a file stay together on one worker, in their order, for the sake
of the fixtures that they share; those of SPREAD are spread, because each takes long. Tests on an engine stay with the
others on an engine of that kind, so that each kind is started once. What looks at, or changes, something that the whole
machine has only once, or measures times, is marked `alone` and runs beside nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

from tests.sizes import scaled
from tests.testbed import engine

SPREAD = ("tests/crash/", "tests/fuzz/")
"""Each test of these is by itself, and takes long."""
FIRST = (*SPREAD, "tests/security/", "tests/manager/", "tests/store/", "tests/extensions/native/test_other_users.py")
"""What takes long comes first, so that no worker is left with it at the end."""
SOAK_SECONDS = 3 * 3600
"""What a test in full size may take that says nothing else: 20,000 turns of a quarter of a second are 80 minutes."""
ENGINES = {"docker compose": "docker", "docker-compose": "docker", "podman-compose": "podman"}
"""The engine that a front end works with."""

# an example that takes long says something about the machine: what a test promises about time, it measures itself
settings.register_profile(
    "busy_machine", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy_machine")


def pytest_configure() -> None:
    """Commands ignore what was ignored when they were started (`nohup`); the ones of the tests shall not."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts engines, tell each test its group, and put first what takes longest."""
    for item in items:
        if "engines" in _fixtures(item):
            item.add_marker("engines")
        if scaled(0, soak=1) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SOAK_SECONDS))
        if (group := _group(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: next((n for n, path in enumerate(FIRST) if item.nodeid.startswith(path)), len(FIRST)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """An engine is started by a test that says so only: the others run where there is none."""
    engine.permitted = item.get_closest_marker("engines") is not None


def _group(item: pytest.Item) -> str | None:
    if item.get_closest_marker("xdist_group") is not None:
        return None
    if item.get_closest_marker("engines") is not None:
        return _engine(item)
    return None if item.nodeid.startswith(SPREAD) else item.nodeid.partition("::")[0]


def _engine(item: pytest.Item) -> str:
    """The engine of a test: that of its front end, or of the fixture that it names."""
    values = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    for value in values:
        if isinstance(value, str) and value in ENGINES:
            return ENGINES[value]
    return "docker" if "docker" in _fixtures(item) else "podman"


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else ()
