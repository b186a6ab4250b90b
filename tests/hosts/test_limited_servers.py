"""A server that limits sessions or connections is used within its limits, and named when it gives no more."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxer.errors import Denied, Timeout, Unavailable
from sandboxer.hosts.base import Command, Streams
from sandboxer.hosts.ssh import pool
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.timing import Deadline
from tests.hosts.conftest import settings_for
from tests.testbed import processes
from tests.testbed.sshd import Sshd
from tests.testbed.waiting import eventually

Opened = Callable[..., SshHost]


@pytest.mark.parametrize("sessions", [1, 2])
def test_commands_beside_each_other_take_as_many_connections_as_they_need(
    tmp_path: Path, opened: Opened, sessions: int
) -> None:
    with Sshd(tmp_path / "sshd", options=[f"MaxSessions {sessions}"]) as server:
        host = opened("limited", settings_for(server))
        together = 5
        script = 'touch "$1/$2"; until [ "$(ls "$1" | wc -l)" -ge "$3" ]; do sleep 0.05; done; echo "$2"'
        met = tmp_path / "met"
        met.mkdir()

        def one(number: int) -> str:
            words = ["sh", "-c", script, "sh", str(met), str(number), str(together)]
            return host.run(words, Deadline(120), stdin=b"x" * 100_000).text

        with ThreadPoolExecutor(together) as threads:
            assert list(threads.map(one, range(together))) == [str(number) for number in range(together)]
        for number in range(10):  # the place of the one before may not be free yet
            assert host.run(["echo", str(number)], Deadline(60)).text == str(number)


def test_a_command_at_its_deadline_is_ended_although_it_has_the_only_session(tmp_path: Path, opened: Opened) -> None:
    with Sshd(tmp_path / "sshd", options=["MaxSessions 1"]) as server:
        host = opened("limited", settings_for(server))
        assert host.run(["true"], Deadline(60)).code == 0
        with pytest.raises(Timeout, match="did not end in time on limited"):
            host.run(["sleep", "4321.25"], Deadline(3))
        eventually(
            lambda: not [p for p in processes.everyone() if p.command == "sleep 4321.25"],
            within=60,
            what="the command to end",
        )
        assert host.run(["echo", "on"], Deadline(60)).text == "on"


def test_a_server_without_sessions_is_named(tmp_path: Path, opened: Opened) -> None:
    with Sshd(tmp_path / "sshd", options=["MaxSessions 0"]) as server:
        host = opened("limited", settings_for(server))
        with pytest.raises(Denied) as caught:
            host.run(["true"], Deadline(60))
        assert "runs no commands" in caught.value.message
        assert "MaxSessions" in str(caught.value.hint)


def test_where_further_connections_are_refused_too_commands_wait_for_one_another_or_the_error_names_both(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sshd(tmp_path / "sshd", options=["MaxSessions 1", "MaxStartups 1"]) as server:
        host = opened("limited", settings_for(server))
        assert host.run(["true"], Deadline(60)).code == 0
        with stranger(server):
            with holding(host, tmp_path / "first"), ThreadPoolExecutor(1) as threads:
                waiting = threads.submit(host.run, ["echo", "second"], Deadline(240))
                eventually(lambda: host._pool._refusal is not None, within=60, what="a connection to be refused")
                (tmp_path / "first").touch()
                assert waiting.result().text == "second"
            monkeypatch.setattr(pool, "LIMITED_WAIT_SECONDS", 0.5)
            with holding(host, tmp_path / "again"), pytest.raises(Unavailable) as caught:
                host.run(["true"], Deadline(120))
        assert "takes 1 connections of ours with 1 sessions each" in caught.value.message
        assert "closed the connection before it greeted" in caught.value.message
        assert "MaxSessions or MaxStartups" in str(caught.value.hint)


def test_a_server_that_refuses_the_first_connection_is_said_to_limit_them(tmp_path: Path, opened: Opened) -> None:
    with Sshd(tmp_path / "sshd", options=["MaxStartups 1"]) as server:
        host = opened("limited", settings_for(server))
        with stranger(server), pytest.raises(Unavailable) as caught:
            host.run(["true"], Deadline(60))
        assert "MaxStartups" in str(caught.value.hint)


@contextmanager
def stranger(server: Sshd) -> Iterator[None]:
    """Somebody else's connection that does not log in: it takes the only place for such."""

    def greeted() -> socket.socket | None:
        other = socket.create_connection((server.host, server.port))
        if other.recv(4) == b"SSH-":
            return other
        other.close()  # an earlier connection is not over yet
        return None

    with eventually(greeted, within=60, what="a place for a connection") or socket.socket():
        yield


@contextmanager
def holding(host: SshHost, until: Path) -> Iterator[None]:
    """A command of ours runs there, until the block or the file is there."""
    begun = threading.Event()
    streams = Streams(stdout=lambda _: begun.set(), stderr=lambda _: None)
    script = 'echo up; until [ -e "$1" ]; do sleep 0.05; done'
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(host.stream, Command(argv=["sh", "-c", script, "sh", str(until)]), streams, Deadline(240))
        try:
            assert begun.wait(60)
            yield
        finally:
            until.touch()
        assert held.result() == 0
