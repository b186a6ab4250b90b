"""A real OpenBao for the tests that look for what leaks, and native sandboxes here and over SSH for the attacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.models import HostSettings
from tests.extensions.native.sandboxes import Bench, Box
from tests.testbed.components import need
from tests.testbed.openbao import OpenBao
from tests.testbed.sshd import Sshd


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One server; its policy `ci` may read `secret/ci/*`."""
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        server.policy("ci")
        yield server


@pytest.fixture(scope="module", params=["here", "over ssh"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    work = tmp_path_factory.mktemp("native") / "work"
    if request.param == "here":
        yield Bench(work, LocalHost("local", HostSettings(work_dir=str(work))))
        return
    need("sshd")
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        host = SshHost("remote", sshd.settings(work))
        yield Bench(work, host)
        host.close()


@pytest.fixture(scope="module")
def box(bench: Bench) -> Iterator[Box]:
    """One sandbox for attacks that leave it as it is."""
    with bench.box(python=True) as made:
        yield made
