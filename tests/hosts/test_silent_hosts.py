"""Promise 22: with the peer gone in any phase, every verb returns within its deadline + 5 s with a typed answer."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxer.errors import BackendError, SandboxerError, Timeout, Unavailable
from sandboxer.hosts.base import Command, Streams
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.hosts.conftest import settings_for
from tests.testbed import processes
from tests.testbed.fault_proxy import FaultProxy, Mode
from tests.testbed.processes import MARK
from tests.testbed.sshd import Sshd
from tests.testbed.waiting import eventually

Opened = Callable[..., SshHost]
ALLOWED = 1.0


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[FaultProxy]:
    with FaultProxy(sshd.port) as found:
        yield found


@pytest.fixture
def faulty(proxy: FaultProxy, sshd: Sshd, opened: Opened) -> SshHost:
    return opened("faulty", settings_for(sshd, port=proxy.port))


def in_time(verb: Callable[[], object]) -> SandboxerError:
    begun = time.monotonic()
    with pytest.raises(SandboxerError) as caught:
        verb()
    assert time.monotonic() - begun < ALLOWED + 5
    assert caught.value.hint
    return caught.value


VERBS: dict[str, Callable[[SshHost, Path, Deadline], object]] = {
    "connect": lambda host, tmp, late: host.connect(late),
    "run": lambda host, tmp, late: host.run(["cat"], late, stdin=b"x" * 100_000),
    "work_dir": lambda host, tmp, late: host.work_dir(late),
    "sync": lambda host, tmp, late: host.sync(tmp, str(tmp / "to"), late),
    "write_file": lambda host, tmp, late: host.write_file(str(tmp / "f"), b"x" * 100_000, late),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_host_that_accepts_and_says_nothing(faulty: SshHost, proxy: FaultProxy, tmp_path: Path, verb: str) -> None:
    proxy.set(Mode.BLACKHOLE)
    error = in_time(lambda: VERBS[verb](faulty, tmp_path, Deadline(ALLOWED)))
    assert isinstance(error, Unavailable)
    assert "faulty" in error.message


@pytest.mark.parametrize("amount", [30, 200, 1500, 2600, 3200, 4000, 5000])
def test_a_host_that_falls_silent_anywhere_in_the_handshake(faulty: SshHost, proxy: FaultProxy, amount: int) -> None:
    proxy.set(Mode.BLACKHOLE_AFTER, amount)
    error = in_time(lambda: faulty.run(["true"], Deadline(ALLOWED)))
    assert isinstance(error, Unavailable | Timeout)


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"connect"}))
def test_a_host_that_falls_silent_on_an_open_connection(
    faulty: SshHost, proxy: FaultProxy, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "data").write_bytes(b"x" * 100_000)
    faulty.connect(Deadline(10))
    proxy.set(Mode.BLACKHOLE)
    assert isinstance(in_time(lambda: VERBS[verb](faulty, tmp_path, Deadline(ALLOWED))), Unavailable | Timeout)


def test_a_silence_in_the_middle_of_a_command_ends_it_on_both_sides(
    faulty: SshHost, proxy: FaultProxy, tmp_path: Path
) -> None:
    faulty.connect(Deadline(10))
    seen = threading.Event()
    streams = Streams(stdout=lambda data: seen.set(), stderr=lambda data: None)
    command = Command(argv=["sh", "-c", f"echo go; sleep {MARK}201 & sleep {MARK}201"], track=str(tmp_path / "t"))

    def silence() -> None:
        seen.wait(5)
        proxy.set(Mode.BLACKHOLE)

    threading.Thread(target=silence, daemon=True).start()
    error = in_time(lambda: faulty.stream(command, streams, Deadline(ALLOWED)))
    assert isinstance(error, Timeout)
    assert "ends itself" in error.message
    assert [p for p in processes.everyone() if f"sleep {MARK}201" in p.command]
    # the command's own time-out would end it in some seconds; once the host answers again it is ended before
    proxy.set(Mode.PASS)
    faulty.end_tracked(str(tmp_path / "t"), Deadline(10))
    eventually(
        lambda: not [p for p in processes.everyone() if p.command == f"sleep {MARK}201"],
        within=60,
        what="the command's end",
    )


def test_a_silence_while_much_is_sent_does_not_hang(faulty: SshHost, proxy: FaultProxy) -> None:
    # eight times sshd's window of 2 MiB is more than the sockets between us hold: somebody waits inside a write
    faulty.connect(Deadline(10))
    proxy.set(Mode.BLACKHOLE_AFTER, 300_000)
    data, errors = bytes(4 * 1024 * 1024), list[SandboxerError]()

    def send() -> None:
        errors.append(in_time(lambda: faulty.run(["cat"], Deadline(ALLOWED), stdin=data)))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ALLOWED + 6)
    assert [type(error) in (Unavailable, Timeout) for error in errors] == [True] * 8


def test_a_connection_that_breaks_says_that_the_outcome_is_not_known(faulty: SshHost, proxy: FaultProxy) -> None:
    def cut(data: bytes) -> None:
        proxy.set(Mode.RESET)

    streams = Streams(stdout=cut, stderr=lambda data: None)
    begun = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        faulty.stream(Command(argv=["sh", "-c", "echo go; sleep 1"]), streams, Deadline(60))
    assert time.monotonic() - begun < 30
    assert caught.value.outcome == "unknown"


def test_a_broken_connection_is_replaced_before_the_next_command(faulty: SshHost, proxy: FaultProxy) -> None:
    assert faulty.run(["echo", "1"], Deadline(10)).text == "1"
    proxy.set(Mode.RESET)
    with pytest.raises(SandboxerError):
        faulty.run(["echo", "lost"], Deadline(5))
    proxy.set(Mode.PASS)
    assert faulty.run(["echo", "2"], Deadline(10)).text == "2"


def test_a_port_where_nobody_listens(faulty: SshHost, proxy: FaultProxy) -> None:
    proxy.set(Mode.REFUSE)
    error = in_time(lambda: faulty.connect(Deadline(ALLOWED)))
    assert isinstance(error, Unavailable)
    assert "refused" in error.message
    assert str(proxy.port) in error.message


def test_a_name_that_does_not_exist(opened: Opened) -> None:
    error = in_time(lambda: opened("no-such-host.invalid", HostSettings()).connect(Deadline(ALLOWED)))
    assert isinstance(error, Unavailable)


def test_something_that_is_no_ssh_server(opened: Opened) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def chat() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)

        threading.Thread(target=chat, daemon=True).start()
        host = opened("web", HostSettings(address="127.0.0.1", port=listener.getsockname()[1]))
        assert isinstance(in_time(lambda: host.connect(Deadline(ALLOWED))), Unavailable)


def test_waiting_for_a_connecting_command_ends_at_the_own_deadline(faulty: SshHost, proxy: FaultProxy) -> None:
    proxy.set(Mode.BLACKHOLE)

    def connect() -> None:
        with pytest.raises(SandboxerError):
            faulty.connect(Deadline(2.5))

    other = threading.Thread(target=connect)
    other.start()
    eventually(lambda: proxy.open_connections, within=60, what="the other's connection")
    assert isinstance(in_time(lambda: faulty.connect(Deadline(ALLOWED))), Unavailable)
    other.join(10)


def test_a_login_that_runs_no_commands_says_so(tmp_path: Path, opened: Opened) -> None:
    with Sshd(tmp_path / "sshd", options=["ForceCommand echo This account is closed."]) as server:
        with pytest.raises(BackendError, match="This account is closed") as caught:
            opened("closed", settings_for(server)).run(["true"], Deadline(10))
        assert "ssh -p" in caught.value.hint


def test_what_a_login_shell_prints_is_not_the_commands_output(tmp_path: Path, opened: Opened) -> None:
    noisy = 'ForceCommand echo "Welcome!"; sh -c "$SSH_ORIGINAL_COMMAND"'
    with Sshd(tmp_path / "sshd", options=[noisy]) as server:
        assert opened("noisy", settings_for(server)).run(["echo", "mine"], Deadline(10)).stdout == b"mine\n"
