"""Run exec and logs: the output of what runs inside."""

from __future__ import annotations

import sys
from typing import Annotated, BinaryIO

import msgspec
import typer

from sandboxer.cli.options import Json, SandboxId, Service, Timeout, installation
from sandboxer.cli.output import emit, put, wants_json
from sandboxer.documents import OutputCapture, exec_result, output_in_timeout
from sandboxer.errors import Invalid
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Sink, Streams
from sandboxer.names import parse_pairs
from sandboxer.timing import parse_duration

_CAPTURED = 16 << 20
"""How much of each stream `exec --json` and `logs --json` keep, in bytes."""


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
        streams = Streams(stdin=source, stdout=to_stream(sys.stdout.buffer), stderr=to_stream(sys.stderr.buffer))
        # without -i the keys stay ours, so that Ctrl-C reaches somebody
        if tty and interactive and sys.stdin.isatty():
            from sandboxer.cli.terminal import raw

            with raw(sys.stdin):
                return here.manager.exec(sandbox_id, request, streams, timeout=seconds)
        return here.manager.exec(sandbox_id, request, streams, timeout=seconds)


def to_stream(stream: BinaryIO) -> Sink:
    """A sink that writes to one of our own streams."""
    return lambda chunk: put(stream, chunk)


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
        streams = Streams(stdout=to_stream(sys.stdout.buffer), stderr=to_stream(sys.stderr.buffer))
        here.manager.logs(sandbox_id, streams, service=service, follow=follow, tail=tail)
