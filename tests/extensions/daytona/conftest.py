"""Fake Daytonas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.daytona import FakeDaytona


@pytest.fixture
def daytona_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaytona]:
    """A fake Daytona of the test's own, with the environment set to it; what is left there is its `census()`."""
    with FakeDaytona() as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeDaytona]:
    """A fake Daytona for tests that do not disturb one another."""
    with FakeDaytona() as cloud:
        yield cloud
