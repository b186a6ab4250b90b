"""Run ssh-config, and what `ssh` starts by what it says."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated

import msgspec
import typer

from sandboxer.cli import signals
from sandboxer.cli.options import Json, installation
from sandboxer.cli.output import emit, note, say, wants_json


def ssh_config(
    sandbox_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="An id, a prefix of one, or a name; all sandboxes without.")
    ] = None,
    json: Json = False,
) -> None:
    """Print blocks for ~/.ssh/config: `ssh sbx-ID`, scp, sftp and rsync then land inside, as the sandbox's user."""
    with installation() as here:
        found = here.manager.ssh_config(sandbox_id, here.program("_ssh-proxy"))
        if wants_json(json):
            emit(msgspec.to_builtins(found))
            return
        say("\n".join(host.config for host in found.hosts).rstrip("\n") or "# no sandbox has a way in")
        for left_out in found.left_out:
            note(f"{left_out} is left out: it cannot be entered (`sandboxer ssh-config {left_out}` says why)")


def proxy(sandbox_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Serve the SSH client that has started us, on stdin and stdout."""
    stop = threading.Event()
    reading, writing = _take_streams()
    with installation() as here:
        signals.tell_instead(stop.set)
        here.manager.serve_ssh(sandbox_id, reading, writing, tell=lambda text: note(f"sandboxer: {text}"), stop=stop)


def _take_streams() -> tuple[int, int]:
    """The client's pipes, as descriptors that nothing else reads, writes or inherits: what is printed by mistake goes
    to stderr, and not between two packets."""
    sys.stdout.flush()
    taken = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return taken
