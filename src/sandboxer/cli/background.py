"""Run what is detached from a terminal: the work of a `--no-wait` create, and the relay of events."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sandboxer.cli.options import installation
from sandboxer.errors import SandboxerError
from sandboxer.timing import Deadline

RELAY_SECONDS = 120.0


def work(
    sandbox_id: Annotated[str, typer.Argument(metavar="ID")],
    lock_fd: Annotated[int, typer.Option("--lock-fd", min=3)],
) -> int:
    """Carry out an establishment that another process began; its lock comes by descriptor, its plan by stdin."""
    with installation() as here:
        try:
            here.carry_out_begun(sandbox_id, lock_fd, sys.stdin.buffer.read())
        except SandboxerError as error:
            return error.exit_code  # the record tells it
        return 0


def relay() -> None:
    """Send waiting events to the State Hub and to fin-hub; ends when there are none, or after a while."""
    with installation() as here:
        here.relays().run(Deadline(RELAY_SECONDS))
