"""Native sandboxes whose programs are filtered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.extensions.native.sandboxes import Bench
from tests.extensions.native.seccomp.filtered import Desk
from tests.sizes import scaled

collect_ignore = scaled(1, soak=0) * ["test_heavy_programs.py"]
"""Its programs are hundreds of megabytes."""


@pytest.fixture(scope="module")
def desk(bench: Bench) -> Iterator[Desk]:
    with bench.box(python=True) as box:
        yield Desk(box)
