"""The conformance suite on ext.native, locally."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sandboxer.extensions.native import NativeExtension
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from sandboxer.testing.conformance import Bench, ConformanceSuite
from tests.testbed.census import Census

DEVIATIONS: Mapping[str, str] = {
    "test_a_timeout_kills_children_with_a_session_of_their_own": "what has left the command's session "
    "is a daemon of the sandbox, and ends with it"
}


class TestNative(ConformanceSuite):
    deviations = DEVIATIONS

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        work = tmp_path_factory.mktemp("native") / "work"
        settings = HostSettings(work_dir=str(work))
        return Bench(
            extension=NativeExtension,
            extension_id="ext.native",
            hosts=lambda: LocalHost("local", settings),
            census=lambda: sorted(Census.take(dirs=[work], marks=[str(work)]).found),
            broken={"options": {"services": {"bad": {"command": ["sh", "-c", "exit 3"], "restart": "never"}}}},
        )
