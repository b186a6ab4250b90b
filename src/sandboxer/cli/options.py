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
Profile = Annotated[str | None, typer.Option(metavar="P", help="The recipe; see `sandboxer profiles list`.")]
Input = Annotated[list[str] | None, typer.Option("--input", metavar="K=V", help="An input of the profile; repeatable.")]
Ttl = Annotated[str | None, typer.Option(metavar="D", help="Its lifetime, such as 30m or 2h.")]
Name = Annotated[str | None, typer.Option(metavar="N", help="A name to use instead of the id.")]
Label = Annotated[list[str] | None, typer.Option(metavar="K=V", help="A label; repeatable.")]
Actor = Annotated[str | None, typer.Option(metavar="T:NAME", help="Who asks: adm:NAME, agt:NAME or atm:NAME.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; touch nothing.")]
KeepFailed = Annotated[bool, typer.Option("--keep-failed", help="Keep what a failed create has made.")]
Words = Annotated[list[str], typer.Argument(metavar="CMD ARG...", help="The command, after --.")]
Cwd = Annotated[str | None, typer.Option(metavar="D", help="The directory to run in.")]
Env = Annotated[list[str] | None, typer.Option(metavar="K=V", help="A variable; repeatable.")]
Interactive = Annotated[
    bool,
    typer.Option(
        "-i",
        "--interactive",
        help="Pass our stdin on; without it the command has an empty one, also when something is piped in.",
    ),
]
Tty = Annotated[bool, typer.Option("-t", "--tty", help="Give the command a terminal.")]
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
