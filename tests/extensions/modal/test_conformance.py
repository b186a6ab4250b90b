"""The conformance suite on ext.modal, against the fake: with and without a GPU (V1 and V2 at Modal)."""

from __future__ import annotations

import pytest

from sandboxer.testing.conformance import Bench, ConformanceSuite
from tests.extensions.modal.harness import bench as modal_bench
from tests.fakes.modal import FakeModal


class TestModal(ConformanceSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, cloud: FakeModal) -> Bench:
        return modal_bench(cloud)


class TestModalWithGpu(ConformanceSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, cloud: FakeModal) -> Bench:
        return modal_bench(cloud, gpu="T4")
