"""Run a command in a sandbox of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from sandboxer.cli.exec import captured_streams, own_streams
from sandboxer.cli.lifecycle import request_of, show_plan
from sandboxer.cli.options import (
    Actor,
    Cwd,
    DryRun,
    Env,
    Host,
    Input,
    Interactive,
    Json,
    KeepFailed,
    Label,
    Name,
    Profile,
    Service,
    Ttl,
    Tty,
    Words,
    installation,
)
from sandboxer.cli.output import emit, note, wants_json
from sandboxer.cli.progress import Progress
from sandboxer.config.paths import working_directory
from sandboxer.documents import RunResult, exec_result, output_in_timeout
from sandboxer.errors import Invalid
from sandboxer.extensions.base import Exec
from sandboxer.names import parse_pairs

if TYPE_CHECKING:
    from sandboxer.hosts.base import Streams
    from sandboxer.models import Sandbox


def run(
    command: Words,
    profile: Profile = None,
    input_: Input = None,
    ttl: Ttl = None,
    host: Host = None,
    name: Name = None,
    label: Label = None,
    actor: Actor = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="K", help="Run it once for this key: asking again is a conflict.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="D", help="End it when all of it, up to the command's end, takes longer.")
    ] = None,
    dry_run: DryRun = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", hidden=True)] = False,
    keep_failed: KeepFailed = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the sandbox; its id is told on stderr.")] = False,
    service: Service = None,
    cwd: Cwd = None,
    env: Env = None,
    interactive: Interactive = False,
    tty: Tty = False,
    json: Json = False,
) -> int:
    """Run a command in a sandbox of its own, which is destroyed then, also after Ctrl-C, a failure or a time-out.

    The exit status is the command's own (125: sandboxer itself failed)."""
    if no_wait:
        raise Invalid("run waits for its command", hint="use `sandboxer create --no-wait`")
    as_json = wants_json(json)
    inside = Exec(argv=tuple(command), service=service, cwd=cwd, env=parse_pairs(env or [], what="env"), tty=tty)
    with installation() as here:
        request = request_of(
            here.settings.defaults.profile if profile is None else profile,
            inputs=input_,
            ttl=ttl,
            host=host,
            name=name,
            labels=label,
            timeout=timeout,
            keep_failed=keep_failed,
        )
        manager = here.manager
        plan = manager.plan(request, actor=actor, idempotency_key=idempotency_key, base=working_directory())
        if dry_run:
            show_plan(manager.dry_run(plan), as_json=as_json)
            return 0

        progress = Progress(quiet=as_json)

        @contextmanager
        def streams_of(record: Sandbox) -> Iterator[Streams]:
            progress.end()
            if keep:
                note(record.id)
            # from here on only: until then Ctrl-C is ours
            with nullcontext(captured) if as_json else own_streams(interactive=interactive, tty=tty) as streams:
                yield streams

        captured, stdout, stderr = captured_streams(interactive=interactive)
        with progress, output_in_timeout(stdout, stderr):
            ended = manager.run(plan, inside, streams_of, keep=keep, progress=progress)
        if not as_json:
            return ended.exit_code
        result = exec_result(ended.exit_code, stdout, stderr)
        emit(msgspec.to_builtins(RunResult(**msgspec.structs.asdict(result), sandbox_id=ended.record.id)))
        return ended.exit_code
