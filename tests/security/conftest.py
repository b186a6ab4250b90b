"""A real OpenBao for the tests that look for what leaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testbed.openbao import OpenBao


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One server; its policy `ci` may read `secret/ci/*`."""
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        server.policy("ci")
        yield server
