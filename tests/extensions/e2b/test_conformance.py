"""The suite that every extension passes, on a fake E2B."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandboxer.extensions.e2b import E2BExtension
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings, Requirements
from sandboxer.testing.conformance import Bench, ConformanceSuite
from tests.extensions.e2b.harness import endpoints, secrets
from tests.extensions.e2b.specification import violations
from tests.extensions.live import LIVE, live_bench
from tests.fakes.e2b import FakeE2B


def bench_of(fake: FakeE2B) -> Bench:
    """The suite's bench on a fake."""
    return Bench(
        extension=E2BExtension,
        extension_id="ext.e2b",
        hosts=lambda: LocalHost("local", HostSettings()),
        census=fake.census,
        secrets=secrets(fake),
        endpoints=endpoints(fake),
        broken={"options": {"template": "no-such-template"}},
        met=[
            (Requirements(network="none"), ()),
            (Requirements(network="internet"), ()),
            (Requirements(vcpu=2, memory_gib=0.5), ()),
        ],
        unmet=[Requirements(gpu="T4"), Requirements(vcpu=2.5), Requirements(disk_gib=1)],
    )


class TestE2B(ConformanceSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls) -> Iterator[Bench]:
        with FakeE2B() as fake:
            yield bench_of(fake)
            assert violations(fake.requests) == [], "each request of the suite is one that E2B's specification knows"


class TestE2BOfAugust(ConformanceSuite):
    """A compatible server as of August: no /v2 for creates, no idempotency keys, an old envd."""

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls) -> Iterator[Bench]:
        with FakeE2B(second=False, idempotent=False, envd_version="0.3.9") as fake:
            yield bench_of(fake)
            assert violations(fake.requests) == []


@LIVE
class TestLive(ConformanceSuite):
    """On E2B itself."""

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        broken = {"options": {"template": "no-such-template"}}
        return live_bench("ext.e2b", tmp_path_factory.mktemp("live"), broken=broken)
