"""A private sshd on loopback: own keys, own certificates, own known_hosts, and nothing left when it is closed."""

import os
import pwd
import re
import shlex
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from sandboxer.models import HostSettings

from . import processes
from .components import have
from .waiting import eventually

CLIENT_OPTIONS = """\
  IdentitiesOnly yes
  IdentityAgent none
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ControlMaster no
  ControlPath none
  LogLevel ERROR
  ConnectTimeout 10
"""
SERVER_OPTIONS = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
PrintMotd no
PrintLastLog no
LogLevel VERBOSE
MaxStartups 100:30:200
MaxSessions 200
Subsystem sftp internal-sftp
"""
MARK = "TESTBED_SSHD"
# what belongs to containers or to the engine, not to the login that started it: the engine's own clean-up ends these
KEPT = frozenset({"conmon", "aardvark-dns", "catatonit", "docker-proxy", "netavark"})


class Sshd:
    """An sshd for the current user, running from construction to `close`.

    known_hosts   holds the line of the key that clients shall expect; `fingerprint` is that key's
    identity      a private key that is authorised by name
    ssh_config    has `alias`; with `user_ca` also `<alias>-cert` (a certificate; nothing else authorises its key);
                  with `host_ca` also `<alias>-ca` (knows the host by its CA only); with `jump` every alias goes through
                  that sshd
    wrong_host_key  serve another key than known_hosts says
    set_env       variables of every session (an engine's `env`, say)
    """

    host = "127.0.0.1"

    def __init__(
        self,
        directory: Path,
        *,
        alias: str = "testhost",
        set_env: Mapping[str, str] | None = None,
        user_ca: bool = False,
        host_ca: bool = False,
        wrong_host_key: bool = False,
        jump: "Sshd | None" = None,
        options: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.alias = alias
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.identity = directory / "user"
        self.certificate = directory / "causer-cert.pub" if user_ca else None
        self.certificate_identity = directory / "causer" if user_ca else None
        self.known_hosts = directory / "known_hosts"
        self.known_hosts_ca = directory / "known_hosts_ca" if host_ca else None
        self.ssh_config = directory / "ssh_config"
        self.log = directory / "sshd.log"
        self.jump = jump
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        directory.mkdir(parents=True, exist_ok=True)
        self._make_keys()
        served = self._key("otherkey") if wrong_host_key else directory / "hostkey"
        self.fingerprint = _fingerprint(directory / "hostkey.pub")
        self.port = 0
        self._process = self._start(served, set_env or {}, options)
        self._write_client_files()

    def settings(self, work: Path | None = None) -> HostSettings:
        """The entry of config.yaml for it, with `work` as its work directory."""
        return HostSettings(
            address=self.host,
            user=self.user,
            port=self.port,
            identity=str(self.identity),
            known_hosts=str(self.known_hosts),
            work_dir=None if work is None else str(work),
        )

    def words(self, *command: str, alias: str | None = None) -> list[str]:
        """The words that run a command over there with OpenSSH: `ssh` joins and the login shell splits them."""
        return ["ssh", "-F", str(self.ssh_config), alias or self.alias, *command]

    def run(
        self, *command: str, alias: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program over there, each word arriving as it is given here; what it printed and its exit code."""
        line = [] if not command else [shlex.join(command)]
        done = subprocess.run(
            self.words(*line, alias=alias),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def left_by_sessions(self) -> list[processes.Process]:
        """What sessions have started and left running: descendants, and whoever carries this sshd's mark."""
        family = {process.pid: process for process in processes.descendants(self._process.pid)}
        for process in processes.everyone():
            if process.pid != self._process.pid and process.mentions([self.mark]):
                family.setdefault(process.pid, process)
        return [process for process in family.values() if process.name not in KEPT]

    def close(self) -> None:
        """End the sshd and all that its sessions started, containers excepted. Twice is once."""
        if self._process.poll() is None:
            sessions = self.left_by_sessions()
            self._process.terminate()
            self._process.wait(10)
            processes.end(sessions)
        processes.end(self.left_by_sessions())  # those that came while we looked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _key(self, name: str) -> Path:
        path = self.directory / name
        if not path.exists():
            _keygen("-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        return path

    def _make_keys(self) -> None:
        public = self._key("user").with_suffix(".pub").read_text()
        self._key("hostkey")
        authorized = self.directory / "authorized_keys"
        authorized.write_text(public)
        authorized.chmod(0o600)
        if self.certificate:
            authority, mine = self._key("userca"), self._key("causer")
            _keygen("-s", str(authority), "-I", "testbed", "-n", self.user, "-V", "-5m:+1d", "-z", "1", f"{mine}.pub")
        if self.known_hosts_ca:
            authority, mine = self._key("hostca"), self._key("hostkey")
            names = f"{self.host},localhost,{self.alias}"
            _keygen("-s", str(authority), "-I", self.alias, "-h", "-n", names, "-V", "-5m:+1d", f"{mine}.pub")

    def _start(self, served: Path, set_env: Mapping[str, str], options: Sequence[str]) -> "subprocess.Popen[bytes]":
        sshd = have("sshd")
        if sshd is None:
            raise RuntimeError("sshd is missing: scripts/testbed/install")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        for _ in range(20):
            # nobody can hold a port for a daemon that binds it itself: whoever loses the race tries another
            with socket.socket() as probe:
                probe.bind((self.host, 0))
                self.port = probe.getsockname()[1]
            config.write_text(self._server_config(served, set_env, options))
            # setpriv: a test run that is killed takes its sshd along
            words = ["setpriv", "--pdeathsig", "TERM", sshd, "-D", "-f", str(config), "-E", str(self.log)]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                eventually(partial(self._settled, process), within=10, what="sshd to greet")
            except TimeoutError:
                process.kill()
                raise
            if process.poll() is None:
                return process
            if "in use" not in self.log.read_text():
                break
        raise RuntimeError(f"sshd did not start: {self.log.read_text()}")

    def _server_config(self, served: Path, set_env: Mapping[str, str], options: Sequence[str]) -> str:
        directory, lines = self.directory, [f"Port {self.port}", f"ListenAddress {self.host}", f"HostKey {served}"]
        lines += [f"PidFile {directory / 'sshd.pid'}", f"AuthorizedKeysFile {directory / 'authorized_keys'}"]
        if self.certificate:
            lines.append(f"TrustedUserCAKeys {directory / 'userca.pub'}")
        if self.known_hosts_ca:
            lines.append(f"HostCertificate {directory / 'hostkey-cert.pub'}")
        # one line: of several SetEnv lines sshd heeds the first only
        pairs = [*(f"{name}={value}" for name, value in set_env.items()), self.mark]
        lines.append("SetEnv " + " ".join(f'"{pair}"' for pair in pairs))
        # of most options sshd heeds the first line, of MaxStartups the last
        given = {option.split()[0] for option in options}
        defaults = [line for line in SERVER_OPTIONS.splitlines() if line.split()[0] not in given]
        return "\n".join([*options, *lines, *defaults, ""])

    def _settled(self, process: "subprocess.Popen[bytes]") -> bool:
        return process.poll() is not None or self._greets()

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _write_client_files(self) -> None:
        line = f"[{self.host}]:{self.port} {_public_key(self.directory / 'hostkey.pub')}\n"
        self.known_hosts.write_text(line)
        stanzas = [self._stanza(self.alias, self.identity, self.known_hosts)]
        if self.certificate and (key := self.certificate_identity):
            stanzas.append(self._stanza(f"{self.alias}-cert", key, self.known_hosts, self.certificate))
        if self.known_hosts_ca:
            authority = _public_key(self.directory / "hostca.pub")
            self.known_hosts_ca.write_text(f"@cert-authority [{self.host}]:{self.port} {authority}\n")
            stanzas.append(self._stanza(f"{self.alias}-ca", self.identity, self.known_hosts_ca))
        if self.jump:
            stanzas.append(self.jump.ssh_config.read_text())
        self.ssh_config.write_text("\n".join(stanzas))

    def _stanza(self, alias: str, identity: Path, known_hosts: Path, certificate: Path | None = None) -> str:
        lines = [f"Host {alias}", f"  HostName {self.host}", f"  Port {self.port}", f"  User {self.user}"]
        lines += [f"  IdentityFile {identity}", f"  UserKnownHostsFile {known_hosts}"]
        if certificate:
            lines.append(f"  CertificateFile {certificate}")
        if self.jump:
            lines.append(f"  ProxyJump {self.jump.alias}")
        return "\n".join(lines) + "\n" + CLIENT_OPTIONS


def _keygen(*words: str) -> str:
    return subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True, text=True).stdout


def _public_key(path: Path) -> str:
    return " ".join(path.read_text().split()[:2])


def _fingerprint(path: Path) -> str:
    found = re.search(r"SHA256:\S+", _keygen("-l", "-f", str(path)))
    assert found
    return found[0]
