"""Serve an SSH client on two pipes: its sessions run inside the boundary, as `exec` runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sandboxer.extensions.base import CanExec, Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager.exec import lacks_capability, leased
from sandboxer.manager.services import Services
from sandboxer.manager.ssh.config import USER, host_key_of
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.hosts.ssh.server_session import SessionRequest

SHELL: Final = ("sh", "-c", 'if command -v bash >/dev/null 2>&1; then exec bash "$@"; fi; exec sh "$@"', "sh")
"""A shell inside, the best that is there."""
_SFTP: Final = """for sbx_program in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec /usr/lib; do
  [ ! -x "$sbx_program/sftp-server" ] || exec "$sbx_program/sftp-server"
done
if command -v sftp-server >/dev/null 2>&1; then exec sftp-server; fi
exit 127
"""
_NOT_FOUND: Final = 127
_NO_SFTP: Final = (
    "scp and sftp need an sftp-server inside, and there is none: install one there (openssh-sftp-server), "
    "or use `sandboxer cp`"
)

Run = Callable[[Exec, Streams, Deadline], int]


def serve(
    services: Services,
    sandbox_id: str,
    reading: int,
    writing: int,
    *,
    run: Run,
    tell: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Serve until the client has gone, under a lease: also between two sessions, somebody is using the sandbox."""
    from sandboxer.hosts.ssh.server import serve_ssh

    def attend(request: SessionRequest, streams: Streams, deadline: Deadline) -> int:
        code = run(program_of(request), streams, deadline)
        if request.kind == "sftp" and code == _NOT_FOUND:
            tell(_NO_SFTP)  # not on the program's stderr: scp ends its ssh before that could show it
        return code

    with leased(services, sandbox_id, holder="ssh") as (record, _handle):
        if not isinstance(services.extension(record), CanExec):
            raise lacks_capability(record, "exec")
        serve_ssh(
            reading,
            writing,
            key=host_key_of(services),
            user=USER,
            run=attend,
            tell=tell,
            stop=stop,
        )


def program_of(request: SessionRequest) -> Exec:
    """What is run inside for a session: as a server there would, by the shell of the sandbox's user."""
    env = {} if request.term is None else {"TERM": request.term}
    tty = request.term is not None
    if request.kind == "sftp":
        return Exec(argv=("sh", "-c", _SFTP), tty=tty, env=env)
    if request.kind == "exec":
        return Exec(argv=("sh", "-c", request.text), tty=tty, env=env)
    return Exec(argv=SHELL, tty=tty, env=env)
