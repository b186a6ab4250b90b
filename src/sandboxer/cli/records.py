"""rename, label, wait."""

from __future__ import annotations

from typing import Annotated

import typer

from sandboxer.cli.options import Json, SandboxId, Timeout, installation
from sandboxer.cli.output import emit, say, wants_json
from sandboxer.names import parse_label_changes
from sandboxer.timing import parse_duration


def rename(
    sandbox_id: SandboxId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that it has from now on.")],
    json: Json = False,
) -> None:
    """Give a sandbox a name, in place of the one it may have."""
    with installation() as here:
        record = here.manager.rename(sandbox_id, name)
        if wants_json(json):
            emit(here.manager.document(record))
            return
        say(f"{record.id} is called {record.name}")


def label(
    sandbox_id: SandboxId,
    changes: Annotated[
        list[str], typer.Argument(metavar="K=V... K-...", help="A label to set, or with `-` behind it to take away.")
    ],
    json: Json = False,
) -> None:
    """Set labels of a sandbox, or take them away; a label that is there gets the new value."""
    with installation() as here:
        record = here.manager.label(sandbox_id, parse_label_changes(changes))
        if wants_json(json):
            emit(here.manager.document(record))
            return
        shown = ", ".join(f"{key}={value}" for key, value in record.labels.items())
        say(f"{record.id} has the labels {shown}" if shown else f"{record.id} has no labels")


def wait(
    sandbox_id: SandboxId,
    wanted: Annotated[str, typer.Option("--for", metavar="S", help="ready, stopped or destroyed.")],
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Wait until a sandbox is ready, stopped or destroyed, whoever sees to that: 15 minutes, unless --timeout says
    otherwise. What cannot come any more is a conflict at once."""
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    with installation() as here:
        record = here.manager.wait(sandbox_id, wanted, timeout=seconds)
        if wants_json(json):
            emit(here.manager.document(record))
            return
        say(f"{record.id} is {record.state}")
