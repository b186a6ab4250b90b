"""What `ssh-config` says, used by the real ssh, scp, sftp and rsync: they land inside, and nowhere else."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.installations import lay_out
from tests.testbed.components import need
from tests.testbed.hosts import ComposeHost, Kind, engine_for, need_kind
from tests.testbed.processes import MARK, everyone
from tests.testbed.repositories import minimal, with_programs
from tests.testbed.waiting import eventually

LONG = 120.0
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
PROFILE = """\
id: profile.plain
version: 1.0.0
extension: ext.compose-ssh
ttl: {default: 1h}
inputs:
  repo: {type: path, required: true}
"""


class Inside:
    """A sandbox, and an SSH client that knows it by what `ssh-config` printed."""

    def __init__(self, sandboxer: Command, sandbox_id: str) -> None:
        self.sandboxer, self.id, self.name = sandboxer, sandbox_id, f"sbx-{sandbox_id}"
        self.config = sandboxer.root / f"{sandbox_id}.conf"
        said = sandboxer("ssh-config", sandbox_id)
        assert said.status == 0, said
        self.config.write_text(said.stdout)

    def words(self, *options: str, to: str | None = None, program: str = "ssh") -> list[str]:
        """The words of a client."""
        return [
            program,
            "-F",
            str(self.config),
            "-o",
            "BatchMode=yes",
            *options,
            *([] if to == "" else [to or self.name]),
        ]

    def run(self, *words: str, stdin: bytes | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a client to its end. It is started where a sandbox might have put a `sandboxer` of its own."""
        done = subprocess.run(
            words, input=stdin or b"", capture_output=True, timeout=LONG, check=False, cwd=cwd or self.sandboxer.root
        )
        return subprocess.CompletedProcess(
            words, done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode()
        )

    def ssh(
        self, *command: str, options: tuple[str, ...] = (), to: str | None = None, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command by it."""
        return self.run(*self.words(*options, to=to), *command, stdin=stdin)

    def state(self) -> str:
        """The state of the sandbox."""
        return str(self.sandboxer("get", self.id, "--json").document["state"])


def created(sandboxer: Command, *words: str) -> Inside:
    made = sandboxer("create", *words, "--json", seconds=LONG)
    assert made.status == 0, made.stdout
    return Inside(sandboxer, made.document["id"])


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    need("sshd", "rsync")
    sandboxer = Command(tmp_path_factory.mktemp("native"))
    made = created(sandboxer, "--profile", "profile.native", "--name", "box")
    yield made
    assert sandboxer("destroy", made.id, seconds=LONG).status == 0


@pytest.fixture(scope="module", params=["podman-compose", "docker compose"])
def compose(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A stack on a host over SSH, whose image has what scp and rsync need inside."""
    kind: Kind = request.param
    need_kind(kind)
    root = tmp_path_factory.mktemp("compose")
    with engine_for(kind)() as engine, ComposeHost(root / "host", kind, engine) as host:
        engine.build_base()
        lay_out(root, config=json.dumps({"hosts": {host.name: {**host.config, "compose": host.compose}}}))
        (root / "config" / "profiles" / "profile.plain.yaml").write_text(PROFILE)
        sandboxer = Command(root)
        rsync = need_program("rsync")
        repository = with_programs(root / "repository", SFTP_SERVER, rsync)
        made = created(sandboxer, "--profile", "profile.plain", "--input", f"repo={repository}", "--host", host.name)
        yield made
        assert sandboxer("destroy", made.id, seconds=LONG).status == 0


def need_program(name: str) -> str:
    found = subprocess.run(["sh", "-c", f"command -v {name}"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def all_ways_in(inside: Inside, folder: Path) -> None:
    """Words, streams and codes by ssh; files with odd names there and back by scp, sftp and rsync."""
    data = os.urandom(1_000_000)
    done = inside.ssh("cat >&2; echo out; exit 7", stdin=b"through\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "through\n")
    tree = folder / "tree"
    (tree / "sub dir").mkdir(parents=True)
    for name in ("plain", "a b", "$(id)", "-x", "sub dir/quo'te"):
        (tree / name).write_bytes(name.encode() + data)
    (tree / "link").symlink_to("plain")
    for number, there in enumerate(
        (
            inside.words("-r", "tree", f"{inside.name}:by-scp", program="scp", to=""),
            ["rsync", "-a", "-e", shlex.join(inside.words(to="")), "tree/", f"{inside.name}:by-rsync/"],
        )
    ):
        done = inside.run(*there, cwd=folder)
        assert done.returncode == 0, done
        back = folder / f"back-{number}"
        name = ("by-scp", "by-rsync")[number]
        done = inside.run("rsync", "-a", "-e", shlex.join(inside.words(to="")), f"{inside.name}:{name}/", f"{back}/")
        assert done.returncode == 0, done
        for path in tree.rglob("*"):
            if path.is_file():
                assert (back / path.relative_to(tree)).read_bytes() == path.read_bytes()
    assert (folder / "back-1" / "link").readlink() == Path("plain")
    batch = b'put "tree/a b" uploaded\nget uploaded "down loaded"\nls -l\n'
    done = inside.run(*inside.words("-b", "-", program="sftp"), stdin=batch, cwd=folder)
    assert done.returncode == 0, done
    assert (folder / "down loaded").read_bytes() == b"a b" + data


class Typist:
    """Somebody at a terminal."""

    def __init__(self, words: list[str], *, size: tuple[int, int], env: dict[str, str] | None = None) -> None:
        self.master, slave = os.openpty()
        self.resize(*size, tell=False)
        self.process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=env)
        os.close(slave)
        self.seen = b""

    def resize(self, columns: int, rows: int, *, tell: bool = True) -> None:
        """Make the window so large."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def wait_for(self, pattern: str) -> re.Match[bytes]:
        """Read on until this has come."""
        os.set_blocking(self.master, False)

        def look() -> re.Match[bytes] | None:
            with contextlib.suppress(OSError):  # nothing yet; or ssh has gone
                self.seen += os.read(self.master, 65536)
            return re.search(pattern.encode(), self.seen)

        found = eventually(look, within=LONG, what=f"{pattern} on the terminal, which shows {self.seen!r}")
        assert found is not None
        self.seen = self.seen[found.end() :]
        return found

    def close(self) -> None:
        """Walk away."""
        self.process.kill()
        self.process.wait(LONG)
        os.close(self.master)


def types_at_a_terminal(words: list[str], *, env: dict[str, str] | None = None) -> None:
    """A shell with a prompt and a name for its terminal; the window's size follows, and Ctrl-C ends what runs only."""
    typist = Typist(words, size=(91, 31), env=env)
    try:
        typist.type("echo ready$((40+2))\n")
        typist.wait_for("ready42")
        typist.type("stty size\n")
        typist.wait_for(r"31 91\s")
        typist.resize(101, 41)

        def size_arrives() -> bool:
            typist.type("echo is $(stty size) now\n")
            return typist.wait_for(r"is (\d+ \d+) now").group(1) == b"41 101"

        eventually(size_arrives, within=LONG, what="the new size of the window")
        typist.type(f"sleep {MARK}11\n")
        eventually(lambda: sleeping("11"), within=LONG, what="the sleep")
        typist.type("\x03")
        eventually(lambda: not sleeping("11"), within=LONG, what="the end of the sleep")
        typist.type("exit 6\n")
        assert typist.process.wait(LONG) == 6
    finally:
        typist.close()


def gone(command: str) -> bool:
    """Whether nothing on this machine, inside sandboxes too, has this command line."""
    return not any(command == process.command.strip() for process in everyone())


def sleeping(number: str) -> bool:
    """Whether a program that sleeps for so long is there."""
    return not gone(f"sleep {MARK}{number}")


def a_killed_client_ends_what_it_ran(inside: Inside, *victims: str) -> None:
    """Whether the client is killed, or what it had started; and both are gone afterwards."""
    for number, victim in zip(("21", "22"), victims, strict=False):
        program = f"sleep {MARK}{number}"
        client = subprocess.Popen([*inside.words(), program], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        eventually(partial(sleeping, number), within=LONG, what="the program")
        assert inside.state() == "active"
        servers = [one for one in everyone() if "_ssh-proxy" in one.command and inside.id in one.command]
        assert len(servers) == 1
        os.kill(client.pid if victim == "client" else servers[0].pid, signal.SIGKILL)
        client.communicate(timeout=LONG)
        eventually(partial(gone, program), within=LONG, what=f"the end of the program ({victim} killed)")
        eventually(partial(gone, servers[0].command), within=LONG, what="the end of the server")
    eventually(lambda: inside.state() == "ready", within=LONG, what="the end of the lease")


def test_everything_lands_inside_a_native_sandbox(native: Inside, tmp_path: Path) -> None:
    done = native.ssh("pwd; id -un; hostname", to="sbx-box")
    assert done.stdout.splitlines()[:2] == ["/workspace", "sandbox"]
    all_ways_in(native, tmp_path)
    assert (
        native.ssh("test -e /etc/shadow; echo $?").stdout,
        native.ssh(f"ls {native.sandboxer.root}").returncode,
    ) != (
        "0\n",
        0,
    )


@pytest.mark.engines
def test_everything_lands_inside_a_stack(compose: Inside, tmp_path: Path) -> None:
    assert compose.ssh("pwd; cat /proc/1/comm").stdout == "/work\nsh\n"
    all_ways_in(compose, tmp_path)


def test_somebody_types_in_a_native_sandbox(native: Inside) -> None:
    types_at_a_terminal(native.words("-tt"))


def test_somebody_types_in_the_shell_of_a_native_sandbox(native: Inside) -> None:
    types_at_a_terminal(native.sandboxer.words("shell", "box"), env={**native.sandboxer.environment, "TERM": "dumb"})


@pytest.mark.engines
def test_somebody_types_in_a_stack(compose: Inside) -> None:
    types_at_a_terminal(compose.words("-tt"))


@pytest.mark.engines
def test_somebody_types_in_the_shell_of_a_stack(compose: Inside) -> None:
    words = compose.sandboxer.words("shell", compose.id)
    types_at_a_terminal(words, env={**compose.sandboxer.environment, "TERM": "dumb"})


def test_a_killed_client_ends_what_it_ran_in_a_native_sandbox(native: Inside) -> None:
    a_killed_client_ends_what_it_ran(native, "client", "server")


@pytest.mark.engines
def test_a_killed_client_ends_what_it_ran_in_a_stack(compose: Inside) -> None:
    a_killed_client_ends_what_it_ran(compose, "client")


def test_a_connection_uses_the_sandbox_also_between_its_sessions(native: Inside) -> None:
    client = subprocess.Popen(native.words("-N"), stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: native.state() == "active", within=LONG, what="the lease")
    finally:
        client.kill()
        client.wait(LONG)
    eventually(lambda: native.state() == "ready", within=LONG, what="the end of the lease")


def test_nothing_is_forwarded_and_nothing_of_the_clients_comes_along(native: Inside) -> None:
    done = native.ssh("true", options=("-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:1"))
    assert done.returncode == 255
    assert "remote port forwarding failed" in done.stderr
    done = native.run(*native.words("-W", "127.0.0.1:22"))
    assert done.returncode == 255
    assert "ports are not forwarded" in done.stderr
    done = native.ssh(
        'echo "$SSH_AUTH_SOCK,$DISPLAY,$FOO"', options=("-A", "-X", "-o", "SetEnv=FOO=bar", "-o", "SendEnv=LC_*")
    )
    assert done.stdout == ",,\n", done


def test_a_client_that_names_somebody_else_is_told_who_there_is(native: Inside) -> None:
    done = native.ssh("id", to=f"root@{native.name}")
    assert done.returncode == 255
    assert "there is no user 'root' here" in done.stderr


def test_another_host_key_is_refused_and_so_is_an_unknown_one(native: Inside) -> None:
    """Promise 25."""
    key = native.sandboxer.root / "data" / "ssh" / "host_key"
    known = native.sandboxer.root / "data" / "ssh" / "known_hosts"
    kept, told = key.read_bytes(), known.read_bytes()
    try:
        key.unlink()  # the server makes another one
        done = native.ssh("echo in")
        assert (done.returncode, done.stdout) == (255, "")
        assert "Host key verification failed" in done.stderr
        known.write_bytes(b"")
        done = native.ssh("echo in")
        assert (done.returncode, done.stdout) == (255, "")
    finally:
        key.write_bytes(kept)
        known.write_bytes(told)
    assert native.ssh("echo in").stdout == "in\n"


def test_a_sandbox_that_cannot_be_entered_says_why_and_what_to_type(native: Inside) -> None:
    made = created(native.sandboxer, "--profile", "profile.native")
    assert native.sandboxer("destroy", made.id, seconds=LONG).status == 0
    gone = made.ssh("true")
    assert gone.returncode == 255
    assert made.id in gone.stderr
    assert native.sandboxer("ssh-config", made.id).status == 4


def test_what_lies_where_ssh_is_typed_is_not_run(native: Inside, tmp_path: Path) -> None:
    """Promise 31: a sandbox's own files may lie there."""
    (tmp_path / "sandboxer").mkdir()
    (tmp_path / "sandboxer" / "__init__.py").write_text("")
    (tmp_path / "sandboxer" / "__main__.py").write_text("print('steered')\n")
    done = native.run(*native.words(), "echo in", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "in\n"), done


def test_what_no_client_has_started_is_refused(native: Inside) -> None:
    said = native.sandboxer("_ssh-proxy", native.id, stdin=b"x")
    assert said.status in (0, 125)
    with (native.sandboxer.root / "config" / "config.yaml").open("rb") as file:
        done = subprocess.run(
            native.sandboxer.words("_ssh-proxy", native.id),
            stdin=file,
            capture_output=True,
            env=native.sandboxer.environment,
            timeout=LONG,
            check=False,
        )
    assert done.returncode == 125
    assert b"no SSH client" in done.stderr
    assert done.stdout == b""


@pytest.mark.engines
def test_an_image_without_what_scp_needs_says_so(compose: Inside, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    made = created(
        compose.sandboxer,
        "--profile",
        "profile.plain",
        "--input",
        f"repo={minimal(tmp_path / 'bare')}",
        "--host",
        "alpha",
    )
    done = made.run(*made.words("file", f"{made.name}:file", program="scp", to=""), cwd=tmp_path)
    assert done.returncode != 0
    assert "need an sftp-server inside" in done.stderr
    assert made.ssh("echo in").stdout == "in\n"
    assert compose.sandboxer("destroy", made.id, seconds=LONG).status == 0
