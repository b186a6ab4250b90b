"""Options that several commands share, and the wired installation that a command works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from sandboxer.bootstrap import Installation, install

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
SandboxId = Annotated[str, typer.Argument(metavar="ID", help="An id, a unique prefix of one (4+), or a name.")]
Timeout = Annotated[str | None, typer.Option(metavar="D", help="Give up after this long, such as 90s or 10m.")]
Host = Annotated[
    str | None,
    typer.Option(metavar="H", help="Where to place it: local, a name from config.yaml or ~/.ssh/config, user@host."),
]
Apply = Annotated[bool, typer.Option("--apply", help="Do it; without this, only say what would be done.")]
Service = Annotated[str | None, typer.Option(metavar="S", help="A service of the sandbox.")]


@contextmanager
def installation() -> Iterator[Installation]:
    """The wired parts, closed at the end."""
    found = install()
    try:
        yield found
    finally:
        found.close()
