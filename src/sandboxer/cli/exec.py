"""Run exec and logs: the output of what runs inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, BinaryIO

import msgspec
import typer

from sandboxer.cli.options import (
    Cwd,
    Env,
    Interactive,
    Json,
    SandboxId,
    Service,
    Timeout,
    Tty,
    Words,
    installation,
)
from sandboxer.cli.output import emit, put, wants_json
from sandboxer.documents import OutputCapture, exec_result, output_in_timeout
from sandboxer.errors import Invalid
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Sink, Streams
from sandboxer.names import parse_pairs
from sandboxer.timing import parse_duration

_CAPTURED = 16 << 20
"""How much of each stream `exec --json`, `run --json` and `logs --json` keep, in bytes."""


def exec_(
    sandbox_id: SandboxId,
    command: Words,
    service: Service = None,
    cwd: Cwd = None,
    env: Env = None,
    timeout: Timeout = None,
    interactive: Interactive = False,
    tty: Tty = False,
    json: Json = False,
) -> int:
    """Run a command inside; the exit status is the command's own (125: sandboxer itself failed)."""
    request = Exec(argv=tuple(command), service=service, cwd=cwd, env=parse_pairs(env or [], what="env"), tty=tty)
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    with installation() as here:
        if wants_json(json):
            streams, stdout, stderr = captured_streams(interactive=interactive)
            with output_in_timeout(stdout, stderr):
                code = here.manager.exec(sandbox_id, request, streams, timeout=seconds)
            emit(msgspec.to_builtins(exec_result(code, stdout, stderr)))
            return code
        with own_streams(interactive=interactive, tty=tty) as streams:
            return here.manager.exec(sandbox_id, request, streams, timeout=seconds)


def captured_streams(*, interactive: bool) -> tuple[Streams, OutputCapture, OutputCapture]:
    """Streams that keep the command's output for a document, and where they keep it."""
    stdout, stderr = OutputCapture(_CAPTURED), OutputCapture(_CAPTURED)
    return Streams(stdin=sys.stdin.buffer if interactive else None, stdout=stdout, stderr=stderr), stdout, stderr


@contextmanager
def own_streams(*, interactive: bool, tty: bool) -> Iterator[Streams]:
    """Our own streams for the command; our terminal is raw meanwhile, where the command is to have the keys."""
    source: BinaryIO | None = sys.stdin.buffer if interactive else None
    streams = Streams(stdin=source, stdout=to_stream(sys.stdout.buffer), stderr=to_stream(sys.stderr.buffer))
    # without -i the keys stay ours, so that Ctrl-C reaches somebody
    if not (tty and interactive and sys.stdin.isatty()):
        yield streams
        return
    from sandboxer.cli.terminal import raw

    with raw(sys.stdin):
        yield streams


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
