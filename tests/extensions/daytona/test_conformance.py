"""The suite that every extension passes, on a fake Daytona."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings, Requirements
from sandboxer.testing.conformance import Bench, ConformanceSuite
from tests.extensions.daytona.harness import endpoints, secrets
from tests.fakes.daytona import FakeDaytona

IMAGE = "docker.io/library/debian:13"


def bench_of(fake: FakeDaytona, *, gpu: bool = True) -> Bench:
    """The suite's bench on a fake."""
    return Bench(
        extension=DaytonaExtension,
        extension_id="ext.daytona",
        hosts=lambda: LocalHost("local", HostSettings()),
        census=fake.census,
        secrets=secrets(fake),
        endpoints=endpoints(fake),
        options={"image": IMAGE},
        broken={"options": {"image": "docker.io/library/broken:1"}},
        met=[
            (Requirements(network="none"), ()),
            (Requirements(network="internet"), ()),
            (Requirements(vcpu=1.5, memory_gib=2, disk_gib=4), ()),
            *([(Requirements(gpu="H100"), ())] if gpu else []),
        ],
        unmet=[Requirements(gpu="what?"), Requirements(gpu="T4"), Requirements(vcpu=5), Requirements(disk_gib=11)],
    )


DEVIATIONS = {
    "test_opening_an_output_by_its_name_loses_nothing_of_it": "its toolbox has no streams: outputs are files "
    "there, which `>/dev/stdout` empties; `>>/dev/stdout` does not"
}


class TestDaytona(ConformanceSuite):
    """Where each change takes a moment, as it does at Daytona."""

    deviations = DEVIATIONS

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls) -> Iterator[Bench]:
        with FakeDaytona(create_seconds=0.1, change_seconds=0.1) as fake:
            yield bench_of(fake)


class TestDaytonaOfJune(ConformanceSuite):
    """The open server, 0.190: no timer of its own, fewer fields, an older toolbox, a plain shell."""

    deviations = DEVIATIONS

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls) -> Iterator[Bench]:
        with FakeDaytona(release="0.190", runs="sh") as fake:
            # it does not show which model a sandbox got
            yield bench_of(fake, gpu=False)
