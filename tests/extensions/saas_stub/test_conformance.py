"""The conformance suite on ext.saas-stub, and on the fake that shares its directories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from sandboxer.extensions.saas_stub import SaasStubExtension
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings, Requirements
from sandboxer.testing.conformance import Bench, ConformanceSuite
from sandboxer.testing.fake import FakeExtension

_NO_BOUNDARY = {"test_two_sandboxes_do_not_see_each_other": "it isolates nothing, and says so: /tmp is the machine's"}


def _census(work: Path) -> list[str]:
    return sorted(str(path) for path in (*work.glob("*/*sbx-*"), *work.glob("*/snapshots/*")))


class TestSaasStub(ConformanceSuite):
    deviations: ClassVar[Mapping[str, str]] = _NO_BOUNDARY

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        work = tmp_path_factory.mktemp("stub") / "work"
        return Bench(
            extension=SaasStubExtension,
            extension_id="ext.saas-stub",
            hosts=lambda: LocalHost("local", HostSettings(work_dir=str(work))),
            census=lambda: _census(work),
            broken={"options": {"fails": "ready"}},
            met=[
                (Requirements(vcpu=4, memory_gib=8, disk_gib=20), ()),
                (Requirements(network="internet", vcpu=0.5), ()),
            ],
            unmet=[Requirements(network="none"), Requirements(vcpu=9), Requirements(memory_gib=33)],
        )


class TestFake(ConformanceSuite):
    deviations: ClassVar[Mapping[str, str]] = _NO_BOUNDARY

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        work = tmp_path_factory.mktemp("fake") / "work"
        return Bench(
            extension=FakeExtension,
            extension_id="ext.fake",
            hosts=lambda: LocalHost("local", HostSettings(work_dir=str(work))),
            census=lambda: _census(work),
        )
