"""The conformance suite: what every extension must do, run by its author in about ten lines.

    class TestMine(ConformanceSuite):
        @pytest.fixture(scope="class")
        @classmethod
        def bench(cls, tmp_path_factory):
            yield Bench(extension=MyExtension, host=LocalHost("local", HostSettings(work_dir=...)), ...)

A deviation is named in `deviations` with its reason, by the name of the test; it is strict: one that heals fails.
The suite needs pytest; it is not imported by the program.
"""

from __future__ import annotations

from sandboxer.testing.conformance.bench import INSTALL, Bench, Made, make, remove
from sandboxer.testing.conformance.exec import TORTURE, ExecConformance
from sandboxer.testing.conformance.lifecycle import LifecycleConformance
from sandboxer.testing.conformance.providers import ProviderConformance
from sandboxer.testing.conformance.resources import ResourceConformance
from sandboxer.testing.conformance.snapshots import SnapshotConformance


class ConformanceSuite(
    LifecycleConformance, ExecConformance, SnapshotConformance, ResourceConformance, ProviderConformance
):
    """Subclass it as `Test...` and give a class-scoped fixture `bench`."""


__all__ = ["INSTALL", "TORTURE", "Bench", "ConformanceSuite", "Made", "make", "remove"]
