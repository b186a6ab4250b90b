"""exec, cp, logs: using a sandbox from a shell."""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated, BinaryIO

import msgspec
import typer

from sandboxer.cli.options import Json, SandboxId, Service, Timeout, installation
from sandboxer.cli.output import emit, note, put, wants_json
from sandboxer.documents import OutputCapture, exec_result, output_in_timeout
from sandboxer.errors import Invalid
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Sink, Streams
from sandboxer.names import parse_pairs, parse_size
from sandboxer.timing import parse_duration

_CAPTURED = 16 << 20
"""How much of each stream `exec --json` and `logs --json` keep, in bytes."""

_REMOTE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):(.*)", re.DOTALL)


def exec_(
    sandbox_id: SandboxId,
    command: Annotated[list[str], typer.Argument(metavar="CMD ARG...", help="The command, after --.")],
    service: Service = None,
    cwd: Annotated[str | None, typer.Option(metavar="D", help="The directory to run in.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A variable; repeatable.")] = None,
    timeout: Timeout = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "-i",
            "--interactive",
            help="Pass our stdin on; without it the command has an empty one, also when something is piped in.",
        ),
    ] = False,
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Give the command a terminal.")] = False,
    json: Json = False,
) -> int:
    """Run a command inside; the exit status is the command's own (125: sandboxer itself failed)."""
    request = Exec(argv=tuple(command), service=service, cwd=cwd, env=parse_pairs(env or [], what="env"), tty=tty)
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    source: BinaryIO | None = sys.stdin.buffer if interactive else None
    with installation() as here:
        if wants_json(json):
            stdout, stderr = OutputCapture(_CAPTURED), OutputCapture(_CAPTURED)
            captured = Streams(stdin=source, stdout=stdout, stderr=stderr)
            with output_in_timeout(stdout, stderr):
                code = here.manager.exec(sandbox_id, request, captured, timeout=seconds)
            emit(msgspec.to_builtins(exec_result(code, stdout, stderr)))
            return code
        streams = Streams(stdin=source, stdout=_to(sys.stdout.buffer), stderr=_to(sys.stderr.buffer))
        if tty and sys.stdin.isatty():
            from sandboxer.cli.terminal import raw

            with raw(sys.stdin):
                return here.manager.exec(sandbox_id, request, streams, timeout=seconds)
        return here.manager.exec(sandbox_id, request, streams, timeout=seconds)


def _to(stream: BinaryIO) -> Sink:
    return lambda chunk: put(stream, chunk)


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


def logs(
    sandbox_id: SandboxId,
    service: Service = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    tail: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only the last N lines.")] = None,
    json: Json = False,
) -> None:
    """Show the logs of a sandbox's services."""
    with installation() as here:
        if wants_json(json):
            if follow:
                raise Invalid("--follow never ends, so it has no one document", hint="leave out --json or --follow")
            stdout, stderr = OutputCapture(_CAPTURED), OutputCapture(_CAPTURED)
            here.manager.logs(sandbox_id, Streams(stdout=stdout, stderr=stderr), service=service, tail=tail)
            document = msgspec.to_builtins(exec_result(0, stdout, stderr))
            del document["exit_code"]
            emit({"sandbox_id": here.manager.get(sandbox_id).id, **document})
            return
        streams = Streams(stdout=_to(sys.stdout.buffer), stderr=_to(sys.stderr.buffer))
        here.manager.logs(sandbox_id, streams, service=service, follow=follow, tail=tail)
