"""Our own SSH server, and clients that mean it ill: what is refused, what is bounded, what ends with its client."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest

from sandboxer.errors import Denied, Invalid, SandboxerError
from sandboxer.hosts.base import Streams
from sandboxer.hosts.process.session import window_of
from sandboxer.hosts.ssh.server import MAX_SESSIONS, serve_ssh
from sandboxer.hosts.ssh.server_key import known_hosts_line, new_key, read_key
from sandboxer.hosts.ssh.server_session import SessionRequest
from sandboxer.store import host_key
from sandboxer.timing import Deadline
from tests.testbed.waiting import eventually

LONG = 60.0


@dataclass
class Served:
    """A connection: its client, what was asked to run, what was told, and how the server ended."""

    client: paramiko.Transport
    requests: list[SessionRequest]
    told: list[str]
    stop: threading.Event
    ended: threading.Event = field(default_factory=threading.Event)
    raised: list[BaseException] = field(default_factory=list)

    def login(self, user: str = "sandbox") -> None:
        """Prove nothing, and be let in."""
        self.client.start_client(timeout=LONG)
        self.client.auth_none(user)

    def session(self) -> paramiko.Channel:
        """Another channel."""
        return self.client.open_session(timeout=LONG)


def sleeps(_request: SessionRequest, _streams: Streams, wanted: Deadline) -> int:
    """A program that never ends by itself, and reads nothing."""
    eventually(lambda: wanted.passed, within=LONG, what="the end of the program", every=0.05)
    return 143


@contextmanager
def served(
    run: Callable[[SessionRequest, Streams, Deadline], int], *, idle: float = LONG, key: str | None = None
) -> Iterator[Served]:
    ours, theirs = socket.socketpair()
    made = Served(paramiko.Transport(theirs), [], [], threading.Event())

    def kept(request: SessionRequest, streams: Streams, wanted: Deadline) -> int:
        made.requests.append(request)
        return run(request, streams, wanted)

    def serve() -> None:
        try:
            serve_ssh(
                ours.fileno(),
                ours.fileno(),
                key=key or new_key(),
                user="sandbox",
                run=kept,
                tell=made.told.append,
                stop=made.stop,
                idle=idle,
            )
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            made.raised.append(error)
        finally:
            made.ended.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.client.close()
        theirs.close()
        assert made.ended.wait(LONG)
        thread.join(LONG)
        ours.close()


def test_a_program_has_its_text_its_streams_and_its_code() -> None:
    def upper(request: SessionRequest, streams: Streams, _wanted: Deadline) -> int:
        assert streams.stdin is not None
        while data := os.read(streams.stdin.fileno(), 65536):
            streams.stdout(data.upper())
        streams.stderr(request.text.encode("utf-8", "surrogateescape"))
        return 9

    with served(upper) as here:
        here.login()
        channel = here.session()
        channel.exec_command(b"a b \xff")
        channel.sendall(b"x" * 300_000)
        channel.shutdown_write()
        out = b"".join(iter(lambda: channel.recv(65536), b""))
        assert out == b"X" * 300_000
        assert channel.makefile_stderr("rb").read() == b"a b \xff"
        assert channel.recv_exit_status() == 9
    assert here.requests == [SessionRequest(kind="exec", text="a b \udcff", term=None)]
    assert here.raised == []


def test_one_who_gives_another_name_is_refused_with_the_reason() -> None:
    with served(sleeps) as here:
        with pytest.raises(paramiko.AuthenticationException):
            here.login("root")
        with pytest.raises(paramiko.SSHException):
            here.session()
        assert "no user 'root'" in here.told[0]
    assert here.requests == []


def test_without_being_let_in_nothing_is_served() -> None:
    with served(sleeps) as here:
        here.client.start_client(timeout=LONG)
        with pytest.raises(paramiko.SSHException):
            here.session()
    assert here.requests == []


@pytest.mark.parametrize("kind", ["direct-tcpip", "direct-streamlocal@openssh.com", "x11", "tun@openssh.com", "odd"])
def test_no_other_channel_than_a_session_is_opened(kind: str) -> None:
    with served(sleeps) as here:
        here.login()
        place = ("127.0.0.1", 22) if kind in ("direct-tcpip", "x11") else None
        with pytest.raises(paramiko.ChannelException) as caught:
            here.client.open_channel(kind, place, ("127.0.0.1", 1) if place else None, timeout=LONG)
        assert caught.value.code == 1  # administratively prohibited
        with pytest.raises(paramiko.SSHException):
            here.client.request_port_forward("127.0.0.1", 0)
    assert here.requests == []


def test_variables_agents_displays_and_other_subsystems_are_refused() -> None:
    with served(sleeps) as here:
        here.login()
        channel = here.session()
        with suppress(paramiko.SSHException):
            channel.set_environment_variable("LD_PRELOAD", "/evil.so")
        channel = here.session()
        with pytest.raises(paramiko.SSHException):
            channel.request_x11()
        channel = here.session()
        with pytest.raises(paramiko.SSHException):
            channel.invoke_subsystem("netconf")
    assert here.requests == []


def test_a_session_runs_one_program_and_its_terminal_is_asked_for_before() -> None:
    with served(sleeps) as here:
        here.login()
        channel = here.session()
        channel.exec_command("first")
        with pytest.raises(paramiko.SSHException):
            channel.exec_command("second")
        channel = here.session()
        channel.exec_command("third")
        with pytest.raises(paramiko.SSHException):
            channel.get_pty()
    assert [request.text for request in here.requests] == ["first", "third"]


def test_there_are_so_many_sessions_at_a_time_and_no_more() -> None:
    with served(sleeps) as here:
        here.login()
        channels = [here.session() for _ in range(MAX_SESSIONS)]
        with pytest.raises(paramiko.ChannelException) as caught:
            here.session()
        assert caught.value.code == 4  # resource shortage
        channels[0].close()

        def again() -> paramiko.Channel | None:
            with suppress(paramiko.ChannelException):
                return here.session()
            return None

        assert eventually(again, within=LONG, what="room for another session") is not None


def test_a_terminal_has_a_name_that_can_be_one_and_the_size_of_the_window_within_reason() -> None:
    sizes: list[tuple[int, int]] = []
    go_on = threading.Event()

    def look(_request: SessionRequest, streams: Streams, _wanted: Deadline) -> int:
        size = window_of(streams.stdin)
        sizes.append((int.from_bytes(size[2:4], "little"), int.from_bytes(size[:2], "little")))
        assert streams.stdin is not None
        assert streams.stdin.isatty()
        go_on.wait(LONG)
        size = window_of(streams.stdin)
        sizes.append((int.from_bytes(size[2:4], "little"), int.from_bytes(size[:2], "little")))
        return 0

    with served(look) as here:
        here.login()
        channel = here.session()
        channel.get_pty("evil\n$(id)", 4_000_000_000, 0)
        channel.invoke_shell()
        eventually(lambda: sizes, within=LONG, what="the program")
        channel.resize_pty(100, 40)
        channel.resize_pty(101, 41)
        # requests are answered in their order: after this answer, the sizes have been set
        with suppress(paramiko.SSHException):
            channel.get_pty()
        go_on.set()
        assert eventually(lambda: len(sizes) == 2, within=LONG, what="the second look")
    assert here.requests == [SessionRequest(kind="shell", text="", term="dumb")]
    assert sizes == [(10_000, 24), (101, 41)]


def test_a_client_that_goes_ends_its_program_also_one_that_reads_nothing_and_has_much_to_read() -> None:
    ends = threading.Semaphore(0)

    def never_reads(request: SessionRequest, streams: Streams, wanted: Deadline) -> int:
        if request.text == "talks":
            while not wanted.passed:
                streams.stdout(b"y" * 65536)
        else:
            sleeps(request, streams, wanted)
        ends.release()
        return 143

    with served(never_reads) as here:
        here.login()
        for text in ("talks", "silent"):
            here.session().exec_command(text)
        flooded = here.session()
        flooded.exec_command("flooded")
        flooded.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                flooded.send(b"z" * 65536)
        closed = here.session()
        closed.exec_command("closed")
        closed.close()
        assert ends.acquire(timeout=LONG)
        here.client.close()
        for _ in range(3):
            assert ends.acquire(timeout=LONG)
        assert here.ended.wait(LONG)
    assert here.raised == []


def test_to_stop_it_ends_what_runs() -> None:
    with served(sleeps) as here:
        here.login()
        here.session().exec_command("sleep")
        eventually(lambda: here.requests, within=LONG, what="the program")
        here.stop.set()
        assert here.ended.wait(LONG)
    assert here.raised == []


def test_a_connection_that_nothing_is_done_with_ends_by_itself() -> None:
    with served(sleeps, idle=0.5) as here:
        here.login()
        assert here.ended.wait(LONG)


def test_what_goes_wrong_is_told_and_a_bug_is_one() -> None:
    def fails(request: SessionRequest, _streams: Streams, _wanted: Deadline) -> int:
        raise Denied("not you", hint="somebody else") if request.text == "ours" else KeyError("a bug")

    with served(fails) as here:
        here.login()
        channel = here.session()
        channel.exec_command("ours")
        assert channel.recv_exit_status() == 125
        assert channel.makefile_stderr("rb").read() == b"sandboxer: not you (somebody else)\n"
        here.session().exec_command("bug")
        assert here.ended.wait(LONG)
    assert [type(error) for error in here.raised] == [KeyError]


@pytest.mark.parametrize(
    "bytes_",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n" * 9, id="http"),
        pytest.param(bytes(range(256)) * 16, id="noise"),
        pytest.param(b"SSH-2.0-x\r\n" + b"\xff" * 999, id="a greeting, then noise"),
    ],
)
def test_what_is_no_ssh_ends_quietly(bytes_: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(bytes_)
        theirs.shutdown(socket.SHUT_WR)
        stop = threading.Event()
        serve_ssh(
            ours.fileno(), ours.fileno(), key=new_key(), user="sandbox", run=sleeps, tell=lambda _: None, stop=stop
        )


def test_only_the_pipes_of_a_client_are_spoken_to(tmp_path: Path) -> None:
    """Neither a file, nor a terminal, nor somebody on the network."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    remote, _ = listener.accept()
    master, slave = os.openpty()
    with listener, client, remote, (tmp_path / "file").open("w+b") as file:
        for fd, error in ((file.fileno(), Invalid), (slave, Invalid), (remote.fileno(), Denied)):
            with pytest.raises(SandboxerError) as caught:
                serve_ssh(fd, fd, key=new_key(), user="x", run=sleeps, tell=lambda _: None, stop=threading.Event())
            assert type(caught.value) is error
    os.close(master)
    os.close(slave)


def test_a_host_key_is_made_once_whoever_comes_first_and_is_private(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: host_key.load_or_make(tmp_path / "data", new_key), range(8)))
    assert len(keys) == 1
    file = tmp_path / "data" / "ssh" / "host_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["host_key"]
    line = known_hosts_line("alias", keys.pop())
    path = host_key.write_known_hosts(tmp_path / "data", line)
    assert path.read_text() == line
    assert line.startswith("alias ssh-ed25519 AAAA")


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
)
def test_a_host_key_that_is_none_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(Denied) as caught:
        read_key(text)
    assert "AAAA" not in str(caught.value)


def test_a_key_that_lies_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "ssh").mkdir()
    (tmp_path / "other").write_text(new_key())
    (tmp_path / "ssh" / "host_key").symlink_to(tmp_path / "other")
    with pytest.raises(SandboxerError):
        host_key.load_or_make(tmp_path, new_key)
