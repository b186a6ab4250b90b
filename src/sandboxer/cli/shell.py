"""Run shell and ssh: somebody who types, inside the boundary or the way of a consumer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import msgspec
import typer

from sandboxer.cli.exec import captured_streams, own_streams
from sandboxer.cli.options import Json, SandboxId, Service, installation
from sandboxer.cli.output import emit, wants_json
from sandboxer.documents import exec_result
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.manager.ssh.server import SHELL


def shell(sandbox_id: SandboxId, service: Service = None, json: Json = False) -> int:
    """A shell inside the boundary; without a terminal it runs what it reads from stdin."""
    with installation() as here:
        return _entered(
            lambda streams, tty: here.manager.exec(sandbox_id, Exec(argv=SHELL, service=service, tty=tty), streams),
            json=json,
        )


def ssh(
    sandbox_id: SandboxId,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="CMD ARG...", help="A command, after --; a shell without.")
    ] = None,
    json: Json = False,
) -> int:
    """Enter the workspace the way of a consumer: on its host, by `reachability`, outside of the boundary."""
    words = command or []
    with installation() as here:
        return _entered(
            lambda streams, tty: here.manager.ssh(sandbox_id, words, streams, tty=tty and not words), json=json
        )


def _entered(enter: Callable[[Streams, bool], int], *, json: bool) -> int:
    """Enter with our own streams, or write down what is said inside. Where somebody sits at both ends every key is
    theirs, and only `--json` itself, not the environment, takes the screen from them."""
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    if json or (wants_json(json) and not tty):
        streams, stdout, stderr = captured_streams(interactive=True)
        code = enter(streams, False)
        emit(msgspec.to_builtins(exec_result(code, stdout, stderr)))
        return code
    with own_streams(interactive=True, tty=tty) as streams:
        return enter(streams, tty)
