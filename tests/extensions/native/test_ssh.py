"""The same over a real sshd: the suite, and what only a remote host shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.extensions.native import NativeExtension
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.names import new_id
from sandboxer.testing.conformance import Bench as Suite
from sandboxer.testing.conformance import ConformanceSuite
from tests.extensions.native.sandboxes import Bench
from tests.extensions.native.test_conformance import DEVIATIONS
from tests.testbed.census import Census
from tests.testbed.components import need
from tests.testbed.sshd import Sshd
from tests.testbed.waiting import eventually


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    need("sshd", "rsync")
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def remote(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    work = tmp_path_factory.mktemp("remote") / "work"
    host = SshHost("remote", sshd.settings(work))
    yield Bench(work, host)
    host.close()


class TestNativeOverSsh(ConformanceSuite):
    deviations = DEVIATIONS

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Suite:
        work = tmp_path_factory.mktemp("native-ssh") / "work"
        return Suite(
            extension=NativeExtension,
            extension_id="ext.native",
            hosts=lambda: SshHost("remote", sshd.settings(work)),
            census=lambda: sorted(Census.take(dirs=[work], marks=[str(work)]).found),
            broken={"options": {"services": {"bad": {"command": ["sh", "-c", "exit 3"], "restart": "never"}}}},
        )


def test_ready_says_how_the_workspace_is_reached(remote: Bench, sshd: Sshd) -> None:
    with remote.box() as box:
        assert box.ready is not None
        reached = box.ready.reachability
        assert (reached.kind, reached.host, reached.port, reached.user) == ("ssh", sshd.host, sshd.port, sshd.user)
        assert reached.host_key == sshd.fingerprint
        assert reached.remote_dir is not None
        box.sh("echo from-inside >x")
        assert sshd.run("cat", f"{reached.remote_dir}/x").stdout == "from-inside\n"


def test_nothing_of_the_login_environment_is_inside(remote: Bench, sshd: Sshd) -> None:
    with remote.box(services={"a": {"command": ["sleep", "60"]}}, settle=0.05) as box:
        everyone = box.sh("for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ; echo; done")
        assert sshd.mark not in everyone
        assert "SSH_" not in everyone
        shown = box.sh("for p in /proc/[0-9]*; do for f in $p/fd/*; do readlink $f; done; done")
        assert str(remote.work) not in shown


def test_a_repository_travels_and_a_terminal_works(remote: Bench, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n[ -t 0 ] && echo terminal\n")
    (tmp_path / "run.sh").chmod(0o755)
    with remote.box(repo=tmp_path) as box:
        code, out, _ = box.run("./run.sh", tty=True)
        assert (code, out.strip()) == (0, b"terminal")


def test_a_stopped_sandbox_is_started_again(remote: Bench) -> None:
    with remote.box() as box:
        os.kill(box.recorded()["child"], signal.SIGKILL)
        eventually(lambda: box.presence() == "stopped", within=5, what="the end")
        assert box.sh("echo again") == "again"


_CREATE = """
import sys
from pathlib import Path
import msgspec
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.extensions.native.sandboxes import EXTENSION, Bench
host = SshHost("remote", msgspec.json.decode(sys.argv[1], type=HostSettings))
host.connect(Deadline(20))
bench = Bench(Path(host.work_dir(Deadline(20))), host)
print("go", flush=True)
EXTENSION.wait_ready(EXTENSION.provision(bench.spec(sys.argv[2]), bench.context()), bench.context())
"""


@pytest.mark.parametrize("after", [0.04, 0.08, 0.12, 0.2])
def test_a_creator_that_is_killed_leaves_only_what_can_be_found_and_removed(
    remote: Bench, sshd: Sshd, after: float
) -> None:
    import msgspec

    sandbox_id = new_id()
    words = [sys.executable, "-c", _CREATE, msgspec.json.encode(sshd.settings(remote.work)).decode(), sandbox_id]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as creator:
        assert creator.stdout is not None
        assert creator.stdout.readline() == b"go\n"
        time.sleep(after)
        creator.kill()
    remote.remove(sandbox_id)
    time.sleep(0.1)
    assert remote.census(sandbox_id) == []
