"""Each of the three clouds in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.extensions.provider.trial import Trial, daytona, e2b, modal
from tests.fakes.daytona import FakeDaytona
from tests.fakes.e2b import FakeE2B


@pytest.fixture(scope="module", params=["e2b", "daytona", "modal"])
def shared(request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A fake cloud and its adapter, for tests that do not disturb one another."""
    yield from _started(request.param)


@pytest.fixture(params=["e2b", "daytona", "modal"])
def trial(request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A fake cloud of the test's own, and its adapter."""
    yield from _started(request.param)


@pytest.fixture(params=["e2b", "daytona"])
def stoppable(request: pytest.FixtureRequest) -> Iterator[Trial]:
    """The same, of those whose sandboxes can be stopped."""
    yield from _started(request.param)


def _started(name: str) -> Iterator[Trial]:
    if name == "e2b":
        with FakeE2B() as fake:
            yield e2b(fake)
        return
    if name == "daytona":
        with FakeDaytona() as fake:
            yield daytona(fake)
        return
    pytest.importorskip("modal")
    from tests.fakes.modal import FakeModal

    with FakeModal() as fake:
        yield modal(fake)
