"""Keys, certificates and agents against a real server; never a password."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Denied
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.hosts.conftest import settings_for
from tests.testbed.sshd import Sshd

Opened = Callable[..., SshHost]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that trusts an authority for users."""
    with Sshd(tmp_path_factory.mktemp("users"), user_ca=True) as found:
        yield found


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An agent without keys: the environment that names it."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    from tests.testbed.waiting import eventually

    eventually(path.exists, within=60, what="the agent")
    yield {"SSH_AUTH_SOCK": str(path)}
    process.terminate()
    process.wait(5)


def locked_copy(key: Path, directory: Path) -> Path:
    copy = directory / "locked"
    copy.write_bytes(key.read_bytes())
    copy.chmod(0o600)
    copy.with_suffix(".pub").write_bytes(key.with_suffix(".pub").read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret words", "-f", copy], check=True)
    return copy


def enter(host: SshHost) -> None:
    assert host.run(["echo", "in"], Deadline(15)).text == "in"


def test_a_certificate_lets_in_by_its_file(server: Sshd, opened: Opened) -> None:
    identity = str(server.certificate_identity)
    settings = msgspec.structs.replace(settings_for(server), identity=identity, certificate=str(server.certificate))
    enter(opened("x", settings))


def test_a_certificate_beside_the_key_is_found(server: Sshd, opened: Opened) -> None:
    enter(opened("x", msgspec.structs.replace(settings_for(server), identity=str(server.certificate_identity))))


def test_a_certificate_by_ssh_config(server: Sshd, opened: Opened) -> None:
    enter(opened("testhost-cert", HostSettings(), ssh_config=server.ssh_config))


def test_a_key_with_a_passphrase_and_no_agent_says_what_to_type(server: Sshd, opened: Opened, tmp_path: Path) -> None:
    locked = locked_copy(server.identity, tmp_path)
    settings = msgspec.structs.replace(settings_for(server), identity=str(locked))
    with pytest.raises(Denied) as caught:
        opened("x", settings, SSH_AUTH_SOCK="").connect(Deadline(10))
    assert f"ssh-add {locked}" in caught.value.hint


def test_the_agent_opens_a_key_with_a_passphrase(
    server: Sshd, opened: Opened, tmp_path: Path, agent: dict[str, str]
) -> None:
    subprocess.run(["ssh-add", "-q", server.identity], env={**os.environ, **agent}, check=True)
    locked = locked_copy(server.identity, tmp_path)
    enter(opened("x", msgspec.structs.replace(settings_for(server), identity=str(locked)), **agent))


def test_the_agent_serves_a_certificate(server: Sshd, opened: Opened, tmp_path: Path, agent: dict[str, str]) -> None:
    assert server.certificate_identity
    assert server.certificate
    plain = tmp_path / "plain"
    plain.write_bytes(server.certificate_identity.read_bytes())
    plain.chmod(0o600)
    subprocess.run(["ssh-add", "-q", plain], env={**os.environ, **agent}, check=True)
    locked = locked_copy(server.certificate_identity, tmp_path)
    settings = msgspec.structs.replace(settings_for(server), identity=str(locked), certificate=str(server.certificate))
    enter(opened("x", settings, **agent))


def test_without_a_named_key_the_agents_keys_are_offered(
    server: Sshd, opened: Opened, tmp_path: Path, agent: dict[str, str]
) -> None:
    subprocess.run(["ssh-add", "-q", server.identity], env={**os.environ, **agent}, check=True)
    config = tmp_path / "config"
    config.write_text("Host *\n  IdentityFile /nowhere/at/all\n")
    enter(opened("x", msgspec.structs.replace(settings_for(server), identity=None), ssh_config=config, **agent))


def test_a_key_that_is_not_accepted_is_named(server: Sshd, opened: Opened, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "key"], check=True)
    settings = msgspec.structs.replace(settings_for(server), identity=str(tmp_path / "key"))
    with pytest.raises(Denied) as caught:
        opened("x", settings).connect(Deadline(10))
    assert str(tmp_path / "key") in caught.value.message
    assert "ssh -v" in caught.value.hint


@pytest.mark.parametrize("content", [None, b"", b"no key at all", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_a_key_that_is_none_is_named(server: Sshd, opened: Opened, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    settings = msgspec.structs.replace(settings_for(server), identity=str(path))
    with pytest.raises(Denied) as caught:
        opened("x", settings).connect(Deadline(10))
    assert str(path) in caught.value.hint


@pytest.mark.parametrize(("kind", "form"), [("rsa", "PEM"), ("rsa", "openssh"), ("ecdsa", "PEM"), ("ecdsa", "openssh")])
def test_keys_of_every_kind_and_form(server: Sshd, opened: Opened, tmp_path: Path, kind: str, form: str) -> None:
    key = tmp_path / "key"
    words = ["-m", "PEM"] if form == "PEM" else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *words, "-N", "", "-f", key], check=True)
    with (server.directory / "authorized_keys").open("a") as file:
        file.write(key.with_suffix(".pub").read_text())
    enter(opened("x", msgspec.structs.replace(settings_for(server), identity=str(key))))
