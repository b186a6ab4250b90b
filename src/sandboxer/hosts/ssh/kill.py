"""Ending a program on another machine that was not let come to its own end."""

from __future__ import annotations

import secrets
import threading
from typing import Final

from sandboxer.errors import SandboxerError
from sandboxer.hosts.base import Streams
from sandboxer.hosts.process import launch
from sandboxer.hosts.ssh.connection import SshConnection, connect
from sandboxer.hosts.ssh.errors import SessionRefused
from sandboxer.hosts.ssh.session import RemoteSession, SessionLeader, nowhere
from sandboxer.timing import Deadline

END_SECONDS: Final = 2.5
"""How long we wait for a session's end."""
END_MORE_SECONDS: Final = 30.0
"""How long it is tried."""


def kill_remote(connection: SshConnection, leader: SessionLeader, *, track: str | None) -> str:
    """Kill a command's session over a channel of its own; what became of it, in words for a message. It goes on in a
    thread when that takes longer than a caller past its deadline can wait; when the connection no longer answers, the
    session's own time-out has to do it."""
    if not leader.pid:
        connection.retire()
        return "was not started"
    ended: list[bool] = []

    def end() -> None:
        try:
            ended.append(_is_ended(connection, leader, track))
        finally:
            connection.let_go()

    ending = threading.Thread(target=end, name="sandboxer-end", daemon=True)
    connection.hold()
    ending.start()
    ending.join(END_SECONDS)
    if ended == [True]:
        return "was ended"
    connection.retire()
    return "could not be reached any more: it ends itself when its time is over"


def _is_ended(connection: SshConnection, leader: SessionLeader, track: str | None) -> bool:
    token = f"sbx-{secrets.token_hex(8)}"
    where = launch.anchored(track) if track else ""
    words = [launch.SHELL, "-c", launch.END_ONE, "sh", str(leader.pid), str(leader.start), where]
    head = launch.supervised(words, seconds=60, token=token)
    try:
        try:
            return _run_on(connection, head, token) == 0
        except SessionRefused:
            # the command that is to be ended has the last session of its connection
            other = connect(connection.endpoint, Deadline(END_MORE_SECONDS))
            try:
                return _run_on(other, head, token) == 0
            finally:
                other.close()
    except (SandboxerError, SessionRefused):
        return False  # whoever interrupted the command has an error already


def _run_on(connection: SshConnection, head: bytes, token: str) -> int:
    streams = Streams(stdout=nowhere, stderr=nowhere)
    session = RemoteSession(connection, line=launch.SHELL_BOOT, head=head, token=token, streams=streams, tty=False)
    try:
        return session.run(Deadline(END_MORE_SECONDS))
    finally:
        session.close()
