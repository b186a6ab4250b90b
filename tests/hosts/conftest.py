"""This machine, and a real sshd on it, as hosts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.models import HostSettings
from tests.testbed.sshd import Sshd


def settings_for(server: Sshd, *, port: int | None = None, host_key: str | None = None) -> HostSettings:
    """An entry of config.yaml for a server; through another port (a proxy's) its key is known all the same."""
    known_hosts = server.known_hosts
    if port is not None:
        known_hosts = server.directory / f"known_hosts_{port}"
        known_hosts.write_text(server.known_hosts.read_text().replace(f":{server.port}", f":{port}"))
    return msgspec.structs.replace(
        server.settings(), port=port or server.port, known_hosts=str(known_hosts), host_key=host_key
    )


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One server for all tests that do not need a special one."""
    # bash reads ~/.bashrc for commands by ssh unless it seems to be inside another shell; some take 100 ms
    with Sshd(tmp_path_factory.mktemp("sshd"), set_env={"SHLVL": "5"}) as server:
        yield server


@pytest.fixture(scope="session")
def remote(sshd: Sshd) -> Iterator[SshHost]:
    """A host by SSH."""
    host = SshHost("remote", settings_for(sshd))
    yield host
    host.close()


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest) -> Host:
    """Either kind of host: what is promised of one is promised of both."""
    if request.param == "local":
        return LocalHost("local", HostSettings())
    found: Host = request.getfixturevalue("remote")
    return found


@pytest.fixture
def opened() -> Iterator[Callable[..., SshHost]]:
    """Makes hosts that are closed after the test."""
    made: list[SshHost] = []

    def make(name: str, settings: HostSettings, *, ssh_config: Path | None = None, **environ: str) -> SshHost:
        import os

        host = SshHost(name, settings, ssh_config=ssh_config, environ={**os.environ, **environ} if environ else None)
        made.append(host)
        return host

    yield make
    for host in made:
        host.close()
