"""The conformance suite at daytona.io, with real credentials: opt in with SANDBOXER_LIVE=1. It costs some cents.

SANDBOXER_LIVE=1 DAYTONA_API_KEY=... pytest -m live tests/extensions/daytona
"""

from __future__ import annotations

import pytest

from sandboxer.models import Requirements
from sandboxer.testing.conformance import Bench, ConformanceSuite
from tests.extensions.live import LIVE, live_bench


@LIVE
class TestLive(ConformanceSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        return live_bench(
            "ext.daytona",
            tmp_path_factory.mktemp("live"),
            options={"image": "docker.io/library/debian:13"},
            broken={"options": {"image": "docker.io/library/no-such-image-of-sandboxer:1"}},
            met=[(Requirements(vcpu=2, memory_gib=2, disk_gib=4), ()), (Requirements(network="none"), ())],
            unmet=[Requirements(gpu="T4"), Requirements(vcpu=5)],
        )
