"""Fake E2Bs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.e2b import FakeE2B


@pytest.fixture
def fake() -> Iterator[FakeE2B]:
    """A fake E2B of the test's own."""
    with FakeE2B() as cloud:
        yield cloud


@pytest.fixture
def e2b_cloud(fake: FakeE2B, monkeypatch: pytest.MonkeyPatch) -> FakeE2B:
    """The same with the environment set to it; what is left there is its `census()`."""
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    return fake


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeE2B]:
    """A fake E2B for tests that do not disturb one another."""
    with FakeE2B() as cloud:
        yield cloud
