"""A fake Modal for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.modal import FakeModal


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeModal]:
    """A fake Modal in this process, whose state can be looked at."""
    with FakeModal() as fake:
        yield fake


@pytest.fixture
def clean(cloud: FakeModal) -> Iterator[FakeModal]:
    """The same without faults, before and after."""
    cloud.script.clear()
    yield cloud
    cloud.script.clear()
    cloud.latency = 0.0
    cloud.world.quota = cloud.world.gpus = None
    cloud.world.deduplicates, cloud.world.page = True, 100
