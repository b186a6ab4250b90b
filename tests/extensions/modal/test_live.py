"""The conformance suite at modal.com, with real credentials: opt in with SANDBOXER_LIVE=1. It costs some cents.

SANDBOXER_LIVE=1 MODAL_TOKEN_ID=... MODAL_TOKEN_SECRET=... pytest -m live tests/extensions/modal
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
            "ext.modal",
            tmp_path_factory.mktemp("live"),
            options={"max_life": "4h"},
            broken={"options": {"image": "no-such-image-of-sandboxer:1"}},
            met=[
                (Requirements(vcpu=3, memory_gib=4.5), ()),
                (
                    Requirements(network="none"),
                    ("sh", "-c", "! python3 -c 'import socket; socket.create_connection((\"1.1.1.1\", 53), 5)'"),
                ),
                (Requirements(gpu="T4"), ("sh", "-c", "ls /proc/driver/nvidia || ls /dev/nvidia0")),
            ],
            unmet=[Requirements(disk_gib=1)],
        )
