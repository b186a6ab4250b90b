"""Call the container engine on a host, and answer by its containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from sandboxer.errors import Conflict, NotFound
from sandboxer.extensions.base import Context
from sandboxer.extensions.compose_ssh import argv, engine, errors
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData
from sandboxer.hosts.base import Command, Result, Sink, Streams


def containers(
    sandbox: ComposeHandleData, ctx: Context, *, checks: Sequence[tuple[str, float]] = ()
) -> list[engine.Container]:
    """The project's containers as the engine shows them. Raises BackendError, Unavailable, Denied."""
    return engine.parse_containers(look(argv.look(sandbox, checks), sandbox, ctx))


def look(words: list[str], sandbox: ComposeHandleData, ctx: Context) -> str:
    """What a look at the engine says; a container that went between listing and looking makes it fail: then it
    looks again."""
    for attempt in range(3):
        with errors.explain_timeout("asking the container engine", engine=argv.engine_of(sandbox), host=ctx.host.name):
            result = ctx.host.run(words, ctx.deadline.shorter(60))
        if result.code == 0:
            return result.stdout.decode("utf-8", "replace")
        if attempt == 2 or not errors.says_vanished(result):
            break
    raise errors.translate(result, doing="asking the container engine", engine=argv.engine_of(sandbox))


def container_of(sandbox: ComposeHandleData, service: str | None, ctx: Context, *, running: bool) -> engine.Container:
    """Find the container of a service, a running one if there is one. Raises NotFound, Conflict."""
    found = containers(sandbox, ctx)
    wanted = service or sandbox.main or next((c.service for c in found), None)
    own = [container for container in found if container.service == wanted]
    if not own:
        names = ", ".join(sorted({container.service for container in found})) or "none at all"
        raise NotFound(f"there is no service {wanted!r} in this sandbox", hint=f"it has: {names}")
    up = next((container for container in own if container.running), None)
    if running and not any(container.running for container in found) and is_marked(sandbox, ctx):
        raise Conflict(
            f"the stack {sandbox.name} is stopped",
            hint=f"run `sandboxer start {sandbox.sandbox_id}`",
            details={"presence": "stopped"},
        )
    if running and up is None:
        raise Conflict(
            f"service {wanted!r} is not running ({own[0].status}, exit code {own[0].exit_code})",
            hint="see why with `sandboxer logs ID`, or choose another one with --service",
        )
    return up or own[0]


def is_marked(sandbox: ComposeHandleData, ctx: Context) -> bool:
    """Whether a stack of which no container runs was stopped, and has not ended by itself."""
    return ctx.host.read_file(f"{sandbox.state}/stopped", ctx.deadline) is not None


def stream(
    words: list[str],
    ctx: Context,
    *,
    stdin: BinaryIO | None = None,
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> Result:
    """Run the engine's client; what it says and complains of is kept as far as no sink takes it."""
    said, complained = bytearray(), bytearray()

    def complain(data: bytes) -> None:
        complained.extend(data[: max(0, 65536 - len(complained))])
        if stderr is not None:
            stderr(data)

    sink = stdout or (lambda data: said.extend(data[: 65536 - len(said)]))
    streams = Streams(stdin=stdin, stdout=sink, stderr=complain)
    code = ctx.host.stream(Command(argv=words), streams, ctx.deadline)
    return Result(code, bytes(said), bytes(complained))


def checked(ctx: Context, words: list[str], doing: str, sandbox: ComposeHandleData, *, stdin: bytes = b"") -> bytes:
    """Run a script of ours on the host, and give what it answers; `doing` says what it is for when it fails."""
    result = ctx.host.run(words, ctx.deadline, stdin=stdin)
    if result.code:
        raise errors.translate(result, doing=doing, engine=argv.engine_of(sandbox))
    return result.stdout
