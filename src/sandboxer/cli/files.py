"""Run cp: files into and out of a sandbox."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from sandboxer.cli.options import Json, Service, installation
from sandboxer.cli.output import emit, note, wants_json
from sandboxer.errors import Invalid, Partial
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
) -> int:
    """Copy files or directories into or out of a sandbox; one side is ID:PATH.

    Out of it come files and directories, no symbolic links. Exit status 10 when something else was left out."""
    inward, outward = _remote(target), _remote(source)
    if (inward is None) == (outward is None):
        raise Invalid("exactly one side is ID:PATH", hint="sandboxer cp ./file ID:dir/   or   sandboxer cp ID:file ./")
    limit = None if max_size is None else parse_size(max_size, what="--max-size")
    if limit is not None and outward is None:
        raise Invalid("--max-size bounds what comes out of a sandbox", hint="leave it out when copying into one")
    with installation() as here:
        if inward is not None:
            sandbox_id, path = inward
            report = here.manager.copy(sandbox_id, source=source, target=path, inward=True, service=service)
        else:
            assert outward is not None  # noqa: S101 - exactly one of them is given
            sandbox_id, path = outward
            report = here.manager.copy(
                sandbox_id, source=path, target=target, inward=False, service=service, max_size=limit
            )
        for text in report.notes:
            note(text)
        if report.left_out:
            more = report.left_out - len(report.said)
            note(f"{report.left_out} left out:")
            for text in (*report.said, *([f"and {more} more"] if more > 0 else [])):
                note(f"  {text}")
        if wants_json(json):
            emit(
                {
                    "sandbox_id": here.manager.get(sandbox_id).id,
                    "source": source,
                    "target": target,
                    "left_out": report.left_out,
                    "left_out_said": list(report.said),
                    "notes": list(report.notes),
                }
            )
        return Partial.exit_code if report.partial else 0


def _remote(text: str) -> tuple[str, str] | None:
    """ID and path of `ID:PATH`; a path of ours that holds a colon is written with a slash before it (./a:b)."""
    match = _REMOTE.fullmatch(text)
    if match is None or os.path.lexists(text):
        return None
    return match[1], match[2] or "."
