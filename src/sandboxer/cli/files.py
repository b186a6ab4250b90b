"""Run cp: files into and out of a sandbox."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from sandboxer.cli.options import Json, Service, installation
from sandboxer.cli.output import emit, note, wants_json
from sandboxer.errors import Invalid
from sandboxer.names import parse_size

_REMOTE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):(.*)", re.DOTALL)


def cp(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A path here, or ID:PATH.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="A path here, or ID:PATH.")],
    service: Service = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size",
            metavar="SIZE",
            help="What a copy out may take on this disk (500M, 20G). Default: 8G, and at most half of what is free.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Copy files or directories into or out of a sandbox; one side is ID:PATH."""
    inward, outward = _remote(target), _remote(source)
    if (inward is None) == (outward is None):
        raise Invalid("exactly one side is ID:PATH", hint="sandboxer cp ./file ID:dir/   or   sandboxer cp ID:file ./")
    limit = None if max_size is None else parse_size(max_size, what="--max-size")
    if limit is not None and outward is None:
        raise Invalid("--max-size bounds what comes out of a sandbox", hint="leave it out when copying into one")
    with installation() as here:
        left_out = 0
        if inward is not None:
            sandbox_id, path = inward
            left_out = here.manager.copy(sandbox_id, source=source, target=path, inward=True, service=service)
        elif outward is not None:
            sandbox_id, path = outward
            left_out = here.manager.copy(
                sandbox_id, source=path, target=target, inward=False, service=service, max_size=limit
            )
        if left_out:
            kinds = "links, devices, sockets or pipes" if outward is not None else "devices, sockets or pipes"
            note(f"{left_out} left out: {kinds}")
        if wants_json(json):
            sandbox_id = here.manager.get(sandbox_id).id
            emit({"sandbox_id": sandbox_id, "source": source, "target": target, "left_out": left_out})


def _remote(text: str) -> tuple[str, str] | None:
    """ID and path of `ID:PATH`; a path of ours that holds a colon is written with a slash before it (./a:b)."""
    match = _REMOTE.fullmatch(text)
    if match is None or os.path.lexists(text):
        return None
    return match[1], match[2] or "."
