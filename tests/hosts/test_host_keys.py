"""Promise 25: host identity is enforced, shown against real servers: wrong keys are refused before any login."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Denied
from sandboxer.hosts.ssh import host_certificates
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.hosts.ssh.known_hosts import fingerprint
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.hosts.conftest import settings_for
from tests.testbed.sshd import Sshd

Opened = Callable[..., SshHost]


def keygen(*words: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *map(str, words)], check=True, capture_output=True)


def key_words(path: Path) -> str:
    return " ".join(path.read_text().split()[:2])


def refused(host: SshHost) -> Denied:
    with pytest.raises(Denied) as caught:
        host.connect(Deadline(10))
    return caught.value


def logins(server: Sshd) -> int:
    return server.log.read_text().count("Accepted")


def with_lines(server: Sshd, tmp_path: Path, *lines: str) -> HostSettings:
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"{line}\n" for line in lines))
    return msgspec.structs.replace(settings_for(server), known_hosts=str(file))


def test_an_unknown_key_is_refused_and_shown(sshd: Sshd, opened: Opened, tmp_path: Path) -> None:
    before = logins(sshd)
    error = refused(opened("x", with_lines(sshd, tmp_path)))
    assert "not known" in error.message
    assert sshd.fingerprint in error.message
    assert "host_key" in error.hint
    assert "ssh-keyscan" in error.hint
    assert logins(sshd) == before


def test_a_changed_key_is_refused(tmp_path: Path, opened: Opened) -> None:
    with Sshd(tmp_path / "sshd", wrong_host_key=True) as server:
        error = refused(opened("x", settings_for(server)))
        assert "has changed" in error.message
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in error.hint
        assert logins(server) == 0


def test_a_revoked_key_is_refused(sshd: Sshd, opened: Opened, tmp_path: Path) -> None:
    words = key_words(sshd.directory / "hostkey.pub")
    settings = with_lines(sshd, tmp_path, f"[{sshd.host}]:{sshd.port} {words}", f"@revoked * {words}")
    assert "revoked" in refused(opened("x", settings)).message


def test_a_server_without_the_known_kind_of_key_is_refused(sshd: Sshd, opened: Opened, tmp_path: Path) -> None:
    keygen("-t", "ecdsa", "-N", "", "-f", tmp_path / "ecdsa")
    line = f"[{sshd.host}]:{sshd.port} {key_words(tmp_path / 'ecdsa.pub')}"
    assert "no host key of the kinds" in refused(opened("x", with_lines(sshd, tmp_path, line))).message


def test_a_second_key_of_the_host_does_not_look_like_a_change(tmp_path: Path, opened: Opened) -> None:
    for kind in ("ecdsa", "rsa"):
        keygen("-t", kind, "-N", "", "-f", tmp_path / kind)
    with Sshd(tmp_path / "sshd", options=[f"HostKey {tmp_path / kind}" for kind in ("ecdsa", "rsa")]) as server:
        for kind in ("ecdsa", "rsa"):
            line = f"[{server.host}]:{server.port} {key_words(tmp_path / f'{kind}.pub')}"
            host = opened("x", with_lines(server, tmp_path, line))
            host.connect(Deadline(10))
        pinned = subprocess.run(
            ["ssh-keygen", "-lf", tmp_path / "rsa.pub"], check=True, capture_output=True, text=True
        ).stdout.split()[1]
        by_pin = opened("x", settings_for(server, host_key=pinned))
        by_pin.connect(Deadline(20))
        assert by_pin.address().host_key == pinned


def test_a_pinned_key_replaces_known_hosts(sshd: Sshd, opened: Opened, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(with_lines(sshd, tmp_path), host_key=sshd.fingerprint)
    host = opened("x", settings)
    host.connect(Deadline(10))
    assert host.address().host_key == sshd.fingerprint


def test_another_key_than_the_pinned_one_is_refused_although_it_is_known(sshd: Sshd, opened: Opened) -> None:
    before = logins(sshd)
    error = refused(opened("x", settings_for(sshd, host_key="SHA256:" + "A" * 43)))
    assert "not the one in config.yaml" in error.message
    assert sshd.fingerprint in error.message
    assert logins(sshd) == before


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that shows a certificate for 127.0.0.1, localhost and testhost."""
    with Sshd(tmp_path_factory.mktemp("certified"), host_ca=True) as server:
        yield server


def authority(server: Sshd, tmp_path: Path, *more: str, name: str = "hostca") -> HostSettings:
    words = key_words(server.directory / f"{name}.pub")
    return with_lines(server, tmp_path, f"@cert-authority 127.0.0.* {words}", *more)


def test_a_certificate_of_a_known_authority_is_accepted(certified: Sshd, opened: Opened, tmp_path: Path) -> None:
    host = opened("x", authority(certified, tmp_path))
    host.connect(Deadline(10))
    assert host.run(["echo", "in"], Deadline(10)).text == "in"
    assert host.address().host_key == certified.fingerprint


def test_a_certificate_of_another_authority_is_refused(certified: Sshd, opened: Opened, tmp_path: Path) -> None:
    keygen("-t", "ed25519", "-N", "", "-f", tmp_path / "ca")
    line = f"@cert-authority * {key_words(tmp_path / 'ca.pub')}"
    before = logins(certified)
    assert "authority" in refused(opened("x", with_lines(certified, tmp_path, line))).message
    assert logins(certified) == before


def test_a_revoked_authority_vouches_for_nobody(certified: Sshd, opened: Opened, tmp_path: Path) -> None:
    words = key_words(certified.directory / "hostca.pub")
    assert "known" in refused(opened("x", authority(certified, tmp_path, f"@revoked * {words}"))).message


def test_a_revoked_key_with_a_good_certificate_is_refused(certified: Sshd, opened: Opened, tmp_path: Path) -> None:
    words = key_words(certified.directory / "hostkey.pub")
    assert "revoked" in refused(opened("x", authority(certified, tmp_path, f"@revoked * {words}"))).message


@pytest.mark.parametrize(
    ("sign", "why"),
    [
        (["-h", "-n", "elsewhere", "-V", "-5m:+1d"], "elsewhere"),
        (["-h", "-n", "127.0.0.1", "-V", "-2d:-1d"], "not valid at this time"),
        (["-h", "-n", "127.0.0.1", "-V", "+1d:+2d"], "not valid at this time"),
        (["-n", "127.0.0.1", "-V", "-5m:+1d"], "not a host's"),
        (["-h", "-V", "-5m:+1d"], "no host"),
    ],
    ids=["another name", "expired", "not yet", "a user's", "no name"],
)
def test_a_certificate_that_does_not_fit_is_refused(tmp_path: Path, sign: list[str], why: str) -> None:
    for name in ("ca", "key"):
        keygen("-t", "ed25519", "-N", "", "-f", tmp_path / name)
    keygen("-s", tmp_path / "ca", "-I", "id", *sign, tmp_path / "key.pub")
    with pytest.raises(host_certificates.BadCertificateError, match=why):
        check(tmp_path)


def blob(path: Path) -> bytes:
    import base64

    return base64.b64decode(path.read_text().split()[1])


def check(directory: Path, *, data: bytes | None = None) -> host_certificates.HostCertificate:
    import time

    return host_certificates.check(
        data or blob(directory / "key-cert.pub"),
        name="127.0.0.1",
        authorities=[blob(directory / "ca.pub")],
        revoked=[],
        now=time.time(),
    )


@pytest.mark.parametrize(("kind", "ca"), [("ed25519", "rsa"), ("ecdsa", "ed25519"), ("rsa", "ecdsa")])
def test_every_kind_of_key_and_authority_is_checked(tmp_path: Path, kind: str, ca: str) -> None:
    keygen("-t", ca, "-N", "", "-f", tmp_path / "ca")
    keygen("-t", kind, "-N", "", "-f", tmp_path / "key")
    keygen("-s", tmp_path / "ca", "-I", "id", "-h", "-n", "*.0.0.1", tmp_path / "key.pub")
    found = check(tmp_path)
    assert found.key == blob(tmp_path / "key.pub")
    assert fingerprint(found.key).startswith("SHA256:")


def test_a_certificate_with_any_byte_changed_is_refused(tmp_path: Path) -> None:
    for name in ("ca", "key"):
        keygen("-t", "ed25519", "-N", "", "-f", tmp_path / name)
    keygen("-s", tmp_path / "ca", "-I", "id", "-h", "-n", "127.0.0.1", tmp_path / "key.pub")
    good = blob(tmp_path / "key-cert.pub")
    assert check(tmp_path, data=good).principals == ("127.0.0.1",)
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        with pytest.raises(host_certificates.BadCertificateError):
            check(tmp_path, data=bytes(bad))
    for length in range(len(good)):
        with pytest.raises(host_certificates.BadCertificateError):
            check(tmp_path, data=good[:length] or b"\0")


def test_critical_options_are_refused(tmp_path: Path) -> None:
    for name in ("ca", "key"):
        keygen("-t", "ed25519", "-N", "", "-f", tmp_path / name)
    keygen("-s", tmp_path / "ca", "-I", "id", "-h", "-n", "127.0.0.1", tmp_path / "key.pub")
    good = host_certificates.parse(blob(tmp_path / "key-cert.pub"))
    assert good.critical_options == b""
    # ssh-keygen writes none into host certificates, so the check is shown on a user's
    keygen(
        "-s", tmp_path / "ca", "-I", "id", "-n", "127.0.0.1", "-O", "force-command=true", tmp_path / "key.pub"
    )  # fmt: skip
    user = host_certificates.parse(blob(tmp_path / "key-cert.pub"))
    assert user.critical_options != b""
    assert replace(good, critical_options=user.critical_options) != good


def test_no_setting_turns_the_check_off() -> None:
    names = {field.name for field in msgspec.structs.fields(HostSettings)}
    assert not {name for name in names if "strict" in name or "insecure" in name or "verify" in name}
