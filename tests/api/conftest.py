"""An installation with the fake backend, and the API over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Client

from sandboxer.bootstrap import Installation
from sandboxer.testing.fake import Faults
from tests.api.serving import Served, called, serving
from tests.installations import installed


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def here(tmp_path: Path, faults: Faults) -> Installation:
    return installed(tmp_path, faults)


@pytest.fixture
def api(here: Installation) -> Iterator[Client]:
    with called(here) as client:
        yield client


@pytest.fixture
def served(here: Installation) -> Iterator[Served]:
    with serving(here) as server:
        yield server


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Served]:
    with serving(installed(tmp_path, SANDBOXER_API_TOKEN="s3cret-token")) as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests of a module that leave nothing behind."""
    with serving(installed(tmp_path_factory.mktemp("shared"))) as server:
        yield server


@pytest.fixture(scope="module")
def shared_api(shared: Served) -> Iterator[Client]:
    with Client(base_url=f"http://127.0.0.1:{shared.port}", timeout=60) as client:
        yield client
