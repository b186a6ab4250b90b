"""Run shell and ssh: somebody who types, inside the boundary or the way of a consumer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from sandboxer.cli.exec import own_streams
from sandboxer.cli.options import SandboxId, Service, installation
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager.ssh_server import SHELL


def shell(sandbox_id: SandboxId, service: Service = None) -> int:
    """A shell inside the boundary; without a terminal it runs what it reads from stdin."""
    with installation() as here, _typing() as (streams, tty):
        request = Exec(argv=SHELL, service=service, tty=tty)
        return here.manager.exec(sandbox_id, request, streams)


def ssh(
    sandbox_id: SandboxId,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="CMD ARG...", help="A command, after --; a shell without.")
    ] = None,
) -> int:
    """Enter the workspace the way of a consumer: on its host, by `reachability`, outside of the boundary."""
    with installation() as here, _typing() as (streams, tty):
        return here.manager.ssh(sandbox_id, command or [], streams, tty=tty and not command)


@contextmanager
def _typing() -> Iterator[tuple[Streams, bool]]:
    """Our own streams, and whether somebody sits at them: then every key is theirs."""
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    with own_streams(interactive=True, tty=tty) as streams:
        yield streams, tty
