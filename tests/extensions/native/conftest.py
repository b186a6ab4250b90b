"""Native sandboxes on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.extensions.native.sandboxes import Bench, Box, local_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return local_bench(tmp_path_factory.mktemp("native") / "work")


@pytest.fixture(scope="module")
def box(bench: Bench) -> Iterator[Box]:
    """One plain sandbox that the tests of a file share."""
    with bench.box() as made:
        yield made
